//! `/v2.0/rbac-policies`
use super::{
    model::{EVERYONE, RbacPolicy},
    ops,
};
use crate::{
    Network,
    attribute::{Resource, Verb, once, open},
    check::{self, Checked},
    fault,
    list::Raw,
    network::ops as networks,
    tables::find,
    verbs::{self, Api},
};
use pilvi_kit::{Call, Ctx, Fault, Route, Schema, call::Query};
use pilvi_store::{Query as Find, Store, Stored, Tx};
use serde_json::{Value, json};
use std::sync::LazyLock;

pub static RBAC_POLICY: Resource = Resource {
    name: "rbac_policy",
    collection: "rbac_policies",
    missing: "RbacPolicyNotFound",
    label: "RBAC policy",
    attrs: &[
        once("object_type", check_type).required(),
        once("object_id", check::uuid).required(),
        open("target_tenant", check_target).required(),
        once("action", check_action).required(),
    ],
    lacks: &["name", "description", "tags", "created_at", "updated_at", "revision_number"],
    below: "",
};

fn check_type(value: &Value) -> Checked {
    check::one_of(value, &ops::TYPES)
}

fn check_action(value: &Value) -> Checked {
    check::one_of(value, &["access_as_shared", "access_as_external"])
}

fn check_target(value: &Value) -> Checked {
    match value.as_str() {
        Some("") => Err("'' is not a project".to_owned()),
        _ => check::text::<255>(value),
    }
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| RBAC_POLICY.schema(Verb::Create)));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| RBAC_POLICY.schema(Verb::Update)));

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::get("/v2.0/rbac-policies", verbs::list::<RbacPolicy>)
            .rule_by_handler("get_rbac_policy")
            .summary("Lists RBAC policies"),
        Route::post("/v2.0/rbac-policies", verbs::create::<RbacPolicy>)
            .rule_by_handler("create_rbac_policy")
            .schema(&CREATE)
            .summary("Opens something to a project"),
        Route::get("/v2.0/rbac-policies/{id}", verbs::show::<RbacPolicy>)
            .rule_by_handler("get_rbac_policy")
            .summary("Shows an RBAC policy"),
        Route::put("/v2.0/rbac-policies/{id}", verbs::update::<RbacPolicy>)
            .rule_by_handler("update_rbac_policy")
            .schema(&UPDATE)
            .summary("Names another project"),
        Route::delete("/v2.0/rbac-policies/{id}", verbs::delete::<RbacPolicy>)
            .rule_by_handler("delete_rbac_policy")
            .summary("Takes it back"),
    ]
}

impl Api for RbacPolicy {
    const RESOURCE: &'static Resource = &RBAC_POLICY;

    async fn candidates(store: &Store, ctx: &Ctx, query: &Query) -> Result<Vec<Stored<Self>>, Fault> {
        if let Some(object) = query.get("object_id") {
            return Ok(store.list::<Self>(find::about(object)).await?);
        }
        let query = if networks::sees_all(ctx) { Find::all() } else { find::of_project(ctx.project_id()) };
        Ok(store.list::<Self>(query).await?)
    }

    /// Opening something to everyone has a rule of its own, which looks at the new target.
    fn finer_rules(call: &Call, sent: &Value, target: &Raw, verb: Verb) -> Result<(), Fault> {
        if sent.get("target_tenant").and_then(Value::as_str) != Some(EVERYONE) {
            return Ok(());
        }
        let rule = match verb {
            Verb::Create => "create_rbac_policy:target_tenant",
            Verb::Update => "update_rbac_policy:target_tenant",
        };
        let mut target = target.clone();
        target.insert("target_tenant".into(), json!(EVERYONE));
        if call.may(rule, &target) { Ok(()) } else { Err(fault::refused(rule)) }
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
