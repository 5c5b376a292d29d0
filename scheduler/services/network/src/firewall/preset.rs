//! The firewall group that every project has: nothing comes in, everything goes out, and it is on no port until somebody puts
//! it there.
use super::model::{Action, DEFAULT, DEFAULT_EGRESS, DEFAULT_INGRESS, FirewallGroup, FirewallPolicy, FirewallRule};
use crate::{network::ops::sees_all, tables::find, verbs::Api};
use pilvi_kit::{Ctx, Fault, call::Query};
use pilvi_store::{Store, Stored, Tx};

/// What somebody may see of firewalls, for a list; whoever may look at a project's finds its default group.
pub async fn looked_at<R: Api>(store: &Store, ctx: &Ctx, query: &Query) -> Result<Vec<Stored<R>>, Fault> {
    if ctx.caller.has_role("reader") || ctx.caller.has_role("admin") {
        let asked = query.get("project_id").or(query.get("tenant_id")).filter(|_| sees_all(ctx));
        ensure(store, asked.unwrap_or(ctx.project_id())).await?;
    }
    let seen = if sees_all(ctx) { find::all() } else { R::seen_by(ctx.project_id()) };
    Ok(store.list::<R>(seen).await?)
}

/// Makes the project's group in a transaction of its own unless it is there.
async fn ensure(store: &Store, project: &str) -> Result<(), Fault> {
    if project.is_empty() || !store.list::<FirewallGroup>(find::named(project, DEFAULT)).await?.is_empty() {
        return Ok(());
    }
    let project = project.to_owned();
    store
        .write(move |tx| {
            let project = project.clone();
            Box::pin(async move { ensure_in(tx, &project).await })
        })
        .await
}

pub async fn ensure_in(tx: &mut Tx, project: &str) -> Result<(), Fault> {
    if project.is_empty() || !tx.list::<FirewallGroup>(find::named(project, DEFAULT)).await?.is_empty() {
        return Ok(());
    }
    let ingress = policy_in(tx, project, "ingress", Action::Deny).await?;
    let egress = policy_in(tx, project, "egress", Action::Allow).await?;
    let group = FirewallGroup {
        id: pilvi_kit::id::new(),
        project_id: project.to_owned(),
        name: DEFAULT.to_owned(),
        description: Some("Default firewall group".to_owned()),
        admin_state_up: true,
        shared: false,
        ingress_firewall_policy_id: Some(ingress),
        egress_firewall_policy_id: Some(egress),
    };
    tx.insert(&group).await?;
    Ok(())
}

/// A policy of one rule for each IP version, which does the same with every packet.
async fn policy_in(tx: &mut Tx, project: &str, way: &str, action: Action) -> Result<String, Fault> {
    let mut rules = Vec::new();
    for ip_version in [4, 6] {
        let rule = FirewallRule {
            id: pilvi_kit::id::new(),
            project_id: project.to_owned(),
            name: format!("default {way} ipv{ip_version}"),
            description: Some(format!("default {way} rule for IPv{ip_version}")),
            shared: false,
            protocol: None,
            ip_version,
            source_ip_address: None,
            destination_ip_address: None,
            source_port: None,
            destination_port: None,
            action,
            enabled: true,
        };
        rules.push(rule.id.clone());
        tx.insert(&rule).await?;
    }
    let (name, description) = match way {
        "ingress" => (DEFAULT_INGRESS, "Ingress firewall policy"),
        _ => (DEFAULT_EGRESS, "Egress firewall policy"),
    };
    let policy = FirewallPolicy {
        id: pilvi_kit::id::new(),
        project_id: project.to_owned(),
        name: name.to_owned(),
        description: Some(description.to_owned()),
        shared: false,
        audited: false,
        firewall_rules: rules,
    };
    tx.insert(&policy).await?;
    Ok(policy.id)
}

/// An administrator takes it away: with it go its policies, and those of their rules that are in no other.
pub async fn forget_in(tx: &mut Tx, group: &FirewallGroup) -> Result<(), Fault> {
    tx.delete::<FirewallGroup>(&group.id).await?;
    for id in group.policies() {
        let Some(policy) = tx.get::<FirewallPolicy>(id).await? else { continue };
        if tx.count::<FirewallGroup>(find::with_firewall_policy(id)).await? > 0 {
            continue;
        }
        tx.delete::<FirewallPolicy>(id).await?;
        for rule in &policy.firewall_rules {
            if tx.count::<FirewallPolicy>(find::with_firewall_rule(rule)).await? == 0 {
                tx.delete::<FirewallRule>(rule).await?;
            }
        }
    }
    Ok(())
}
