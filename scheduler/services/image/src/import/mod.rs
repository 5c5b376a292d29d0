//! Interoperable import: bytes come in by one way, are checked in the background, become the image's.
pub mod api;
pub mod ops;

/// Ways that are offered.
pub const METHODS: &[&str] = &["glance-direct"];
