//! Aggregates: groups of providers, by uuid alone. They exist as long as a provider is in them.
pub mod api;
pub mod ops;
mod view;
