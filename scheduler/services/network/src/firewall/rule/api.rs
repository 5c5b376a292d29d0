//! `/v2.0/fwaas/firewall_rules`
use super::ops;
use crate::{
    Network,
    attribute::{Absent, Resource, open, shown},
    check::{self, Checked},
    crud::crud,
    firewall::{
        model::{FirewallPolicy, FirewallRule, PROTOCOLS, range},
        preset,
    },
    list::{self, Raw},
    tables::find,
    verbs::Api,
};
use pilvi_kit::{Ctx, Fault, Route, call::Query};
use pilvi_store::{Query as Find, Store, Stored, Tx};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub static FIREWALL_RULE: Resource = Resource {
    name: "firewall_rule",
    collection: "firewall_rules",
    missing: "FirewallRuleNotFound",
    label: "Firewall rule",
    attrs: &[
        open("shared", check::boolean).absent(Absent::Bool(false)).ruled(),
        open("protocol", check_protocol).absent(Absent::Null),
        open("ip_version", check::ip_version),
        open("source_ip_address", check_side).absent(Absent::Null),
        open("destination_ip_address", check_side).absent(Absent::Null),
        open("source_port", check_ports).absent(Absent::Null),
        open("destination_port", check_ports).absent(Absent::Null),
        open("action", check_action).absent(Absent::Text("deny")),
        open("enabled", check::boolean).absent(Absent::Bool(true)),
        shown("firewall_policy_id"),
    ],
    lacks: &["tags"],
    below: "",
};

fn check_protocol(value: &Value) -> Checked {
    let known: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
    if value.is_null() { Ok(Value::Null) } else { check::one_of(value, &known) }
}

/// An address or a block, kept as it was written.
fn check_side(value: &Value) -> Checked {
    let refuse = || format!("'{}' is neither a valid IP address, nor is it a valid IP subnet", check::plain(value));
    match value.as_str() {
        None if value.is_null() => Ok(Value::Null),
        Some(s) if s.parse::<std::net::IpAddr>().is_ok() || check::cidr_text(s).is_ok() => Ok(value.clone()),
        _ => Err(refuse()),
    }
}

fn check_ports(value: &Value) -> Checked {
    let sent = match value {
        Value::Null => return Ok(Value::Null),
        Value::String(s) => s.clone(),
        Value::Number(n) => n.to_string(),
        _ => String::new(),
    };
    match range(&sent) {
        Some((first, last)) if first == last => Ok(json!(first.to_string())),
        Some((first, last)) => Ok(json!(format!("{first}:{last}"))),
        None => Err(format!("Invalid port: {}", check::plain(value))),
    }
}

fn check_action(value: &Value) -> Checked {
    let lower = json!(value.as_str().map(str::to_ascii_lowercase));
    check::one_of(&lower, &["allow", "deny", "reject"])
}

pub fn routes() -> Vec<Route<Network>> {
    crud!(FirewallRule, FIREWALL_RULE, "/v2.0/fwaas/firewall_rules", "firewall_rule", "firewall rules", open)
}

impl Api for FirewallRule {
    const RESOURCE: &'static Resource = &FIREWALL_RULE;

    fn seen_by(project: &str) -> Find {
        find::own_or_shared(project)
    }

    async fn candidates(store: &Store, ctx: &Ctx, query: &Query) -> Result<Vec<Stored<Self>>, Fault> {
        preset::looked_at(store, ctx, query).await
    }

    /// With the policies that the rule is in.
    async fn raws(store: &Store, items: Vec<Stored<Self>>) -> Result<Vec<Raw>, Fault> {
        let mut policies: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for chunk in items.chunks(100) {
            let having = chunk.iter().map(|r| find::with_firewall_rule(&r.id));
            for policy in store.list::<FirewallPolicy>(Find::all().any_of(having)).await? {
                for rule in &policy.firewall_rules {
                    let of = policies.entry(rule.clone()).or_default();
                    if !of.contains(&policy.id) {
                        of.push(policy.id.clone());
                    }
                }
            }
        }
        let raw = |item: &Stored<Self>| {
            let mut raw = list::raw(item)?;
            raw.insert("firewall_policy_id".into(), policies.get(&item.id).map_or(Value::Null, |of| json!(of)));
            Ok(raw)
        };
        items.iter().map(raw).collect()
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
