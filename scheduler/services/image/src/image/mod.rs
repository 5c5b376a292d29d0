//! Images: their description; the bytes are in `data`.
pub mod api;
mod filter;
pub mod model;
pub mod ops;
pub(crate) mod patch;
pub(crate) mod view;
