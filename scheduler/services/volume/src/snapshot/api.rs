//! `/snapshots`: create, list, show, update, delete, and what is done with them.
use super::{
    model::SnapshotStatus,
    ops::{self, NewSnapshot},
    view,
};
use crate::{
    Volumes, fault,
    list::{Listing, Sorted, common_column},
    literal, owned, route,
    schema::{action, flag, pairs_or_null, text as text_or_null, uuid_or_null},
    tables::Snapshot,
    version as v,
    volume::{
        api::{strings, text, truth},
        filter::{named, of_projects},
        ops::sees,
    },
};
use pilvi_kit::{
    Call, Fault, Reply, Response, Route, Schema,
    call::{boolean, owned_by},
};
use pilvi_store::{Query, Stored};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

const UPDATE_STATUS: &str = "snapshot_extension:snapshot_actions:update_snapshot_status";
const VERBS: &[(&str, &str)] = &[
    ("os-update_snapshot_status", UPDATE_STATUS),
    ("os-reset_status", "volume_extension:snapshot_admin_actions:reset_status"),
    ("os-force_delete", "volume_extension:snapshot_admin_actions:force_delete"),
    ("os-unmanage", "snapshot_extension:snapshot_unmanage"),
];

pub fn routes() -> Vec<Route<Volumes>> {
    const ONE: &str = "/v3/snapshots/{snapshot_id}";
    vec![
        route::post("/v3/snapshots", create).rule_by_handler("volume:create_snapshot").schema(&CREATE),
        route::get("/v3/snapshots", list).rule("volume:get_all_snapshots"),
        route::get("/v3/snapshots/detail", detail).rule("volume:get_all_snapshots"),
        route::get(ONE, show).rule_by_handler("volume:get_snapshot"),
        route::put(ONE, update).rule_by_handler("volume:update_snapshot").schema(&UPDATE),
        route::delete(ONE, delete).rule_by_handler("volume:delete_snapshot"),
        route::post("/v3/snapshots/{snapshot_id}/action", act).rule_by_handler(UPDATE_STATUS).actions(VERBS),
    ]
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["snapshot"], "additionalProperties": false, "properties": {
            "snapshot": {"type": "object", "required": ["volume_id"], "additionalProperties": false, "properties": {
                "name": text_or_null(), "display_name": text_or_null(), "description": text_or_null(),
                "volume_id": uuid_or_null(), "force": flag(), "metadata": pairs_or_null()}}}})
    })
});
static UPDATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["snapshot"], "additionalProperties": false, "properties": {
            "snapshot": {"type": "object", "minProperties": 1, "additionalProperties": false, "properties": {
                "name": text_or_null(), "display_name": text_or_null(), "description": text_or_null(),
                "display_description": text_or_null()}}}})
    })
});
static SET_STATUS: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let progress = json!({"type": ["string", "null"], "pattern": "^([0-9]{1,2}|100)%$"});
        action("os-update_snapshot_status", json!({"status": {"type": "string"}, "progress": progress}), &["status"])
    })
});
static RESET: LazyLock<Schema> =
    LazyLock::new(|| Schema::new(|| action("os-reset_status", json!({"status": {"type": "string"}}), &["status"])));

/// The snapshot of the path, if the caller may do the route's rule to it.
pub async fn owned(svc: &Volumes, call: &Call) -> Result<Stored<Snapshot>, Fault> {
    owned::of_path(svc, call, "snapshot_id", fault::no_snapshot).await
}

async fn create(svc: Arc<Volumes>, call: Call) -> Reply {
    let body = call.member("snapshot")?.clone();
    let volume_id = text(&body, &["volume_id"]).unwrap_or_default();
    let volume = svc.store.get::<crate::tables::Volume>(&volume_id).await?;
    let volume = volume.filter(|v| sees(&call.ctx, &v.project_id));
    call.authorize(&owned_by(volume.as_ref().map_or(call.ctx.project_id(), |v| &v.project_id)))?;
    if volume.is_none() {
        return Err(fault::no_volume(&volume_id));
    }
    let mut force = truth(body.get("force"));
    if call.version >= v::SNAPSHOT_IN_USE {
        if body.get("force").is_some() && !force {
            return Err(Fault::bad_request(
                "Since microversion 3.66 the 'force' flag is invalid for this request. For backward compatability, however, when the 'force' flag is passed with a value evaluating to True, it is silently ignored.",
            ));
        }
        force = true;
    }
    let new = NewSnapshot {
        volume_id: volume_id.clone(),
        name: text(&body, &["name", "display_name"]),
        description: text(&body, &["description"]),
        metadata: strings(body.get("metadata")),
        force,
        group_snapshot_id: None,
    };
    let taken = svc
        .write((new, call.ctx.clone()), |tx, (new, ctx)| Box::pin(async move { ops::take_in(tx, &ctx, new).await }))
        .await?;
    svc.poke(&volume_id);
    Ok(Response::accepted(json!({"snapshot": view::plain(&call, &taken)})))
}

const KEYS: &[&str] = &[
    "id",
    "name",
    "display_name",
    "status",
    "volume_size",
    "size",
    "created_at",
    "updated_at",
    "volume_id",
    "project_id",
    "user_id",
    "progress",
];
const SORTED: Sorted<Snapshot> = Sorted {
    column: |key| match key {
        "size" | "volume_size" => Some("size"),
        "volume_id" => Some("volume_id"),
        "project_id" => Some("project"),
        "user_id" => Some("user_id"),
        _ => common_column(key),
    },
    key: |snapshot, key| match key {
        "name" | "display_name" => json!(snapshot.name),
        "created_at" => json!(snapshot.created_us),
        "updated_at" => json!(snapshot.updated_us),
        "status" => json!(snapshot.status.as_str()),
        "progress" => json!(snapshot.progress),
        "volume_id" => json!(snapshot.volume_id),
        "size" | "volume_size" => json!(snapshot.size_gib),
        _ => json!(snapshot.record.id),
    },
};

/// What users may filter by, and could before unknown filters were refused.
pub const FILTERS: &[&str] = &["name~", "status", "volume_id", "metadata", "availability_zone", "consumes_quota"];
const BEFORE: &[&str] = &["name", "status", "volume_id", "metadata"];

/// The query, the metadata that is asked for, and whether anything can be found at all.
type Filter = (Query, Option<BTreeMap<String, String>>, bool);

fn filter(call: &Call) -> Result<Filter, Fault> {
    let (mut query, mut metadata, mut possible) = (of_projects(call), None, true);
    for (key, wish) in named(call, FILTERS, BEFORE)? {
        query = match key {
            "all_tenants" => query,
            "name" | "display_name" => query.name(wish),
            "name~" | "display_name~" => query.contains("name", wish),
            "status" => query.state(wish),
            "id" | "volume_id" | "user_id" => query.eq(key, wish),
            "project_id" => query.project(wish),
            "metadata" => {
                if call.version >= v::SNAPSHOT_METADATA_FILTER {
                    metadata = literal::dictionary(wish);
                    possible &= metadata.is_some();
                }
                query
            }
            "consumes_quota" => {
                possible &= boolean(wish) == Some(true);
                query
            }
            _ => {
                possible = false;
                query
            }
        };
    }
    Ok((query, metadata, possible))
}

async fn page(svc: &Volumes, call: &Call, detailed: bool) -> Reply {
    let (listing, (query, metadata, possible)) = (Listing::of(call, KEYS)?, filter(call)?);
    let keep = |s: &Stored<Snapshot>| {
        let has = |wish: &BTreeMap<String, String>| wish.iter().all(|(k, v)| s.metadata.get(k) == Some(v));
        possible && sees(&call.ctx, &s.project_id) && metadata.as_ref().is_none_or(has)
    };
    let (found, more) = listing.select(&svc.store, query.clone(), SORTED, keep, fault::no_snapshot).await?;
    let shown = found.iter().map(|s| if detailed { view::full(call, s) } else { view::brief(s) }).collect();
    let mut body = listing.document(call, "snapshots", shown, &found, more);
    if call.version >= v::COUNT && call.query.flag("with_count")? == Some(true) {
        body["count"] = json!(svc.store.list::<Snapshot>(query).await?.iter().filter(|s| keep(s)).count());
    }
    Ok(Response::ok(body))
}

async fn list(svc: Arc<Volumes>, call: Call) -> Reply {
    page(&svc, &call, false).await
}

async fn detail(svc: Arc<Volumes>, call: Call) -> Reply {
    page(&svc, &call, true).await
}

async fn show(svc: Arc<Volumes>, call: Call) -> Reply {
    let snapshot = owned(&svc, &call).await?;
    Ok(Response::ok(json!({"snapshot": view::full(&call, &snapshot)})))
}

impl Volumes {
    /// Changes a snapshot's record in one transaction.
    pub(crate) async fn change_snapshot(
        &self,
        id: &str,
        change: impl Fn(&mut Snapshot) -> Result<(), Fault> + Clone + Send + Sync + 'static,
    ) -> Result<Stored<Snapshot>, Fault> {
        self.write((id.to_owned(), change), |tx, (id, change)| {
            Box::pin(async move {
                let found = tx.get::<Snapshot>(&id).await?;
                let mut snapshot = found.ok_or_else(|| fault::no_snapshot(&id))?;
                change(&mut snapshot.record)?;
                Ok(tx.update(&snapshot).await?)
            })
        })
        .await
    }

    async fn delete_snapshot(&self, id: &str, force: bool) -> Reply {
        let volume = self
            .write((id.to_owned(), force), |tx, (id, force)| {
                Box::pin(async move {
                    let found = tx.get::<Snapshot>(&id).await?.ok_or_else(|| fault::no_snapshot(&id))?;
                    let volume = found.volume_id.clone();
                    if !(found.delete && force) {
                        ops::begin_delete_in(tx, found, force).await?;
                    }
                    Ok(volume)
                })
            })
            .await?;
        self.poke(&volume);
        Ok(Response::empty(202))
    }
}

async fn update(svc: Arc<Volumes>, call: Call) -> Reply {
    let snapshot = owned(&svc, &call).await?;
    let body = call.member("snapshot")?.clone();
    let change = move |snapshot: &mut Snapshot| {
        for (names, field) in [
            (["name", "display_name"], &mut snapshot.name),
            (["description", "display_description"], &mut snapshot.description),
        ] {
            if let Some(name) = names.iter().find(|name| body.get(**name).is_some()) {
                *field = text(&body, &[name]);
            }
        }
        Ok(())
    };
    let snapshot = svc.change_snapshot(&snapshot.record.id, change).await?;
    Ok(Response::ok(json!({"snapshot": view::plain(&call, &snapshot)})))
}

async fn delete(svc: Arc<Volumes>, call: Call) -> Reply {
    let snapshot = owned(&svc, &call).await?;
    svc.delete_snapshot(&snapshot.record.id, false).await
}

async fn act(svc: Arc<Volumes>, call: Call) -> Reply {
    let given = call.body.as_object().filter(|o| o.len() == 1).and_then(|o| o.iter().next());
    let (verb, given) = given.ok_or_else(|| Fault::bad_request("Malformed request body"))?;
    if !VERBS.iter().any(|(name, _)| name == verb) {
        return Err(Fault::bad_request(format!("There is no such action: {verb}")));
    }
    match verb.as_str() {
        "os-update_snapshot_status" => SET_STATUS.check(&call.body)?,
        "os-reset_status" => RESET.check(&call.body)?,
        _ => {}
    }
    let snapshot = owned(&svc, &call).await?;
    match verb.as_str() {
        "os-update_snapshot_status" => update_status(&svc, &snapshot, given).await,
        "os-reset_status" => {
            let status = settable(given)?;
            let set = move |snapshot: &mut Snapshot| {
                snapshot.status = status;
                Ok(())
            };
            svc.change_snapshot(&snapshot.record.id, set).await?;
            Ok(Response::empty(202))
        }
        "os-force_delete" => svc.delete_snapshot(&snapshot.record.id, true).await,
        _ => Err(fault::invalid_snapshot("Snapshots are files of their host alone: none is let go of.")),
    }
}

fn settable(given: &Value) -> Result<SnapshotStatus, Fault> {
    use SnapshotStatus as S;
    let wish = text(given, &["status"]).unwrap_or_default();
    match S::parse(&wish.to_lowercase()) {
        Some(status @ (S::Creating | S::Available | S::Deleting | S::Error | S::ErrorDeleting)) => Ok(status),
        _ => Err(fault::invalid_input(format!(
            "Invalid input for field/attribute status. Value: {wish}. '{wish}' is not a 'snapshot_status'"
        ))),
    }
}

/// What whoever takes snapshots for the cloud says of one.
async fn update_status(svc: &Volumes, snapshot: &Stored<Snapshot>, given: &Value) -> Reply {
    use SnapshotStatus as S;
    let wish = text(given, &["status"]).unwrap_or_default();
    let next = S::parse(&wish);
    let allowed = match snapshot.status {
        S::Creating => matches!(next, Some(S::Creating | S::Available | S::Error)),
        S::Deleting => matches!(next, Some(S::Deleting | S::ErrorDeleting)),
        _ => {
            return Err(Fault::bad_request(format!(
                "Snapshot status {} not allowed for update_snapshot_status",
                snapshot.status.as_str()
            )));
        }
    };
    let Some(next) = next.filter(|_| allowed) else {
        return Err(Fault::bad_request(format!(
            "Provided snapshot status {wish} not allowed for snapshot with status {}.",
            snapshot.status.as_str()
        )));
    };
    let progress = text(given, &["progress"]);
    let set = move |snapshot: &mut Snapshot| {
        snapshot.status = next;
        if let Some(progress) = &progress {
            snapshot.progress.clone_from(progress);
        }
        Ok(())
    };
    svc.change_snapshot(&snapshot.record.id, set).await?;
    Ok(Response::empty(202))
}
