//! (being written)
use crate::Identity;
use pilvi_kit::Route;
pub(crate) fn routes() -> Vec<Route<Identity>> {
    Vec::new()
}
