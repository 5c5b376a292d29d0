//! Subnets: address blocks of networks.
pub mod api;
mod leak;
pub mod model;
pub mod ops;
pub mod shape;
