//! `/backups`.
use super::{
    model::{BackupStatus, settable},
    ops::{self, NewBackup},
    view,
};
use crate::{
    Volumes, fault,
    list::{Listing, Sorted, common_column},
    owned, route,
    schema::{action, flag, pairs, pairs_or_null, text as text_or_null, uuid, uuid_or_null},
    tables::{Backup, Volume},
    version as v,
    volume::{
        api::{strings, text, truth},
        filter::{named, of_projects},
        ops::sees,
    },
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, call::owned_by};
use pilvi_store::Stored;
use serde_json::json;
use std::sync::{Arc, LazyLock};

const RESET: &str = "volume_extension:backup_admin_actions:reset_status";
const VERBS: &[(&str, &str)] =
    &[("os-reset_status", RESET), ("os-force_delete", "volume_extension:backup_admin_actions:force_delete")];

pub fn routes() -> Vec<Route<Volumes>> {
    const ONE: &str = "/v3/backups/{backup_id}";
    vec![
        route::post("/v3/backups", create).rule_by_handler("backup:create").schema(&CREATE),
        route::get("/v3/backups", list).rule("backup:get_all"),
        route::get("/v3/backups/detail", detail).rule("backup:get_all"),
        route::get(ONE, show).rule_by_handler("backup:get"),
        route::put(ONE, update).rule_by_handler("backup:update").schema(&UPDATE).since(3, 9),
        route::delete(ONE, delete).rule_by_handler("backup:delete"),
        route::post("/v3/backups/{backup_id}/restore", restore).rule_by_handler("backup:restore").schema(&RESTORE),
        route::post("/v3/backups/{backup_id}/action", act).rule_by_handler(RESET).actions(VERBS),
        route::get("/v3/backups/{backup_id}/export_record", export).rule("backup:export-import"),
        route::post("/v3/backups/import_record", import).rule("backup:backup-import").schema(&IMPORT),
    ]
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["backup"], "additionalProperties": false, "properties": {"backup": {
            "type": "object", "required": ["volume_id"], "additionalProperties": false, "properties": {
                "volume_id": uuid(), "container": text_or_null(), "description": text_or_null(), "incremental": flag(),
                "force": flag(), "name": text_or_null(), "snapshot_id": uuid_or_null(), "metadata": pairs_or_null(),
                "availability_zone": text_or_null()}}}})
    })
});
static UPDATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["backup"], "additionalProperties": false, "properties": {"backup": {
            "type": ["object", "null"], "additionalProperties": false, "properties": {
                "name": text_or_null(), "description": text_or_null(), "metadata": pairs()}}}})
    })
});
static RESTORE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["restore"], "additionalProperties": false, "properties": {"restore": {
            "type": ["object", "null"], "additionalProperties": false, "properties": {
                "name": text_or_null(), "volume_id": uuid_or_null()}}}})
    })
});
static IMPORT: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let text = json!({"type": "string", "minLength": 1, "maxLength": 65536});
        json!({"type": "object", "required": ["backup-record"], "additionalProperties": false, "properties": {
            "backup-record": {"type": "object", "required": ["backup_service", "backup_url"],
                "additionalProperties": false, "properties": {"backup_service": text, "backup_url": text}}}})
    })
});
static RESETS: LazyLock<Schema> =
    LazyLock::new(|| Schema::new(|| action("os-reset_status", json!({"status": {"type": "string"}}), &["status"])));

async fn owned(svc: &Volumes, call: &Call) -> Result<Stored<Backup>, Fault> {
    owned::of_path(svc, call, "backup_id", ops::no_backup).await
}

async fn create(svc: Arc<Volumes>, call: Call) -> Reply {
    let body = call.member("backup")?.clone();
    let volume_id = text(&body, &["volume_id"]).unwrap_or_default();
    let volume = svc.store.get::<Volume>(&volume_id).await?.filter(|v| sees(&call.ctx, &v.project_id));
    call.authorize(&owned_by(volume.as_ref().map_or(call.ctx.project_id(), |v| &v.project_id)))?;
    let volume = volume.ok_or_else(|| fault::no_volume(&volume_id))?;
    if truth(body.get("incremental")) {
        return Err(ops::invalid("Each backup is whole here: there are no incremental ones."));
    }
    if body.get("snapshot_id").is_some_and(|id| !id.is_null()) {
        return Err(ops::invalid("Snapshots are not backed up: make a volume of it, and back that up."));
    }
    let new = NewBackup {
        volume_id,
        name: text(&body, &["name"]),
        description: text(&body, &["description"]),
        container: text(&body, &["container"]),
        zone: text(&body, &["availability_zone"]).unwrap_or_else(|| volume.zone.clone()),
        metadata: strings(body.get("metadata")),
        force: truth(body.get("force")),
    };
    let made = svc
        .write((new, call.ctx.clone()), |tx, (new, ctx)| Box::pin(async move { ops::create_in(tx, &ctx, new).await }))
        .await?;
    Ok(Response::accepted(json!({"backup": view::brief(&call, &made)})))
}

const KEYS: &[&str] = &["id", "name", "display_name", "status", "created_at", "updated_at", "volume_id", "size"];
const SORTED: Sorted<Backup> = Sorted {
    column: |key| match key {
        "volume_id" => Some("volume_id"),
        "size" => Some("size"),
        _ => common_column(key),
    },
    key: |backup, _| json!(backup.record.id),
};

/// What users may filter by.
pub const FILTERS: &[&str] = &["name~", "status", "volume_id"];

async fn page(svc: &Volumes, call: &Call, detailed: bool) -> Reply {
    let (listing, mut query, mut possible) = (Listing::of(call, KEYS)?, of_projects(call), true);
    for (key, wish) in named(call, FILTERS, &["name", "status", "volume_id"])? {
        query = match key {
            "all_tenants" => query,
            "name" | "display_name" => query.name(wish),
            "name~" => query.contains("name", wish),
            "status" => query.state(wish),
            "id" | "volume_id" => query.eq(key, wish),
            "project_id" => query.project(wish),
            _ => {
                possible = false;
                query
            }
        };
    }
    let keep = |b: &Stored<Backup>| possible && sees(&call.ctx, &b.project_id);
    let (found, more) = listing.select(&svc.store, query.clone(), SORTED, keep, ops::no_backup).await?;
    let shown = found.iter().map(|b| if detailed { view::full(call, b) } else { view::brief(call, b) }).collect();
    let mut body = listing.document(call, "backups", shown, &found, more);
    if call.version >= v::COUNT && call.query.flag("with_count")? == Some(true) {
        body["count"] = json!(svc.store.list::<Backup>(query).await?.iter().filter(|b| keep(b)).count());
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
    let backup = owned(&svc, &call).await?;
    Ok(Response::ok(json!({"backup": view::full(&call, &backup)})))
}

impl Volumes {
    async fn change_backup(
        &self,
        id: &str,
        change: impl Fn(&mut Backup) + Clone + Send + Sync + 'static,
    ) -> Result<Stored<Backup>, Fault> {
        self.write((id.to_owned(), change), |tx, (id, change)| {
            Box::pin(async move {
                let mut backup = tx.get::<Backup>(&id).await?.ok_or_else(|| ops::no_backup(&id))?;
                change(&mut backup.record);
                Ok(tx.update(&backup).await?)
            })
        })
        .await
    }

    async fn delete_backup(&self, id: &str, force: bool) -> Reply {
        self.write((id.to_owned(), force), |tx, (id, force)| {
            Box::pin(async move { ops::begin_delete_in(tx, &id, force).await })
        })
        .await?;
        // The reconciler does it again, should it not come to its end here.
        self.poke(&crate::volume::reconcile::backup_key(id));
        Ok(Response::empty(202))
    }
}

async fn update(svc: Arc<Volumes>, call: Call) -> Reply {
    let backup = owned(&svc, &call).await?;
    let body = call.member("backup")?.clone();
    if body.as_object().is_none_or(serde_json::Map::is_empty) {
        return Err(Fault::bad_request("Missing updates body."));
    }
    let changed = svc
        .change_backup(&backup.record.id, move |backup| {
            for (name, field) in [("name", &mut backup.name), ("description", &mut backup.description)] {
                if body.get(name).is_some() {
                    *field = text(&body, &[name]);
                }
            }
            if body.get("metadata").is_some() {
                backup.metadata = strings(body.get("metadata"));
            }
        })
        .await?;
    Ok(Response::ok(json!({"backup": view::brief(&call, &changed)})))
}

async fn delete(svc: Arc<Volumes>, call: Call) -> Reply {
    let backup = owned(&svc, &call).await?;
    svc.delete_backup(&backup.record.id, false).await
}

async fn restore(svc: Arc<Volumes>, call: Call) -> Reply {
    let backup = owned(&svc, &call).await?;
    let body = call.member("restore")?.clone();
    let wish = (text(&body, &["volume_id"]), text(&body, &["name"]));
    let (state, id, ctx) = (svc.clone(), backup.record.id.clone(), call.ctx.clone());
    let volume = svc
        .write((state, ctx, id, wish), |tx, (svc, ctx, id, wish)| {
            Box::pin(async move { ops::restore_in(tx, &svc, &ctx, &id, wish).await })
        })
        .await?;
    svc.poke(&volume.record.id);
    let told = json!({"backup_id": backup.record.id, "volume_id": volume.record.id,
        "volume_name": volume.name.clone().unwrap_or_default()});
    Ok(Response::accepted(json!({"restore": told})))
}

async fn act(svc: Arc<Volumes>, call: Call) -> Reply {
    if call.body.get("os-force_delete").is_some() {
        let backup = owned(&svc, &call).await?;
        return svc.delete_backup(&backup.record.id, true).await;
    }
    RESETS.check(&call.body)?;
    let backup = owned(&svc, &call).await?;
    let wish = text(&call.body["os-reset_status"], &["status"]).unwrap_or_default();
    let status = settable(&wish).ok_or_else(|| ops::invalid(format!("'{wish}' is no status that can be set")))?;
    svc.change_backup(&backup.record.id, move |backup| backup.status = status).await?;
    Ok(Response::empty(202))
}

/// Who reads records again: the name that clients look for.
const SERVICE: &str = "cinder.backup.drivers.pilvi.ImageStore";

async fn export(svc: Arc<Volumes>, call: Call) -> Reply {
    let id = call.param("backup_id");
    let found = svc.store.get::<Backup>(id).await?.ok_or_else(|| ops::no_backup(id))?;
    if found.status != BackupStatus::Available {
        return Err(ops::invalid("Backup status must be available"));
    }
    let text = serde_json::to_string(&found.record).map_err(Fault::internal)?;
    let url = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
    Ok(Response::ok(json!({"backup-record": {"backup_service": SERVICE, "backup_url": url}})))
}

fn read(url: &str) -> Option<Backup> {
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, url.trim()).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Takes a record back, should it have been lost: its bytes must still be there.
async fn import(svc: Arc<Volumes>, call: Call) -> Reply {
    let body = call.member("backup-record")?;
    if body["backup_service"].as_str() != Some(SERVICE) {
        return Err(Fault::new(503, "No backup service can read this record."));
    }
    let unreadable = || fault::invalid_input("Can't parse backup record.");
    let mut backup = read(body["backup_url"].as_str().unwrap_or_default()).ok_or_else(unreadable)?;
    if !pilvi_kit::id::is_uuid(&backup.id) {
        return Err(unreadable());
    }
    // It is whose that brings it back.
    (backup.project_id, backup.user_id) = (call.ctx.project_id().to_owned(), call.ctx.user_id().to_owned());
    backup.restoring = None;
    let made = svc
        .write(backup, |tx, backup| {
            Box::pin(async move {
                if tx.get::<Backup>(&backup.id).await?.is_some() {
                    return Err(ops::invalid("Backup already exists in database."));
                }
                pilvi_image::image::ops::get_any_in(tx, &backup.image_id)
                    .await
                    .map_err(|_| ops::invalid("Its bytes are gone."))?;
                Ok(tx.insert(&backup).await?)
            })
        })
        .await?;
    Ok(Response::created(json!({"backup": view::brief(&call, &made)})))
}
