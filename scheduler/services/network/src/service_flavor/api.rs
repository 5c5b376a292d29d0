//! `/v2.0/flavors`, and putting profiles behind them.
use super::{
    model::{Flavor, L3, PROVIDERS, Provider},
    ops,
};
use crate::{
    Network,
    attribute::{Absent, Resource, Verb, once, open},
    check,
    list::Raw,
    verbs::{self, Api},
};
use pilvi_kit::{Call, Ctx, Fault, Reply, Response, Route, Schema, call::Query};
use pilvi_store::{Query as Find, Store, Stored, Tx};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

pub static FLAVOR: Resource = Resource {
    name: "flavor",
    collection: "flavors",
    missing: "FlavorNotFound",
    label: "Flavor",
    attrs: &[
        once("service_type", check::text::<36>).required(),
        open("enabled", check::boolean).absent(Absent::Bool(true)),
        open("service_profiles", check::uuids).absent(Absent::EmptyList),
    ],
    lacks: super::profile::LACKS,
    below: "",
};

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| FLAVOR.schema(Verb::Create)));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| FLAVOR.schema(Verb::Update)));
static BIND: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let id = json!({"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}});
        json!({"type": "object", "required": ["service_profile"], "properties": {"service_profile": id}})
    })
});

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::get("/v2.0/flavors", verbs::list::<Flavor>).rule_by_handler("get_flavor").summary("Lists flavors"),
        Route::post("/v2.0/flavors", verbs::create::<Flavor>)
            .rule_by_handler("create_flavor")
            .schema(&CREATE)
            .summary("Creates a flavor"),
        Route::get("/v2.0/flavors/{id}", verbs::show::<Flavor>).rule_by_handler("get_flavor").summary("Shows a flavor"),
        Route::put("/v2.0/flavors/{id}", verbs::update::<Flavor>)
            .rule_by_handler("update_flavor")
            .schema(&UPDATE)
            .summary("Updates a flavor"),
        Route::delete("/v2.0/flavors/{id}", verbs::delete::<Flavor>)
            .rule_by_handler("delete_flavor")
            .summary("Deletes a flavor"),
        Route::post("/v2.0/flavors/{id}/service_profiles", bind)
            .rule("create_flavor_service_profile")
            .schema(&BIND)
            .summary("Puts a profile behind a flavor"),
        Route::delete("/v2.0/flavors/{id}/service_profiles/{profile_id}", unbind)
            .rule("delete_flavor_service_profile")
            .summary("Takes it away"),
    ]
}

impl Api for Flavor {
    const RESOURCE: &'static Resource = &FLAVOR;

    async fn candidates(store: &Store, _ctx: &Ctx, _query: &Query) -> Result<Vec<Stored<Self>>, Fault> {
        Ok(store.list::<Self>(Find::all()).await?)
    }

    async fn create_in(tx: &mut Tx, _ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_in(tx, attrs).await
    }

    async fn update_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        ops::update_in(tx, found, changes).await
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        ops::delete_in(tx, &found.id).await
    }
}

async fn bind(svc: Arc<Network>, call: Call) -> Reply {
    let flavor = call.param("id").to_owned();
    let profile = call.member("service_profile")?["id"].as_str().unwrap_or_default().to_owned();
    let key = profile.clone();
    svc.store
        .write(move |tx| {
            let (flavor, profile) = (flavor.clone(), key.clone());
            Box::pin(async move { ops::bind_in(tx, &flavor, &profile).await })
        })
        .await?;
    Ok(Response::created(json!({"service_profile": {"id": profile}})))
}

async fn unbind(svc: Arc<Network>, call: Call) -> Reply {
    let (flavor, profile) = (call.param("id").to_owned(), call.param("profile_id").to_owned());
    svc.store
        .write(move |tx| {
            let (flavor, profile) = (flavor.clone(), profile.clone());
            Box::pin(async move { ops::unbind_in(tx, &flavor, &profile).await })
        })
        .await?;
    Ok(Response::no_content())
}

/// The ways to route, as operators' tools list them.
pub fn providers() -> Value {
    let one = |(n, p): (usize, &Provider)| json!({"service_type": L3, "name": p.name, "default": n == 0});
    PROVIDERS.iter().enumerate().map(one).collect()
}
