//! `/v2.0/security-groups` and `/v2.0/security-group-rules`
use super::{
    model::{SecurityGroup, SecurityGroupRule},
    ops, rule,
};
use crate::{
    Network,
    attribute::{Absent, Resource, Verb, once, open, shown},
    check, fault,
    list::{self, Raw},
    network::ops as networks,
    tables::find,
    verbs::{self, Api},
};
use pilvi_kit::{Ctx, Fault, Route, Schema, call::Query};
use pilvi_store::{Query as Find, Store, Stored, Tx};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

pub static GROUP: Resource = Resource {
    name: "security_group",
    collection: "security_groups",
    missing: "SecurityGroupNotFound",
    label: "Security group",
    attrs: &[open("stateful", check::boolean), shown("security_group_rules"), shown("shared")],
    lacks: &[],
    below: "",
};

pub static RULE: Resource = Resource {
    name: "security_group_rule",
    collection: "security_group_rules",
    missing: "SecurityGroupRuleNotFound",
    label: "Security group rule",
    attrs: &[
        once("security_group_id", check::text::<255>).required(),
        once("direction", rule::check_direction).required(),
        once("ethertype", rule::check_ethertype).absent(Absent::Text("IPv4")),
        once("protocol", rule::check_protocol).absent(Absent::Null),
        once("port_range_min", rule::check_port).absent(Absent::Null),
        once("port_range_max", rule::check_port).absent(Absent::Null),
        once("remote_ip_prefix", check::prefix_or_null).absent(Absent::Null),
        once("remote_group_id", check::text_or_null::<255>).absent(Absent::Null),
        once("remote_address_group_id", check::uuid_or_null).absent(Absent::Null),
        once("description", check::text_or_null::<255>).absent(Absent::Text("")),
        shown("normalized_cidr"),
        shown("belongs_to_default_sg"),
    ],
    lacks: &["name", "tags"],
    below: "",
};

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| GROUP.schema(Verb::Create)));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| GROUP.schema(Verb::Update)));
static CREATE_RULE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| RULE.schema(Verb::Create)));

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::get("/v2.0/security-groups", verbs::list::<SecurityGroup>)
            .rule_by_handler("get_security_group")
            .summary("Lists security groups"),
        Route::post("/v2.0/security-groups", verbs::create::<SecurityGroup>)
            .rule_by_handler("create_security_group")
            .schema(&CREATE)
            .summary("Creates a security group"),
        Route::get("/v2.0/security-groups/{id}", verbs::show::<SecurityGroup>)
            .rule_by_handler("get_security_group")
            .summary("Shows a security group"),
        Route::put("/v2.0/security-groups/{id}", verbs::update::<SecurityGroup>)
            .rule_by_handler("update_security_group")
            .schema(&UPDATE)
            .summary("Updates a security group"),
        Route::delete("/v2.0/security-groups/{id}", verbs::delete::<SecurityGroup>)
            .rule_by_handler("delete_security_group")
            .summary("Deletes a security group"),
        Route::get("/v2.0/security-group-rules", verbs::list::<SecurityGroupRule>)
            .rule_by_handler("get_security_group_rule")
            .summary("Lists rules"),
        Route::post("/v2.0/security-group-rules", verbs::create::<SecurityGroupRule>)
            .rule_by_handler("create_security_group_rule")
            .schema(&CREATE_RULE)
            .summary("Adds a rule to a group"),
        Route::get("/v2.0/security-group-rules/{id}", verbs::show::<SecurityGroupRule>)
            .rule_by_handler("get_security_group_rule")
            .summary("Shows a rule"),
        Route::delete("/v2.0/security-group-rules/{id}", verbs::delete::<SecurityGroupRule>)
            .rule_by_handler("delete_security_group_rule")
            .summary("Deletes a rule"),
    ]
}

impl Api for SecurityGroup {
    const RESOURCE: &'static Resource = &GROUP;

    async fn candidates(store: &Store, ctx: &Ctx, query: &Query) -> Result<Vec<Stored<Self>>, Fault> {
        ops::ensure_default(store, ctx.project_id()).await?;
        if !networks::sees_all(ctx) {
            return Ok(store.list::<Self>(find::open_to(ctx.project_id())).await?);
        }
        match query.get("project_id").or(query.get("tenant_id")) {
            Some(project) => {
                ops::ensure_default(store, project).await?;
                Ok(store.list::<Self>(find::of_project(project)).await?)
            }
            None => Ok(store.list::<Self>(Find::all()).await?),
        }
    }

    async fn raws(store: &Store, items: Vec<Stored<Self>>) -> Result<Vec<Raw>, Fault> {
        let ids: Vec<&str> = items.iter().map(|g| g.id.as_str()).collect();
        let mut rules: HashMap<String, Vec<Value>> = HashMap::new();
        for chunk in ids.chunks(500) {
            for rule in store.list::<SecurityGroupRule>(find::of_groups(chunk.iter().copied())).await? {
                let group = rule.security_group_id.clone();
                rules.entry(group).or_default().push(Value::Object(nested(&raw_rule(&rule)?)));
            }
        }
        items
            .iter()
            .map(|item| {
                let mut raw = list::raw(item)?;
                raw.insert("security_group_rules".into(), json!(rules.remove(&item.id).unwrap_or_default()));
                Ok(raw)
            })
            .collect()
    }

    async fn create_in(tx: &mut Tx, _ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_in(tx, attrs).await
    }

    async fn update_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        ops::update_in(tx, found, changes).await
    }

    async fn delete_in(tx: &mut Tx, ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        ops::delete_in(tx, ctx, found).await
    }
}

fn raw_rule(item: &Stored<SecurityGroupRule>) -> Result<Raw, Fault> {
    let mut raw = list::raw(item)?;
    raw.insert("normalized_cidr".into(), json!(item.normalized_cidr()));
    Ok(raw)
}

/// A rule as its group shows it: whoever sees the group sees its rules.
fn nested(raw: &Raw) -> Raw {
    RULE.all()
        .filter(|a| !a.hidden)
        .map(|a| (a.name.to_owned(), raw.get(a.name).cloned().unwrap_or(Value::Null)))
        .collect()
}

impl Api for SecurityGroupRule {
    const RESOURCE: &'static Resource = &RULE;

    async fn candidates(store: &Store, ctx: &Ctx, query: &Query) -> Result<Vec<Stored<Self>>, Fault> {
        let groups: Vec<&str> = query.all("security_group_id").take(100).collect();
        if !groups.is_empty() {
            return Ok(store.list::<Self>(find::of_groups(groups)).await?);
        }
        ops::ensure_default(store, ctx.project_id()).await?;
        if networks::sees_all(ctx) {
            return Ok(store.list::<Self>(Find::all()).await?);
        }
        let mut found = store.list::<Self>(find::of_project(ctx.project_id())).await?;
        let known: HashSet<String> = found.iter().map(|r| r.id.clone()).collect();
        let groups = store.list::<SecurityGroup>(find::of_project(ctx.project_id())).await?;
        let ids: Vec<&str> = groups.iter().map(|g| g.id.as_str()).collect();
        for chunk in ids.chunks(500) {
            let more = store.list::<Self>(find::of_groups(chunk.iter().copied())).await?;
            found.extend(more.into_iter().filter(|r| !known.contains(&r.id)));
        }
        Ok(found)
    }

    async fn raws(store: &Store, items: Vec<Stored<Self>>) -> Result<Vec<Raw>, Fault> {
        let ids: HashSet<&str> = items.iter().map(|r| r.security_group_id.as_str()).collect();
        let ids: Vec<&str> = ids.into_iter().collect();
        let mut owners = HashMap::new();
        for chunk in ids.chunks(500) {
            for group in store.list::<SecurityGroup>(Find::all().ids(chunk.iter().copied())).await? {
                owners.insert(group.record.id, group.record.project_id);
            }
        }
        items
            .iter()
            .map(|item| {
                let mut raw = raw_rule(item)?;
                raw.insert("group_project_id".into(), json!(owners.get(&item.security_group_id)));
                Ok(raw)
            })
            .collect()
    }

    async fn create_target(store: &Store, ctx: &Ctx, attrs: &Raw) -> Result<Raw, Fault> {
        let id = attrs.get("security_group_id").and_then(Value::as_str).unwrap_or_default();
        let group = store.get::<SecurityGroup>(id).await?;
        group
            .filter(|g| networks::sees_all(ctx) || g.project_id == ctx.project_id())
            .ok_or_else(|| fault::group_missing(id))?;
        Ok(attrs.clone())
    }

    async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_rule_in(tx, ctx, attrs).await
    }

    async fn update_in(_tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>, _changes: &Raw) -> Result<(), Fault> {
        Err(RULE.not_found(&found.id))
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        ops::delete_rule_in(tx, found).await
    }
}
