//! The bytes of images: received, hashed, inspected, kept, sent.
pub mod api;
pub mod files;
pub mod ops;
pub mod receive;
pub(crate) mod recover;
pub mod stage;
pub mod staging;
