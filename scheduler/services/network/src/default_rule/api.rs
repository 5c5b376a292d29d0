//! `/v2.0/default-security-group-rules`
use super::{
    model::{DefaultRule, PARENT},
    ops,
};
use crate::{
    Network,
    attribute::{Absent, Resource, Verb, once},
    check::{self, Checked},
    list::Raw,
    security_group::rule,
    verbs::{self, Api},
};
use pilvi_kit::{Ctx, Fault, Route, Schema, call::Query};
use pilvi_store::{Query as Find, Store, Stored, Tx};
use serde_json::Value;
use std::sync::LazyLock;

pub static DEFAULT_RULE: Resource = Resource {
    name: "default_security_group_rule",
    collection: "default_security_group_rules",
    missing: "DefaultSecurityGroupRuleNotFound",
    label: "Default Security Group rule",
    attrs: &[
        once("direction", rule::check_direction).required(),
        once("ethertype", rule::check_ethertype).absent(Absent::Text("IPv4")),
        once("protocol", rule::check_protocol).absent(Absent::Null),
        once("port_range_min", rule::check_port).absent(Absent::Null),
        once("port_range_max", rule::check_port).absent(Absent::Null),
        once("remote_ip_prefix", check::prefix_or_null).absent(Absent::Null),
        once("remote_group_id", group_or_parent).absent(Absent::Null),
        once("remote_address_group_id", check::uuid_or_null).absent(Absent::Null),
        once("used_in_default_sg", check::boolean).absent(Absent::Bool(false)),
        once("used_in_non_default_sg", check::boolean).absent(Absent::Bool(true)),
        once("description", check::text_or_null::<255>).absent(Absent::Text("")),
    ],
    lacks: &["name", "tags", "project_id", "tenant_id", "created_at", "updated_at", "revision_number"],
    below: "",
};

fn group_or_parent(value: &Value) -> Checked {
    if value.as_str() == Some(PARENT) { Ok(value.clone()) } else { check::uuid_or_null(value) }
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| DEFAULT_RULE.schema(Verb::Create)));

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::get("/v2.0/default-security-group-rules", verbs::list::<DefaultRule>)
            .rule_by_handler("get_default_security_group_rule")
            .summary("Lists what new security groups begin with"),
        Route::post("/v2.0/default-security-group-rules", verbs::create::<DefaultRule>)
            .rule_by_handler("create_default_security_group_rule")
            .schema(&CREATE)
            .summary("Adds a rule that new security groups begin with"),
        Route::get("/v2.0/default-security-group-rules/{id}", verbs::show::<DefaultRule>)
            .rule_by_handler("get_default_security_group_rule")
            .summary("Shows a template"),
        Route::delete("/v2.0/default-security-group-rules/{id}", verbs::delete::<DefaultRule>)
            .rule_by_handler("delete_default_security_group_rule")
            .summary("Deletes a template; groups keep their rules"),
    ]
}

impl Api for DefaultRule {
    const RESOURCE: &'static Resource = &DEFAULT_RULE;

    async fn candidates(store: &Store, _ctx: &Ctx, _query: &Query) -> Result<Vec<Stored<Self>>, Fault> {
        ops::ensure(store).await?;
        Ok(store.list::<Self>(Find::all()).await?)
    }

    async fn create_in(tx: &mut Tx, _ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_in(tx, attrs).await
    }

    async fn update_in(_tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>, _changes: &Raw) -> Result<(), Fault> {
        Err(DEFAULT_RULE.not_found(&found.id))
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        ops::delete_in(tx, &found.id).await
    }
}
