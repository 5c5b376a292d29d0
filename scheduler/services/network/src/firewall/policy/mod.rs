//! A list of firewall rules, in order.
pub mod api;
pub mod ops;
