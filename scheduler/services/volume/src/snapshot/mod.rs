//! Snapshots of volumes.
pub mod api;
pub mod metadata_api;
pub mod model;
pub mod ops;
pub mod view;
