//! Endpoints: where a service answers in a region, for the public, for insiders, for administrators.
use super::check_url;
use crate::{
    Identity,
    attributes::{Attributes, body_schema, types, with_extra},
    directory::Area,
    fault, listing,
    tables::{Endpoint, EndpointLink, Region, Service},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, id};
use pilvi_store::{Query, Tx};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

const KNOWN: &[&str] = &["interface", "url", "region", "region_id", "service_id", "enabled", "legacy_endpoint_id"];

fn properties() -> Value {
    let region = json!({"type": ["string", "null"], "minLength": 1, "maxLength": 255});
    json!({"enabled": types::flag(), "interface": {"type": "string", "enum": ["admin", "internal", "public"]}, "region_id": region, "region": region,
        "service_id": {"type": "string", "minLength": 1, "maxLength": 64}, "url": {"type": "string", "minLength": 1, "maxLength": 2048}})
}

static CREATE: LazyLock<Schema> =
    LazyLock::new(|| Schema::new(|| body_schema("endpoint", properties(), &["interface", "service_id", "url"])));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| body_schema("endpoint", properties(), &[])));

pub(super) fn routes() -> Vec<Route<Identity>> {
    vec![
        Route::get("/v3/endpoints", list).rule("identity:list_endpoints").summary("List endpoints"),
        Route::post("/v3/endpoints", create)
            .rule("identity:create_endpoint")
            .schema(&CREATE)
            .summary("Create an endpoint"),
        Route::get("/v3/endpoints/{endpoint_id}", show).rule("identity:get_endpoint").summary("Show an endpoint"),
        Route::patch("/v3/endpoints/{endpoint_id}", update)
            .rule("identity:update_endpoint")
            .schema(&UPDATE)
            .summary("Change an endpoint"),
        Route::delete("/v3/endpoints/{endpoint_id}", delete)
            .rule("identity:delete_endpoint")
            .summary("Delete an endpoint"),
    ]
}

pub(crate) fn view(call: &Call, endpoint: &Endpoint) -> Value {
    let base = json!({"id": endpoint.id, "interface": endpoint.interface, "region": endpoint.region_id, "region_id": endpoint.region_id,
        "service_id": endpoint.service_id, "url": endpoint.url, "enabled": endpoint.enabled,
        "links": listing::self_link(call, &format!("/v3/endpoints/{}", endpoint.id))});
    with_extra(base, &endpoint.extra)
}

pub(super) async fn find(svc: &Identity, id: &str) -> Result<Endpoint, Fault> {
    Ok(svc.store.get::<Endpoint>(id).await?.ok_or_else(|| fault::missing("endpoint", id))?.record)
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    let endpoints = svc.store.list::<Endpoint>(Query::all()).await?;
    listing::answer(
        &svc,
        &call,
        "endpoints",
        endpoints.iter().map(|e| view(&call, e)).collect(),
        &["interface", "service_id", "region_id"],
    )
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    let endpoint = find(&svc, call.param("endpoint_id")).await?;
    Ok(Response::ok(json!({"endpoint": view(&call, &endpoint)})))
}

/// The service must be there, and the region; `region` (the older name) makes the region if it is not.
async fn check_ends_in(tx: &mut Tx, endpoint: &Endpoint, make_region: bool) -> Result<(), Fault> {
    let unknown = |what: &str, id: &str| Fault::bad_request(format!("Invalid {what}: {id} could not be found."));
    tx.get::<Service>(&endpoint.service_id).await?.ok_or_else(|| unknown("service_id", &endpoint.service_id))?;
    let Some(region) = &endpoint.region_id else { return Ok(()) };
    if tx.get::<Region>(region).await?.is_none() {
        if !make_region {
            return Err(unknown("region_id", region));
        }
        tx.insert(&Region {
            id: region.clone(),
            description: String::new(),
            parent_region_id: None,
            extra: Default::default(),
        })
        .await?;
    }
    Ok(())
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let wanted = Attributes::of(&call, "endpoint")?;
    let endpoint = Endpoint {
        id: id::hex(),
        service_id: wanted.need("service_id", "endpoint")?,
        region_id: wanted.text("region_id").or_else(|| wanted.text("region")),
        interface: wanted.need("interface", "endpoint")?,
        url: wanted.need("url", "endpoint")?,
        enabled: wanted.flag("enabled").unwrap_or(true),
        extra: wanted.extra(KNOWN),
    };
    check_url(&endpoint.url)?;
    let make_region = !wanted.has("region_id");
    let endpoint = svc
        .write(Area::Catalog, move |tx| {
            let endpoint = endpoint.clone();
            Box::pin(async move {
                check_ends_in(tx, &endpoint, make_region).await?;
                tx.insert(&endpoint).await?;
                Ok(endpoint)
            })
        })
        .await?;
    Ok(Response::created(json!({"endpoint": view(&call, &endpoint)})))
}

fn change(endpoint: &mut Endpoint, wanted: &Attributes) -> Result<(), Fault> {
    if let Some(service) = wanted.text("service_id") {
        endpoint.service_id = service;
    }
    if wanted.has("region_id") || wanted.has("region") {
        endpoint.region_id = wanted.text("region_id").or_else(|| wanted.text("region"));
    }
    if let Some(interface) = wanted.text("interface") {
        endpoint.interface = interface;
    }
    if let Some(url) = wanted.text("url") {
        check_url(&url)?;
        endpoint.url = url;
    }
    if let Some(enabled) = wanted.flag("enabled") {
        endpoint.enabled = enabled;
    }
    wanted.merge_extra(&mut endpoint.extra, KNOWN);
    Ok(())
}

async fn update(svc: Arc<Identity>, call: Call) -> Reply {
    let (id, wanted) = (call.param("endpoint_id").to_owned(), Attributes::of(&call, "endpoint")?);
    let endpoint = svc
        .write(Area::Catalog, move |tx| {
            let (id, wanted) = (id.clone(), wanted.clone());
            Box::pin(async move {
                let mut stored = tx.get::<Endpoint>(&id).await?.ok_or_else(|| fault::missing("endpoint", &id))?;
                change(&mut stored.record, &wanted)?;
                check_ends_in(tx, &stored.record, !wanted.has("region_id")).await?;
                Ok(tx.update(&stored).await?.record)
            })
        })
        .await?;
    Ok(Response::ok(json!({"endpoint": view(&call, &endpoint)})))
}

/// Deletes an endpoint with what gave it to projects.
pub(super) async fn delete_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    for link in tx.list::<EndpointLink>(EndpointLink::of_linked(id)).await? {
        tx.delete::<EndpointLink>(&link.id).await?;
    }
    tx.delete::<Endpoint>(id).await?;
    Ok(())
}

async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    let id = call.param("endpoint_id").to_owned();
    svc.write(Area::Catalog, move |tx| {
        let id = id.clone();
        Box::pin(async move {
            tx.get::<Endpoint>(&id).await?.ok_or_else(|| fault::missing("endpoint", &id))?;
            delete_in(tx, &id).await
        })
    })
    .await?;
    Ok(Response::no_content())
}
