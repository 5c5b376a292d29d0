//! Trunks: one guest's interface that carries several networks, each by its own tag.
pub mod api;
pub mod model;
pub mod ops;
