//! The verbs of taps; the only writer of both records.
use super::{
    model::{TapFlow, TapService},
    service::TAP_SERVICE,
};
use crate::{
    attribute::overlay, fault, list::Raw, network::ops::sees_all, port::model::Port, segment_range, tables::find,
};
use pilvi_kit::{Ctx, Fault};
use pilvi_store::{Record, Stored, Tx};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// Flows of one source port, each way: what the packet path copies a frame to.
pub const COPIES_MAX: u64 = 4;

fn text<'a>(attrs: &'a Raw, name: &str) -> &'a str {
    attrs.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A port that the project of the tap has; nobody looks at what is not his.
async fn port_in(tx: &mut Tx, ctx: &Ctx, id: &str, project: &str) -> Result<Port, Fault> {
    let port = tx.get::<Port>(id).await?.filter(|p| sees_all(ctx) || p.project_id == ctx.project_id());
    let port = port.ok_or_else(|| fault::port_missing(id))?.record;
    if port.project_id != project {
        let text = "The specified port does not belong to the tenant.";
        return Err(Fault::forbidden(text).kind("PortDoesNotBelongToTenant"));
    }
    Ok(port)
}

fn made<R: DeserializeOwned>(attrs: &Raw, more: Value) -> Result<R, Fault> {
    let mut document = attrs.clone();
    document.extend(more.as_object().cloned().unwrap_or_default());
    serde_json::from_value(Value::Object(document)).map_err(Fault::internal)
}

pub async fn create_service_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<TapService>, Fault> {
    let project = text(attrs, "project_id");
    port_in(tx, ctx, text(attrs, "port_id"), project).await?;
    let vni = segment_range::ops::spare_in(tx).await?;
    let service: TapService = made(attrs, json!({"id": pilvi_kit::id::new(), "vni": vni}))?;
    Ok(tx.insert(&service).await?)
}

pub async fn create_flow_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<TapFlow>, Fault> {
    let (project, service) = (text(attrs, "project_id"), text(attrs, "tap_service_id"));
    let found = tx.get::<TapService>(service).await?;
    let found = found.filter(|s| sees_all(ctx) || s.project_id == ctx.project_id());
    let found = found.ok_or_else(|| TAP_SERVICE.not_found(service))?;
    if found.project_id != project {
        let text = "The specified Tap Service does not belong to the tenant.";
        return Err(Fault::forbidden(text).kind("TapServiceNotBelongToTenant"));
    }
    let source = port_in(tx, ctx, text(attrs, "source_port"), project).await?;
    if source.id == found.port_id {
        return Err(fault::bad("BadRequest", "Bad tap_flow request: A port does not look at itself."));
    }
    if tx.count::<TapFlow>(find::tapped([source.id.as_str()])).await? >= COPIES_MAX {
        return Err(fault::conflict(
            "TapFlowLimitReached",
            format!("Port {} has {COPIES_MAX} tap flows, and can have no more.", source.id),
        ));
    }
    let flow: TapFlow = made(attrs, json!({"id": pilvi_kit::id::new()}))?;
    Ok(tx.insert(&flow).await?)
}

/// Names and descriptions alone may change.
pub async fn update_in<R>(tx: &mut Tx, mut found: Stored<R>, changes: &Raw) -> Result<(), Fault>
where
    R: Record + Serialize + DeserializeOwned,
{
    found.record = overlay(&found.record, changes)?;
    tx.update(&found).await?;
    Ok(())
}

/// Its flows go with it.
pub async fn delete_service_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    for flow in tx.list::<TapFlow>(find::of_tap_services([id])).await? {
        tx.delete::<TapFlow>(&flow.id).await?;
    }
    tx.delete::<TapService>(id).await?;
    Ok(())
}

/// A port goes, and so do the taps that need it.
pub async fn forget_in(tx: &mut Tx, port_id: &str) -> Result<(), Fault> {
    for flow in tx.list::<TapFlow>(find::tapped([port_id])).await? {
        tx.delete::<TapFlow>(&flow.id).await?;
    }
    for service in tx.list::<TapService>(find::of_ports([port_id])).await? {
        delete_service_in(tx, &service.id).await?;
    }
    Ok(())
}
