//! Port forwarding: single ports, or ranges, of a floating IP that lead to ports of guests.
pub mod api;
pub mod model;
pub mod ops;
