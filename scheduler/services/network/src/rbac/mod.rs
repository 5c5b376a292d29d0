//! RBAC policies: an owner opens one thing to one project, or to all.
pub mod api;
pub mod model;
pub mod ops;
pub mod shared;
