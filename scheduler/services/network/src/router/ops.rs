//! The verbs of routers; with [`super::gateway`] and [`super::interface`] the only writers of the record.
use super::{gateway, gateways, interface, model::Router};
use crate::{
    conntrack_helper, delegation, fault, hosting, list::Raw, ndp_proxy, quota, service_flavor, spare,
    subnet::model::Route, zone,
};
use pilvi_kit::{Ctx, Fault};
use pilvi_store::{Stored, Tx};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Static routes of one router.
const ROUTES_MAX: usize = 30;
static WATCHED: AtomicBool = AtomicBool::new(false);

/// Routers that do not say whether their next hops are watched have it so.
pub fn watch_by_default(watched: bool) {
    WATCHED.store(watched, Relaxed);
}

fn watches_by_default() -> bool {
    WATCHED.load(Relaxed)
}

pub async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<Router>, Fault> {
    let text = |name: &str| attrs.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let flag = |name: &str| attrs.get(name).and_then(Value::as_bool);
    quota::check_in::<Router>(tx, &text("project_id"), "router").await?;
    let mut kind = (flag("distributed").unwrap_or(false), flag("ha").unwrap_or(false));
    let flavor_id = attrs.get("flavor_id").and_then(Value::as_str).map(str::to_owned);
    if let Some(flavor) = &flavor_id {
        if flag("distributed").is_some() || flag("ha").is_some() {
            return Err(fault::bad(
                "BadRequest",
                "Bad router request: Cannot specify both flavor_id and 'distributed' or 'ha'.",
            ));
        }
        kind = service_flavor::ops::for_router_in(tx, flavor).await?.unwrap_or(kind);
    }
    let router = Router {
        id: pilvi_kit::id::new(),
        project_id: text("project_id"),
        name: text("name"),
        description: attrs.get("description").and_then(Value::as_str).map(str::to_owned),
        admin_state_up: flag("admin_state_up").unwrap_or(true),
        distributed: kind.0,
        ha: kind.1,
        candidates: Vec::new(),
        centre_port_id: None,
        routes: Vec::new(),
        external_gateway_info: None,
        gw_port_id: None,
        further: Vec::new(),
        wire: None,
        enable_default_route_ecmp: flag("enable_default_route_ecmp").unwrap_or(false),
        enable_default_route_bfd: flag("enable_default_route_bfd").unwrap_or_else(watches_by_default),
        flavor_id,
        availability_zone_hints: zone::wished_in(tx, attrs).await?,
        enable_ndp_proxy: flag("enable_ndp_proxy").unwrap_or(false),
        tags: serde_json::from_value(attrs.get("tags").cloned().unwrap_or_default()).unwrap_or_default(),
    };
    let mut stored = tx.insert(&router).await?;
    if router.ha {
        spare::network::ensure_in(tx, &router.project_id).await?;
    }
    if let Some(wish) = attrs.get("external_gateway_info").filter(|g| !g.is_null()) {
        gateway::set_in(tx, ctx, &mut stored.record, wish).await?;
        stored = tx.update(&stored).await?;
    }
    ndp_proxy::ops::check_router_in(tx, &stored).await?;
    Ok(stored)
}

pub async fn update_in(tx: &mut Tx, ctx: &Ctx, mut found: Stored<Router>, changes: &Raw) -> Result<(), Fault> {
    let mut plain = changes.clone();
    let wish = plain.remove("external_gateway_info");
    for flag in ["distributed", "ha", "enable_default_route_ecmp", "enable_default_route_bfd"] {
        if plain.get(flag).is_some_and(Value::is_null) {
            plain.remove(flag);
        }
    }
    let after: Router = crate::attribute::overlay(&found.record, &plain)?;
    if after.distributed != found.distributed && found.admin_state_up {
        return Err(fault::bad(
            "BadRequest",
            "Bad router request: Cannot change the 'distributed' attribute of active routers. Please set router admin_state_up to False prior to upgrade.",
        ));
    }
    if after.ha != found.ha && after.admin_state_up {
        return Err(fault::bad(
            "BadRequest",
            "Bad router request: Cannot change HA attribute of active routers. Please set router admin_state_up to False prior to upgrade.",
        ));
    }
    let kind = (after.distributed, after.ha);
    if let Some(flavor) = &found.flavor_id
        && kind != (found.distributed, found.ha)
    {
        service_flavor::ops::refuse_other_kind_in(tx, flavor, kind).await?;
    }
    let routes_changed = after.routes != found.routes;
    let was_ha = found.ha;
    found.record = after;
    if let Some(wish) = wish {
        gateway::set_in(tx, ctx, &mut found.record, &wish).await?;
    }
    // Who loses his way out answers for nobody any more, unless that is just what he wishes.
    if found.external_gateway_info.is_none() && !changes.contains_key("enable_ndp_proxy") {
        found.enable_ndp_proxy = false;
    }
    ndp_proxy::ops::check_router_in(tx, &found).await?;
    if routes_changed {
        check_routes(tx, &found.record).await?;
    }
    spare::ops::follow_in(tx, &mut found.record).await?;
    tx.update(&found).await?;
    if was_ha && !found.ha {
        spare::network::drop_unused_in(tx, &found.project_id).await?;
    }
    delegation::ops::settle_router_in(tx, &found.id).await
}

/// What a client wants done with the list of ways out.
#[derive(Debug, Clone, Copy)]
pub enum WaysOut {
    Add,
    Remove,
    Update,
}

pub async fn change_gateways_in(tx: &mut Tx, ctx: &Ctx, id: &str, given: &Value, what: WaysOut) -> Result<(), Fault> {
    let mut found = tx.get::<Router>(id).await?.ok_or_else(|| fault::router_missing(id))?;
    let router = &mut found.record;
    match what {
        WaysOut::Add => gateways::add_in(tx, ctx, router, given).await?,
        WaysOut::Remove => gateways::remove_in(tx, router, given).await?,
        WaysOut::Update => gateways::update_in(tx, ctx, router, given).await?,
    }
    if router.external_gateway_info.is_none() {
        router.enable_ndp_proxy = false;
    }
    ndp_proxy::ops::check_router_in(tx, router).await?;
    check_routes(tx, router).await?;
    spare::ops::follow_in(tx, router).await?;
    tx.update(&found).await?;
    delegation::ops::settle_router_in(tx, &found.id).await
}

/// Every next hop is a neighbour of the router and not the router itself.
async fn check_routes(tx: &mut Tx, router: &Router) -> Result<(), Fault> {
    if router.routes.len() > ROUTES_MAX {
        return Err(fault::bad(
            "RoutesExhausted",
            format!(
                "Unable to complete operation for {}. The number of routes exceeds the maximum {ROUTES_MAX}.",
                router.id
            ),
        ));
    }
    let legs = interface::legs_in(tx, router).await?;
    for route in &router.routes {
        let refuse = |why: &str| {
            fault::bad(
                "InvalidRoutes",
                format!(
                    "Invalid format for routes: destination {}, nexthop {}, {why}.",
                    route.destination, route.nexthop
                ),
            )
        };
        if !legs.iter().any(|leg| leg.reaches(&route.nexthop)) {
            return Err(refuse("the nexthop is not connected with router"));
        }
        if legs.iter().any(|leg| leg.address == route.nexthop) {
            return Err(refuse("the nexthop is used by router"));
        }
    }
    Ok(())
}

/// Adds routes that are not there, or removes those that are: both can be repeated safely.
pub async fn change_routes_in(tx: &mut Tx, id: &str, given: &Value, add: bool) -> Result<(), Fault> {
    let mut router = tx.get::<Router>(id).await?.ok_or_else(|| fault::router_missing(id))?;
    let given: Vec<Route> = serde_json::from_value(given.clone()).map_err(Fault::internal)?;
    for route in given {
        if !add {
            router.routes.retain(|r| *r != route);
        } else if !router.routes.contains(&route) {
            router.routes.push(route);
        }
    }
    if add {
        check_routes(tx, &router.record).await?;
    }
    tx.update(&router).await?;
    Ok(())
}

pub async fn delete_in(tx: &mut Tx, mut found: Stored<Router>) -> Result<(), Fault> {
    if !interface::ports_in(tx, &found.id).await?.is_empty() {
        return Err(fault::conflict("RouterInUse", format!("Router {} still has ports", found.id)));
    }
    gateways::clear_all_in(tx, &mut found.record).await?;
    let was_ha = std::mem::take(&mut found.record.ha);
    spare::ops::follow_in(tx, &mut found.record).await?;
    hosting::ops::forget_in(tx, &found.id).await?;
    conntrack_helper::ops::forget_in(tx, &found.id).await?;
    tx.delete::<Router>(&found.id).await?;
    if was_ha {
        spare::network::drop_unused_in(tx, &found.project_id).await?;
    }
    delegation::ops::settle_router_in(tx, &found.id).await
}
