//! `/allocation_candidates`
use super::{answer::answer, ops, view};
use crate::{
    Placement,
    version::{fresh, read},
};
use pilvi_kit::{Call, Reply, Response, Route, clock};
use std::sync::Arc;

pub fn routes() -> Vec<Route<Placement>> {
    vec![
        read("/allocation_candidates", list)
            .rule("placement:allocation_candidates:list")
            .since(1, 10)
            .summary("List allocation candidates"),
    ]
}

async fn list(svc: Arc<Placement>, call: Call) -> Reply {
    let wanted = view::wanted(&call)?;
    let version = call.version;
    let bytes = ops::ways(&svc, wanted, move |wanted, found| answer(version, wanted, found)).await?;
    Ok(fresh(&call, Response::bytes(200, "application/json", bytes), clock::now_us()))
}
