//! `/usages` and `/resource_providers/{uuid}/usages`
use super::{ops, view};
use crate::{
    Placement, provider,
    version::{fresh, read},
};
use pilvi_kit::{Call, Reply, Response, Route, Target, clock};
use std::sync::Arc;

pub fn routes() -> Vec<Route<Placement>> {
    vec![
        read("/resource_providers/{uuid}/usages", of_provider)
            .rule("placement:resource_providers:usages")
            .summary("Show a provider's usages"),
        read("/usages", of_project).rule_by_handler("placement:usages").since(1, 9).summary("Show a project's usages"),
    ]
}

async fn of_provider(svc: Arc<Placement>, call: Call) -> Reply {
    let stored = provider::ops::get(&svc.store, call.param("uuid")).await?;
    Ok(fresh(&call, Response::ok(view::of_provider(&stored)), clock::now_us()))
}

async fn of_project(svc: Arc<Placement>, call: Call) -> Reply {
    let mut target = Target::new();
    target.insert("project_id".into(), call.query.get("project_id").into());
    call.authorize(&target)?;
    let asked = view::asked(&call)?;
    let sums = ops::of_project(&svc.store, &asked.project, asked.user.as_deref()).await?;
    Ok(fresh(&call, Response::ok(view::of_project(&call, &asked, sums)), clock::now_us()))
}
