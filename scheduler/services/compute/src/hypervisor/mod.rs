//! Hosts as administrators see them: hypervisors and compute services.
pub mod api;
pub mod service;
