//! The verbs of address scopes, and what subnet pools ask of them.
use super::model::{AddressScope, of_network};
use crate::{
    address,
    attribute::overlay,
    fault,
    list::Raw,
    network::ops::sees_all,
    rbac::{self, model::Action},
    subnet::model::Subnet,
    subnet_pool::model::SubnetPool,
    tables::find,
};
use ipnet::IpNet;
use pilvi_kit::{Ctx, Fault};
use pilvi_store::{Query, Store, Stored, Tx};
use serde_json::{Value, json};
use std::collections::HashMap;

pub fn missing(id: &str) -> Fault {
    fault::missing("AddressScopeNotFound", "Address scope", id)
}

pub async fn create_in(tx: &mut Tx, attrs: &Raw) -> Result<Stored<AddressScope>, Fault> {
    let mut document = attrs.clone();
    document.insert("id".into(), json!(pilvi_kit::id::new()));
    let mut scope: AddressScope = serde_json::from_value(Value::Object(document)).map_err(Fault::internal)?;
    if scope.shared {
        rbac::ops::follow_flag_in(tx, &mut scope, Action::Shared, true).await?;
    }
    Ok(tx.insert(&scope).await?)
}

/// What was shared with everyone stays so: others' pools may be in it.
pub async fn update_in(tx: &mut Tx, mut found: Stored<AddressScope>, changes: &Raw) -> Result<(), Fault> {
    let mut after: AddressScope = overlay(&found.record, changes)?;
    if found.shared && !after.shared {
        return Err(fault::bad(
            "AddressScopeUpdateError",
            format!("Unable to update address scope {} : Shared address scope can't be unshared", found.id),
        ));
    }
    if after.shared && !found.shared {
        rbac::ops::follow_flag_in(tx, &mut after, Action::Shared, true).await?;
    }
    found.record = after;
    tx.update(&found).await?;
    Ok(())
}

pub async fn delete_in(tx: &mut Tx, found: Stored<AddressScope>) -> Result<(), Fault> {
    if tx.count::<SubnetPool>(find::in_scope(&found.id)).await? > 0 {
        return Err(fault::conflict(
            "AddressScopeInUse",
            format!(
                "Unable to complete operation on address scope {}. There are one or more subnet pools in use on the address scope",
                found.id
            ),
        ));
    }
    rbac::ops::forget_in(tx, &found.id).await?;
    tx.delete::<AddressScope>(&found.id).await?;
    Ok(())
}

/// May `pool` be in its scope with these blocks? `before` is the pool as it was.
pub async fn check_pool_in(
    tx: &mut Tx,
    ctx: &Ctx,
    pool: &SubnetPool,
    blocks: &[IpNet],
    before: Option<&SubnetPool>,
) -> Result<(), Fault> {
    let Some(id) = &pool.address_scope_id else { return Ok(()) };
    let scope = tx.get::<AddressScope>(id).await?;
    let scope = scope.filter(|s| sees_all(ctx) || s.is_open_to(ctx.project_id())).ok_or_else(|| missing(id))?;
    if scope.ip_version != pool.ip_version {
        return Err(fault::bad(
            "IllegalSubnetPoolIpVersionAssociationToAddressScope",
            format!(
                "Illegal subnetpool association: subnetpool {} cannot associate with address scope {id} because subnetpool ip_version is not {}.",
                pool.id, scope.ip_version
            ),
        ));
    }
    // Blocks of a scope are its owner's to give away; joining one that is open is not.
    let grows = before.is_some_and(|b| b.address_scope_id == pool.address_scope_id && b.prefixes != pool.prefixes);
    if grows && !sees_all(ctx) && scope.project_id != ctx.project_id() {
        return Err(fault::bad(
            "IllegalSubnetPoolUpdate",
            format!(
                "Illegal subnetpool update : subnetpool {} cannot be updated by a project that does not own address scope {id}.",
                pool.id
            ),
        ));
    }
    for other in tx.list::<SubnetPool>(find::in_scope(id)).await? {
        if other.id == pool.id {
            continue;
        }
        let theirs = other.prefixes.iter().filter_map(|p| p.parse::<IpNet>().ok());
        if theirs.into_iter().any(|t| blocks.iter().any(|b| address::overlap(&t, b))) {
            return Err(fault::conflict(
                "AddressScopePrefixConflict",
                "Failed to associate address scope: subnetpools within an address scope must have unique prefixes.",
            ));
        }
    }
    Ok(())
}

/// The scope of a network's addresses of one IP version.
pub async fn of_network_in(tx: &mut Tx, network_id: &str, version: u8) -> Result<Option<String>, Fault> {
    let subnets = tx.list::<Subnet>(find::on_network(network_id)).await?;
    let pools = subnets.iter().filter_map(|s| s.subnetpool_id.as_deref());
    let pools = tx.list::<SubnetPool>(Query::all().ids(pools)).await?;
    let scope = |id: &str| pools.iter().find(|p| p.id == id)?.address_scope_id.as_deref();
    Ok(of_network(subnets.iter().map(|s| &s.record), version, scope).map(str::to_owned))
}

/// The scope of each subnet pool, for networks that show theirs.
pub async fn of_pools(store: &Store, pools: &[&str]) -> Result<HashMap<String, Option<String>>, Fault> {
    let mut out = HashMap::new();
    for chunk in pools.chunks(500) {
        for pool in store.list::<SubnetPool>(Query::all().ids(chunk.iter().copied())).await? {
            out.insert(pool.record.id, pool.record.address_scope_id);
        }
    }
    Ok(out)
}
