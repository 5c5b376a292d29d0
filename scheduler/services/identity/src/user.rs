//! Users: people and programs that log in, each in one domain.
mod api;
pub(crate) mod compliance;
pub(crate) mod expiry;
pub(crate) mod ops;
mod password;
pub(crate) mod view;

pub(crate) use api::routes;
