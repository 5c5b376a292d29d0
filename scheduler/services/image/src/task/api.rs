//! `/v2/tasks` and `/v2/images/{image_id}/tasks`
use super::{model::Task, ops, view};
use crate::{Image, image, import};
use pilvi_kit::{
    Call, Fault, Reply, Response, Route, Schema,
    page::{Page, PageRules},
};
use pilvi_store::Stored;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

pub fn routes() -> Vec<Route<Image>> {
    vec![
        Route::get("/v2/images/{image_id}/tasks", of_image)
            .rule_by_handler("get_image")
            .summary("List an image's tasks"),
        Route::get("/v2/tasks", list).rule("tasks_api_access").summary("List tasks"),
        Route::post("/v2/tasks", create).rule("tasks_api_access").schema(&CREATE).summary("Create a task"),
        Route::get("/v2/tasks/{task_id}", show).rule("tasks_api_access").summary("Show a task"),
    ]
}

async fn of_image(svc: Arc<Image>, call: Call) -> Reply {
    let stored = image::ops::visible(&svc.store, &call.ctx, call.param("image_id")).await?;
    call.authorize(&image::ops::target(&svc.store, &call.ctx, &stored).await?)?;
    let tasks: Vec<Value> = ops::of_image(&svc.store, &stored.record.id).await?.iter().map(view::one).collect();
    Ok(Response::ok(json!({"tasks": tasks})))
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["type"], "properties": {
            "type": {"type": "string"}, "input": {"type": ["object", "null"]}}})
    })
});

/// An image, made and imported in one.
async fn create(svc: Arc<Image>, call: Call) -> Reply {
    let input = &call.body["input"];
    let text = |key: &str| input[key].as_str().filter(|text| !text.is_empty());
    match call.body["type"].as_str() {
        Some(super::model::TASK_IMPORT) => {}
        Some("export" | "clone") => return Err(Fault::bad_request("Tasks of this type are not offered.")),
        _ => return Err(Fault::bad_request("Invalid type of task")),
    }
    for key in ["import_from", "import_from_format"] {
        text(key).ok_or_else(|| Fault::bad_request(format!("Input does not contain '{key}' field")))?;
    }
    let properties = &input["image_properties"];
    if !properties.is_object() {
        return Err(Fault::bad_request("Input does not contain 'image_properties' field"));
    }
    let image = image::view::new(properties, call.caller().project_id())?;
    call.enforce("add_image", &image::ops::target(&svc.store, &call.ctx, &image).await?)?;
    if image.visibility == image::model::Visibility::Public {
        call.enforce("publicize_image", &image::ops::target(&svc.store, &call.ctx, &image).await?)?;
    }
    let uri = text("import_from").unwrap_or_default();
    let id = import::ops::create_and_begin(&svc, &call.ctx, image, uri, input).await?;
    let made = ops::get(&svc.store, &id).await?;
    Ok(Response::created(view::one(&made)).header("location", format!("/v2/tasks/{id}")))
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
