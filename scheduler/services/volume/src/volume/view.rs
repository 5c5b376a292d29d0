//! Volumes as JSON; the only place that looks at the microversion for it.
use crate::{
    attachment::model::AttachStatus,
    host::backend,
    list::times,
    tables::{Attachment, Volume, VolumeType},
    version as v,
};
use pilvi_kit::{Call, Fault, call::owned_by, clock};
use pilvi_store::{Query, Store, Stored};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What is shown with volumes.
#[derive(Debug, Default)]
pub struct Around {
    attachments: BTreeMap<String, Vec<Attachment>>,
    types: BTreeMap<String, String>,
}

impl Around {
    pub async fn of(store: &Store, volumes: &[Stored<Volume>]) -> Result<Self, Fault> {
        let mut around = Around::default();
        let mut kinds: Vec<String> = volumes.iter().map(|v| v.volume_type.clone()).collect();
        kinds.sort();
        kinds.dedup();
        for found in store.list::<VolumeType>(Query::all().ids(kinds)).await? {
            around.types.insert(found.record.id, found.record.name);
        }
        let ids = volumes.iter().map(|v| v.record.id.clone());
        let mut attachments = store.list::<Attachment>(Query::all().one_of("volume_id", ids)).await?;
        attachments.sort_by_key(|a| a.created_us);
        for found in attachments {
            around.attachments.entry(found.volume_id.clone()).or_default().push(found.record);
        }
        Ok(around)
    }
}

fn links(call: &Call, id: &str) -> Value {
    let project = call.param("project");
    let within = if project.is_empty() { String::new() } else { format!("{project}/") };
    json!([
        {"rel": "self", "href": call.url(&format!("/v3/{within}volumes/{id}"))},
        {"rel": "bookmark", "href": call.url(&format!("/{within}volumes/{id}"))},
    ])
}

/// The short form of lists.
pub fn brief(call: &Call, volume: &Stored<Volume>) -> Value {
    json!({"id": volume.record.id, "name": volume.name, "links": links(call, &volume.record.id)})
}

fn attachments(call: &Call, all: Option<&Vec<Attachment>>) -> Vec<Value> {
    let sees_hosts = call.caller().has_role("admin") || call.caller().has_role("service");
    let attached =
        all.into_iter().flatten().filter(|a| matches!(a.status, AttachStatus::Attached | AttachStatus::Detaching));
    attached
        .map(|a| {
            json!({
                "id": a.volume_id, "attachment_id": a.id, "volume_id": a.volume_id, "server_id": a.server_id,
                "host_name": a.host.as_ref().filter(|_| sees_hosts), "device": a.device,
                "attached_at": a.attached_us.map(clock::micros),
            })
        })
        .collect()
}

/// A user's metadata, with what an operator's flags add.
pub fn metadata(volume: &Volume) -> BTreeMap<String, String> {
    let mut metadata = volume.metadata.clone();
    if let Some(read_only) = volume.read_only {
        metadata.insert("readonly".into(), if read_only { "True" } else { "False" }.into());
    }
    metadata
}

/// Everything.
pub fn full(call: &Call, volume: &Stored<Volume>, around: &Around) -> Value {
    let (created, updated) = times(volume);
    let record = &volume.record;
    let is_admin = call.caller().has_role("admin");
    let mut view = json!({
        "id": record.id, "status": record.status.as_str(), "size": record.size_gib,
        "availability_zone": record.zone, "created_at": created, "updated_at": updated,
        "name": record.name, "description": record.description,
        "volume_type": around.types.get(&record.volume_type).unwrap_or(&record.volume_type),
        "snapshot_id": record.snapshot_id, "source_volid": record.source_volid, "metadata": metadata(record),
        "links": links(call, &record.id), "user_id": record.user_id, "bootable": record.bootable.to_string(),
        "encrypted": false, "replication_status": null, "consistencygroup_id": null,
        "multiattach": record.multiattach, "attachments": attachments(call, around.attachments.get(&record.id)),
    });
    if is_admin {
        view["migration_status"] = json!(record.migration_status);
    }
    by_version(call, record, is_admin, &mut view);
    extended(call, record, &mut view);
    view
}

/// What later versions show.
fn by_version(call: &Call, record: &Volume, is_admin: bool, view: &mut Value) {
    let since = |version: pilvi_kit::Version| call.version >= version;
    if since(v::GROUPS) {
        view["group_id"] = json!(record.group_id);
    }
    if is_admin && since(v::PROVIDER_ID) {
        view["provider_id"] = Value::Null;
    }
    if since(v::SHARED_TARGETS) {
        view["shared_targets"] = json!(false);
        view["service_uuid"] = json!(record.host.as_deref().map(crate::host::service::uuid));
    }
    if is_admin && since(v::CLUSTER_NAME) {
        view["cluster_name"] = Value::Null;
    }
    if since(v::VOLUME_TYPE_ID) {
        view["volume_type_id"] = json!(record.volume_type);
    }
    if since(v::USE_QUOTA) {
        view["consumes_quota"] = json!(true);
    }
}

/// What rules let the caller see besides.
fn extended(call: &Call, record: &Volume, view: &mut Value) {
    let target = owned_by(&record.project_id);
    if call.may("volume_extension:volume_host_attribute", &target) {
        view["os-vol-host-attr:host"] = json!(record.host.as_deref().map(backend::pool_of));
    }
    if call.may("volume_extension:volume_tenant_attribute", &target) {
        view["os-vol-tenant-attr:tenant_id"] = json!(record.project_id);
    }
    if call.may("volume_extension:volume_mig_status_attribute", &target) {
        view["os-vol-mig-status-attr:migstat"] = json!(record.migration_status);
        view["os-vol-mig-status-attr:name_id"] = Value::Null;
    }
    if !record.image_metadata.is_empty() && call.may("volume_extension:volume_image_metadata:show", &target) {
        view["volume_image_metadata"] = json!(record.image_metadata);
    }
}
