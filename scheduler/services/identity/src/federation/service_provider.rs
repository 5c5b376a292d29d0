//! Service providers: clouds that take our word. Enabled ones are named in every token.
use super::{chosen_id, closed_schema, segment};
use crate::{Identity, attributes::Attributes, directory::Area, fault, listing, tables::ServiceProvider};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema};
use pilvi_store::Query;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

/// What a browser's state begins with where nothing else is said.
const RELAY_STATE_PREFIX: &str = "ss:mem:";

fn properties() -> Value {
    let url = json!({"type": "string", "maxLength": 256, "pattern": "^[a-zA-Z0-9+.-]+://[^\\s]+$"});
    json!({"auth_url": url, "sp_url": url, "description": {"type": ["string", "null"], "maxLength": 65536},
        "enabled": {"type": "boolean"}, "relay_state_prefix": {"type": ["string", "null"], "maxLength": 256}})
}

static CREATE: LazyLock<Schema> =
    LazyLock::new(|| Schema::new(|| closed_schema("service_provider", properties(), &["auth_url", "sp_url"], 2)));
static UPDATE: LazyLock<Schema> =
    LazyLock::new(|| Schema::new(|| closed_schema("service_provider", properties(), &[], 1)));

pub(super) fn routes() -> Vec<Route<Identity>> {
    const ALL: &str = "/v3/OS-FEDERATION/service_providers";
    const ONE: &str = "/v3/OS-FEDERATION/service_providers/{sp_id}";
    vec![
        Route::get(ALL, list).rule("identity:list_service_providers").summary("List service providers"),
        Route::put(ONE, create)
            .rule("identity:create_service_provider")
            .schema(&CREATE)
            .summary("Register a service provider"),
        Route::get(ONE, show).rule("identity:get_service_provider").summary("Show a service provider"),
        Route::patch(ONE, update)
            .rule("identity:update_service_provider")
            .schema(&UPDATE)
            .summary("Change a service provider"),
        Route::delete(ONE, delete).rule("identity:delete_service_provider").summary("Delete a service provider"),
    ]
}

fn view(call: &Call, cloud: &ServiceProvider) -> Value {
    json!({"id": cloud.id, "enabled": cloud.enabled, "description": cloud.description, "auth_url": cloud.auth_url,
        "sp_url": cloud.sp_url, "relay_state_prefix": cloud.relay_state_prefix,
        "links": listing::self_link(call, &format!("/v3/OS-FEDERATION/service_providers/{}", segment(&cloud.id)))})
}

pub(super) fn missing(id: &str) -> Fault {
    fault::missing("Service Provider", id)
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    let found = svc.store.list::<ServiceProvider>(Query::all()).await?;
    let items = found.iter().map(|p| view(&call, p)).collect();
    listing::answer(&svc, &call, "service_providers", items, &["id", "enabled"])
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    let id = call.param("sp_id");
    let found = svc.store.get::<ServiceProvider>(id).await?.ok_or_else(|| missing(id))?;
    Ok(Response::ok(json!({"service_provider": view(&call, &found)})))
}

fn prefix(wanted: &Attributes) -> String {
    wanted.text("relay_state_prefix").unwrap_or_else(|| RELAY_STATE_PREFIX.to_owned())
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let wanted = Attributes::of(&call, "service_provider")?;
    let cloud = ServiceProvider {
        id: chosen_id(&call, "sp_id")?.to_owned(),
        enabled: wanted.flag("enabled").unwrap_or(false),
        description: wanted.text("description"),
        auth_url: wanted.need("auth_url", "service_provider")?,
        sp_url: wanted.need("sp_url", "service_provider")?,
        relay_state_prefix: prefix(&wanted),
    };
    let cloud = svc
        .write(Area::Catalog, move |tx| {
            let cloud = cloud.clone();
            Box::pin(async move {
                tx.insert(&cloud).await.map_err(|e| fault::named_twice(e, "service_provider", &cloud.id, None))?;
                Ok(cloud)
            })
        })
        .await?;
    Ok(Response::created(json!({"service_provider": view(&call, &cloud)})))
}

async fn update(svc: Arc<Identity>, call: Call) -> Reply {
    let (id, wanted) = (call.param("sp_id").to_owned(), Attributes::of(&call, "service_provider")?);
    let cloud = svc
        .write(Area::Catalog, move |tx| {
            let (id, wanted) = (id.clone(), wanted.clone());
            Box::pin(async move {
                let mut stored = tx.get::<ServiceProvider>(&id).await?.ok_or_else(|| missing(&id))?;
                let cloud = &mut stored.record;
                cloud.enabled = wanted.flag("enabled").unwrap_or(cloud.enabled);
                if wanted.has("description") {
                    cloud.description = wanted.text("description");
                }
                if let Some(url) = wanted.text("auth_url") {
                    cloud.auth_url = url;
                }
                if let Some(url) = wanted.text("sp_url") {
                    cloud.sp_url = url;
                }
                if wanted.has("relay_state_prefix") {
                    cloud.relay_state_prefix = prefix(&wanted);
                }
                Ok(tx.update(&stored).await?.record)
            })
        })
        .await?;
    Ok(Response::ok(json!({"service_provider": view(&call, &cloud)})))
}

async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    let id = call.param("sp_id").to_owned();
    svc.write(Area::Catalog, move |tx| {
        let id = id.clone();
        Box::pin(async move {
            match tx.delete::<ServiceProvider>(&id).await? {
                true => Ok(()),
                false => Err(missing(&id)),
            }
        })
    })
    .await?;
    Ok(Response::no_content())
}
