//! `/v2/tasks` and `/v2/images/{image_id}/tasks`
use super::{model::Task, ops, view};
use crate::{Image, image};
use pilvi_kit::{
    Call, Reply, Response, Route,
    page::{Page, PageRules},
};
use pilvi_store::Stored;
use serde_json::{Value, json};
use std::sync::Arc;

pub fn routes() -> Vec<Route<Image>> {
    vec![
        Route::get("/v2/images/{image_id}/tasks", of_image)
            .rule_by_handler("get_image")
            .summary("List an image's tasks"),
        Route::get("/v2/tasks", list).rule("tasks_api_access").summary("List tasks"),
        Route::get("/v2/tasks/{task_id}", show).rule("tasks_api_access").summary("Show a task"),
    ]
}

async fn of_image(svc: Arc<Image>, call: Call) -> Reply {
    let stored = image::ops::visible(&svc.store, &call.ctx, call.param("image_id")).await?;
    call.authorize(&image::ops::target(&svc.store, &call.ctx, &stored).await?)?;
    let tasks: Vec<Value> = ops::of_image(&svc.store, &stored.record.id).await?.iter().map(view::one).collect();
    Ok(Response::ok(json!({"tasks": tasks})))
}

fn key(task: &Stored<Task>, key: &str) -> Value {
    match key {
        "created_at" => task.created_us.into(),
        "updated_at" => task.updated_us.into(),
        "status" => task.status.as_str().into(),
        "type" => task.kind.clone().into(),
        _ => task.id.clone().into(),
    }
}

async fn list(svc: Arc<Image>, call: Call) -> Reply {
    const RULES: PageRules = PageRules {
        max: Some(1000),
        default: Some(25),
        keys: &["created_at", "updated_at", "status", "type", "id", "expires_at"],
    };
    let page = Page::of(&call, RULES)?;
    let mut found = ops::all(&svc.store).await?;
    found.retain(|t| {
        call.query.get("status").is_none_or(|s| t.status.as_str() == s)
            && call.query.get("type").is_none_or(|k| t.kind == k)
    });
    let (items, _) = page.cut(found, |t| &t.record.id, key)?;
    let tasks: Vec<Value> = items.iter().map(view::one).collect();
    Ok(Response::ok(json!({"tasks": tasks, "first": "/v2/tasks", "schema": "/v2/schemas/tasks"})))
}

async fn show(svc: Arc<Image>, call: Call) -> Reply {
    Ok(Response::ok(view::one(&ops::get(&svc.store, call.param("task_id")).await?)))
}
