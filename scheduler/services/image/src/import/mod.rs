//! Interoperable import: bytes come in by one way, are checked in the background, become the image's.
//!
//! `glance-direct` takes what was staged; `glance-download` another image of this same service.
pub mod api;
pub mod ops;
mod view;

/// Ways that are offered.
pub const METHODS: &[&str] = &["glance-direct", "glance-download"];
