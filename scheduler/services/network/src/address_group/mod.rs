//! Address groups: lists of blocks that rules of security groups name.
pub mod api;
pub mod model;
pub mod ops;
