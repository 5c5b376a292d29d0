//! `/v2.0/service_profiles`
use super::{model::ServiceProfile, ops};
use crate::{
    Network,
    attribute::{Absent, Resource, Verb, open},
    check,
    list::Raw,
    verbs::{self, Api},
};
use pilvi_kit::{Ctx, Fault, Route, Schema, call::Query};
use pilvi_store::{Query as Find, Store, Stored, Tx};
use std::sync::LazyLock;

/// Flavors and profiles are the cloud's: they have no owner and no history.
pub const LACKS: &[&str] = &["project_id", "tenant_id", "tags", "created_at", "updated_at", "revision_number"];

pub static SERVICE_PROFILE: Resource = Resource {
    name: "service_profile",
    collection: "service_profiles",
    missing: "ServiceProfileNotFound",
    label: "Service Profile",
    attrs: &[
        open("description", check::text_or_null::<255>).absent(Absent::Text("")),
        open("driver", check::text::<1024>).absent(Absent::Text("")),
        open("enabled", check::boolean).absent(Absent::Bool(true)),
        open("metainfo", check::text::<4096>).absent(Absent::Text("")),
    ],
    lacks: &["name", "project_id", "tenant_id", "tags", "created_at", "updated_at", "revision_number"],
    below: "",
};

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| SERVICE_PROFILE.schema(Verb::Create)));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| SERVICE_PROFILE.schema(Verb::Update)));

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::get("/v2.0/service_profiles", verbs::list::<ServiceProfile>)
            .rule_by_handler("get_service_profile")
            .summary("Lists service profiles"),
        Route::post("/v2.0/service_profiles", verbs::create::<ServiceProfile>)
            .rule_by_handler("create_service_profile")
            .schema(&CREATE)
            .summary("Creates a service profile"),
        Route::get("/v2.0/service_profiles/{id}", verbs::show::<ServiceProfile>)
            .rule_by_handler("get_service_profile")
            .summary("Shows a service profile"),
        Route::put("/v2.0/service_profiles/{id}", verbs::update::<ServiceProfile>)
            .rule_by_handler("update_service_profile")
            .schema(&UPDATE)
            .summary("Updates a service profile"),
        Route::delete("/v2.0/service_profiles/{id}", verbs::delete::<ServiceProfile>)
            .rule_by_handler("delete_service_profile")
            .summary("Deletes a service profile"),
    ]
}

impl Api for ServiceProfile {
    const RESOURCE: &'static Resource = &SERVICE_PROFILE;

    async fn candidates(store: &Store, _ctx: &Ctx, _query: &Query) -> Result<Vec<Stored<Self>>, Fault> {
        Ok(store.list::<Self>(Find::all()).await?)
    }

    async fn create_in(tx: &mut Tx, _ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_profile_in(tx, attrs).await
    }

    async fn update_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        ops::update_profile_in(tx, found, changes).await
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        ops::delete_profile_in(tx, &found.id).await
    }
}
