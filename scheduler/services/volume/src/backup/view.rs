//! Backups as JSON; the only place that looks at the microversion for it.
use crate::{list::times, tables::Backup};
use pilvi_kit::{Call, Version, call::owned_by, clock};
use pilvi_store::Stored;
use serde_json::{Value, json};

fn links(call: &Call, id: &str) -> Value {
    let project = call.param("project");
    let within = if project.is_empty() { String::new() } else { format!("{project}/") };
    json!([
        {"rel": "self", "href": call.url(&format!("/v3/{within}backups/{id}"))},
        {"rel": "bookmark", "href": call.url(&format!("/{within}backups/{id}"))},
    ])
}

/// The short form of lists.
pub fn brief(call: &Call, backup: &Backup) -> Value {
    json!({"id": backup.id, "name": backup.name, "links": links(call, &backup.id)})
}

/// Everything.
pub fn full(call: &Call, backup: &Stored<Backup>) -> Value {
    let ((created, updated), record) = (times(backup), &backup.record);
    let mut view = brief(call, record);
    let more = json!({
        "status": record.status.as_str(), "size": record.size_gib, "object_count": i32::from(record.file.is_some()),
        "availability_zone": record.zone, "container": record.container, "created_at": created, "updated_at": updated,
        "description": record.description, "fail_reason": record.fail_reason, "volume_id": record.volume_id,
        "is_incremental": false, "has_dependent_backups": false, "snapshot_id": null,
        "data_timestamp": clock::micros(record.data_us),
    });
    if let (Some(view), Value::Object(more)) = (view.as_object_mut(), more) {
        view.extend(more);
    }
    let since = |minor| call.version >= Version(3, minor);
    if since(18) && call.may("backup:backup_project_attribute", &owned_by(&record.project_id)) {
        view["os-backup-project-attr:project_id"] = json!(record.project_id);
    }
    if since(43) {
        view["metadata"] = json!(record.metadata);
    }
    if since(56) {
        view["user_id"] = json!(record.user_id);
    }
    view
}
