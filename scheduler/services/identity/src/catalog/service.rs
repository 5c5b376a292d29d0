//! Services: what kinds of API the cloud has.
use crate::{
    Identity,
    attributes::{Attributes, body_schema, types, with_extra},
    directory::Area,
    fault, listing,
    tables::{Endpoint, Service},
};
use pilvi_kit::{Call, Reply, Response, Route, Schema, id};
use pilvi_store::Query;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

const KNOWN: &[&str] = &["type", "name", "description", "enabled"];

fn properties() -> Value {
    json!({"type": types::name(255), "name": {"type": ["string", "null"], "maxLength": 255}, "description": types::text_or_null(), "enabled": types::flag()})
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| body_schema("service", properties(), &["type"])));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| body_schema("service", properties(), &[])));

pub(super) fn routes() -> Vec<Route<Identity>> {
    vec![
        Route::get("/v3/services", list).rule("identity:list_services").summary("List services"),
        Route::post("/v3/services", create).rule("identity:create_service").schema(&CREATE).summary("Create a service"),
        Route::get("/v3/services/{service_id}", show).rule("identity:get_service").summary("Show a service"),
        Route::patch("/v3/services/{service_id}", update)
            .rule("identity:update_service")
            .schema(&UPDATE)
            .summary("Change a service"),
        Route::delete("/v3/services/{service_id}", delete)
            .rule("identity:delete_service")
            .summary("Delete a service with its endpoints"),
    ]
}

fn view(call: &Call, service: &Service) -> Value {
    let mut base = json!({"id": service.id, "type": service.kind, "enabled": service.enabled,
        "links": listing::self_link(call, &format!("/v3/services/{}", service.id))});
    base["name"] = service.name.clone().unwrap_or_default().into();
    if let Some(description) = &service.description {
        base["description"] = description.clone().into();
    }
    with_extra(base, &service.extra)
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    let services = svc.store.list::<Service>(Query::all()).await?;
    listing::answer(&svc, &call, "services", services.iter().map(|s| view(&call, s)).collect(), &["type", "name"])
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    let id = call.param("service_id");
    let service = svc.store.get::<Service>(id).await?.ok_or_else(|| fault::missing("service", id))?;
    Ok(Response::ok(json!({"service": view(&call, &service)})))
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let wanted = Attributes::of(&call, "service")?;
    let service = Service {
        id: id::hex(),
        kind: wanted.need("type", "service")?,
        name: wanted.text("name"),
        description: wanted.text("description"),
        enabled: wanted.flag("enabled").unwrap_or(true),
        extra: wanted.extra(KNOWN),
    };
    let service = svc
        .write(Area::Catalog, move |tx| {
            let service = service.clone();
            Box::pin(async move {
                tx.insert(&service).await?;
                Ok(service)
            })
        })
        .await?;
    Ok(Response::created(json!({"service": view(&call, &service)})))
}

async fn update(svc: Arc<Identity>, call: Call) -> Reply {
    let (id, wanted) = (call.param("service_id").to_owned(), Attributes::of(&call, "service")?);
    let service = svc
        .write(Area::Catalog, move |tx| {
            let (id, wanted) = (id.clone(), wanted.clone());
            Box::pin(async move {
                let mut stored = tx.get::<Service>(&id).await?.ok_or_else(|| fault::missing("service", &id))?;
                let service = &mut stored.record;
                if let Some(kind) = wanted.text("type") {
                    service.kind = kind;
                }
                if wanted.has("name") {
                    service.name = wanted.text("name");
                }
                if wanted.has("description") {
                    service.description = wanted.text("description");
                }
                if let Some(enabled) = wanted.flag("enabled") {
                    service.enabled = enabled;
                }
                wanted.merge_extra(&mut service.extra, KNOWN);
                Ok(tx.update(&stored).await?.record)
            })
        })
        .await?;
    Ok(Response::ok(json!({"service": view(&call, &service)})))
}

async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    let id = call.param("service_id").to_owned();
    svc.write(Area::Catalog, move |tx| {
        let id = id.clone();
        Box::pin(async move {
            tx.get::<Service>(&id).await?.ok_or_else(|| fault::missing("service", &id))?;
            for endpoint in tx.list::<Endpoint>(Endpoint::of_service(&id)).await? {
                super::endpoint::delete_in(tx, &endpoint.id).await?;
            }
            tx.delete::<Service>(&id).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Response::no_content())
}
