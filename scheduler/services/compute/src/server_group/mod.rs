//! Server groups: servers that shall run together, or apart.
pub mod api;
