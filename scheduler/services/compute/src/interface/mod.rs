//! A server's interfaces after its creation: attach, detach, further addresses, groups, floating IPs.
pub mod action;
pub mod api;
pub mod ops;
