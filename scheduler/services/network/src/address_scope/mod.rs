//! Address scopes: within one, no two blocks of subnet pools overlap.
pub mod api;
pub mod model;
pub mod ops;
