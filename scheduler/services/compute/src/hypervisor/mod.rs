//! Hosts as administrators see them: hypervisors and compute services.
pub mod api;
mod service;
