//! The verbs of conntrack helpers; the only writer of the record.
use super::model::{ConntrackHelper, OFFERED};
use crate::{attribute::overlay, fault, list::Raw, router::model::Router, tables::find};
use pilvi_kit::Fault;
use pilvi_store::{Stored, Tx};
use serde_json::{Value, json};

/// Helpers of one router.
const HELPERS_MAX: usize = 32;

pub async fn create_in(tx: &mut Tx, attrs: &Raw) -> Result<Stored<ConntrackHelper>, Fault> {
    let mut document = attrs.clone();
    document.insert("id".into(), json!(pilvi_kit::id::new()));
    let helper: ConntrackHelper = serde_json::from_value(Value::Object(document)).map_err(Fault::internal)?;
    if tx.get::<Router>(&helper.router_id).await?.is_none() {
        return Err(fault::router_missing(&helper.router_id));
    }
    check_in(tx, &helper).await?;
    Ok(tx.insert(&helper).await?)
}

pub async fn update_in(tx: &mut Tx, mut found: Stored<ConntrackHelper>, changes: &Raw) -> Result<(), Fault> {
    found.record = overlay(&found.record, changes)?;
    check_in(tx, &found).await?;
    tx.update(&found).await?;
    Ok(())
}

/// Refuses what the packet path cannot do, and what is there.
async fn check_in(tx: &mut Tx, helper: &ConntrackHelper) -> Result<(), Fault> {
    let Some((_, protocols)) = OFFERED.iter().find(|(name, _)| *name == helper.helper) else {
        return Err(fault::bad(
            "ConntrackHelperNotAllowed",
            format!("Conntrack Helper {} is not allowed.", helper.helper),
        ));
    };
    if !protocols.contains(&helper.protocol.as_str()) {
        return Err(fault::bad(
            "InvalidProtocolForHelper",
            format!(
                "Conntrack Helper {} does not support: {}. Supported protocols are: {}",
                helper.helper,
                helper.protocol,
                protocols.join(", ")
            ),
        ));
    }
    let others = tx.list::<ConntrackHelper>(find::of_router(&helper.router_id)).await?;
    let same = |o: &ConntrackHelper| o.id != helper.id && o.protocol == helper.protocol && o.port == helper.port;
    if others.iter().any(|o| same(o)) {
        return Err(fault::bad(
            "BadRequest",
            format!(
                "Bad conntrack_helper request: A duplicate conntrack helper entry with same attributes already exists, conflicting values are router_id {}, protocol {}, port {}.",
                helper.router_id, helper.protocol, helper.port
            ),
        ));
    }
    if others.iter().filter(|o| o.id != helper.id).count() >= HELPERS_MAX {
        return Err(Fault::conflict(format!("A router has at most {HELPERS_MAX} conntrack helpers.")));
    }
    Ok(())
}

/// With their router they go.
pub async fn forget_in(tx: &mut Tx, router_id: &str) -> Result<(), Fault> {
    for helper in tx.list::<ConntrackHelper>(find::of_router(router_id)).await? {
        tx.delete::<ConntrackHelper>(&helper.id).await?;
    }
    Ok(())
}
