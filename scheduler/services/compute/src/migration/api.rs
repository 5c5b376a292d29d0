//! `os-migrateLive`, `/os-migrations` (also of cold ones, and of resizes) and `/servers/{id}/migrations`.
use super::{
    model::status,
    ops::{Order, Wish},
};
use crate::{
    Compute, fault,
    hypervisor::service::number_of,
    server::{api::truth, schema::boolean},
    tables::{Migration, Server},
    version as v,
};
use pilvi_kit::{
    Call, Fault, Reply, Response, Route, Schema, Version,
    call::owned_by,
    clock,
    page::{Page, PageRules},
};
use pilvi_store::{Query, Stored};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

const LIST: &str = "os_compute_api:os-migrations:index";
const LIST_ALL: &str = "os_compute_api:os-migrations:index:all_projects";
const LIST_HOST: &str = "os_compute_api:os-migrations:index:host";
const OF_SERVER: &str = "os_compute_api:servers:migrations:index";
const OF_SERVER_HOST: &str = "os_compute_api:servers:migrations:index:host";
const SHOW: &str = "os_compute_api:servers:migrations:show";
const DELETE: &str = "os_compute_api:servers:migrations:delete";
const FORCE: &str = "os_compute_api:servers:migrations:force_complete";
const MOVE_TO: &str = "os_compute_api:os-migrate-server:migrate_live:host";

pub fn routes() -> Vec<Route<Compute>> {
    const SOME: &str = "/v2.1/servers/{server_id}/migrations";
    const ONE: &str = "/v2.1/servers/{server_id}/migrations/{id}";
    vec![
        Route::get("/v2.1/os-migrations", list).rule(LIST),
        Route::get(SOME, of_server).rule_by_handler(OF_SERVER).since(2, 23),
        Route::get(ONE, show).rule_by_handler(SHOW).since(2, 23),
        Route::post("/v2.1/servers/{server_id}/migrations/{id}/action", hurry)
            .rule_by_handler(FORCE)
            .schema(&HURRY)
            .since(2, 22),
        Route::delete(ONE, delete).rule_by_handler(DELETE).since(2, 24),
    ]
}

fn body(members: Value, required: &[&str]) -> Value {
    json!({"type": "object", "required": required, "additionalProperties": false, "properties": members})
}

pub(super) fn host() -> Value {
    json!({"type": ["string", "null"], "minLength": 1, "maxLength": 255})
}

fn automatic() -> Value {
    json!({"oneOf": [boolean(), {"type": "string", "enum": ["auto"]}]})
}

static HURRY: LazyLock<Schema> =
    LazyLock::new(|| Schema::new(|| body(json!({"force_complete": {"type": "null"}}), &["force_complete"])));
static FIRST: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let all = ["block_migration", "disk_over_commit", "host"];
        body(json!({"block_migration": boolean(), "disk_over_commit": boolean(), "host": host()}), &all)
    })
});
static AUTOMATIC: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| body(json!({"block_migration": automatic(), "host": host()}), &["block_migration", "host"]))
});
static FORCED: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let members = json!({"block_migration": automatic(), "host": host(), "force": boolean()});
        body(members, &["block_migration", "host"])
    })
});

/// The handler of the action.
pub async fn migrate(svc: &Compute, call: &Call, server: &Stored<Server>, body: &Value) -> Reply {
    let schema = match call.version {
        at if at < v::BLOCK_MIGRATION_AUTO => &FIRST,
        at if at < v::FORCED_MIGRATION || at >= v::NOTHING_FORCED => &AUTOMATIC,
        _ => &FORCED,
    };
    schema.check(body)?;
    let named = body["host"].as_str().map(str::to_owned);
    if named.is_some() {
        call.enforce(MOVE_TO, &owned_by(&server.project_id))?;
    }
    let automatic = body["block_migration"] == "auto";
    if !automatic && !truth(&body["block_migration"]) {
        return Err(Fault::bad_request(
            "Disks are local to their hosts: a live migration has to take them along (block_migration).",
        ));
    }
    let forced = truth(&body["force"]);
    if forced && named.is_none() {
        return Err(Fault::bad_request("Can't force to a non-provided destination"));
    }
    let wish = Wish { host: named, forced };
    match svc.live_migrate(&call.ctx, server, &wish).await {
        // Since 2.34 what the scheduler finds is told by the log of actions alone.
        Err(fault) if call.version >= v::MIGRATION_IN_BACKGROUND && fault.message.starts_with("No valid host") => {
            svc.note_failed_migration(&call.ctx, server, &fault.message).await?;
            Ok(Response::empty(202))
        }
        outcome => outcome.map(|()| Response::empty(202)),
    }
}

fn is_open(migration: &Migration) -> bool {
    status::OPEN.contains(&migration.status.as_str())
}

/// A migration's hosts, for whom the rule lets see them.
fn hosts(migration: &Migration, shown: bool) -> Value {
    // One that found no host went nowhere.
    let host = |name: &str| if shown && !name.is_empty() { json!(name) } else { Value::Null };
    let address = migration.to_address.rsplit_once(':').map_or("", |(address, _)| address);
    json!({
        "source_compute": host(&migration.from), "source_node": host(&migration.from),
        "dest_compute": host(&migration.to), "dest_node": host(&migration.to),
        "dest_host": if address.is_empty() { Value::Null } else { host(address) },
        "created_at": clock::micros(migration.created_us), "updated_at": clock::micros(migration.updated_us),
        "id": migration.number, "status": migration.status,
    })
}

fn owners(call: &Call, migration: &Migration, out: &mut Value) {
    if call.at_least(2, 59) {
        out["uuid"] = json!(migration.id);
    }
    if call.at_least(2, 80) {
        out["user_id"] = json!(migration.user_id);
        out["project_id"] = json!(migration.project_id);
    }
}

/// As one of many, whatever became of it.
fn brief(call: &Call, migration: &Migration, shown: bool) -> Value {
    let mut out = hosts(migration, shown);
    out["instance_uuid"] = json!(migration.server_id);
    out["old_instance_type_id"] =
        json!(migration.flavor_id.parse().unwrap_or_else(|_| number_of(&migration.flavor_id)));
    let new = migration.new_flavor_id.as_ref().unwrap_or(&migration.flavor_id);
    out["new_instance_type_id"] = json!(new.parse().unwrap_or_else(|_| number_of(new)));
    if call.at_least(2, 23) {
        out["migration_type"] = json!(migration.kind.as_str());
        if is_open(migration) {
            let path = |root: &str| format!("{root}/servers/{}/migrations/{}", migration.server_id, migration.number);
            out["links"] = json!([
                {"rel": "self", "href": call.url(&path("/v2.1"))}, {"rel": "bookmark", "href": call.url(&path(""))},
            ]);
        }
    }
    owners(call, migration, &mut out);
    out
}

/// As one that is under way, with what has gone as far as the host here has told of it.
fn under_way(call: &Call, migration: &Migration, server: &Server, shown: bool) -> Value {
    let mut out = hosts(migration, shown);
    out["server_uuid"] = json!(migration.server_id);
    let told = server.seen.as_ref().and_then(|seen| seen.moved.as_ref()).filter(|moved| moved.id == migration.id);
    for (of, gone) in [("memory", told.and_then(|told| told.memory)), ("disk", told.and_then(|told| told.disks))] {
        let bytes = |name: &str| format!("{of}_{name}_bytes");
        out[bytes("total")] = json!(gone.map(|gone| gone.total));
        out[bytes("processed")] = json!(gone.map(|gone| gone.processed));
        out[bytes("remaining")] = json!(gone.map(|gone| gone.remaining));
    }
    owners(call, migration, &mut out);
    out
}

fn micros(call: &Call, key: &str) -> Result<Option<i64>, Fault> {
    let bad = || Fault::bad_request(format!("Invalid input for query parameters {key}. It must be a date and time."));
    call.query.get(key).map(|text| clock::parse(text).ok_or_else(bad)).transpose()
}

async fn list(svc: Arc<Compute>, call: Call) -> Reply {
    let all = call.may(LIST_ALL, &call.target());
    let shown = call.may(LIST_HOST, &call.target());
    let mut query = if all { Query::all() } else { Query::all().project(call.ctx.project_id()) };
    if let Some(id) = call.query.get("instance_uuid") {
        query = query.eq("server_id", id);
    }
    let (since, before) = (micros(&call, "changes-since")?, micros(&call, "changes-before")?);
    if let (Some(since), Some(before)) = (since, before)
        && since > before
    {
        return Err(Fault::bad_request("The value of changes-since must be less than or equal to changes-before."));
    }
    let wanted = |key: &str| call.query.get(key).map(str::to_owned);
    let (state, host, source, kind) =
        (wanted("status"), wanted("host"), wanted("source_compute"), wanted("migration_type"));
    let (user, project) = if call.at_least(2, 80) { (wanted("user_id"), wanted("project_id")) } else { (None, None) };
    let is = |wish: &Option<String>, value: &str| wish.as_ref().is_none_or(|wish| wish == value);
    let mut found = svc.store.list::<Migration>(query.sort("number", pilvi_store::Dir::Desc)).await?;
    found.retain(|m| {
        is(&state, &m.status)
            && (is(&host, &m.from) || is(&host, &m.to))
            && is(&source, &m.from)
            && is(&kind, m.kind.as_str())
            && is(&user, &m.user_id)
            && is(&project, &m.project_id)
            && since.is_none_or(|t| m.updated_us >= t)
            && before.is_none_or(|t| m.updated_us <= t)
    });
    if !call.at_least(2, 59) {
        found.reverse();
        let all: Vec<Value> = found.iter().map(|m| brief(&call, m, shown)).collect();
        return Ok(Response::ok(json!({"migrations": all})));
    }
    let page = Page::of(&call, PageRules { max: Some(1000), default: Some(1000), keys: &["created_at"] })?;
    let (found, more) = page.cut(found, |m| &m.record.id, |m, _| json!(m.created_us))?;
    let all: Vec<Value> = found.iter().map(|m| brief(&call, m, shown)).collect();
    let mut out = json!({"migrations": all});
    let links = page.links(&call, &found, more, |m| &m.record.id);
    if !links.is_empty() {
        out["migrations_links"] = json!(links);
    }
    Ok(Response::ok(out))
}

async fn server(svc: &Compute, call: &Call) -> Result<Stored<Server>, Fault> {
    let server = svc.server(call.param("server_id")).await;
    let owner = server.as_ref().map_or(call.ctx.project_id(), |s| s.project_id.as_str());
    match call.authorize(&owned_by(owner)) {
        Err(_) if owner != call.ctx.project_id() => Err(fault::server_not_found(call.param("server_id"))),
        outcome => outcome.and(server),
    }
}

async fn of_server(svc: Arc<Compute>, call: Call) -> Reply {
    let server = server(&svc, &call).await?;
    let shown = call.may(OF_SERVER_HOST, &owned_by(&server.project_id));
    let open = svc.open_migrations(&server.record.id).await?;
    let open: Vec<Value> = open.iter().map(|m| under_way(&call, m, &server, shown)).collect();
    Ok(Response::ok(json!({"migrations": open})))
}

async fn one(svc: &Compute, call: &Call) -> Result<(Stored<Migration>, Stored<Server>), Fault> {
    let server = server(svc, call).await?;
    let id = call.param("id");
    let missing = || {
        let of = &server.record.id;
        Fault::not_found(format!("In-progress live migration {id} is not found for server {of}."))
    };
    let open = svc.open_migrations(&server.record.id).await?;
    let found = open.into_iter().find(|m| m.number.to_string() == id).ok_or_else(missing)?;
    Ok((found, server))
}

async fn show(svc: Arc<Compute>, call: Call) -> Reply {
    let (migration, server) = one(&svc, &call).await?;
    let shown = call.may(OF_SERVER_HOST, &owned_by(&migration.project_id));
    Ok(Response::ok(json!({"migration": under_way(&call, &migration, &server, shown)})))
}

async fn delete(svc: Arc<Compute>, call: Call) -> Reply {
    let (migration, _) = one(&svc, &call).await?;
    if migration.status == status::PREPARING && call.version < Version(2, 65) {
        return Err(Order::Cancel.refusal(migration.number, &migration.server_id, &migration.status));
    }
    svc.direct_migration(&call.ctx, &migration, Order::Cancel).await?;
    Ok(Response::empty(202))
}

/// `force_complete`: the guest stands still for as long as the rest takes.
async fn hurry(svc: Arc<Compute>, call: Call) -> Reply {
    let (migration, _) = one(&svc, &call).await?;
    if migration.status != status::RUNNING {
        return Err(Order::Hurry.refusal(migration.number, &migration.server_id, &migration.status));
    }
    svc.direct_migration(&call.ctx, &migration, Order::Hurry).await?;
    Ok(Response::empty(202))
}
