//! `/groups` (3.13).
use super::ops::{self, Made};
use crate::{
    Volumes,
    list::{Listing, Sorted, common_column, times},
    owned, route,
    schema::{action, flag, text as text_or_null, uuid},
    tables::{Group, Volume},
    version as v,
    volume::{
        api::{text, truth},
        filter::{named, of_projects},
        ops::sees,
    },
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, call::owned_by};
use pilvi_store::{Query, Stored};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

const DELETE: &str = "group:delete";
const VERBS: &[(&str, &str)] = &[
    ("delete", DELETE),
    ("reset_status", "group:reset_status"),
    ("enable_replication", "group:enable_replication"),
    ("disable_replication", "group:disable_replication"),
    ("failover_replication", "group:failover_replication"),
    ("list_replication_targets", "group:list_replication_targets"),
];

pub fn routes() -> Vec<Route<Volumes>> {
    const ONE: &str = "/v3/groups/{group_id}";
    let since = |route: Route<Volumes>| route.since(3, 13);
    vec![
        since(route::post("/v3/groups", create).rule("group:create").schema(&CREATE)),
        since(route::get("/v3/groups", list).rule("group:get_all")),
        since(route::get("/v3/groups/detail", detail).rule("group:get_all")),
        route::post("/v3/groups/action", create_from)
            .rule("group:create")
            .schema(&FROM)
            .since(3, 14)
            .event("group", "create"),
        since(route::get(ONE, show).rule_by_handler("group:get")),
        since(route::put(ONE, update).rule_by_handler("group:update").schema(&UPDATE)),
        since(route::post("/v3/groups/{group_id}/action", act).rule_by_handler(DELETE).actions(VERBS)),
    ]
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["group"], "additionalProperties": false, "properties": {"group": {
            "type": "object", "required": ["group_type", "volume_types"], "additionalProperties": false, "properties": {
                "name": text_or_null(), "description": text_or_null(),
                "group_type": {"type": "string", "minLength": 1, "maxLength": 255},
                "volume_types": {"type": "array", "minItems": 1, "maxItems": 64, "uniqueItems": true,
                    "items": {"type": "string", "maxLength": 255}},
                "availability_zone": text_or_null()}}}})
    })
});
static FROM: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let mut schema = action(
            "create-from-src",
            json!({"name": text_or_null(), "description": text_or_null(), "source_group_id": uuid(), "group_snapshot_id": uuid()}),
            &[],
        );
        schema["properties"]["create-from-src"]["oneOf"] =
            json!([{"required": ["source_group_id"]}, {"required": ["group_snapshot_id"]}]);
        schema
    })
});
static UPDATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let list = json!({"type": ["string", "null"], "maxLength": 65535});
        json!({"type": "object", "required": ["group"], "additionalProperties": false, "properties": {"group": {
            "type": "object", "minProperties": 1, "additionalProperties": false, "properties": {
                "name": text_or_null(), "description": text_or_null(), "add_volumes": list, "remove_volumes": list}}}})
    })
});
static DELETES: LazyLock<Schema> =
    LazyLock::new(|| Schema::new(|| action("delete", json!({"delete-volumes": flag()}), &[])));
static RESETS: LazyLock<Schema> =
    LazyLock::new(|| Schema::new(|| action("reset_status", json!({"status": {"type": "string"}}), &["status"])));

pub async fn owned(svc: &Volumes, call: &Call) -> Result<Stored<Group>, Fault> {
    owned::of_path(svc, call, "group_id", ops::no_group).await
}

fn brief(group: &Group) -> Value {
    json!({"id": group.id, "name": group.name})
}

async fn full(svc: &Volumes, call: &Call, group: &Stored<Group>) -> Result<Value, Fault> {
    let mut view = json!({
        "id": group.record.id, "status": group.status, "availability_zone": group.zone, "created_at": times(group).0,
        "name": group.name, "description": group.description, "group_type": group.group_type,
        "volume_types": group.volume_types,
    });
    if call.version >= v::GROUP_SNAPSHOTS {
        view["group_snapshot_id"] = json!(group.group_snapshot_id);
        view["source_group_id"] = json!(group.source_group_id);
    }
    if call.version >= v::GROUP_VOLUMES && call.query.flag("list_volume")? == Some(true) {
        let volumes = svc.store.list::<Volume>(Query::all().eq("group_id", group.record.id.as_str())).await?;
        view["volumes"] = json!(volumes.iter().map(|v| &v.record.id).collect::<Vec<_>>());
    }
    if call.version >= pilvi_kit::Version(3, 38) {
        view["replication_status"] = json!("disabled");
    }
    if call.version >= v::GROUP_PROJECT && call.may("group:group_project_attribute", &owned_by(&group.project_id)) {
        view["project_id"] = json!(group.project_id);
    }
    Ok(view)
}

async fn create(svc: Arc<Volumes>, call: Call) -> Reply {
    let body = call.member("group")?.clone();
    let types = body["volume_types"].as_array().into_iter().flatten();
    let made = Made {
        name: text(&body, &["name"]),
        description: text(&body, &["description"]),
        group_type: text(&body, &["group_type"]).unwrap_or_default(),
        volume_types: types.filter_map(|t| t.as_str().map(str::to_owned)).collect(),
        zone: text(&body, &["availability_zone"]).unwrap_or_else(|| svc.config.default_zone.clone()),
    };
    let made = svc
        .write((call.ctx.clone(), made), |tx, (ctx, made)| {
            Box::pin(async move { ops::create_in(tx, &ctx, made).await })
        })
        .await?;
    Ok(Response::accepted(json!({"group": brief(&made)})))
}

async fn create_from(svc: Arc<Volumes>, call: Call) -> Reply {
    let body = call.member("create-from-src")?.clone();
    let named = (text(&body, &["name"]), text(&body, &["description"]));
    let source = (text(&body, &["group_snapshot_id"]), text(&body, &["source_group_id"]));
    let (state, ctx) = (svc.clone(), call.ctx.clone());
    let made = svc
        .write((state, ctx, named, source), |tx, (svc, ctx, named, source)| {
            Box::pin(async move { ops::create_from_in(tx, &svc, &ctx, named, source).await })
        })
        .await?;
    Ok(Response::accepted(json!({"group": brief(&made)})))
}

const KEYS: &[&str] = &["id", "name", "created_at", "updated_at", "status"];
const SORTED: Sorted<Group> = Sorted { column: common_column, key: |group, _| json!(group.record.id) };

async fn page(svc: &Volumes, call: &Call, detailed: bool) -> Reply {
    let (listing, mut query, mut possible) = (Listing::of(call, KEYS)?, of_projects(call), true);
    for (key, wish) in named(call, &["name", "list_volume"], &["name"])? {
        query = match key {
            "all_tenants" | "list_volume" => query,
            "name" => query.name(wish),
            "status" => query.state(wish),
            "id" | "group_type" => query.eq(key, wish),
            _ => {
                possible = false;
                query
            }
        };
    }
    let keep = |g: &Stored<Group>| possible && sees(&call.ctx, &g.project_id);
    let (found, more) = listing.select(&svc.store, query, SORTED, keep, ops::no_group).await?;
    let mut shown = Vec::with_capacity(found.len());
    for group in &found {
        shown.push(if detailed { full(svc, call, group).await? } else { brief(group) });
    }
    Ok(Response::ok(listing.document_of(call, ("groups", "group"), shown, &found, more)))
}

async fn list(svc: Arc<Volumes>, call: Call) -> Reply {
    page(&svc, &call, false).await
}

async fn detail(svc: Arc<Volumes>, call: Call) -> Reply {
    page(&svc, &call, true).await
}

async fn show(svc: Arc<Volumes>, call: Call) -> Reply {
    let group = owned(&svc, &call).await?;
    Ok(Response::ok(json!({"group": full(&svc, &call, &group).await?})))
}

/// Ids with commas between them.
fn ids(body: &Value, name: &str) -> Vec<String> {
    let text = text(body, &[name]).unwrap_or_default();
    text.split(',').map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned).take(1000).collect()
}

async fn update(svc: Arc<Volumes>, call: Call) -> Reply {
    let group = owned(&svc, &call).await?;
    let body = call.member("group")?.clone();
    let named = (text(&body, &["name"]), text(&body, &["description"]));
    let moves = (ids(&body, "add_volumes"), ids(&body, "remove_volumes"));
    svc.write((call.ctx.clone(), group.record.id.clone(), named, moves), |tx, (ctx, id, named, moves)| {
        Box::pin(async move { ops::update_in(tx, &ctx, &id, named, moves).await })
    })
    .await?;
    Ok(Response::empty(202))
}

async fn act(svc: Arc<Volumes>, call: Call) -> Reply {
    let given = call.body.as_object().filter(|o| o.len() == 1).and_then(|o| o.iter().next());
    let (verb, given) = given.ok_or_else(|| Fault::bad_request("Malformed request body"))?;
    match verb.as_str() {
        "delete" => DELETES.check(&call.body)?,
        "reset_status" => RESETS.check(&call.body)?,
        verb if VERBS.iter().any(|(name, _)| *name == verb) => {}
        other => return Err(Fault::bad_request(format!("There is no such action: {other}"))),
    }
    let group = owned(&svc, &call).await?;
    let id = group.record.id.clone();
    match verb.as_str() {
        "delete" => {
            let volumes = svc
                .write((id, truth(given.get("delete-volumes"))), |tx, (id, with_volumes)| {
                    Box::pin(async move { ops::delete_in(tx, &id, with_volumes).await })
                })
                .await?;
            volumes.iter().for_each(|volume| svc.poke(volume));
            Ok(Response::empty(202))
        }
        "reset_status" => {
            let status = text(given, &["status"]).unwrap_or_default().to_lowercase();
            if !ops::STATUSES.contains(&status.as_str()) {
                return Err(Fault::bad_request(format!("Invalid group status: {status} is not one")));
            }
            svc.write((id, status), |tx, (id, status)| {
                Box::pin(async move {
                    let mut group = tx.get::<Group>(&id).await?.ok_or_else(|| ops::no_group(&id))?;
                    group.record.status = status;
                    tx.update(&group).await?;
                    Ok(())
                })
            })
            .await?;
            Ok(Response::empty(202))
        }
        "list_replication_targets" => Ok(Response::ok(json!({"replication_targets": []}))),
        _ => Err(Fault::bad_request("Invalid Group: volumes are not replicated, so its type cannot be one for that.")),
    }
}
