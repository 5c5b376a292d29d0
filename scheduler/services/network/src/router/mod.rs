//! Routers: between subnets, and out of the cloud.
pub mod api;
pub mod gateway;
pub mod gateways;
pub mod interface;
pub mod model;
pub mod ops;
