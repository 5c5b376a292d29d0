//! The JSON schemas that clients read to know what an image may hold.
pub mod api;
pub mod documents;
