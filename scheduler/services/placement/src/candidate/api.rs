//! `/allocation_candidates`
use super::{ops, view};
use crate::{Placement, version::fresh};
use pilvi_kit::{Call, Reply, Response, Route, clock};
use std::sync::Arc;

pub fn routes() -> Vec<Route<Placement>> {
    vec![
        Route::get("/allocation_candidates", list)
            .rule("placement:allocation_candidates:list")
            .since(1, 10)
            .summary("List allocation candidates"),
    ]
}

async fn list(svc: Arc<Placement>, call: Call) -> Reply {
    let wanted = view::wanted(&call)?;
    let found = ops::ways(&svc.store, &wanted).await?;
    Ok(fresh(&call, Response::ok(view::answer(&call, &wanted, &found)), clock::now_us()))
}
