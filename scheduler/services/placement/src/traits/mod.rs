//! Traits: what a provider is or can do, by name. The standard names, and `CUSTOM_...` ones.
pub mod api;
pub mod model;
pub mod ops;
mod view;
