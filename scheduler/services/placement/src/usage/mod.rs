//! Usages: sums over allocations, of a provider or of a project.
pub mod api;
pub mod ops;
mod view;
