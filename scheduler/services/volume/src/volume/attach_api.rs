//! The verbs of clients that attach volumes by themselves, as it was before `/attachments`.
use super::{
    api::{text, truth},
    model::Status,
    ops,
};
use crate::{
    Volumes,
    attachment::{model::AttachStatus, ops as attachments},
    fault,
    host::backend,
    tables::{Attachment, Volume},
};
use pilvi_kit::{Call, Ctx, Fault, Reply, Response, clock};
use pilvi_store::{Stored, Tx};
use serde_json::{Value, json};

pub async fn attach(svc: &Volumes, call: &Call, volume: &Stored<Volume>, given: &Value) -> Reply {
    let (server, host) = (text(given, &["instance_uuid"]), text(given, &["host_name"]));
    if server.is_none() && host.is_none() {
        return Err(Fault::bad_request(
            "Invalid input for field/attribute os-attach. 'instance_uuid' or 'host_name' is a required property",
        ));
    }
    let mode = text(given, &["mode"]).unwrap_or_else(|| "rw".into());
    if volume.read_only == Some(true) && mode != "ro" {
        return Err(fault::invalid_volume(format!("Invalid attaching mode '{mode}' for volume {}.", volume.record.id)));
    }
    let with = (volume.record.id.clone(), server, host, text(given, &["mountpoint"]), mode, call.ctx.clone());
    svc.write(with, |tx, (id, server, host, device, mode, ctx)| {
        Box::pin(async move {
            let mut volume = ops::visible_in(tx, &ctx, &id).await?;
            let fits = matches!(volume.status, Status::Available | Status::Attaching)
                || (volume.multiattach && volume.status == Status::InUse);
            if !fits || volume.wanted.delete {
                let wanted =
                    if volume.multiattach { "available, attaching or in-use" } else { "available or attaching" };
                return Err(fault::wrong_status("Volume", &id, wanted, "attach", volume.status.as_str()));
            }
            let attachment = Attachment {
                status: AttachStatus::Attached,
                device,
                mode,
                host,
                attached_us: Some(clock::now_us()),
                ..attachments::reserved(&volume, server)
            };
            tx.insert(&attachment).await?;
            volume.record.status = Status::InUse;
            volume.record.read_only = volume.read_only.or(Some(false));
            tx.update(&volume).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Response::empty(202))
}

/// The one attachment that is meant; none where there is none at all.
pub async fn meant_in(
    tx: &mut Tx,
    ctx: &Ctx,
    volume: &Volume,
    named: Option<&str>,
) -> Result<Option<Stored<Attachment>>, Fault> {
    let mut all = attachments::of_in(tx, &volume.id).await?;
    if let Some(id) = named {
        all.retain(|a| a.record.id == id);
        if all.is_empty() {
            return Err(Fault::bad_request(format!(
                "Error detaching volume - VolumeAttachmentNotFound: Volume attachment could not be found with filter: attachment_id = {id}."
            )));
        }
    }
    if all.len() > 1 {
        return Err(fault::invalid_volume(format!(
            "Volume {} is attached to more than one instance. A valid attachment_id must be passed to detach this volume.",
            volume.id
        )));
    }
    if let Some(attachment) = all.first() {
        attachments::check_unmanaged(ctx, attachment)?;
    }
    Ok(all.pop())
}

pub async fn detach(svc: &Volumes, call: &Call, volume: &Stored<Volume>, given: &Value) -> Reply {
    let named = text(given, &["attachment_id"]);
    svc.write((volume.record.id.clone(), named, call.ctx.clone()), |tx, (id, named, ctx)| {
        Box::pin(async move {
            let volume = ops::visible_in(tx, &ctx, &id).await?;
            if volume.status == Status::Maintenance {
                return Err(fault::invalid_volume("The volume cannot be detached in maintenance mode."));
            }
            if let Some(attachment) = meant_in(tx, &ctx, &volume, named.as_deref()).await? {
                attachments::detach_in(tx, &attachment.record.id, false).await?;
            }
            attachments::rest_in(tx, &id).await
        })
    })
    .await?;
    Ok(Response::empty(202))
}

impl Volumes {
    /// Back to what its attachments make of a volume that is in this state.
    pub(crate) async fn rest(&self, id: &str, from: Status) -> Reply {
        self.write((id.to_owned(), from), |tx, (id, from)| {
            Box::pin(async move {
                if ops::get_in(tx, &id).await?.status == from { attachments::rest_in(tx, &id).await } else { Ok(()) }
            })
        })
        .await?;
        Ok(Response::empty(202))
    }
}

/// What is said of the way to a volume: it is read and written by servers of this cloud alone, so there is no address.
pub fn connection(volume: &Volume, mode: &str) -> Value {
    json!({"driver_volume_type": backend::PROTOCOL, "data": {"volume_id": volume.id, "access_mode": mode,
        "encrypted": false, "qos_specs": null, "discard": true}})
}

pub fn initialize(volume: &Stored<Volume>, given: &Value) -> Reply {
    if volume.status == Status::Maintenance {
        return Err(fault::invalid_volume("The volume connection cannot be initialized in maintenance mode."));
    }
    let mode = if volume.read_only == Some(true) { "ro" } else { "rw" };
    let mut info = connection(volume, mode);
    info["enforce_multipath"] = json!(truth(given.get("connector").and_then(|c| c.get("enforce_multipath"))));
    Ok(Response::ok(json!({"connection_info": info})))
}

pub async fn terminate(svc: &Volumes, call: &Call, volume: &Stored<Volume>) -> Reply {
    svc.write((volume.record.id.clone(), call.ctx.clone()), |tx, (id, ctx)| {
        Box::pin(async move {
            let all = attachments::of_in(tx, &id).await?;
            all.iter().try_for_each(|a| attachments::check_unmanaged(&ctx, a))
        })
    })
    .await?;
    svc.rest(&volume.record.id, Status::Attaching).await
}
