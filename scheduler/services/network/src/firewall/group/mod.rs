//! Which policies hold for which ports.
pub mod api;
pub mod ops;
