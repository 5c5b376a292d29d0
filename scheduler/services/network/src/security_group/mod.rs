//! Security groups and their rules.
pub mod api;
pub mod model;
pub mod ops;
pub mod rule;
pub mod statefulness;
