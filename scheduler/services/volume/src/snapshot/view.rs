//! Snapshots as JSON; the only place that looks at the microversion for it.
use crate::{list::times, tables::Snapshot, version as v};
use pilvi_kit::{Call, call::owned_by};
use pilvi_store::Stored;
use serde_json::{Value, json};

/// The short form of lists.
pub fn brief(snapshot: &Stored<Snapshot>) -> Value {
    let ((created, updated), record) = (times(snapshot), &snapshot.record);
    json!({
        "id": record.id, "created_at": created, "updated_at": updated, "name": record.name,
        "description": record.description, "volume_id": record.volume_id, "status": record.status.as_str(),
        "size": record.size_gib, "metadata": record.metadata,
    })
}

/// Everything.
pub fn full(call: &Call, snapshot: &Stored<Snapshot>) -> Value {
    let (mut view, record) = (brief(snapshot), &snapshot.record);
    if call.may("volume_extension:extended_snapshot_attributes", &owned_by(&record.project_id)) {
        view["os-extended-snapshot-attributes:project_id"] = json!(record.project_id);
        view["os-extended-snapshot-attributes:progress"] = json!(record.progress);
    }
    if call.version >= v::GROUP_SNAPSHOTS {
        view["group_snapshot_id"] = json!(record.group_snapshot_id);
    }
    if call.version >= v::SNAPSHOT_USER {
        view["user_id"] = json!(record.user_id);
    }
    if call.version >= v::USE_QUOTA {
        view["consumes_quota"] = json!(true);
    }
    view
}
