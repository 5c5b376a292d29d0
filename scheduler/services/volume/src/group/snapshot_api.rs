//! `/group_snapshots` (3.14).
use super::ops;
use crate::{
    Volumes,
    list::{Listing, Sorted, common_column, times},
    owned, route,
    schema::{action, text as text_or_null, uuid},
    tables::{Group, GroupSnapshot},
    version as v,
    volume::{
        api::text,
        filter::{named, of_projects},
        ops::sees,
    },
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, call::owned_by};
use pilvi_store::Stored;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

const RESET: &str = "group:reset_group_snapshot_status";

pub fn routes() -> Vec<Route<Volumes>> {
    const ONE: &str = "/v3/group_snapshots/{group_snapshot_id}";
    let since = |route: Route<Volumes>| route.since(3, 14);
    vec![
        since(
            route::post("/v3/group_snapshots", create).rule_by_handler("group:create_group_snapshot").schema(&CREATE),
        ),
        since(route::get("/v3/group_snapshots", list).rule("group:get_all_group_snapshots")),
        since(route::get("/v3/group_snapshots/detail", detail).rule("group:get_all_group_snapshots")),
        since(route::get(ONE, show).rule_by_handler("group:get_group_snapshot")),
        since(route::put(ONE, update).rule_by_handler("group:update_group_snapshot").schema(&UPDATE)),
        since(route::delete(ONE, delete).rule_by_handler("group:delete_group_snapshot")),
        route::post("/v3/group_snapshots/{group_snapshot_id}/action", act)
            .rule_by_handler(RESET)
            .actions(&[("reset_status", RESET)])
            .since(3, 19),
    ]
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["group_snapshot"], "additionalProperties": false, "properties": {
            "group_snapshot": {"type": "object", "required": ["group_id"], "additionalProperties": false, "properties": {
                "group_id": uuid(), "name": text_or_null(), "description": text_or_null()}}}})
    })
});
static UPDATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["group_snapshot"], "additionalProperties": false, "properties": {
            "group_snapshot": {"type": "object", "minProperties": 1, "additionalProperties": false, "properties": {
                "name": text_or_null(), "description": text_or_null()}}}})
    })
});
static RESETS: LazyLock<Schema> =
    LazyLock::new(|| Schema::new(|| action("reset_status", json!({"status": {"type": "string"}}), &["status"])));

fn no_snapshot(id: &str) -> Fault {
    Fault::not_found(format!("GroupSnapshot {id} could not be found."))
}

async fn owned(svc: &Volumes, call: &Call) -> Result<Stored<GroupSnapshot>, Fault> {
    owned::of_path(svc, call, "group_snapshot_id", no_snapshot).await
}

fn brief(snapshot: &GroupSnapshot) -> Value {
    json!({"id": snapshot.id, "name": snapshot.name})
}

fn full(call: &Call, snapshot: &Stored<GroupSnapshot>) -> Value {
    let mut view = json!({
        "id": snapshot.record.id, "group_id": snapshot.group_id, "group_type_id": snapshot.group_type,
        "status": snapshot.status, "created_at": times(snapshot).0, "name": snapshot.name,
        "description": snapshot.description,
    });
    let target = owned_by(&snapshot.project_id);
    if call.version >= v::GROUP_PROJECT && call.may("group:group_snapshot_project_attribute", &target) {
        view["project_id"] = json!(snapshot.project_id);
    }
    view
}

async fn create(svc: Arc<Volumes>, call: Call) -> Reply {
    let body = call.member("group_snapshot")?.clone();
    let group_id = text(&body, &["group_id"]).unwrap_or_default();
    let group = svc.store.get::<Group>(&group_id).await?.filter(|g| sees(&call.ctx, &g.project_id));
    call.authorize(&owned_by(group.as_ref().map_or(call.ctx.project_id(), |g| &g.project_id)))?;
    if group.is_none() {
        return Err(ops::no_group(&group_id));
    }
    let named = (text(&body, &["name"]), text(&body, &["description"]));
    let made = svc
        .write((call.ctx.clone(), group_id, named), |tx, (ctx, group_id, named)| {
            Box::pin(async move { ops::take_in(tx, &ctx, &group_id, named).await })
        })
        .await?;
    let mut view = brief(&made);
    view["group_type_id"] = json!(made.group_type);
    Ok(Response::accepted(json!({"group_snapshot": view})))
}

const KEYS: &[&str] = &["id", "name", "created_at", "updated_at", "status", "group_id"];
const SORTED: Sorted<GroupSnapshot> = Sorted {
    column: |key| match key {
        "group_id" => Some("group_id"),
        _ => common_column(key),
    },
    key: |snapshot, _| json!(snapshot.record.id),
};

async fn page(svc: &Volumes, call: &Call, detailed: bool) -> Reply {
    const FILTERS: &[&str] = &["name", "status", "group_id"];
    let (listing, mut query, mut possible) = (Listing::of(call, KEYS)?, of_projects(call), true);
    for (key, wish) in named(call, FILTERS, FILTERS)? {
        query = match key {
            "all_tenants" => query,
            "name" => query.name(wish),
            "status" => query.state(wish),
            "id" | "group_id" => query.eq(key, wish),
            _ => {
                possible = false;
                query
            }
        };
    }
    let keep = |s: &Stored<GroupSnapshot>| possible && sees(&call.ctx, &s.project_id);
    let (found, more) = listing.select(&svc.store, query, SORTED, keep, no_snapshot).await?;
    let shown = found.iter().map(|s| if detailed { full(call, s) } else { brief(s) }).collect();
    Ok(Response::ok(listing.document_of(call, ("group_snapshots", "group_snapshot"), shown, &found, more)))
}

async fn list(svc: Arc<Volumes>, call: Call) -> Reply {
    page(&svc, &call, false).await
}

async fn detail(svc: Arc<Volumes>, call: Call) -> Reply {
    page(&svc, &call, true).await
}

async fn show(svc: Arc<Volumes>, call: Call) -> Reply {
    let found = owned(&svc, &call).await?;
    Ok(Response::ok(json!({"group_snapshot": full(&call, &found)})))
}

impl Volumes {
    async fn change_group_snapshot(
        &self,
        id: &str,
        change: impl Fn(&mut GroupSnapshot) + Clone + Send + Sync + 'static,
    ) -> Result<Stored<GroupSnapshot>, Fault> {
        self.write((id.to_owned(), change), |tx, (id, change)| {
            Box::pin(async move {
                let mut found = tx.get::<GroupSnapshot>(&id).await?.ok_or_else(|| no_snapshot(&id))?;
                change(&mut found.record);
                Ok(tx.update(&found).await?)
            })
        })
        .await
    }
}

async fn update(svc: Arc<Volumes>, call: Call) -> Reply {
    let found = owned(&svc, &call).await?;
    let body = call.member("group_snapshot")?.clone();
    let changed = svc
        .change_group_snapshot(&found.record.id, move |snapshot| {
            snapshot.name = text(&body, &["name"]).or(snapshot.name.take());
            snapshot.description = text(&body, &["description"]).or(snapshot.description.take());
        })
        .await?;
    Ok(Response::ok(json!({"group_snapshot": full(&call, &changed)})))
}

async fn delete(svc: Arc<Volumes>, call: Call) -> Reply {
    let found = owned(&svc, &call).await?;
    let volumes = svc
        .write(found.record.id.clone(), |tx, id| Box::pin(async move { ops::drop_snapshot_in(tx, &id).await }))
        .await?;
    volumes.iter().for_each(|volume| svc.poke(volume));
    Ok(Response::empty(202))
}

async fn act(svc: Arc<Volumes>, call: Call) -> Reply {
    RESETS.check(&call.body)?;
    let found = owned(&svc, &call).await?;
    let status = text(&call.body["reset_status"], &["status"]).unwrap_or_default().to_lowercase();
    if !ops::SNAPSHOT_STATUSES.contains(&status.as_str()) {
        return Err(Fault::bad_request(format!("Invalid group snapshot status: {status} is not one")));
    }
    svc.change_group_snapshot(&found.record.id, move |snapshot| snapshot.status.clone_from(&status)).await?;
    Ok(Response::empty(202))
}
