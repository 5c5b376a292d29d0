//! The verbs on attachments: the only writer of their records, and of what a volume's status says of its use.
use super::model::{AttachStatus, used};
use crate::{
    fault,
    tables::{Attachment, Volume},
    volume::{
        model::{Status, resting},
        ops as volumes,
    },
};
use pilvi_kit::{Ctx, Fault, clock, id};
use pilvi_store::{Query, Stored, Tx};

/// A server's wish for a volume.
#[derive(Debug, Clone, Default)]
pub struct Claim {
    pub volume_id: String,
    pub server_id: String,
    /// `None`: reserved until the server has a host ([`place_in`]).
    pub host: Option<String>,
    pub device: Option<String>,
    pub read_only: bool,
    /// Made by a client before.
    pub attachment_id: Option<String>,
}

/// All attachments of a volume, oldest first.
pub async fn of_in(tx: &mut Tx, volume_id: &str) -> Result<Vec<Stored<Attachment>>, Fault> {
    let mut found = tx.list::<Attachment>(Query::all().eq("volume_id", volume_id)).await?;
    found.sort_by_key(|a| a.created_us);
    Ok(found)
}

pub async fn get_in(tx: &mut Tx, id: &str) -> Result<Stored<Attachment>, Fault> {
    tx.get::<Attachment>(id).await?.ok_or_else(|| fault::no_attachment(id))
}

pub(crate) async fn forget_in(tx: &mut Tx, volume_id: &str) -> Result<(), Fault> {
    for attachment in of_in(tx, volume_id).await? {
        tx.delete::<Attachment>(&attachment.record.id).await?;
    }
    Ok(())
}

/// The status of a volume that only its attachments decide.
pub(crate) async fn rest_in(tx: &mut Tx, volume_id: &str) -> Result<(), Fault> {
    use Status as S;
    let all = of_in(tx, volume_id).await?;
    let Some(mut volume) = tx.get::<Volume>(volume_id).await? else { return Ok(()) };
    let follows = matches!(volume.status, S::Available | S::Reserved | S::Attaching | S::InUse | S::Detaching);
    let rests = resting(used(all.iter().map(|a| &a.record)));
    if follows && volume.status != rests {
        volume.record.status = rests;
        tx.update(&volume).await?;
    }
    Ok(())
}

/// A new attachment's record, reserved.
pub(crate) fn reserved(volume: &Volume, server_id: Option<String>) -> Attachment {
    Attachment {
        id: id::new(),
        project_id: volume.project_id.clone(),
        volume_id: volume.id.clone(),
        server_id,
        status: AttachStatus::Reserved,
        device: None,
        mode: "rw".into(),
        host: None,
        connector: serde_json::Value::Null,
        attached_us: None,
        managed: false,
    }
}

/// 400 unless the volume may have one more attachment. `early`: also while it is still being made.
pub(crate) async fn check_free_in(
    tx: &mut Tx,
    volume: &Volume,
    server_id: Option<&str>,
    early: bool,
) -> Result<(), Fault> {
    if volume.status.is_error() {
        return Err(fault::invalid_volume(format!(
            "Volume attachments can not be created if the volume is in an error state. The Volume {} currently has a status of: {} ",
            volume.id,
            volume.status.as_str()
        )));
    }
    let all = of_in(tx, &volume.id).await?;
    let by_many = volume.multiattach && volume.status == Status::InUse;
    let unmade = matches!(volume.status, Status::Downloading) || (early && volume.status == Status::Creating);
    let free = volume.status == Status::Available || by_many || (unmade && all.is_empty());
    // The same server again: it moves to another host.
    let again = server_id.is_some()
        && matches!(volume.status, Status::InUse | Status::Reserved)
        && all.iter().any(|a| a.server_id.as_deref() == server_id);
    if (free || again) && !volume.wanted.delete {
        return Ok(());
    }
    let wanted = if volume.multiattach { "available, in-use or downloading" } else { "available or downloading" };
    Err(fault::wrong_status("Volume", &volume.id, wanted, "reserve", volume.status.as_str()))
}

/// Gives a server a volume: reserved, or (where the server has a host) in use.
pub async fn attach_in(tx: &mut Tx, ctx: &Ctx, claim: Claim) -> Result<Stored<Attachment>, Fault> {
    let volume = volumes::visible_in(tx, ctx, &claim.volume_id).await?;
    let mut attachment = match &claim.attachment_id {
        Some(id) => {
            let known = get_in(tx, id).await?;
            let fits = known.volume_id == claim.volume_id && known.status == AttachStatus::Reserved;
            if !fits || known.server_id.as_ref().is_some_and(|s| *s != claim.server_id) {
                return Err(fault::invalid_volume(format!("Attachment {id} is not reserved for this server.")));
            }
            known
        }
        None => {
            check_free_in(tx, &volume, Some(&claim.server_id), true).await?;
            tx.insert(&reserved(&volume, Some(claim.server_id.clone()))).await?
        }
    };
    let record = &mut attachment.record;
    (record.server_id, record.managed) = (Some(claim.server_id), true);
    record.device = claim.device.or(record.device.take());
    if claim.read_only || volume.read_only == Some(true) {
        record.mode = "ro".into();
    }
    if let Some(host) = claim.host {
        attached(record, host);
    }
    let attachment = tx.update(&attachment).await?;
    rest_in(tx, &claim.volume_id).await?;
    Ok(attachment)
}

fn attached(attachment: &mut Attachment, host: String) {
    attachment.status = AttachStatus::Attached;
    attachment.attached_us = attachment.attached_us.or(Some(clock::now_us()));
    attachment.host = Some(host);
}

/// The server has a host, and this is what the volume is called there: in use.
pub async fn place_in(tx: &mut Tx, attachment_id: &str, host: &str, device: &str) -> Result<(), Fault> {
    let mut attachment = get_in(tx, attachment_id).await?;
    attached(&mut attachment.record, host.to_owned());
    if !device.is_empty() {
        attachment.record.device = Some(device.to_owned());
    }
    let volume_id = attachment.volume_id.clone();
    tx.update(&attachment).await?;
    rest_in(tx, &volume_id).await
}

/// Somebody wants it back: 400 unless it is in use.
pub async fn begin_detaching_in(tx: &mut Tx, volume_id: &str) -> Result<(), Fault> {
    let mut volume = volumes::get_in(tx, volume_id).await?;
    if volume.status != Status::InUse {
        return Err(fault::invalid_volume(
            "Unable to detach volume. Volume status must be 'in-use' and attach_status must be 'attached' to detach.",
        ));
    }
    volume.record.status = Status::Detaching;
    tx.update(&volume).await?;
    Ok(())
}

/// It stays after all.
pub async fn roll_detaching_in(tx: &mut Tx, volume_id: &str) -> Result<(), Fault> {
    let mut volume = volumes::get_in(tx, volume_id).await?;
    if volume.status == Status::Detaching {
        volume.record.status = Status::InUse;
        tx.update(&volume).await?;
    }
    Ok(())
}

/// The end of an attachment; of the volume too, where it was made for the server alone. One that is gone is no error.
pub async fn detach_in(tx: &mut Tx, attachment_id: &str, delete_volume: bool) -> Result<(), Fault> {
    let Some(attachment) = tx.get::<Attachment>(attachment_id).await? else { return Ok(()) };
    tx.delete::<Attachment>(attachment_id).await?;
    rest_in(tx, &attachment.volume_id).await?;
    if delete_volume && of_in(tx, &attachment.volume_id).await?.is_empty() {
        let volume = volumes::get_in(tx, &attachment.volume_id).await?;
        // What has snapshots stays: somebody's images are made of them.
        let how = volumes::Deletion { cascade: false, force: true };
        match volumes::begin_delete_in(tx, volume, how).await {
            Err(fault) if fault.status.is_client_error() => {}
            other => other?,
        }
    }
    Ok(())
}

/// 409 where compute has it in a server: that is detached there.
pub(crate) fn check_unmanaged(ctx: &Ctx, attachment: &Attachment) -> Result<(), Fault> {
    let by_service = ctx.caller.service_roles.iter().any(|r| r == "service");
    match (&attachment.server_id, attachment.managed && !by_service) {
        (Some(server), true) => {
            Err(Fault::conflict(format!("Detach volume from instance {server} using the Compute API"))
                .kind("ConflictNovaUsingAttachment"))
        }
        _ => Ok(()),
    }
}
