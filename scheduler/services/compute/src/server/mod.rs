//! Servers: guests that a project asked for.
pub mod action_api;
pub mod api;
pub mod create;
pub mod filter;
pub mod model;
pub mod ops;
pub mod part_api;
pub mod password_api;
pub mod program;
mod reach;
pub mod reconcile;
pub(crate) mod resize;
pub mod schema;
pub mod snapshot;
pub mod view;
