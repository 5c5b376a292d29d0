//! Templates: the rules that new security groups begin with.
pub mod api;
pub mod model;
pub mod ops;
