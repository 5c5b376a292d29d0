//! The verbs of taps; the only writer of their records.
use super::{
    model::{MirrorType, SESSION_MAX, TapFlow, TapMirror, TapService, copies},
    service::TAP_SERVICE,
};
use crate::{
    attribute::overlay, fault, list::Raw, network::ops::sees_all, port::model::Port, segment_range, tables::find,
};
use pilvi_kit::{Ctx, Fault};
use pilvi_store::{Error, Record, Stored, Tx};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// Flows of one source port, and copies of one frame: as many as the packet path makes.
pub const COPIES_MAX: usize = 4;

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
    let flow: TapFlow = made(attrs, json!({"id": pilvi_kit::id::new()}))?;
    let (mut flows, mirrors) = copied_in(tx, &source.id).await?;
    if flows.len() >= COPIES_MAX {
        return Err(fault::conflict(
            "TapFlowLimitReached",
            format!("Port {} has {COPIES_MAX} tap flows, and can have no more.", source.id),
        ));
    }
    flows.push(flow.clone());
    refuse_more("TapFlowLimitReached", &source.id, copies(&flows, &mirrors))?;
    Ok(tx.insert(&flow).await?)
}

/// What copies a port's frames.
async fn copied_in(tx: &mut Tx, port: &str) -> Result<(Vec<TapFlow>, Vec<TapMirror>), Fault> {
    let flows = tx.list::<TapFlow>(find::tapped([port])).await?;
    let mirrors = tx.list::<TapMirror>(find::of_ports([port])).await?;
    Ok((flows.into_iter().map(|f| f.record).collect(), mirrors.into_iter().map(|m| m.record).collect()))
}

fn refuse_more(kind: &'static str, port: &str, copies: [usize; 2]) -> Result<(), Fault> {
    if copies.iter().all(|n| *n <= COPIES_MAX) {
        return Ok(());
    }
    Err(fault::conflict(
        kind,
        format!("Frames of port {port} are copied {COPIES_MAX} times, and can be no more often."),
    ))
}

pub async fn create_mirror_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<TapMirror>, Fault> {
    let port = port_in(tx, ctx, text(attrs, "port_id"), text(attrs, "project_id")).await?;
    let mirror: TapMirror = made(attrs, json!({"id": pilvi_kit::id::new()}))?;
    if mirror.mirror_type == MirrorType::Erspan
        && let Some(number) = mirror.directions.values().find(|n| **n > SESSION_MAX)
    {
        return Err(fault::invalid(format!("'{number}' is no session of ERSPAN - it can be at most '{SESSION_MAX}'")));
    }
    let (flows, mut mirrors) = copied_in(tx, &port.id).await?;
    mirrors.push(mirror.clone());
    refuse_more("TapMirrorLimitReached", &port.id, copies(&flows, &mirrors))?;
    match tx.insert(&mirror).await {
        Err(Error::Claimed { value, .. }) => {
            let number = value.rsplit('/').next().unwrap_or_default();
            let text = format!("Tap Mirror with tunnel_id {number} already exists.");
            Err(fault::conflict("TapMirrorTunnelConflict", text))
        }
        inserted => Ok(inserted?),
    }
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
    for mirror in tx.list::<TapMirror>(find::of_ports([port_id])).await? {
        tx.delete::<TapMirror>(&mirror.id).await?;
    }
    for service in tx.list::<TapService>(find::of_ports([port_id])).await? {
        delete_service_in(tx, &service.id).await?;
    }
    Ok(())
}
