//! Groups of volumes, and snapshots of all of them at once.
//!
//! ```text
//!  group --create--> available --delete (with its volumes)--> (none)
//!  group snapshot --create--> creating --all its snapshots there--> available --delete--> (none)
//! ```
pub mod api;
pub mod ops;
pub mod snapshot_api;
