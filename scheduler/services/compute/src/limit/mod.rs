//! Limits and usage of a project.
pub mod api;
