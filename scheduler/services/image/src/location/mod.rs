//! Locations: objects that hold an image's bytes without having come through this service.
//!
//! A service of the cloud (a snapshot that a volume service wrote into the same bucket), or a user where a store
//! of type `http` is configured, names a URL; the URL must be one of a store's, of which `file` gives none away.
//! Whatever is named is read once, hashed and inspected like an upload before an image says it has it.
pub mod api;
pub(crate) mod ops;
pub(crate) mod patch;
pub(crate) mod view;
