//! Types of volumes: what an operator offers, to whom, and with what promises.
pub mod access_api;
pub mod api;
pub mod default_api;
pub mod ops;
pub mod spec_api;
