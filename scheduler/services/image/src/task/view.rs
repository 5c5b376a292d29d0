//! Tasks in JSON.
use super::{model::Task, ops::KEPT_US};
use pilvi_kit::clock;
use pilvi_store::Stored;
use serde_json::{Value, json};

pub fn one(stored: &Stored<Task>) -> Value {
    let task = &stored.record;
    json!({
        "id": task.id, "type": task.kind, "status": task.status.as_str(), "owner": task.owner, "user_id": task.user_id,
        "image_id": task.image_id, "request_id": task.request_id, "input": task.input, "result": task.result, "message": task.message,
        "created_at": clock::seconds_z(stored.created_us), "updated_at": clock::seconds_z(stored.updated_us),
        "expires_at": task.ended_us.map(|us| clock::seconds_z(us + KEPT_US)),
        "self": format!("/v2/tasks/{}", task.id), "schema": "/v2/schemas/task",
    })
}
