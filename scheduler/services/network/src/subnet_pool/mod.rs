//! Subnet pools: blocks that subnets are cut from.
pub mod api;
pub mod blocks;
pub mod model;
pub mod ops;
