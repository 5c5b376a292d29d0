//! Resource providers: whatever has something to give (a host, a storage pool, a device), in trees.
pub mod api;
pub mod model;
pub mod ops;
pub(crate) mod view;
