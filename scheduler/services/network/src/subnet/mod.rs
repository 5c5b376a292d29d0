//! Subnets: address blocks of networks.
pub mod api;
pub mod model;
pub mod ops;
pub mod shape;
