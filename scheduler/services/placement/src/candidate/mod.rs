//! Allocation candidates: which providers could serve a request now.
pub(crate) mod answer;
pub mod api;
pub mod model;
pub mod ops;
pub(crate) mod search;
pub(crate) mod view;
mod walk;
