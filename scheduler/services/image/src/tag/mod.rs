//! Tags: words on an image, one call each.
pub mod api;
