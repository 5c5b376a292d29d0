//! The verbs of logs; the only writer of the record.
use super::model::{FlowLog, SECURITY_GROUP};
use crate::{
    attribute::overlay, fault, list::Raw, network::ops::sees_all, port::model::Port,
    security_group::model::SecurityGroup, tables::find,
};
use pilvi_kit::{Ctx, Fault};
use pilvi_store::{Stored, Tx};
use serde_json::{Value, json};

/// Logs of one project: each is looked at for every port of a host.
const LOGS_MAX: u64 = 64;

pub async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<FlowLog>, Fault> {
    let mut document = attrs.clone();
    document.insert("id".into(), json!(pilvi_kit::id::new()));
    let log: FlowLog = serde_json::from_value(Value::Object(document)).map_err(Fault::internal)?;
    if log.resource_type != SECURITY_GROUP {
        return Err(fault::bad(
            "InvalidLogResourceType",
            format!("Invalid input for operation: Invalid log resource_type: {}.", log.resource_type),
        ));
    }
    refuse_strangers_in(tx, ctx, &log).await?;
    if tx.count::<FlowLog>(find::of_project(&log.project_id)).await? >= LOGS_MAX {
        return Err(Fault::conflict(format!("A project has at most {LOGS_MAX} logs.")));
    }
    Ok(tx.insert(&log).await?)
}

/// The group and the port must be there for the caller, and the port in the group.
async fn refuse_strangers_in(tx: &mut Tx, ctx: &Ctx, log: &FlowLog) -> Result<(), Fault> {
    if let Some(id) = &log.resource_id {
        let group = tx.get::<SecurityGroup>(id).await?;
        let seen = |g: &Stored<SecurityGroup>| sees_all(ctx) || g.project_id == ctx.project_id();
        group.filter(seen).ok_or_else(|| fault::missing("ResourceNotFound", "Resource", id))?;
    }
    let Some(id) = &log.target_id else { return Ok(()) };
    let port = tx.get::<Port>(id).await?.filter(|p| sees_all(ctx) || p.project_id == ctx.project_id());
    let port = port.ok_or_else(|| fault::missing("TargetResourceNotFound", "Target resource", id))?;
    match &log.resource_id {
        Some(group) if !port.security_groups.contains(group) => Err(fault::bad(
            "InvalidResourceConstraint",
            format!(
                "Invalid input for operation: Invalid resource constraint between resource ({SECURITY_GROUP} {group}) and target resource (port {id})."
            ),
        )),
        _ => Ok(()),
    }
}

pub async fn update_in(tx: &mut Tx, mut found: Stored<FlowLog>, changes: &Raw) -> Result<(), Fault> {
    found.record = overlay(&found.record, changes)?;
    tx.update(&found).await?;
    Ok(())
}

/// A port or a group goes, and with it the logs that name it.
pub async fn forget_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    for log in tx.list::<FlowLog>(find::of_subject(id)).await? {
        tx.delete::<FlowLog>(&log.id).await?;
    }
    Ok(())
}
