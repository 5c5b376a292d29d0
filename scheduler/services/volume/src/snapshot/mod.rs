//! Snapshots of volumes.
pub mod model;
pub mod ops;
