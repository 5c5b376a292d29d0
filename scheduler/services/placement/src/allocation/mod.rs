//! Consumers and their allocations: who uses how much of which provider.
pub mod api;
pub mod model;
pub mod ops;
pub(crate) mod schema;
pub(crate) mod view;
