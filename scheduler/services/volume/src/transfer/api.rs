//! `/volume-transfers` (3.55) and, as it was before, `/os-volume-transfer`.
use crate::{
    Volumes, fault,
    list::{Listing, Sorted, common_column, times},
    owned, quota, route,
    schema::{flag, uuid},
    snapshot::model::SnapshotStatus,
    tables::{Snapshot, Transfer, Volume, VolumeType},
    version as v,
    volume::{
        api::{text, truth},
        filter::of_projects,
        model::Status,
        ops::{self as volumes, sees},
    },
};
use pilvi_kit::{Call, Ctx, Fault, Reply, Response, Route, Schema, call::owned_by, id};
use pilvi_store::{Query, Stored, Tx};
use rand::Rng;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::{Arc, LazyLock};
use subtle::ConstantTimeEq;

macro_rules! at {
    ($base:literal, $since:expr) => {
        vec![
            route::post($base, create).rule_by_handler("volume:create_transfer").schema(&CREATE).since(3, $since),
            route::get($base, list).rule("volume:get_all_transfers").since(3, $since),
            route::get(concat!($base, "/detail"), detail).rule("volume:get_all_transfers").since(3, $since),
            route::get(concat!($base, "/{transfer_id}"), show).rule_by_handler("volume:get_transfer").since(3, $since),
            route::delete(concat!($base, "/{transfer_id}"), delete)
                .rule_by_handler("volume:delete_transfer")
                .since(3, $since),
            route::post(concat!($base, "/{transfer_id}/accept"), accept)
                .rule("volume:accept_transfer")
                .schema(&ACCEPT)
                .since(3, $since),
        ]
    };
}

pub fn routes() -> Vec<Route<Volumes>> {
    let mut routes: Vec<Route<Volumes>> = at!("/v3/volume-transfers", 55);
    routes.extend::<Vec<Route<Volumes>>>(at!("/v3/os-volume-transfer", 0));
    routes
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["transfer"], "additionalProperties": false, "properties": {"transfer": {
            "type": "object", "required": ["volume_id"], "additionalProperties": false, "properties": {
                "volume_id": uuid(), "name": {"type": ["string", "null"], "maxLength": 255}, "no_snapshots": flag()}}}})
    })
});
static ACCEPT: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["accept"], "additionalProperties": false, "properties": {"accept": {
            "type": "object", "required": ["auth_key"], "additionalProperties": false, "properties": {
                "auth_key": {"type": ["string", "integer"], "maxLength": 255}}}}})
    })
});

fn no_transfer(id: &str) -> Fault {
    Fault::not_found(format!("Transfer {id} could not be found."))
}

fn is_new(call: &Call) -> bool {
    call.path.contains("volume-transfers")
}

fn links(call: &Call, id: &str) -> Value {
    let project = call.param("project");
    let within = if project.is_empty() { String::new() } else { format!("{project}/") };
    let name = if is_new(call) { "volume-transfers" } else { "os-volume-transfer" };
    json!([{"rel": "self", "href": call.url(&format!("/v3/{within}{name}/{id}"))},
        {"rel": "bookmark", "href": call.url(&format!("/{within}{name}/{id}"))}])
}

fn brief(call: &Call, found: &Transfer) -> Value {
    json!({"id": found.id, "volume_id": found.volume_id, "name": found.name, "links": links(call, &found.id)})
}

fn full(call: &Call, found: &Stored<Transfer>) -> Value {
    let mut view = brief(call, found);
    view["created_at"] = times(found).0;
    if call.version >= v::TRANSFER_SNAPSHOTS {
        view["no_snapshots"] = json!(found.no_snapshots);
    }
    if call.version >= v::TRANSFER_HISTORY {
        view["source_project_id"] = json!(found.project_id);
        view["destination_project_id"] = Value::Null;
        view["accepted"] = json!(false);
    }
    view
}

/// Nobody guesses a key; what is kept of it does not give it away.
fn hash(salt: &str, key: &str) -> String {
    hex::encode(Sha256::new().chain_update(salt).chain_update([0]).chain_update(key).finalize())
}

async fn create(svc: Arc<Volumes>, call: Call) -> Reply {
    let body = call.member("transfer")?.clone();
    let volume_id = text(&body, &["volume_id"]).unwrap_or_default();
    let volume = svc.store.get::<Volume>(&volume_id).await?.filter(|v| sees(&call.ctx, &v.project_id));
    call.authorize(&owned_by(volume.as_ref().map_or(call.ctx.project_id(), |v| &v.project_id)))?;
    if volume.is_none() {
        return Err(fault::no_volume(&volume_id));
    }
    let no_snapshots = is_new(&call) && call.version >= v::TRANSFER_SNAPSHOTS && truth(body.get("no_snapshots"));
    let (salt, key) = (random(8), random(16));
    let new = Transfer {
        id: id::new(),
        project_id: String::new(),
        volume_id,
        name: text(&body, &["name"]),
        hash: hash(&salt, &key),
        salt,
        no_snapshots,
    };
    let made = svc
        .write((new, call.ctx.clone()), |tx, (new, ctx)| Box::pin(async move { offer_in(tx, &ctx, new).await }))
        .await?;
    let mut view = full(&call, &made);
    view["auth_key"] = json!(key);
    Ok(Response::accepted(json!({"transfer": view})))
}

/// Hex digits that nobody can foresee.
fn random(digits: usize) -> String {
    let bytes: Vec<u8> = (0..digits / 2).map(|_| rand::rng().random()).collect();
    hex::encode(bytes)
}

async fn offer_in(tx: &mut Tx, ctx: &Ctx, mut new: Transfer) -> Result<Stored<Transfer>, Fault> {
    let mut volume = volumes::visible_in(tx, ctx, &new.volume_id).await?;
    if volume.status != Status::Available || volume.wanted.delete {
        return Err(fault::invalid_volume("status must be available"));
    }
    if !new.no_snapshots {
        let all = tx.list::<Snapshot>(Query::all().eq("volume_id", new.volume_id.as_str())).await?;
        if let Some(busy) = all.iter().find(|s| s.status != SnapshotStatus::Available) {
            return Err(fault::invalid_snapshot(format!("snapshot: {} status must be available", busy.record.id)));
        }
    }
    new.project_id.clone_from(&volume.project_id);
    volume.record.status = Status::AwaitingTransfer;
    tx.update(&volume).await?;
    Ok(tx.insert(&new).await?)
}

const KEYS: &[&str] = &["id", "name", "display_name", "created_at", "updated_at", "volume_id"];
const SORTED: Sorted<Transfer> = Sorted {
    column: |key| match key {
        "volume_id" => Some("volume_id"),
        _ => common_column(key),
    },
    key: |transfer, _| json!(transfer.record.id),
};

async fn page(svc: &Volumes, call: &Call, detailed: bool) -> Reply {
    let listing = Listing::of(call, KEYS)?;
    let mut query = of_projects(call);
    for (key, column) in [("name", "name"), ("volume_id", "volume_id"), ("id", "id")] {
        if let Some(wish) = call.query.get(key) {
            query = query.eq(column, wish);
        }
    }
    let (found, more) = listing.select(&svc.store, query, SORTED, |_| true, no_transfer).await?;
    let shown = found.iter().map(|t| if detailed { full(call, t) } else { brief(call, t) }).collect();
    Ok(Response::ok(listing.document(call, "transfers", shown, &found, more)))
}

async fn list(svc: Arc<Volumes>, call: Call) -> Reply {
    page(&svc, &call, false).await
}

async fn detail(svc: Arc<Volumes>, call: Call) -> Reply {
    page(&svc, &call, true).await
}

async fn owned(svc: &Volumes, call: &Call) -> Result<Stored<Transfer>, Fault> {
    owned::of_path(svc, call, "transfer_id", no_transfer).await
}

async fn show(svc: Arc<Volumes>, call: Call) -> Reply {
    let found = owned(&svc, &call).await?;
    Ok(Response::ok(json!({"transfer": full(&call, &found)})))
}

async fn delete(svc: Arc<Volumes>, call: Call) -> Reply {
    let found = owned(&svc, &call).await?;
    svc.write((found.record.id.clone(), found.volume_id.clone()), |tx, (id, volume_id)| {
        Box::pin(async move {
            if let Some(mut volume) = tx.get::<Volume>(&volume_id).await? {
                if volume.status != Status::AwaitingTransfer {
                    tracing::info!(volume = volume_id, "a volume that was offered is not awaiting its transfer");
                } else {
                    volume.record.status = Status::Available;
                    tx.update(&volume).await?;
                }
            }
            tx.delete::<Transfer>(&id).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Response::empty(202))
}

async fn accept(svc: Arc<Volumes>, call: Call) -> Reply {
    let given = &call.member("accept")?["auth_key"];
    let key = given.as_str().map_or_else(|| given.to_string(), str::to_owned);
    let taken = svc
        .write((call.param("transfer_id").to_owned(), key, call.ctx.clone()), |tx, (id, key, ctx)| {
            Box::pin(async move { accept_in(tx, &ctx, &id, &key).await })
        })
        .await?;
    Ok(Response::accepted(json!({"transfer": brief(&call, &taken)})))
}

async fn accept_in(tx: &mut Tx, ctx: &Ctx, id: &str, key: &str) -> Result<Transfer, Fault> {
    let found = tx.get::<Transfer>(id).await?.ok_or_else(|| no_transfer(id))?.record;
    if !bool::from(hash(&found.salt, key).as_bytes().ct_eq(found.hash.as_bytes())) {
        return Err(Fault::bad_request(format!("Invalid auth key: Attempt to transfer {id} with invalid auth key.")));
    }
    let mut volume = volumes::get_in(tx, &found.volume_id).await?;
    if volume.status != Status::AwaitingTransfer {
        return Err(fault::invalid_volume("The volume is not awaiting a transfer."));
    }
    if volume.group_id.is_some() {
        let id = &volume.record.id;
        return Err(fault::invalid_volume(format!("Volume {id} must not be part of a consistency group.")));
    }
    let snapshots = tx.list::<Snapshot>(Query::all().eq("volume_id", found.volume_id.as_str())).await?;
    if found.project_id != ctx.project_id() {
        let of_type = tx.get::<VolumeType>(&volume.volume_type).await?;
        let name = of_type.map(|t| t.record.name).unwrap_or_default();
        quota::check_size_in(tx, ctx.project_id(), volume.size_gib).await?;
        let mut asked = quota::asked("volumes", 1, volume.size_gib, &name);
        if !found.no_snapshots && !snapshots.is_empty() {
            let size = snapshots.iter().map(|s| s.size_gib).sum();
            for (name, amount) in quota::asked("snapshots", snapshots.len() as u64, size, &name) {
                *asked.entry(name).or_default() += amount;
            }
        }
        quota::check_in(tx, ctx.project_id(), &asked).await?;
    }
    for mut snapshot in snapshots.into_iter().filter(|_| !found.no_snapshots) {
        snapshot.record.project_id = ctx.project_id().to_owned();
        snapshot.record.user_id = ctx.user_id().to_owned();
        tx.update(&snapshot).await?;
    }
    volume.record.status = Status::Available;
    (volume.record.project_id, volume.record.user_id) = (ctx.project_id().to_owned(), ctx.user_id().to_owned());
    tx.update(&volume).await?;
    tx.delete::<Transfer>(id).await?;
    Ok(found)
}
