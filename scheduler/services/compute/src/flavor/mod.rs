//! Flavors: sizes of servers, with extra specs and access lists.
pub mod api;
mod schema;
