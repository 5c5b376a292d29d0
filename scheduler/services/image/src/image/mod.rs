//! Images: their description; the bytes are in `data`.
pub mod api;
mod filter;
pub mod model;
pub mod ops;
pub mod patch;
pub mod view;
