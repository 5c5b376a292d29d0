//! The verbs of RBAC policies; the only writer of them and of the lists that they leave in what they open.
//!
//! ```text
//! policy comes, moves or goes --> targets of that action afterwards --> does anybody use it who is not named
//! there any more? 409 --> policy written, lists written into the record (whose revision grows)
//! ```
use super::{
    model::{Action, EVERYONE, RbacPolicy, covers},
    shared::Shareable,
};
use crate::{
    address_group::model::AddressGroup, address_scope::model::AddressScope, fault, list::Raw,
    network::model::VirtualNetwork, network::ops::sees_all, qos::model::QosPolicy, quota,
    security_group::model::SecurityGroup, subnet_pool::model::SubnetPool, tables::find,
};
use pilvi_kit::{Ctx, Fault};
use pilvi_store::{Stored, Tx};
use serde_json::{Value, json};

/// Policies of one thing: its lists are kept in the record, and a record has an end.
const TARGETS_MAX: usize = 500;

/// Types of things that can be opened.
pub const TYPES: [&str; 6] =
    ["address_group", "address_scope", "network", "qos_policy", "security_group", "subnetpool"];

/// Does `$body` with `$T` bound to the type that `$name` names.
macro_rules! of_type {
    ($name:expr, $T:ident => $body:expr) => {
        match $name {
            "network" => {
                type $T = VirtualNetwork;
                $body
            }
            "subnetpool" => {
                type $T = SubnetPool;
                $body
            }
            "address_scope" => {
                type $T = AddressScope;
                $body
            }
            "qos_policy" => {
                type $T = QosPolicy;
                $body
            }
            "address_group" => {
                type $T = AddressGroup;
                $body
            }
            "security_group" => {
                type $T = SecurityGroup;
                $body
            }
            other => Err(fault::invalid(format!("'{other}' is not a type of object that can be shared"))),
        }
    };
}

fn parse(attrs: &Raw) -> Result<RbacPolicy, Fault> {
    let mut document = attrs.clone();
    document.insert("id".into(), json!(pilvi_kit::id::new()));
    serde_json::from_value(Value::Object(document)).map_err(Fault::internal)
}

pub async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<RbacPolicy>, Fault> {
    let policy = parse(attrs)?;
    quota::check_in::<RbacPolicy>(tx, &policy.project_id, "rbac_policy").await?;
    of_type!(policy.object_type.as_str(), T => create_for::<T>(tx, ctx, policy).await)
}

async fn create_for<T: Shareable>(tx: &mut Tx, ctx: &Ctx, policy: RbacPolicy) -> Result<Stored<RbacPolicy>, Fault> {
    if !T::ACTIONS.contains(&policy.action) {
        return Err(fault::bad(
            "InvalidInput",
            format!("Invalid input for operation: Invalid action for object type '{}'.", T::TYPE),
        ));
    }
    let object = tx.get::<T>(&policy.object_id).await?.ok_or_else(|| T::RESOURCE.not_found(&policy.object_id))?;
    refuse_foreign(ctx, object.owner())?;
    object.check_in(tx, &policy.target_tenant).await?;
    let have = tx.list::<RbacPolicy>(find::about(&policy.object_id)).await?;
    if have.len() >= TARGETS_MAX {
        return Err(fault::over_quota("rbac_policy"));
    }
    if have.iter().any(|p| p.action == policy.action && p.target_tenant == policy.target_tenant) {
        return Err(duplicate());
    }
    let stored = tx.insert(&policy).await?;
    write_targets(tx, object, policy.action).await?;
    Ok(stored)
}

fn duplicate() -> Fault {
    fault::conflict("DuplicateRbacPolicy", "An RBAC policy already exists with those values.")
}

fn refuse_foreign(ctx: &Ctx, owner: &str) -> Result<(), Fault> {
    if sees_all(ctx) || owner == ctx.project_id() {
        return Ok(());
    }
    Err(fault::invalid("Only admins can manipulate policies on objects they do not own"))
}

/// The lists in the record become what its policies say.
async fn write_targets<T: Shareable>(tx: &mut Tx, mut object: Stored<T>, action: Action) -> Result<(), Fault> {
    let id = object.record.id().to_owned();
    let targets = targets_in(tx, &id, action).await?;
    object.record.set(action, &targets);
    tx.update(&object).await?;
    Ok(())
}

async fn targets_in(tx: &mut Tx, object_id: &str, action: Action) -> Result<Vec<String>, Fault> {
    let mut targets: Vec<String> = tx
        .list::<RbacPolicy>(find::about(object_id))
        .await?
        .into_iter()
        .filter(|p| p.action == action)
        .map(|p| p.record.target_tenant)
        .collect();
    targets.sort();
    Ok(targets)
}

/// 409 if somebody uses the object by `policy` and would have no other once `instead` stands for it.
async fn refuse_in_use<T: Shareable>(
    tx: &mut Tx,
    object: &T,
    policy: &RbacPolicy,
    instead: Option<&str>,
) -> Result<(), Fault> {
    let mut after: Vec<String> = tx
        .list::<RbacPolicy>(find::about(&policy.object_id))
        .await?
        .into_iter()
        .filter(|p| p.action == policy.action && p.id != policy.id)
        .map(|p| p.record.target_tenant)
        .collect();
    after.extend(instead.map(str::to_owned));
    let lost = |user: &String| {
        !user.is_empty()
            && user != object.owner()
            && covers(std::slice::from_ref(&policy.target_tenant), user)
            && !covers(&after, user)
    };
    let reason = if policy.target_tenant == EVERYONE && object.keeps_wildcard(policy.action) {
        Some("it is the default external network".to_owned())
    } else {
        let users = object.users_in(tx, policy.action).await?;
        users.into_iter().find(lost).map(|user| format!("project {user} uses the {}", T::TYPE))
    };
    match reason {
        Some(reason) => Err(fault::conflict(
            "RbacPolicyInUse",
            format!(
                "RBAC policy on object {} cannot be removed because other objects depend on it. Details: {reason}.",
                policy.object_id
            ),
        )),
        None => Ok(()),
    }
}

/// Only the target of a policy can change.
pub async fn update_in(tx: &mut Tx, ctx: &Ctx, found: Stored<RbacPolicy>, changes: &Raw) -> Result<(), Fault> {
    let Some(target) = changes.get("target_tenant").and_then(Value::as_str).map(str::to_owned) else { return Ok(()) };
    of_type!(found.object_type.clone().as_str(), T => retarget::<T>(tx, ctx, found, &target).await)
}

async fn retarget<T: Shareable>(
    tx: &mut Tx,
    ctx: &Ctx,
    mut found: Stored<RbacPolicy>,
    target: &str,
) -> Result<(), Fault> {
    let object = tx.get::<T>(&found.object_id).await?.ok_or_else(|| T::RESOURCE.not_found(&found.object_id))?;
    refuse_foreign(ctx, object.owner())?;
    object.check_in(tx, target).await?;
    // Of networks Neutron looks at who would have it afterwards; of all else, at who has it by the policy as it is.
    let instead = (T::TYPE == VirtualNetwork::TYPE).then_some(target);
    refuse_in_use(tx, &object.record, &found, instead).await?;
    let have = tx.list::<RbacPolicy>(find::about(&found.object_id)).await?;
    if have.iter().any(|p| p.id != found.id && p.action == found.action && p.target_tenant == target) {
        return Err(duplicate());
    }
    target.clone_into(&mut found.target_tenant);
    let action = found.action;
    tx.update(&found).await?;
    write_targets(tx, object, action).await
}

pub async fn delete_in(tx: &mut Tx, found: Stored<RbacPolicy>) -> Result<(), Fault> {
    of_type!(found.object_type.clone().as_str(), T => remove::<T>(tx, found).await)
}

async fn remove<T: Shareable>(tx: &mut Tx, found: Stored<RbacPolicy>) -> Result<(), Fault> {
    if let Some(object) = tx.get::<T>(&found.object_id).await? {
        refuse_in_use(tx, &object.record, &found, None).await?;
        tx.delete::<RbacPolicy>(&found.id).await?;
        return write_targets(tx, object, found.action).await;
    }
    tx.delete::<RbacPolicy>(&found.id).await?;
    Ok(())
}

/// A record's own flag (`shared`, `router:external`) was set or cleared: its policies follow. The caller writes the
/// record, with the lists that this gives it.
pub async fn follow_flag_in<T: Shareable>(
    tx: &mut Tx,
    object: &mut T,
    action: Action,
    wanted: bool,
) -> Result<(), Fault> {
    let have = tx.list::<RbacPolicy>(find::about(object.id())).await?;
    let mut targets: Vec<String> = Vec::new();
    for policy in have.iter().filter(|p| p.action == action) {
        // What is no longer external is so to nobody; what is no longer shared with all may be so with some.
        if !wanted && (action == Action::External || policy.target_tenant == EVERYONE) {
            tx.delete::<RbacPolicy>(&policy.id).await?;
        } else {
            targets.push(policy.target_tenant.clone());
        }
    }
    if wanted && !targets.iter().any(|t| t == EVERYONE) {
        tx.insert(&RbacPolicy::new(object.owner(), T::TYPE, object.id(), EVERYONE, action)).await?;
        targets.push(EVERYONE.to_owned());
    }
    targets.sort();
    object.set(action, &targets);
    Ok(())
}

/// A record goes, and its policies with it.
pub async fn forget_in(tx: &mut Tx, object_id: &str) -> Result<(), Fault> {
    for policy in tx.list::<RbacPolicy>(find::about(object_id)).await? {
        tx.delete::<RbacPolicy>(&policy.id).await?;
    }
    Ok(())
}
