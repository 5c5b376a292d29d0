//! Attachments: who uses a volume, and how.
pub mod model;
pub mod ops;
