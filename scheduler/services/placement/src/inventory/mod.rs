//! Inventories: how much of each class a provider has.
pub mod api;
pub mod ops;
pub(crate) mod view;
