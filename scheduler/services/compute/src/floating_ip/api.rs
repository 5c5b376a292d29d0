//! `/os-floating-ips` and `/os-floating-ip-pools`: a pool is an external network.
use crate::{Compute, network::api::OLD};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema};
use pilvi_network::{
    attribute::Verb,
    floating_ip::{api::FLOATING_IP, model::FloatingIp, ops},
    network::model::VirtualNetwork,
    port::model::Port,
    tables::find,
};
use pilvi_store::{Query, Stored};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

pub fn routes() -> Vec<Route<Compute>> {
    const ALL: &str = "/v2.1/os-floating-ips";
    const ONE: &str = "/v2.1/os-floating-ips/{id}";
    let mut routes = vec![
        Route::get(ALL, list).rule("os_compute_api:os-floating-ips:list"),
        Route::post(ALL, create).rule("os_compute_api:os-floating-ips:create").schema(&CREATE),
        Route::get(ONE, show).rule("os_compute_api:os-floating-ips:show"),
        Route::delete(ONE, delete).rule("os_compute_api:os-floating-ips:delete"),
        Route::get("/v2.1/os-floating-ip-pools", pools).rule("os_compute_api:os-floating-ip-pools"),
    ];
    for route in &mut routes {
        route.versions.1 = OLD;
    }
    routes
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(
        || json!({"type": ["object", "null"], "properties": {"pool": {"type": ["string", "null"], "maxLength": 255}}}),
    )
});

async fn external(svc: &Compute) -> Result<Vec<Stored<VirtualNetwork>>, Fault> {
    Ok(svc.store.list::<VirtualNetwork>(find::external()).await?)
}

async fn views(svc: &Compute, found: &[Stored<FloatingIp>]) -> Result<Vec<Value>, Fault> {
    let pools: HashMap<String, String> =
        external(svc).await?.into_iter().map(|n| (n.record.id.clone(), n.record.name)).collect();
    let ports: Vec<&str> = found.iter().filter_map(|f| f.port_id.as_deref()).collect();
    let mut devices: HashMap<String, String> = HashMap::new();
    for chunk in ports.chunks(500) {
        for port in svc.store.list::<Port>(Query::all().ids(chunk.iter().copied())).await? {
            devices.insert(port.record.id.clone(), port.record.device_id);
        }
    }
    let device = |f: &FloatingIp| f.port_id.as_ref().and_then(|p| devices.get(p)).filter(|d| !d.is_empty());
    let shown = found.iter().map(|f| {
        json!({"id": f.record.id, "ip": f.floating_ip_address, "pool": pools.get(&f.floating_network_id),
            "fixed_ip": f.fixed_ip_address, "instance_id": device(f)})
    });
    Ok(shown.collect())
}

async fn list(svc: Arc<Compute>, call: Call) -> Reply {
    let found = svc.store.list::<FloatingIp>(find::of_project(call.ctx.project_id())).await?;
    Ok(Response::ok(json!({"floating_ips": views(&svc, &found).await?})))
}

fn missing(id: &str) -> Fault {
    Fault::not_found(format!("Floating IP not found for ID {id}"))
}

async fn found(svc: &Compute, call: &Call) -> Result<Stored<FloatingIp>, Fault> {
    let id = call.param("id");
    let found = svc.store.get::<FloatingIp>(id).await?;
    let admin = call.caller().has_role("admin");
    found.filter(|f| admin || f.project_id == call.ctx.project_id()).ok_or_else(|| missing(id))
}

async fn show(svc: Arc<Compute>, call: Call) -> Reply {
    let found = found(&svc, &call).await?;
    Ok(Response::ok(json!({"floating_ip": views(&svc, &[found]).await?.pop()})))
}

async fn create(svc: Arc<Compute>, call: Call) -> Reply {
    let pools = external(&svc).await?;
    let network = match call.body.get("pool").and_then(Value::as_str) {
        Some(wanted) => pools.iter().find(|n| n.name == wanted || n.record.id == wanted),
        None => pools.iter().find(|n| n.is_default).or_else(|| pools.first()),
    };
    let network = network.ok_or_else(|| Fault::not_found("Floating IP pool not found."))?;
    let member = json!({"floating_network_id": network.record.id});
    let (ctx, attrs) = (call.ctx.clone(), FLOATING_IP.parse(&member, Verb::Create, call.ctx.project_id())?);
    let made = svc
        .store
        .write(move |tx| {
            let (ctx, attrs) = (ctx.clone(), attrs.clone());
            Box::pin(async move { ops::create_in(tx, &ctx, &attrs).await })
        })
        .await
        .map_err(|f| if f.kind == "OverQuota" { Fault::forbidden(f.message) } else { f })?;
    Ok(Response::ok(json!({"floating_ip": views(&svc, &[made]).await?.pop()})))
}

async fn delete(svc: Arc<Compute>, call: Call) -> Reply {
    let id = found(&svc, &call).await?.record.id;
    let ctx = call.ctx.clone();
    svc.store
        .write(move |tx| {
            let (ctx, id) = (ctx.clone(), id.clone());
            Box::pin(async move {
                let found = tx.get::<FloatingIp>(&id).await?.ok_or_else(|| missing(&id))?;
                ops::remove_in(tx, &ctx, &found).await
            })
        })
        .await?;
    Ok(Response::empty(202))
}

async fn pools(svc: Arc<Compute>, _call: Call) -> Reply {
    let shown: Vec<Value> = external(&svc).await?.iter().map(|n| json!({"name": n.name})).collect();
    Ok(Response::ok(json!({"floating_ip_pools": shown})))
}
