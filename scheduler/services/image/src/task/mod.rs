//! Tasks: what imports are doing and how they ended.
pub mod api;
pub mod model;
pub mod ops;
mod view;
