//! Volumes: what they are made of, what is done with them, and where they lie.
pub mod api;
pub mod create;
mod filter;
pub mod image;
pub mod model;
pub mod ops;
pub mod reconcile;
mod schema;
pub mod view;
