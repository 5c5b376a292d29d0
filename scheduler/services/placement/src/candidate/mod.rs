//! Allocation candidates: which providers could serve a request now.
pub mod api;
pub mod model;
pub mod ops;
mod search;
pub(crate) mod view;
