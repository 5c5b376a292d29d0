//! The verbs of address groups; the only writer of the record.
use super::model::AddressGroup;
use crate::{
    attribute::overlay, check, fault, list::Raw, quota, rbac, security_group::model::SecurityGroupRule, tables::find,
};
use pilvi_kit::Fault;
use pilvi_store::{Stored, Tx};
use serde_json::{Value, json};

/// Blocks of one group.
const BLOCKS_MAX: usize = 512;

pub fn missing(id: &str) -> Fault {
    fault::missing("AddressGroupNotFound", "Address group", id)
}

pub async fn create_in(tx: &mut Tx, attrs: &Raw) -> Result<Stored<AddressGroup>, Fault> {
    let project = attrs.get("project_id").and_then(Value::as_str).unwrap_or_default();
    quota::check_in::<AddressGroup>(tx, project, "address_group").await?;
    let mut document = attrs.clone();
    document.insert("id".into(), json!(pilvi_kit::id::new()));
    let group: AddressGroup = serde_json::from_value(Value::Object(document)).map_err(Fault::internal)?;
    Ok(tx.insert(&group).await?)
}

pub async fn update_in(tx: &mut Tx, mut found: Stored<AddressGroup>, changes: &Raw) -> Result<(), Fault> {
    found.record = overlay(&found.record, changes)?;
    tx.update(&found).await?;
    Ok(())
}

pub async fn delete_in(tx: &mut Tx, found: Stored<AddressGroup>) -> Result<(), Fault> {
    if tx.count::<SecurityGroupRule>(find::with_address_group(&found.id)).await? > 0 {
        return Err(fault::conflict(
            "AddressGroupInUse",
            format!("Address group {} is in use on one or more security group rules.", found.id),
        ));
    }
    rbac::ops::forget_in(tx, &found.id).await?;
    tx.delete::<AddressGroup>(&found.id).await?;
    Ok(())
}

/// Blocks as they are kept; a lone address is a block of its own.
pub fn blocks(sent: &Value) -> Result<Vec<String>, Fault> {
    let refuse = |reason: String| Fault::bad_request(format!("Invalid input for addresses. Reason: {reason}."));
    let items = sent.as_array().filter(|a| !a.is_empty() && a.len() <= BLOCKS_MAX);
    let items = items.ok_or_else(|| refuse(format!("a list of 1 to {BLOCKS_MAX} blocks is needed")))?;
    let mut out: Vec<String> = Vec::new();
    for item in items {
        let text = check::prefix_or_null(item).map_err(refuse)?;
        let text = text.as_str().ok_or_else(|| refuse("null is not a valid IP subnet".to_owned()))?;
        let block = check::cidr_text(text).map_err(refuse)?.trunc().to_string();
        if !out.contains(&block) {
            out.push(block);
        }
    }
    Ok(out)
}

/// Adds blocks, or removes them: all or none.
pub async fn change_in(tx: &mut Tx, id: &str, blocks: &[String], add: bool) -> Result<(), Fault> {
    let mut group = tx.get::<AddressGroup>(id).await?.ok_or_else(|| missing(id))?;
    let (there, absent): (Vec<&String>, Vec<&String>) = blocks.iter().partition(|b| group.addresses.contains(b));
    if add && !there.is_empty() {
        return Err(fault::bad(
            "AddressesAlreadyExist",
            format!("Addresses {there:?} already exist in the address group {id}."),
        ));
    }
    if !add && !absent.is_empty() {
        return Err(Fault::not_found(format!("Addresses {absent:?} not found in the address group {id}."))
            .kind("AddressesNotFound"));
    }
    if add {
        group.addresses.extend(blocks.iter().cloned());
    } else {
        group.addresses.retain(|a| !blocks.contains(a));
    }
    if group.addresses.len() > BLOCKS_MAX {
        return Err(Fault::bad_request(format!("An address group has at most {BLOCKS_MAX} blocks.")));
    }
    tx.update(&group).await?;
    Ok(())
}
