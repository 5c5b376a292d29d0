//! Groups of volumes, and snapshots of all of them at once.
pub mod ops;
