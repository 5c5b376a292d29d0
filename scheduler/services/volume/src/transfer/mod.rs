//! Transfers: a volume goes to whoever has the key.
pub mod api;
