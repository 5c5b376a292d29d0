//! The verbs of security groups; the only writer of both records.
use super::{
    model::{DEFAULT, Direction, SecurityGroup, SecurityGroupRule},
    rule, statefulness,
};
use crate::{
    address_group::{self, model::AddressGroup},
    attribute::overlay,
    default_rule, fault, flow_log,
    list::Raw,
    network::{model::VirtualNetwork, ops::sees_all},
    quota,
    rbac::{self, model::Action, shared::Shareable},
    tables::find,
};
use pilvi_kit::{Ctx, Fault};
use pilvi_store::{Query, Store, Stored, Tx};
use serde_json::{Value, json};
use std::collections::HashMap;

/// The id of the project's default group, which is made when it is asked for first.
pub async fn ensure_default_in(tx: &mut Tx, project: &str) -> Result<String, Fault> {
    if let Some(found) = default_in(tx, project).await? {
        return Ok(found);
    }
    if project.is_empty() {
        return Ok(String::new());
    }
    let group = SecurityGroup {
        id: pilvi_kit::id::new(),
        project_id: project.to_owned(),
        name: DEFAULT.to_owned(),
        description: Some("Default security group".to_owned()),
        stateful: statefulness::default_in(tx, project).await?,
        is_default: true,
        shared: false,
        shared_with: Vec::new(),
        tags: Vec::new(),
    };
    tx.insert(&group).await?;
    for rule in default_rule::ops::rules_for_in(tx, &group).await? {
        tx.insert(&rule).await?;
    }
    Ok(group.id)
}

async fn default_in(tx: &mut Tx, project: &str) -> Result<Option<String>, Fault> {
    let named = tx.list::<SecurityGroup>(find::named(project, DEFAULT)).await?;
    Ok(named.into_iter().find(|g| g.is_default).map(|g| g.record.id))
}

/// Makes the default group in a transaction of its own unless it is there.
pub async fn ensure_default(store: &Store, project: &str) -> Result<(), Fault> {
    if project.is_empty()
        || store.list::<SecurityGroup>(find::named(project, DEFAULT)).await?.iter().any(|g| g.is_default)
    {
        return Ok(());
    }
    let project = project.to_owned();
    store
        .write(move |tx| {
            let project = project.clone();
            Box::pin(async move { ensure_default_in(tx, &project).await.map(|_| ()) })
        })
        .await
}

pub async fn create_in(tx: &mut Tx, attrs: &Raw) -> Result<Stored<SecurityGroup>, Fault> {
    let project = attrs.get("project_id").and_then(Value::as_str).unwrap_or_default().to_owned();
    ensure_default_in(tx, &project).await?;
    if attrs.get("name").and_then(Value::as_str).is_some_and(|n| n.eq_ignore_ascii_case(DEFAULT)) {
        return Err(fault::conflict("SecurityGroupDefaultAlreadyExists", "Default security group already exists."));
    }
    quota::check_in::<SecurityGroup>(tx, &project, "security_group").await?;
    let mut document = attrs.clone();
    document.insert("id".into(), pilvi_kit::id::new().into());
    document.insert("is_default".into(), false.into());
    if !document.contains_key("stateful") {
        document.insert("stateful".into(), statefulness::default_in(tx, &project).await?.into());
    }
    let group: SecurityGroup = serde_json::from_value(Value::Object(document)).map_err(Fault::internal)?;
    let rules = default_rule::ops::rules_for_in(tx, &group).await?;
    let more = i64::try_from(rules.len()).unwrap_or(i64::MAX);
    quota::check_many_in::<SecurityGroupRule>(tx, &project, "security_group_rule", more).await?;
    let stored = tx.insert(&group).await?;
    for rule in rules {
        tx.insert(&rule).await?;
    }
    Ok(stored)
}

pub async fn update_in(tx: &mut Tx, mut found: Stored<SecurityGroup>, changes: &Raw) -> Result<(), Fault> {
    let after: SecurityGroup = overlay(&found.record, changes)?;
    if found.is_default && after.name != found.name {
        return Err(fault::conflict(
            "SecurityGroupCannotUpdateDefault",
            "Updating default security group not allowed.",
        ));
    }
    if after.name != found.name && after.name.eq_ignore_ascii_case(DEFAULT) {
        return Err(fault::conflict("SecurityGroupDefaultAlreadyExists", "Default security group already exists."));
    }
    if after.stateful != found.stateful && in_use(tx, &found).await? {
        return Err(in_use_fault(&found.id));
    }
    found.record = after;
    tx.update(&found).await?;
    Ok(())
}

fn in_use_fault(id: &str) -> Fault {
    fault::conflict("SecurityGroupInUse", format!("Security Group {id} in use."))
}

/// Ports use groups that are open to their project, so the ports of those projects tell.
async fn in_use(tx: &mut Tx, group: &SecurityGroup) -> Result<bool, Fault> {
    Ok(!group.users_in(tx, Action::Shared).await?.is_empty())
}

/// Refused while a port or another group's rule uses it; administrators may delete a default group.
pub async fn delete_in(tx: &mut Tx, ctx: &Ctx, found: Stored<SecurityGroup>) -> Result<(), Fault> {
    if found.is_default && !ctx.caller.has_role("admin") {
        return Err(fault::conflict(
            "SecurityGroupCannotRemoveDefault",
            "Insufficient rights for removing default security group.",
        ));
    }
    if in_use(tx, &found).await? {
        return Err(in_use_fault(&found.id));
    }
    for rule in tx.list::<SecurityGroupRule>(find::with_remote_group(&found.id)).await? {
        tx.delete::<SecurityGroupRule>(&rule.id).await?;
    }
    for rule in tx.list::<SecurityGroupRule>(find::of_groups([found.id.as_str()])).await? {
        tx.delete::<SecurityGroupRule>(&rule.id).await?;
    }
    rbac::ops::forget_in(tx, &found.id).await?;
    flow_log::ops::forget_in(tx, &found.id).await?;
    tx.delete::<SecurityGroup>(&found.id).await?;
    Ok(())
}

/// Ids of groups that compute's users name by id or by name; "default" is made when it is missing.
///
/// 404 for a name that is none, 409 for one that is several.
pub async fn resolve_in(tx: &mut Tx, ctx: &Ctx, names_or_ids: &[String]) -> Result<Vec<String>, Fault> {
    let project = ctx.project_id();
    let mut ids = Vec::new();
    for wanted in names_or_ids.iter().take(crate::check::LIST_MAX) {
        let id = if wanted == DEFAULT {
            ensure_default_in(tx, project).await?
        } else {
            resolve_one(tx, project, wanted).await?
        };
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// Groups of a port that is made for a server. A network without port security has none: the default group is left out
/// there, as a server that names no group has it too; any other cannot be what its user wants.
pub async fn of_server_in(tx: &mut Tx, ctx: &Ctx, network: &str, groups: &[String]) -> Result<Vec<String>, Fault> {
    let network = tx.get::<VirtualNetwork>(network).await?.ok_or_else(|| fault::network_missing(network))?;
    if network.port_security_enabled {
        return Ok(groups.to_vec());
    }
    let default = ensure_default_in(tx, ctx.project_id()).await?;
    if groups.iter().any(|g| *g != default) {
        let why = "Network requires port_security_enabled and subnet associated in order to apply security groups.";
        return Err(fault::bad("SecurityGroupCannotBeApplied", why));
    }
    Ok(Vec::new())
}

async fn resolve_one(tx: &mut Tx, project: &str, wanted: &str) -> Result<String, Fault> {
    if pilvi_kit::id::is_uuid(wanted)
        && let Some(group) = tx.get::<SecurityGroup>(wanted).await?.filter(|g| g.project_id == project)
    {
        return Ok(group.record.id);
    }
    let mut named = tx.list::<SecurityGroup>(find::named(project, wanted)).await?;
    match (named.pop(), named.is_empty()) {
        (Some(group), true) => Ok(group.record.id),
        (Some(_), false) => Err(fault::conflict(
            "NoUniqueMatch",
            format!("Multiple security groups found matching '{wanted}'. Use an ID to be more specific."),
        )),
        (None, _) => Err(fault::missing("SecurityGroupNotFound", "Security group", wanted)),
    }
}

/// 404 for the first id that is no group open to the project.
pub(crate) async fn check_usable_in(tx: &mut Tx, project: &str, ids: &[String]) -> Result<(), Fault> {
    if ids.is_empty() {
        return Ok(());
    }
    let found = tx.list::<SecurityGroup>(Query::all().ids(ids.iter().map(String::as_str))).await?;
    let known = |id: &String| found.iter().any(|g| g.id == *id && g.is_open_to(project));
    if let Some(id) = ids.iter().find(|id| !known(id)) {
        return Err(fault::group_missing(id));
    }
    if found.iter().any(|g| g.stateful != found[0].stateful) {
        return Err(fault::conflict(
            "SecurityGroupConflict",
            "Error Cannot apply both stateful and stateless security groups on the same port while attempting the operation.",
        ));
    }
    Ok(())
}

pub async fn create_rule_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<SecurityGroupRule>, Fault> {
    let text = |name: &str| attrs.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let group_id = text("security_group_id");
    let group = tx.get::<SecurityGroup>(&group_id).await?.ok_or_else(|| fault::group_missing(&group_id))?;
    quota::check_in::<SecurityGroupRule>(tx, &text("project_id"), "security_group_rule").await?;
    let new = rule::build(attrs, &group)?;
    if let Some(remote) = &new.remote_group_id {
        let found = tx.get::<SecurityGroup>(remote).await?;
        found.filter(|g| g.is_open_to(&group.project_id)).ok_or_else(|| fault::group_missing(remote))?;
    }
    if let Some(remote) = &new.remote_address_group_id {
        let found = tx.get::<AddressGroup>(remote).await?;
        let usable = |g: &Stored<AddressGroup>| sees_all(ctx) || g.is_open_to(ctx.project_id());
        found.filter(usable).ok_or_else(|| address_group::ops::missing(remote))?;
    }
    for other in tx.list::<SecurityGroupRule>(find::of_groups([group_id.as_str()])).await? {
        if other.same_as(&new) {
            return Err(fault::conflict(
                "SecurityGroupRuleExists",
                format!("Security group rule already exists. Rule id is {}.", other.id),
            ));
        }
    }
    let stored = tx.insert(&new).await?;
    // The group's revision and time say that its rules changed.
    tx.update(&group).await?;
    Ok(stored)
}

pub async fn delete_rule_in(tx: &mut Tx, found: Stored<SecurityGroupRule>) -> Result<(), Fault> {
    tx.delete::<SecurityGroupRule>(&found.id).await?;
    if let Some(group) = tx.get::<SecurityGroup>(&found.security_group_id).await? {
        tx.update(&group).await?;
    }
    Ok(())
}

/// Names of groups by id.
pub async fn names(store: &Store, ids: &[String]) -> Result<HashMap<String, String>, Fault> {
    let mut out = HashMap::new();
    for chunk in ids.chunks(500) {
        for group in store.list::<SecurityGroup>(Query::all().ids(chunk.iter().map(String::as_str))).await? {
            out.insert(group.record.id, group.record.name);
        }
    }
    Ok(out)
}

/// Groups and their rules as compute's own (older) API shows them.
pub async fn compute_view(store: &Store, ids: &[String]) -> Result<Vec<Value>, Fault> {
    let mut out = Vec::new();
    for chunk in ids.chunks(500) {
        let groups = store.list::<SecurityGroup>(Query::all().ids(chunk.iter().map(String::as_str))).await?;
        let rules = store.list::<SecurityGroupRule>(find::of_groups(chunk.iter().map(String::as_str))).await?;
        let named: HashMap<&str, &SecurityGroup> = groups.iter().map(|g| (g.id.as_str(), &g.record)).collect();
        for group in &groups {
            let ingress =
                |r: &&Stored<SecurityGroupRule>| r.security_group_id == group.id && r.direction == Direction::Ingress;
            let rules: Vec<Value> = rules.iter().filter(ingress).map(|r| compute_rule(r, &named)).collect();
            out.push(json!({"id": group.id, "name": group.name, "description": group.description,
                "tenant_id": group.project_id, "rules": rules}));
        }
    }
    Ok(out)
}

fn compute_rule(rule: &SecurityGroupRule, groups: &HashMap<&str, &SecurityGroup>) -> Value {
    let remote = rule.remote_group_id.as_deref().and_then(|id| groups.get(id));
    let group = remote.map_or_else(|| json!({}), |g| json!({"name": g.name, "tenant_id": g.project_id}));
    let range = match (&rule.remote_group_id, rule.normalized_cidr()) {
        (Some(_), _) => json!({}),
        (None, cidr) => {
            let all = if rule.ethertype == "IPv6" { "::/0" } else { "0.0.0.0/0" };
            json!({"cidr": cidr.unwrap_or_else(|| all.to_owned())})
        }
    };
    json!({"id": rule.id, "parent_group_id": rule.security_group_id, "ip_protocol": rule.protocol,
        "from_port": rule.port_range_min, "to_port": rule.port_range_max, "group": group, "ip_range": range})
}
