//! Service flavors: what operators call the kinds of routers that users may ask for.
pub mod api;
pub mod model;
pub mod ops;
pub mod profile;
