//! `/volumes`: create, list, summary, show, update, delete.
use super::{
    create::{NewVolume, Source},
    filter::Filter,
    image,
    ops::{self, Deletion},
    view::{self, Around},
};
use crate::{
    Volumes, fault,
    list::{Listing, Sorted, common_column},
    owned, route, schema,
    tables::{Backup, Volume},
    version as v,
};
use pilvi_kit::{
    Call, Fault, Reply, Response, Route,
    call::{boolean, owned_by},
};
use pilvi_store::Stored;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub fn routes() -> Vec<Route<Volumes>> {
    vec![
        route::post("/v3/volumes", create).rule("volume:create").schema(&schema::CREATE).summary("Create a volume"),
        route::get("/v3/volumes", list).rule("volume:get_all").summary("List volumes"),
        route::get("/v3/volumes/detail", detail).rule("volume:get_all").summary("List volumes with detail"),
        route::get("/v3/volumes/summary", summary).rule("volume:get_all").since(3, 12).summary("How many, how large"),
        route::get("/v3/volumes/{volume_id}", show).rule_by_handler("volume:get").summary("Show a volume"),
        route::put("/v3/volumes/{volume_id}", update)
            .rule_by_handler("volume:update")
            .schema(&schema::UPDATE)
            .summary("Update a volume"),
        route::delete("/v3/volumes/{volume_id}", delete).rule_by_handler("volume:delete").summary("Delete a volume"),
    ]
}

/// The volume of the path, if the caller may do the route's rule to it. Somebody else's volume does not exist.
pub async fn owned(svc: &Volumes, call: &Call) -> Result<Stored<Volume>, Fault> {
    owned_for(svc, call, call.rule()).await
}

/// The same for another rule.
pub async fn owned_for(svc: &Volumes, call: &Call, rule: &str) -> Result<Stored<Volume>, Fault> {
    let id = call.param("volume_id");
    owned::judged(call, rule, svc.store.get::<Volume>(id).await?, || fault::no_volume(id))
}

const KEYS: &[&str] = &[
    "id",
    "name",
    "display_name",
    "status",
    "size",
    "created_at",
    "updated_at",
    "bootable",
    "availability_zone",
    "user_id",
    "project_id",
    "host",
    "volume_type_id",
    "migration_status",
    "launched_at",
    "multiattach",
    "source_volid",
    "snapshot_id",
    "group_id",
];

const SORTED: Sorted<Volume> = Sorted {
    column: |key| match key {
        "size" => Some("size"),
        "bootable" => Some("bootable"),
        "availability_zone" => Some("zone"),
        "user_id" => Some("user_id"),
        "project_id" => Some("project"),
        "host" => Some("host"),
        "volume_type_id" => Some("volume_type"),
        "source_volid" => Some("source_volid"),
        "snapshot_id" => Some("snapshot_id"),
        "group_id" => Some("group_id"),
        _ => common_column(key),
    },
    key: |volume, key| match key {
        "migration_status" => json!(volume.migration_status),
        "launched_at" => json!(volume.launched_us),
        "multiattach" => json!(volume.multiattach),
        "name" | "display_name" => json!(volume.name),
        "status" => json!(volume.status.as_str()),
        "size" => json!(volume.size_gib),
        "created_at" => json!(volume.created_us),
        "updated_at" => json!(volume.updated_us),
        "availability_zone" => json!(volume.zone),
        _ => json!(volume.record.id),
    },
};

async fn page(svc: &Volumes, call: &Call, detailed: bool) -> Reply {
    let (listing, filter) = (Listing::of(call, KEYS)?, Filter::of(call)?);
    let keep = |v: &Stored<Volume>| filter.keeps(call, v);
    let query = filter.query.clone();
    let (volumes, more) = listing.select(&svc.store, query.clone(), SORTED, keep, fault::no_volume).await?;
    let shown = if detailed {
        let around = Around::of(&svc.store, &volumes).await?;
        volumes.iter().map(|v| view::full(call, v, &around)).collect()
    } else {
        volumes.iter().map(|v| view::brief(call, v)).collect()
    };
    let mut body = listing.document(call, "volumes", shown, &volumes, more);
    if call.version >= v::COUNT && call.query.flag("with_count")? == Some(true) {
        body["count"] = json!(svc.store.list::<Volume>(query).await?.iter().filter(|v| keep(v)).count());
    }
    Ok(Response::ok(body))
}

async fn list(svc: Arc<Volumes>, call: Call) -> Reply {
    page(&svc, &call, false).await
}

async fn detail(svc: Arc<Volumes>, call: Call) -> Reply {
    page(&svc, &call, true).await
}

async fn summary(svc: Arc<Volumes>, call: Call) -> Reply {
    let filter = Filter::of(&call)?;
    let mut found = svc.store.list::<Volume>(filter.query.clone()).await?;
    found.retain(|v| filter.keeps(&call, v));
    let size: u64 = found.iter().map(|v| v.size_gib).sum();
    let mut told = json!({"total_count": found.len(), "total_size": size});
    if call.version >= v::SUMMARY_METADATA {
        let mut all: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (key, value) in found.iter().flat_map(|v| &v.metadata) {
            all.entry(key).or_default().insert(value);
        }
        told["metadata"] = json!(all);
    }
    Ok(Response::ok(json!({"volume-summary": told})))
}

/// What who creates or changes a volume is told.
async fn told(svc: &Volumes, call: &Call, volume: &Stored<Volume>) -> Result<Value, Fault> {
    let around = Around::of(&svc.store, std::slice::from_ref(volume)).await?;
    Ok(view::plain(call, volume, &around))
}

async fn show(svc: Arc<Volumes>, call: Call) -> Reply {
    let volume = owned(&svc, &call).await?;
    let around = Around::of(&svc.store, std::slice::from_ref(&volume)).await?;
    Ok(Response::ok(json!({"volume": view::full(&call, &volume, &around)})))
}

/// A member of a body that is a text of some length.
pub fn text(body: &Value, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| body.get(*name)?.as_str()).map(|text| text.trim().to_owned())
}

/// Pairs of texts.
pub fn strings(value: Option<&Value>) -> BTreeMap<String, String> {
    let pairs = value.and_then(Value::as_object).into_iter().flatten();
    pairs.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

/// A whole number, also one in quotes.
pub fn number(value: Option<&Value>) -> Option<u64> {
    let value = value?;
    value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// A boolean in any of its spellings.
pub fn truth(value: Option<&Value>) -> bool {
    value.is_some_and(|v| v.as_bool().unwrap_or_else(|| v.as_str().and_then(boolean).unwrap_or(false)))
}

fn ids(hints: Option<&Value>, name: &str) -> Vec<String> {
    match hints.and_then(|h| h.get(name)) {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => many.iter().take(64).filter_map(|v| v.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

const MEMBERS: &[&str] = &[
    "name",
    "description",
    "display_name",
    "display_description",
    "volume_type",
    "metadata",
    "snapshot_id",
    "source_volid",
    "consistencygroup_id",
    "size",
    "availability_zone",
    "multiattach",
    "image_id",
    "imageRef",
    "group_id",
    "backup_id",
];

fn check_members(call: &Call, body: &Map<String, Value>) -> Result<(), Fault> {
    let unknown = body.keys().find(|name| !MEMBERS.contains(&name.as_str()));
    if let (Some(name), true) = (unknown, call.version >= v::STRICT_BODIES) {
        return Err(Fault::bad_request(format!(
            "Invalid input for field/attribute volume. Additional properties are not allowed ('{name}' was unexpected)"
        )));
    }
    if truth(body.get("multiattach")) {
        return Err(Fault::bad_request(
            "multiattach parameter has been removed. The default behavior is to use multiattach enabled volume types. Contact your administrator to create a multiattach enabled volume type and use it to create multiattach volumes.",
        ));
    }
    Ok(())
}

impl Volumes {
    /// 400 unless there is such a zone.
    async fn check_zone(&self, zone: &str) -> Result<(), Fault> {
        if zone == self.config.default_zone || self.zones().await?.values().any(|z| z == zone) {
            return Ok(());
        }
        Err(fault::invalid_input(format!("Availability zone '{zone}' is invalid.")))
    }
}

/// Volumes are made of backups.
const BACKUP_SOURCE: pilvi_kit::Version = pilvi_kit::Version(3, 47);

/// What the volume shall be made of, and the image, if it is one.
async fn source(svc: &Volumes, call: &Call, body: &Value) -> Result<Source, Fault> {
    let named = |name: &str| body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let image_ref = named("imageRef").or_else(|| named("image_id"));
    let backup = named("backup_id").filter(|_| call.version >= BACKUP_SOURCE);
    let all = [named("snapshot_id"), named("source_volid"), image_ref.clone(), backup.clone()];
    let mut sources = all.into_iter().flatten();
    if sources.next().is_some() && sources.next().is_some() {
        return Err(fault::invalid_input(
            "May specify only one of snapshot, source_volume, image_id, or backup for volume creation.",
        ));
    }
    if let Some(id) = named("snapshot_id") {
        crate::snapshot::ops::visible(&svc.store, &call.ctx, &id).await?;
        return Ok(Source::Snapshot(id));
    }
    if let Some(id) = named("source_volid") {
        ops::visible(&svc.store, &call.ctx, &id).await?;
        return Ok(Source::Volume(id));
    }
    if let Some(id) = backup {
        let found = svc.store.get::<Backup>(&id).await?.filter(|b| ops::sees(&call.ctx, &b.project_id));
        return found.map(|_| Source::Backup(id.clone())).ok_or_else(|| crate::backup::ops::no_backup(&id));
    }
    let Some(image_ref) = image_ref else { return Ok(Source::Blank) };
    call.enforce("volume:create_from_image", &call.target())?;
    Ok(Source::Image(image::named(&svc.store, &call.ctx, &image_ref).await?.id))
}

async fn create(svc: Arc<Volumes>, call: Call) -> Reply {
    let body = call.member("volume")?.clone();
    let Some(members) = body.as_object() else { return Err(Fault::bad_request("volume must be an object")) };
    check_members(&call, members)?;
    let source = source(&svc, &call, &body).await?;
    let size = number(body.get("size"));
    if size.is_none() && matches!(source, Source::Blank | Source::Image(_)) {
        return Err(fault::invalid_input(
            "Invalid volume size provided for create request: None (size argument must be an integer (or string representation of an integer) and greater than zero).",
        ));
    }
    let zone = text(&body, &["availability_zone"]);
    if let Some(zone) = &zone {
        svc.check_zone(zone).await?;
    }
    let hints = call.body.get("OS-SCH-HNT:scheduler_hints");
    let new = NewVolume {
        name: text(&body, &["display_name", "name"]),
        description: text(&body, &["display_description", "description"]),
        size_gib: size.unwrap_or(0),
        source,
        volume_type: text(&body, &["volume_type"]).filter(|t| !t.is_empty()),
        zone,
        host: None,
        metadata: strings(body.get("metadata")),
        group_id: text(&body, &["group_id", "consistencygroup_id"]).filter(|g| !g.is_empty()),
        same_host: ids(hints, "same_host"),
        different_host: ids(hints, "different_host"),
    };
    let may_share = call.may("volume:multiattach", &call.target());
    let (state, ctx) = (svc.clone(), call.ctx.clone());
    let made = svc
        .write((state, ctx, new, may_share), |tx, (svc, ctx, new, may_share)| {
            Box::pin(async move {
                let made = ops::create_in(tx, &svc, &ctx, new).await?;
                if made.multiattach && !may_share {
                    return Err(Fault::forbidden("").with("rule", "volume:multiattach"));
                }
                Ok(made)
            })
        })
        .await?;
    svc.poke(&made.record.id);
    Ok(Response::accepted(json!({"volume": told(&svc, &call, &made).await?})))
}

async fn update(svc: Arc<Volumes>, call: Call) -> Reply {
    let volume = owned(&svc, &call).await?;
    let body = call.member("volume")?.clone();
    let empty = body.as_object().is_none_or(Map::is_empty);
    if empty && call.version >= v::STRICT_BODIES {
        return Err(Fault::bad_request(
            "Invalid input for field/attribute volume. {} is not valid under any of the given schemas",
        ));
    }
    let volume = svc
        .change(&call.ctx, &volume.record.id, move |volume| {
            for (names, field) in [
                (["name", "display_name"], &mut volume.name),
                (["description", "display_description"], &mut volume.description),
            ] {
                if let Some(name) = names.iter().find(|name| body.get(**name).is_some()) {
                    *field = text(&body, &[name]);
                }
            }
            if body.get("metadata").is_some() {
                volume.metadata = strings(body.get("metadata"));
            }
            Ok(())
        })
        .await?;
    Ok(Response::ok(json!({"volume": told(&svc, &call, &volume).await?})))
}

async fn delete(svc: Arc<Volumes>, call: Call) -> Reply {
    let volume = owned(&svc, &call).await?;
    let cascade = call.query.flag("cascade")?.unwrap_or(false);
    let force = call.version >= v::FORCED_DELETE && call.query.flag("force")?.unwrap_or(false);
    if force {
        call.enforce("volume:force_delete", &owned_by(&volume.project_id))?;
    }
    svc.begin_delete(&volume.record.id, Deletion { cascade, force }).await?;
    Ok(Response::empty(202))
}

impl Volumes {
    /// Marks for deletion; the reconciler takes it from there.
    pub(crate) async fn begin_delete(&self, id: &str, how: Deletion) -> Result<(), Fault> {
        self.write((id.to_owned(), how), |tx, (id, how)| {
            Box::pin(async move {
                let volume = ops::get_in(tx, &id).await?;
                // Deleting twice is no error for whoever forces it.
                if volume.wanted.delete && how.force {
                    return Ok(());
                }
                ops::begin_delete_in(tx, volume, how).await
            })
        })
        .await?;
        self.poke(id);
        Ok(())
    }
}
