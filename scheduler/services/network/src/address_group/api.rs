//! `/v2.0/address-groups`, and adding and removing blocks.
use super::{model::AddressGroup, ops};
use crate::{
    Network,
    attribute::{Absent, Resource, Verb, once, shown},
    check,
    list::{self, Raw},
    tables::find,
    verbs::{self, Api, gate, raw_of},
};
use pilvi_kit::{Call, Ctx, Fault, Reply, Response, Route, Schema};
use pilvi_store::{Query, Stored, Tx};
use serde_json::json;
use std::sync::{Arc, LazyLock};

pub static ADDRESS_GROUP: Resource = Resource {
    name: "address_group",
    collection: "address_groups",
    missing: "AddressGroupNotFound",
    label: "Address group",
    attrs: &[once("addresses", check::blocks).absent(Absent::EmptyList), shown("shared")],
    lacks: &["tags"],
    below: "",
};

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| ADDRESS_GROUP.schema(Verb::Create)));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| ADDRESS_GROUP.schema(Verb::Update)));
static ADDRESSES: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| json!({"type": "object", "required": ["addresses"], "properties": {"addresses": {"type": "array"}}}))
});

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::get("/v2.0/address-groups", verbs::list::<AddressGroup>)
            .rule_by_handler("get_address_group")
            .summary("Lists address groups"),
        Route::post("/v2.0/address-groups", verbs::create::<AddressGroup>)
            .rule_by_handler("create_address_group")
            .schema(&CREATE)
            .summary("Creates an address group"),
        Route::get("/v2.0/address-groups/{id}", verbs::show::<AddressGroup>)
            .rule_by_handler("get_address_group")
            .summary("Shows an address group"),
        Route::put("/v2.0/address-groups/{id}", verbs::update::<AddressGroup>)
            .rule_by_handler("update_address_group")
            .schema(&UPDATE)
            .summary("Updates an address group"),
        Route::delete("/v2.0/address-groups/{id}", verbs::delete::<AddressGroup>)
            .rule_by_handler("delete_address_group")
            .summary("Deletes an address group"),
        Route::put("/v2.0/address-groups/{id}/add_addresses", add)
            .rule_by_handler("add_addresses")
            .schema(&ADDRESSES)
            .summary("Adds blocks"),
        Route::put("/v2.0/address-groups/{id}/remove_addresses", remove)
            .rule_by_handler("remove_addresses")
            .schema(&ADDRESSES)
            .summary("Removes blocks"),
    ]
}

impl Api for AddressGroup {
    const RESOURCE: &'static Resource = &ADDRESS_GROUP;

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

async fn add(svc: Arc<Network>, call: Call) -> Reply {
    change(svc, call, true).await
}

async fn remove(svc: Arc<Network>, call: Call) -> Reply {
    change(svc, call, false).await
}

async fn change(svc: Arc<Network>, call: Call, add: bool) -> Reply {
    let id = call.param("id").to_owned();
    let raw = raw_of::<AddressGroup>(&svc.store, &call.ctx, &id).await;
    let _ = call.may(call.rule(), &call.target());
    gate(&call, &ADDRESS_GROUP, &raw?)?;
    let blocks = ops::blocks(call.member("addresses")?)?;
    let key = id.clone();
    svc.store
        .write(move |tx| {
            let (id, blocks) = (key.clone(), blocks.clone());
            Box::pin(async move { ops::change_in(tx, &id, &blocks, add).await })
        })
        .await?;
    let raw = raw_of::<AddressGroup>(&svc.store, &call.ctx, &id).await?;
    Ok(Response::ok(json!({"address_group": list::view(&call, &ADDRESS_GROUP, &raw)})))
}
