//! Identity providers. Each has a domain for its users, made with it unless one is named.
use super::{chosen_id, closed_schema};
use crate::{
    Identity,
    attributes::Attributes,
    cascade,
    directory::Area,
    fault, listing,
    tables::{IdentityProvider, Project},
    user,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, id};
use pilvi_store::{Error, Query};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

/// Names one provider may go by.
const REMOTE_IDS_MAX: usize = 256;
/// Longest of them, in characters.
const REMOTE_ID_LENGTH: usize = 255;

fn properties() -> Value {
    json!({"enabled": {"type": "boolean"}, "description": {"type": ["string", "null"], "maxLength": 65536},
        "authorization_ttl": {"type": ["integer", "null"], "minimum": 0, "maximum": 525_600_000},
        "remote_ids": {"type": ["array", "null"], "uniqueItems": true, "maxItems": REMOTE_IDS_MAX,
            "items": {"type": "string", "minLength": 1, "maxLength": REMOTE_ID_LENGTH}}})
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let mut all = properties();
        all["domain_id"] = json!({"type": ["string", "null"], "minLength": 1, "maxLength": 64});
        closed_schema("identity_provider", all, &[], 0)
    })
});
static UPDATE: LazyLock<Schema> =
    LazyLock::new(|| Schema::new(|| closed_schema("identity_provider", properties(), &[], 1)));

pub(super) fn routes() -> Vec<Route<Identity>> {
    const ALL: &str = "/v3/OS-FEDERATION/identity_providers";
    const ONE: &str = "/v3/OS-FEDERATION/identity_providers/{idp_id}";
    vec![
        Route::get(ALL, list).rule("identity:list_identity_providers").summary("List identity providers"),
        Route::put(ONE, create)
            .rule("identity:create_identity_provider")
            .schema(&CREATE)
            .summary("Register an identity provider"),
        Route::get(ONE, show).rule("identity:get_identity_provider").summary("Show an identity provider"),
        Route::patch(ONE, update)
            .rule("identity:update_identity_provider")
            .schema(&UPDATE)
            .summary("Change an identity provider"),
        Route::delete(ONE, delete).rule("identity:delete_identity_provider").summary("Delete an identity provider"),
    ]
}

fn view(call: &Call, provider: &IdentityProvider) -> Value {
    let own = call.url(&format!("/v3/OS-FEDERATION/identity_providers/{}", super::segment(&provider.id)));
    json!({"id": provider.id, "enabled": provider.enabled, "description": provider.description,
        "domain_id": provider.domain_id, "authorization_ttl": provider.authorization_ttl,
        "remote_ids": provider.remote_ids, "links": {"self": own, "protocols": format!("{own}/protocols")}})
}

pub(super) fn missing(id: &str) -> Fault {
    fault::missing("Identity Provider", id)
}

/// 409 that says which of the two was taken.
fn taken(error: Error, provider: &IdentityProvider) -> Fault {
    match error {
        Error::Claimed { value, .. } => {
            fault::duplicate("identity_provider", format_args!("Duplicate remote ID: {value}"))
        }
        Error::Exists { .. } => fault::duplicate("identity_provider", format_args!("Duplicate entry: {}", provider.id)),
        other => other.into(),
    }
}

fn remote_ids(wanted: &Attributes) -> Option<Vec<String>> {
    let texts = |list: &Vec<Value>| list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    wanted.has("remote_ids").then(|| wanted.list("remote_ids").map(texts).unwrap_or_default())
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    let found = svc.store.list::<IdentityProvider>(Query::all()).await?;
    let items = found.iter().map(|p| view(&call, p)).collect();
    listing::answer(&svc, &call, "identity_providers", items, &["id", "enabled"])
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    let id = call.param("idp_id");
    let found = svc.directory.identity_provider(id).await?.ok_or_else(|| missing(id))?;
    Ok(Response::ok(json!({"identity_provider": view(&call, &found)})))
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let wanted = Attributes::of(&call, "identity_provider")?;
    let named = wanted.text("domain_id");
    let provider = IdentityProvider {
        id: chosen_id(&call, "idp_id")?.to_owned(),
        enabled: wanted.flag("enabled").unwrap_or(false),
        description: wanted.text("description"),
        domain_id: named.clone().unwrap_or_else(id::hex),
        authorization_ttl: wanted.0.get("authorization_ttl").and_then(Value::as_i64),
        remote_ids: remote_ids(&wanted).unwrap_or_default(),
    };
    let make_domain = named.is_none();
    let provider = svc
        .write(Area::People, move |tx| {
            let provider = provider.clone();
            Box::pin(async move {
                if make_domain {
                    tx.insert(&own_domain(&provider)).await?;
                } else {
                    user::ops::domain_in(tx, &provider.domain_id).await?;
                }
                tx.insert(&provider).await.map_err(|e| taken(e, &provider))?;
                Ok(provider)
            })
        })
        .await?;
    Ok(Response::created(json!({"identity_provider": view(&call, &provider)})))
}

fn own_domain(provider: &IdentityProvider) -> Project {
    Project {
        id: provider.domain_id.clone(),
        name: provider.domain_id.clone(),
        domain_id: None,
        parent_id: None,
        description: format!("Users of the identity provider {}", provider.id),
        enabled: true,
        is_domain: true,
        tags: Vec::new(),
        options: Default::default(),
        extra: Default::default(),
    }
}

async fn update(svc: Arc<Identity>, call: Call) -> Reply {
    let (id, wanted) = (call.param("idp_id").to_owned(), Attributes::of(&call, "identity_provider")?);
    let provider = svc
        .write(Area::People, move |tx| {
            let (id, wanted) = (id.clone(), wanted.clone());
            Box::pin(async move {
                let mut stored = tx.get::<IdentityProvider>(&id).await?.ok_or_else(|| missing(&id))?;
                let provider = &mut stored.record;
                provider.enabled = wanted.flag("enabled").unwrap_or(provider.enabled);
                if wanted.has("description") {
                    provider.description = wanted.text("description");
                }
                if let Some(ttl) = wanted.0.get("authorization_ttl") {
                    provider.authorization_ttl = ttl.as_i64();
                }
                if let Some(remote_ids) = remote_ids(&wanted) {
                    provider.remote_ids = remote_ids;
                }
                let record = stored.record.clone();
                Ok(tx.update(&stored).await.map_err(|e| taken(e, &record))?.record)
            })
        })
        .await?;
    Ok(Response::ok(json!({"identity_provider": view(&call, &provider)})))
}

/// Its protocols go with it, and the users that only it knew; its domain stays.
async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    let id = call.param("idp_id").to_owned();
    svc.write(Area::People, move |tx| {
        let id = id.clone();
        Box::pin(async move {
            tx.get::<IdentityProvider>(&id).await?.ok_or_else(|| missing(&id))?;
            cascade::provider_in(tx, &id).await
        })
    })
    .await?;
    Ok(Response::no_content())
}
