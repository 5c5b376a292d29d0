//! Roles: names that rules look for, what they imply, and who has them where.
mod api;
mod assignments;
pub(crate) mod grants;
mod imply;

use crate::Identity;
pub(crate) use api::view;
use pilvi_kit::Route;

pub(crate) fn routes() -> Vec<Route<Identity>> {
    [api::routes(), imply::routes(), grants::routes(), assignments::routes()].into_iter().flatten().collect()
}
