//! What clients ask about the service itself: extensions, filters; and what there is none of: clusters, workers, volumes
//! of elsewhere to take over.
use crate::{Volumes, attachment, fault, message, route, service::pool_api, snapshot, volume};
use pilvi_kit::{Call, Fault, Reply, Response, Route};
use serde_json::{Value, json};
use std::sync::Arc;

pub fn routes() -> Vec<Route<Volumes>> {
    const ANYBODY: &str = "everybody may know what the service can do";
    let since = |route: Route<Volumes>, minor| route.since(3, minor);
    vec![
        route::get("/v3/extensions", extensions).authenticated(ANYBODY),
        route::get("/v3/extensions/{alias}", extension).authenticated(ANYBODY),
        since(route::get("/v3/resource_filters", filters).authenticated(ANYBODY), 33),
        since(route::get("/v3/clusters", clusters).rule("clusters:get_all"), 7),
        since(route::get("/v3/clusters/detail", clusters).rule("clusters:get_all"), 7),
        since(route::get("/v3/clusters/{cluster_id}", cluster).rule("clusters:get"), 7),
        since(route::put("/v3/clusters/{cluster_id}", cluster).rule("clusters:update"), 7),
        since(route::post("/v3/workers/cleanup", cleanup).rule("workers:cleanup"), 24),
        since(route::get("/v3/manageable_volumes", manageable_volumes).rule("volume_extension:list_manageable"), 8),
        since(
            route::get("/v3/manageable_volumes/detail", manageable_volumes).rule("volume_extension:list_manageable"),
            8,
        ),
        since(route::post("/v3/manageable_volumes", manage).rule("volume_extension:volume_manage"), 8),
        route::post("/v3/os-volume-manage", manage).rule("volume_extension:volume_manage"),
        since(
            route::get("/v3/manageable_snapshots", manageable_snapshots).rule("snapshot_extension:list_manageable"),
            8,
        ),
        since(
            route::get("/v3/manageable_snapshots/detail", manageable_snapshots)
                .rule("snapshot_extension:list_manageable"),
            8,
        ),
        since(route::post("/v3/manageable_snapshots", manage).rule("snapshot_extension:snapshot_manage"), 8),
        route::post("/v3/os-snapshot-manage", manage).rule("snapshot_extension:snapshot_manage"),
    ]
}

/// (alias, name, what it is)
const EXTENSIONS: &[(&str, &str, &str)] = &[
    ("os-admin-actions", "AdminActions", "Enable admin actions."),
    ("os-availability-zone", "AvailabilityZones", "Describe Availability Zones."),
    ("capabilities", "Capabilities", "Capabilities support."),
    ("os-extended-services", "ExtendedServices", "Extended services support."),
    ("os-extended-snapshot-attributes", "ExtendedSnapshotAttributes", "Extended SnapshotAttributes support."),
    ("os-hosts", "Hosts", "Admin-only host administration."),
    ("qos-specs", "Qos_specs_manage", "QoS specs support."),
    ("os-quota-class-sets", "QuotaClasses", "Quota classes management support."),
    ("os-quota-sets", "Quotas", "Quota management support."),
    ("OS-SCH-HNT", "SchedulerHints", "Pass arbitrary key/value pairs to the scheduler."),
    ("scheduler-stats", "Scheduler_stats", "Scheduler stats support."),
    ("os-services", "Services", "Services support."),
    ("os-snapshot-actions", "SnapshotActions", "Enable snapshot manager actions."),
    ("os-types-extra-specs", "TypesExtraSpecs", "Type extra specs support."),
    ("os-types-manage", "TypesManage", "Types manage support."),
    ("os-used-limits", "UsedLimits", "Provide data on limited resources that are being used."),
    ("os-volume-actions", "VolumeActions", "Enable volume actions."),
    ("os-volume-encryption-metadata", "VolumeEncryptionMetadata", "Volume encryption metadata retrieval support."),
    ("os-vol-host-attr", "VolumeHostAttribute", "Expose host as an attribute of a volume."),
    ("os-vol-image-meta", "VolumeImageMetadata", "Show image metadata associated with the volume."),
    ("os-vol-mig-status-attr", "VolumeMigStatusAttribute", "Expose migration_status as an attribute of a volume."),
    ("os-vol-tenant-attr", "VolumeTenantAttribute", "Expose the internal project_id as an attribute of a volume."),
    ("os-volume-transfer", "VolumeTransfer", "Volume transfer management support."),
    ("os-volume-type-access", "VolumeTypeAccess", "Volume type access support."),
];

fn described((alias, name, description): &(&str, &str, &str)) -> Value {
    json!({"alias": alias, "name": name, "description": description, "links": [],
        "updated": "2026-01-01T00:00:00+00:00"})
}

async fn extensions(_: Arc<Volumes>, _call: Call) -> Reply {
    Ok(Response::ok(json!({"extensions": EXTENSIONS.iter().map(described).collect::<Vec<_>>()})))
}

async fn extension(_: Arc<Volumes>, call: Call) -> Reply {
    let found = EXTENSIONS.iter().find(|(alias, ..)| *alias == call.param("alias"));
    let found = found.ok_or_else(|| Fault::not_found("The resource could not be found."))?;
    Ok(Response::ok(json!({"extension": described(found)})))
}

/// What each list can be filtered by.
const FILTERS: &[(&str, &[&str])] = &[
    ("volume", volume::filter::FILTERS),
    ("backup", &[]),
    ("snapshot", snapshot::api::FILTERS),
    ("group", &["name"]),
    ("group_snapshot", &["name", "status", "group_id"]),
    ("attachment", attachment::api::FILTERS),
    ("message", message::api::FILTERS),
    ("pool", pool_api::FILTERS),
    ("volume_type", &["is_public", "extra_specs"]),
];

async fn filters(_: Arc<Volumes>, call: Call) -> Reply {
    let wish = call.query.get("resource");
    let of = |(resource, filters): &(&str, &[&str])| json!({"resource": resource, "filters": filters});
    let shown: Vec<Value> = FILTERS.iter().filter(|(name, _)| wish.is_none_or(|w| w == *name)).map(of).collect();
    Ok(Response::ok(json!({"resource_filters": shown})))
}

/// Each host has its own files: none takes over another's.
async fn clusters(_: Arc<Volumes>, _call: Call) -> Reply {
    Ok(Response::ok(json!({"clusters": []})))
}

async fn cluster(_: Arc<Volumes>, call: Call) -> Reply {
    Err(Fault::not_found(format!("Cluster {} could not be found.", call.param("cluster_id"))))
}

/// Nothing is left half done that another would have to clean up.
async fn cleanup(_: Arc<Volumes>, _call: Call) -> Reply {
    Ok(Response::accepted(json!({"cleaning": [], "unavailable": []})))
}

async fn manageable_volumes(_: Arc<Volumes>, call: Call) -> Reply {
    check_host(&call)?;
    Ok(Response::ok(json!({"manageable-volumes": []})))
}

async fn manageable_snapshots(_: Arc<Volumes>, call: Call) -> Reply {
    check_host(&call)?;
    Ok(Response::ok(json!({"manageable-snapshots": []})))
}

fn check_host(call: &Call) -> Result<(), Fault> {
    if call.query.has("host") || call.query.has("cluster") {
        return Ok(());
    }
    Err(Fault::bad_request("Host or cluster must be specified in query parameters."))
}

async fn manage(_: Arc<Volumes>, _call: Call) -> Reply {
    Err(fault::invalid_input(
        "Files that lie on a host already are not taken over as volumes: upload them as images, and make volumes of these.",
    ))
}
