//! Host aggregates: groups of hosts, with metadata and perhaps the name of a zone.
pub mod api;
pub mod ops;
