//! Attachments: who uses a volume, and how.
pub mod api;
pub mod model;
pub mod ops;
