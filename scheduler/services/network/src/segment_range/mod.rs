//! Segment ranges: which numbers of the overlay the networks of a project get.
pub mod api;
pub mod model;
pub mod ops;
pub mod usual;
