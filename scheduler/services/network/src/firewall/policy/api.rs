//! `/v2.0/fwaas/firewall_policies`, and putting a rule in and taking it out.
use super::ops;
use crate::{
    Network,
    attribute::{Absent, Resource, open},
    check,
    crud::crud,
    firewall::{model::FirewallPolicy, preset},
    list::{self, Raw},
    tables::find,
    verbs::{Api, gate, raw_of},
};
use pilvi_kit::{Call, Ctx, Fault, Reply, Response, Route, Schema, call::Query};
use pilvi_store::{Query as Find, Store, Stored, Tx};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

pub static FIREWALL_POLICY: Resource = Resource {
    name: "firewall_policy",
    collection: "firewall_policies",
    missing: "FirewallPolicyNotFound",
    label: "Firewall policy",
    attrs: &[
        open("shared", check::boolean).absent(Absent::Bool(false)).ruled(),
        open("firewall_rules", check::uuids).absent(Absent::EmptyList),
        open("audited", check::boolean).absent(Absent::Bool(false)),
    ],
    lacks: &["tags"],
    below: "",
};

/// What is missing is a fault of its own.
static PLACE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(
        || json!({"type": "object", "properties": {"firewall_rule_id": {}, "insert_before": {}, "insert_after": {}}}),
    )
});

pub fn routes() -> Vec<Route<Network>> {
    let mut routes = crud!(
        FirewallPolicy,
        FIREWALL_POLICY,
        "/v2.0/fwaas/firewall_policies",
        "firewall_policy",
        "firewall policies",
        open
    );
    routes.extend([
        Route::put("/v2.0/fwaas/firewall_policies/{id}/insert_rule", insert)
            .rule_by_handler("insert_rule")
            .schema(&PLACE)
            .summary("Puts a rule into a firewall policy"),
        Route::put("/v2.0/fwaas/firewall_policies/{id}/remove_rule", remove)
            .rule_by_handler("remove_rule")
            .schema(&PLACE)
            .summary("Takes a rule out of a firewall policy"),
    ]);
    routes
}

impl Api for FirewallPolicy {
    const RESOURCE: &'static Resource = &FIREWALL_POLICY;

    fn seen_by(project: &str) -> Find {
        find::own_or_shared(project)
    }

    async fn candidates(store: &Store, ctx: &Ctx, query: &Query) -> Result<Vec<Stored<Self>>, Fault> {
        preset::looked_at(store, ctx, query).await
    }

    async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_in(tx, ctx, attrs).await
    }

    async fn update_in(tx: &mut Tx, ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        ops::update_in(tx, ctx, found, changes).await
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        ops::delete_in(tx, &found.id).await
    }
}

async fn insert(svc: Arc<Network>, call: Call) -> Reply {
    change(svc, call, true).await
}

async fn remove(svc: Arc<Network>, call: Call) -> Reply {
    change(svc, call, false).await
}

/// The policy afterwards, without an envelope: so the original answers.
async fn change(svc: Arc<Network>, call: Call, insert: bool) -> Reply {
    let id = call.param("id").to_owned();
    let raw = raw_of::<FirewallPolicy>(&svc.store, &call.ctx, &id).await;
    let _ = call.may(call.rule(), &call.target());
    gate(&call, &FIREWALL_POLICY, &raw?)?;
    let (ctx, key, place) = (call.ctx.clone(), id.clone(), ops::Place::of(&call.body)?);
    svc.store
        .write(move |tx| {
            let (ctx, id, place) = (ctx.clone(), key.clone(), place.clone());
            Box::pin(async move {
                if insert {
                    ops::insert_rule_in(tx, &ctx, &id, &place).await
                } else {
                    ops::remove_rule_in(tx, &ctx, &id, &place).await
                }
            })
        })
        .await?;
    let raw: Raw = raw_of::<FirewallPolicy>(&svc.store, &call.ctx, &id).await?;
    Ok(Response::ok(Value::Object(list::view(&call, &FIREWALL_POLICY, &raw))))
}
