//! Projects: what resources of the other services belong to, in a tree below a domain.
mod api;
pub(crate) mod ops;
mod tags;
mod tree;
pub(crate) mod view;

use crate::Identity;
use pilvi_kit::Route;
pub(crate) use tags::tags_schema;

pub(crate) const FILTERS: &[&str] = &["name", "enabled", "domain_id", "parent_id", "is_domain", "id"];

pub(crate) fn routes() -> Vec<Route<Identity>> {
    [api::routes(), tags::routes()].into_iter().flatten().collect()
}
