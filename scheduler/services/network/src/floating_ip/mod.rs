//! Floating IPs: outside addresses translated to fixed ones.
pub mod api;
pub mod model;
pub mod ops;
pub mod pool;
