//! The verbs of policies and rules, and who may bind what to whom; the only writer of their records.
use super::{
    least,
    model::{Bandwidth, Dscp, Kind, LeastBandwidth, LeastPacketRate, PacketRate, QosPolicy, QosRule},
};
use crate::{
    attribute::overlay,
    fault,
    floating_ip::model::FloatingIp,
    list::Raw,
    network::{model::VirtualNetwork, ops::sees_all},
    port::model::Port,
    rbac::{self, model::Action, shared::Shareable},
    router::model::Router,
    tables::find,
};
use pilvi_kit::{Ctx, Fault};
use pilvi_store::{Record, Stored, Tx};
use serde_json::{Value, json};

/// Policies of one project.
const POLICIES_MAX: u64 = 256;

pub fn missing(id: &str) -> Fault {
    fault::missing("QosPolicyNotFound", "QoS policy", id)
}

fn may_use(policy: &QosPolicy, ctx: &Ctx) -> bool {
    sees_all(ctx) || policy.is_open_to(ctx.project_id())
}

/// Something gets another policy, or none: it must be the caller's to use, and the old one his to take away.
pub async fn bind_in(tx: &mut Tx, ctx: &Ctx, before: Option<&str>, after: Option<&str>) -> Result<(), Fault> {
    if before == after {
        return Ok(());
    }
    if let Some(id) = before
        && tx.get::<QosPolicy>(id).await?.is_some_and(|p| !may_use(&p, ctx))
    {
        let message = format!("Failed to remove provided policy {id} because you are not authorized.");
        return Err(Fault::forbidden(message).kind("PolicyRemoveAuthorizationError"));
    }
    match after {
        Some(id) => tx.get::<QosPolicy>(id).await?.filter(|p| may_use(p, ctx)).map(|_| ()).ok_or_else(|| missing(id)),
        None => Ok(()),
    }
}

/// The same for what was sent as `qos_policy_id`; nothing was sent, nothing changes.
pub async fn bind_sent_in(tx: &mut Tx, ctx: &Ctx, before: Option<&str>, sent: &Raw) -> Result<(), Fault> {
    match sent.get("qos_policy_id") {
        Some(after) => bind_in(tx, ctx, before, after.as_str()).await,
        None => Ok(()),
    }
}

/// The policy that new networks of a project get.
pub async fn default_in(tx: &mut Tx, project: &str) -> Result<Option<String>, Fault> {
    let all = tx.list::<QosPolicy>(find::of_project(project)).await?;
    Ok(all.into_iter().find(|p| p.is_default && p.project_id == project).map(|p| p.record.id))
}

async fn refuse_second_default_in(tx: &mut Tx, policy: &QosPolicy) -> Result<(), Fault> {
    if !policy.is_default {
        return Ok(());
    }
    match default_in(tx, &policy.project_id).await? {
        Some(other) if other != policy.id => Err(fault::conflict(
            "QoSPolicyDefaultAlreadyExists",
            format!("A default QoS policy exists for project {}.", policy.project_id),
        )),
        _ => Ok(()),
    }
}

pub async fn create_policy_in(tx: &mut Tx, attrs: &Raw) -> Result<Stored<QosPolicy>, Fault> {
    let mut document = attrs.clone();
    document.insert("id".into(), json!(pilvi_kit::id::new()));
    let mut policy: QosPolicy = serde_json::from_value(Value::Object(document)).map_err(Fault::internal)?;
    if tx.count::<QosPolicy>(find::of_project(&policy.project_id)).await? >= POLICIES_MAX {
        return Err(Fault::conflict(format!("A project has at most {POLICIES_MAX} QoS policies.")));
    }
    refuse_second_default_in(tx, &policy).await?;
    if policy.shared {
        rbac::ops::follow_flag_in(tx, &mut policy, Action::Shared, true).await?;
    }
    Ok(tx.insert(&policy).await?)
}

pub async fn update_policy_in(tx: &mut Tx, mut found: Stored<QosPolicy>, changes: &Raw) -> Result<(), Fault> {
    let before = found.record.clone();
    let mut after: QosPolicy = overlay(&before, changes)?;
    refuse_second_default_in(tx, &after).await?;
    if before.shared && !after.shared {
        let users = before.users_in(tx, Action::Shared).await?;
        // Its owner's use counts too, as in Neutron: who has it by the wildcard alone keeps the wildcard.
        if let Some(user) = users.iter().find(|u| !u.is_empty() && !after.shared_with.contains(u)) {
            return Err(in_use(&before.id, "project", user));
        }
    }
    if before.shared != after.shared {
        let shared = after.shared;
        rbac::ops::follow_flag_in(tx, &mut after, Action::Shared, shared).await?;
    }
    found.record = after;
    tx.update(&found).await?;
    Ok(())
}

fn in_use(id: &str, kind: &str, by: &str) -> Fault {
    fault::conflict("QosPolicyInUse", format!("QoS Policy {id} is used by {kind} {by}."))
}

async fn refuse_used_in<R: Record>(tx: &mut Tx, id: &str, kind: &str) -> Result<(), Fault> {
    match tx.list::<R>(find::with_policy(id).limit(1)).await?.first() {
        Some(user) => Err(in_use(id, kind, user.record.id())),
        None => Ok(()),
    }
}

/// Whoever has it keeps it; its rules go with it.
pub async fn delete_policy_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    refuse_used_in::<Port>(tx, id, "port").await?;
    refuse_used_in::<VirtualNetwork>(tx, id, "network").await?;
    refuse_used_in::<FloatingIp>(tx, id, "floatingip").await?;
    refuse_used_in::<Router>(tx, id, "router").await?;
    delete_rules_in::<Bandwidth>(tx, id).await?;
    delete_rules_in::<PacketRate>(tx, id).await?;
    delete_rules_in::<Dscp>(tx, id).await?;
    delete_rules_in::<LeastBandwidth>(tx, id).await?;
    delete_rules_in::<LeastPacketRate>(tx, id).await?;
    rbac::ops::forget_in(tx, id).await?;
    tx.delete::<QosPolicy>(id).await?;
    Ok(())
}

async fn delete_rules_in<K: Kind>(tx: &mut Tx, policy: &str) -> Result<(), Fault> {
    for rule in tx.list::<QosRule<K>>(find::of_policies([policy])).await? {
        tx.delete::<QosRule<K>>(&rule.id).await?;
    }
    Ok(())
}

/// The projects of everything that has a policy.
pub async fn users_in(tx: &mut Tx, id: &str) -> Result<Vec<String>, Fault> {
    let q = || find::with_policy(id);
    let mut users: Vec<String> = tx.list::<Port>(q()).await?.into_iter().map(|p| p.record.project_id).collect();
    users.extend(tx.list::<VirtualNetwork>(q()).await?.into_iter().map(|n| n.record.project_id));
    users.extend(tx.list::<FloatingIp>(q()).await?.into_iter().map(|f| f.record.project_id));
    users.extend(tx.list::<Router>(q()).await?.into_iter().map(|r| r.record.project_id));
    Ok(users)
}

pub async fn create_rule_in<K: Kind>(tx: &mut Tx, attrs: &Raw) -> Result<Stored<QosRule<K>>, Fault> {
    let mut document = attrs.clone();
    document.insert("id".into(), json!(pilvi_kit::id::new()));
    let rule: QosRule<K> = serde_json::from_value(Value::Object(document)).map_err(Fault::internal)?;
    refuse_conflict_in(tx, &rule).await?;
    if K::CLAIMED {
        least::refuse_claimed_in(tx, &rule.policy_id).await?;
    }
    touch_policy_in(tx, &rule.policy_id).await?;
    Ok(tx.insert(&rule).await?)
}

pub async fn update_rule_in<K: Kind>(tx: &mut Tx, mut found: Stored<QosRule<K>>, changes: &Raw) -> Result<(), Fault> {
    found.record = overlay(&found.record, changes)?;
    refuse_conflict_in(tx, &found.record).await?;
    if K::CLAIMED {
        least::refuse_claimed_in(tx, &found.policy_id).await?;
    }
    touch_policy_in(tx, &found.policy_id).await?;
    tx.update(&found).await?;
    Ok(())
}

async fn refuse_conflict_in<K: Kind>(tx: &mut Tx, rule: &QosRule<K>) -> Result<(), Fault> {
    let others = tx.list::<QosRule<K>>(find::of_policies([rule.policy_id.as_str()])).await?;
    match others.iter().find(|o| o.conflicts(rule)) {
        None => Ok(()),
        Some(other) => Err(fault::conflict(
            "QoSRulesConflict",
            format!(
                "Rule {} conflicts with rule {} which already exists in QoS Policy {}.",
                K::TYPE,
                other.id,
                rule.policy_id
            ),
        )),
    }
}

/// A policy's revision counts the changes of its rules too.
pub async fn touch_policy_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    let policy = tx.get::<QosPolicy>(id).await?.ok_or_else(|| missing(id))?;
    tx.update(&policy).await?;
    Ok(())
}
