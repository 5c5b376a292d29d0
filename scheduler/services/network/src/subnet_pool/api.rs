//! `/v2.0/subnetpools`
use super::{model::SubnetPool, ops};
use crate::{
    Network,
    attribute::{Absent, Resource, Verb, once, open, shown},
    check,
    list::{self, Raw},
    tables::find,
    verbs::{self, Api},
};
use pilvi_kit::{Ctx, Fault, Route, Schema};
use pilvi_store::{Query, Store, Stored, Tx};
use std::sync::LazyLock;

pub static SUBNET_POOL: Resource = Resource {
    name: "subnetpool",
    collection: "subnetpools",
    missing: "SubnetPoolNotFound",
    label: "Subnet pool",
    attrs: &[
        open("name", check::filled_name).required(),
        open("prefixes", check::cidrs).required(),
        open("default_quota", check::int_or_null::<0, 2_147_483_647>),
        open("default_prefixlen", check::int::<0, 128>),
        open("min_prefixlen", check::int::<0, 128>),
        open("max_prefixlen", check::int::<0, 128>),
        open("is_default", check::boolean).absent(Absent::Bool(false)).ruled(),
        once("shared", check::boolean).absent(Absent::Bool(false)).ruled(),
        open("address_scope_id", check::uuid_or_null),
        shown("ip_version"),
    ],
    lacks: &[],
    below: "",
};

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| SUBNET_POOL.schema(Verb::Create)));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| SUBNET_POOL.schema(Verb::Update)));

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::get("/v2.0/subnetpools", verbs::list::<SubnetPool>)
            .rule_by_handler("get_subnetpool")
            .summary("Lists subnet pools"),
        Route::post("/v2.0/subnetpools", verbs::create::<SubnetPool>)
            .rule_by_handler("create_subnetpool")
            .schema(&CREATE)
            .summary("Creates a subnet pool"),
        Route::get("/v2.0/subnetpools/{id}", verbs::show::<SubnetPool>)
            .rule_by_handler("get_subnetpool")
            .summary("Shows a subnet pool"),
        Route::put("/v2.0/subnetpools/{id}", verbs::update::<SubnetPool>)
            .rule_by_handler("update_subnetpool")
            .schema(&UPDATE)
            .summary("Updates a subnet pool"),
        Route::delete("/v2.0/subnetpools/{id}", verbs::delete::<SubnetPool>)
            .rule_by_handler("delete_subnetpool")
            .summary("Deletes a subnet pool"),
    ]
}

impl Api for SubnetPool {
    const RESOURCE: &'static Resource = &SUBNET_POOL;

    fn seen_by(project: &str) -> Query {
        find::open_to(project)
    }

    async fn raws(_store: &Store, items: Vec<Stored<Self>>) -> Result<Vec<Raw>, Fault> {
        items.iter().map(raw).collect()
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

/// Lengths of prefixes are texts in this API.
fn raw(item: &Stored<SubnetPool>) -> Result<Raw, Fault> {
    let mut raw = list::raw(item)?;
    for name in ["default_prefixlen", "min_prefixlen", "max_prefixlen"] {
        let text = raw.get(name).map(check::plain);
        raw.insert(name.into(), text.into());
    }
    Ok(raw)
}
