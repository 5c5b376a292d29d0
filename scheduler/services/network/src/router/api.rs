//! `/v2.0/routers` and the verbs on their interfaces and routes.
use super::{
    interface,
    model::Router,
    ops::{self, WaysOut},
};
use crate::{
    Network,
    attribute::{Absent, Resource, Verb, later, once, open, shown},
    check,
    conntrack_helper::{api::brief, model::ConntrackHelper},
    fault,
    list::{self, Raw},
    tables::find,
    verbs::{self, Api, gate, raw_of},
    zone::Zones,
};
use pilvi_kit::{Call, Ctx, Fault, Reply, Response, Route, Schema};
use pilvi_store::{Store, Stored, Tx};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

pub static ROUTER: Resource = Resource {
    name: "router",
    collection: "routers",
    missing: "RouterNotFound",
    label: "Router",
    attrs: &[
        open("admin_state_up", check::boolean).absent(Absent::Bool(true)),
        open("external_gateway_info", check::gateway_info).absent(Absent::Null),
        open("distributed", check::boolean_or_null).ruled().restricted(),
        open("ha", check::boolean_or_null).ruled().restricted(),
        open("enable_ndp_proxy", check::boolean),
        open("enable_default_route_ecmp", check::boolean_or_null).ruled(),
        open("enable_default_route_bfd", check::boolean_or_null).ruled(),
        later("routes", check::routes),
        shown("external_gateways"),
        once("availability_zone_hints", check::texts).absent(Absent::EmptyList),
        once("flavor_id", check::uuid_or_null),
        shown("status"),
        shown("enable_snat"),
        shown("availability_zones"),
        shown("conntrack_helpers"),
    ],
    lacks: &[],
    below: "",
};

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| ROUTER.schema(Verb::Create)));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| ROUTER.schema(Verb::Update)));
static INTERFACE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| json!({"type": "object", "maxProperties": 8})));

static UPDATE_WAYS: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        // The client says "none" by an empty object too.
        let list = json!({"type": ["array", "null", "object"], "items": {"type": "object"}, "maxProperties": 0});
        let router = json!({"type": "object", "properties": {"external_gateways": list}});
        json!({"type": "object", "required": ["router"], "properties": {"router": router}})
    })
});

pub fn routes() -> Vec<Route<Network>> {
    let mut routes = vec![
        Route::get("/v2.0/routers", verbs::list::<Router>).rule_by_handler("get_router").summary("Lists routers"),
        Route::post("/v2.0/routers", verbs::create::<Router>)
            .rule_by_handler("create_router")
            .schema(&CREATE)
            .summary("Creates a router"),
        Route::get("/v2.0/routers/{id}", verbs::show::<Router>).rule_by_handler("get_router").summary("Shows a router"),
        Route::put("/v2.0/routers/{id}", verbs::update::<Router>)
            .rule_by_handler("update_router")
            .schema(&UPDATE)
            .summary("Updates a router"),
        Route::delete("/v2.0/routers/{id}", verbs::delete::<Router>)
            .rule_by_handler("delete_router")
            .summary("Deletes a router"),
    ];
    routes.extend([
        Route::put("/v2.0/routers/{id}/add_router_interface", add_interface)
            .rule_by_handler("add_router_interface")
            .schema(&INTERFACE)
            .summary("Joins a subnet"),
        Route::put("/v2.0/routers/{id}/remove_router_interface", remove_interface)
            .rule_by_handler("remove_router_interface")
            .schema(&INTERFACE)
            .summary("Leaves a subnet"),
        Route::put("/v2.0/routers/{id}/add_extraroutes", add_routes)
            .rule_by_handler("add_extraroutes")
            .schema(&UPDATE)
            .summary("Adds static routes"),
        Route::put("/v2.0/routers/{id}/remove_extraroutes", remove_routes)
            .rule_by_handler("remove_extraroutes")
            .schema(&UPDATE)
            .summary("Removes static routes"),
        Route::put("/v2.0/routers/{id}/add_external_gateways", add_gateways)
            .rule_by_handler("add_external_gateways")
            .schema(&UPDATE_WAYS)
            .summary("Adds ways out"),
        Route::put("/v2.0/routers/{id}/update_external_gateways", update_gateways)
            .rule_by_handler("update_external_gateways")
            .schema(&UPDATE_WAYS)
            .summary("Says what ways out there are"),
        Route::put("/v2.0/routers/{id}/remove_external_gateways", remove_gateways)
            .rule_by_handler("remove_external_gateways")
            .schema(&UPDATE_WAYS)
            .summary("Removes ways out"),
    ]);
    routes
}

impl Api for Router {
    const RESOURCE: &'static Resource = &ROUTER;

    async fn raws(store: &Store, items: Vec<Stored<Self>>) -> Result<Vec<Raw>, Fault> {
        let mut helpers: HashMap<String, Vec<Value>> = HashMap::new();
        let ids: Vec<&str> = items.iter().map(|r| r.id.as_str()).collect();
        for chunk in ids.chunks(400) {
            for helper in store.list::<ConntrackHelper>(find::of_routers(chunk.iter().copied())).await? {
                helpers.entry(helper.router_id.clone()).or_default().push(brief(&helper));
            }
        }
        let zones = Zones::read(store).await?;
        items.iter().map(|item| raw(item, helpers.remove(&item.id).unwrap_or_default(), &zones)).collect()
    }

    fn finer_rules(call: &Call, sent: &Value, target: &Raw, verb: Verb) -> Result<(), Fault> {
        let word = if verb == Verb::Create { "create" } else { "update" };
        for part in ["enable_snat", "external_fixed_ips"] {
            let sent = sent.get("external_gateway_info").is_some_and(|g| g.get(part).is_some());
            let rule = format!("{word}_router:external_gateway_info:{part}");
            if sent && !call.may(&rule, target) {
                return Err(fault::refused(&rule));
            }
        }
        Ok(())
    }

    async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_in(tx, ctx, attrs).await
    }

    async fn update_in(tx: &mut Tx, ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        ops::update_in(tx, ctx, found, changes).await
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        ops::delete_in(tx, found).await
    }
}

fn raw(item: &Stored<Router>, helpers: Vec<Value>, zones: &Zones) -> Result<Raw, Fault> {
    let mut raw = list::raw(item)?;
    raw.insert("conntrack_helpers".into(), Value::Array(helpers));
    raw.insert("status".into(), json!("ACTIVE"));
    // What a gateway does unless it is told otherwise.
    raw.insert("enable_snat".into(), json!(true));
    raw.insert("external_gateways".into(), item.external_gateways());
    raw.insert("availability_zones".into(), zones.of(&item.availability_zone_hints));
    Ok(raw)
}

/// The router, if the caller may do this to it.
async fn router(svc: &Network, call: &Call, id: &str) -> Result<Raw, Fault> {
    raw_of::<Router>(&svc.store, &call.ctx, id).await
}

async fn add_interface(svc: Arc<Network>, call: Call) -> Reply {
    let id = call.param("id").to_owned();
    let raw = router(&svc, &call, &id).await;
    let _ = call.may(call.rule(), &call.target());
    gate(&call, &ROUTER, &raw?)?;
    let wish = interface::Wish::read(&call.body)?;
    let ctx = call.ctx.clone();
    let joined = svc
        .store
        .write(move |tx| {
            let (ctx, id, wish) = (ctx.clone(), id.clone(), wish.clone());
            Box::pin(async move { interface::add_in(tx, &ctx, &id, &wish).await })
        })
        .await?;
    Ok(Response::ok(joined.view()))
}

async fn remove_interface(svc: Arc<Network>, call: Call) -> Reply {
    let id = call.param("id").to_owned();
    let raw = router(&svc, &call, &id).await;
    let _ = call.may(call.rule(), &call.target());
    gate(&call, &ROUTER, &raw?)?;
    let wish = interface::Wish::read(&call.body)?;
    let left = svc
        .store
        .write(move |tx| {
            let (id, wish) = (id.clone(), wish.clone());
            Box::pin(async move { interface::remove_in(tx, &id, &wish).await })
        })
        .await?;
    Ok(Response::ok(left.view()))
}

async fn add_gateways(svc: Arc<Network>, call: Call) -> Reply {
    change_gateways(svc, call, WaysOut::Add).await
}

async fn update_gateways(svc: Arc<Network>, call: Call) -> Reply {
    change_gateways(svc, call, WaysOut::Update).await
}

async fn remove_gateways(svc: Arc<Network>, call: Call) -> Reply {
    change_gateways(svc, call, WaysOut::Remove).await
}

async fn change_gateways(svc: Arc<Network>, call: Call, what: WaysOut) -> Reply {
    let id = call.param("id").to_owned();
    let found = router(&svc, &call, &id).await;
    let _ = call.may(call.rule(), &call.target());
    let raw = found?;
    gate(&call, &ROUTER, &raw)?;
    let sent = call.member("router")?.get("external_gateways").filter(|g| !g.is_null());
    let Some(sent) = sent else { return Ok(Response::ok(json!({"router": list::view(&call, &ROUTER, &raw)}))) };
    let nothing = json!([]);
    let sent = if sent.is_object() { &nothing } else { sent };
    let given = check::gateways(sent)
        .map_err(|reason| Fault::bad_request(format!("Invalid input for external_gateways. Reason: {reason}.")))?;
    finer_gateways(&call, sent, &raw, what)?;
    let (ctx, key) = (call.ctx.clone(), id.clone());
    svc.store
        .write(move |tx| {
            let (ctx, id, given) = (ctx.clone(), key.clone(), given.clone());
            Box::pin(async move { ops::change_gateways_in(tx, &ctx, &id, &given, what).await })
        })
        .await?;
    let raw = router(&svc, &call, &id).await?;
    Ok(Response::ok(json!({"router": list::view(&call, &ROUTER, &raw)})))
}

/// Whoever takes away names what is there; all else is asked about member by member.
fn finer_gateways(call: &Call, sent: &Value, raw: &Raw, what: WaysOut) -> Result<(), Fault> {
    let base = format!("{}:external_gateways", call.rule());
    let parts: &[&str] = match what {
        WaysOut::Remove => &[],
        WaysOut::Add | WaysOut::Update => &["network_id", "enable_snat", "external_fixed_ips"],
    };
    let has = |part: &str| sent.as_array().is_some_and(|list| list.iter().any(|g| g.get(part).is_some()));
    let rules = parts.iter().filter(|part| has(part)).map(|part| format!("{base}:{part}"));
    match [base.clone()].into_iter().chain(rules).find(|rule| !call.may(rule, raw)) {
        Some(rule) => Err(fault::refused(&rule)),
        None => Ok(()),
    }
}

async fn add_routes(svc: Arc<Network>, call: Call) -> Reply {
    change_routes(svc, call, true).await
}

async fn remove_routes(svc: Arc<Network>, call: Call) -> Reply {
    change_routes(svc, call, false).await
}

async fn change_routes(svc: Arc<Network>, call: Call, add: bool) -> Reply {
    let id = call.param("id").to_owned();
    let raw = router(&svc, &call, &id).await;
    let _ = call.may(call.rule(), &call.target());
    gate(&call, &ROUTER, &raw?)?;
    let given = call.member("router")?.get("routes").cloned().unwrap_or(json!([]));
    let given = check::routes(&given)
        .map_err(|reason| Fault::bad_request(format!("Invalid input for routes. Reason: {reason}.")))?;
    let key = id.clone();
    svc.store
        .write(move |tx| {
            let (id, given) = (key.clone(), given.clone());
            Box::pin(async move { ops::change_routes_in(tx, &id, &given, add).await })
        })
        .await?;
    let raw = router(&svc, &call, &id).await?;
    Ok(Response::ok(json!({"router": list::view(&call, &ROUTER, &raw)})))
}
