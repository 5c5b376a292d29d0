//! `/v2.0/address-scopes`
use super::{model::AddressScope, ops};
use crate::{
    Network,
    attribute::{Absent, Resource, Verb, once, open},
    check,
    list::Raw,
    tables::find,
    verbs::{self, Api},
};
use pilvi_kit::{Ctx, Fault, Route, Schema};
use pilvi_store::{Query, Stored, Tx};
use std::sync::LazyLock;

pub static ADDRESS_SCOPE: Resource = Resource {
    name: "address_scope",
    collection: "address_scopes",
    missing: "AddressScopeNotFound",
    label: "Address scope",
    attrs: &[
        once("ip_version", check::ip_version).required(),
        open("shared", check::boolean).absent(Absent::Bool(false)).ruled(),
    ],
    lacks: &["description", "tags", "created_at", "updated_at", "revision_number"],
    below: "",
};

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| ADDRESS_SCOPE.schema(Verb::Create)));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| ADDRESS_SCOPE.schema(Verb::Update)));

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::get("/v2.0/address-scopes", verbs::list::<AddressScope>)
            .rule_by_handler("get_address_scope")
            .summary("Lists address scopes"),
        Route::post("/v2.0/address-scopes", verbs::create::<AddressScope>)
            .rule_by_handler("create_address_scope")
            .schema(&CREATE)
            .summary("Creates an address scope"),
        Route::get("/v2.0/address-scopes/{id}", verbs::show::<AddressScope>)
            .rule_by_handler("get_address_scope")
            .summary("Shows an address scope"),
        Route::put("/v2.0/address-scopes/{id}", verbs::update::<AddressScope>)
            .rule_by_handler("update_address_scope")
            .schema(&UPDATE)
            .summary("Updates an address scope"),
        Route::delete("/v2.0/address-scopes/{id}", verbs::delete::<AddressScope>)
            .rule_by_handler("delete_address_scope")
            .summary("Deletes an address scope"),
    ]
}

impl Api for AddressScope {
    const RESOURCE: &'static Resource = &ADDRESS_SCOPE;

    fn seen_by(project: &str) -> Query {
        find::open_to(project)
    }

    async fn create_in(tx: &mut Tx, _ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_in(tx, attrs).await
    }

    async fn update_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        ops::update_in(tx, found, changes).await
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        ops::delete_in(tx, found).await
    }
}
