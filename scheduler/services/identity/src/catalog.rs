//! The catalogue: regions, services and endpoints, and what a token shows of them.
mod endpoint;
mod filter;
mod region;
mod render;
mod service;

use crate::Identity;
use pilvi_kit::Route;

pub(crate) use endpoint::view as endpoint_view;
pub(crate) use render::{Named, Reader, check_url};

pub(crate) fn routes() -> Vec<Route<Identity>> {
    [region::routes(), service::routes(), endpoint::routes(), filter::routes()].into_iter().flatten().collect()
}
