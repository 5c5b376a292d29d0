//! One line of a firewall policy.
pub mod api;
pub mod ops;
