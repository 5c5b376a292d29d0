//! What this service offers: import methods, stores, usage.
pub mod api;
