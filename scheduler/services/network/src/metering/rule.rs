//! `/v2.0/metering/metering-label-rules`
use super::{
    model::{MeteringLabel, MeteringRule},
    ops,
};
use crate::{
    Network,
    attribute::{Absent, Resource, once},
    check,
    crud::crud,
    list::Raw,
    network::ops as networks,
    security_group::rule::check_direction,
    verbs::Api,
};
use pilvi_kit::{Ctx, Fault, Route};
use pilvi_store::{Store, Stored, Tx};
use serde_json::{Value, json};

pub static METERING_RULE: Resource = Resource {
    name: "metering_label_rule",
    collection: "metering_label_rules",
    missing: "MeteringLabelRuleNotFound",
    label: "Metering label rule",
    attrs: &[
        once("project_id", check::text::<255>).hidden(),
        once("tenant_id", check::text::<255>).hidden(),
        once("metering_label_id", check::uuid).required(),
        once("direction", check_direction).required(),
        once("excluded", check::boolean).absent(Absent::Bool(false)),
        once("remote_ip_prefix", check::prefix_or_null).absent(Absent::Null),
        once("source_ip_prefix", check::prefix_or_null).absent(Absent::Null),
        once("destination_ip_prefix", check::prefix_or_null).absent(Absent::Null),
    ],
    lacks: &["name", "description", "tags", "created_at", "updated_at", "revision_number"],
    below: "",
};

pub fn routes() -> Vec<Route<Network>> {
    crud!(
        MeteringRule,
        METERING_RULE,
        "/v2.0/metering/metering-label-rules",
        "metering_label_rule",
        "metering label rules",
        fixed
    )
}

impl Api for MeteringRule {
    const RESOURCE: &'static Resource = &METERING_RULE;

    /// A rule is its label's owner's.
    async fn create_target(store: &Store, ctx: &Ctx, attrs: &Raw) -> Result<Raw, Fault> {
        let id = attrs.get("metering_label_id").and_then(Value::as_str).unwrap_or_default();
        let label = store.get::<MeteringLabel>(id).await?;
        let label = label.filter(|l| networks::sees_all(ctx) || l.project_id == ctx.project_id());
        let mut target = attrs.clone();
        target.insert("project_id".into(), json!(label.ok_or_else(|| ops::label_missing(id))?.project_id));
        Ok(target)
    }

    async fn create_in(tx: &mut Tx, _ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_rule_in(tx, attrs).await
    }

    async fn update_in(_tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>, _changes: &Raw) -> Result<(), Fault> {
        Err(METERING_RULE.not_found(&found.id))
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        tx.delete::<MeteringRule>(&found.id).await?;
        Ok(())
    }
}
