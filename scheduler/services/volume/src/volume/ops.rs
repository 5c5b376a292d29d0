//! The verbs on volumes: the only writer of their records.
pub use super::create::{NewVolume, Source, create_in};
use super::model::{self, DELETABLE, Ended, Status};
use crate::{
    Volumes,
    attachment::{model::used, ops as attachments},
    fault, message,
    snapshot::model::{self as snapshots, SnapshotStatus},
    tables::{Seen, Snapshot, Transfer, Volume},
};
use pilvi_fleet::Node;
use pilvi_kit::{Ctx, Fault, clock};
use pilvi_placement::allocation::ops as placement;
use pilvi_store::{Query, Store, Stored, Tx};
use std::collections::BTreeMap;

/// Is what this project owns the caller's to see?
pub fn sees(ctx: &Ctx, project_id: &str) -> bool {
    ctx.caller.has_role("admin") || ctx.project_id() == project_id
}

/// A volume that the caller may see; 404 when it does not exist or is none of the caller's business.
pub async fn visible(store: &Store, ctx: &Ctx, id: &str) -> Result<Stored<Volume>, Fault> {
    let found = store.get::<Volume>(id).await?;
    found.filter(|v| sees(ctx, &v.project_id)).ok_or_else(|| fault::no_volume(id))
}

/// The same, inside a transaction.
pub async fn visible_in(tx: &mut Tx, ctx: &Ctx, id: &str) -> Result<Stored<Volume>, Fault> {
    let found = tx.get::<Volume>(id).await?;
    found.filter(|v| sees(ctx, &v.project_id)).ok_or_else(|| fault::no_volume(id))
}

pub async fn get_in(tx: &mut Tx, id: &str) -> Result<Stored<Volume>, Fault> {
    tx.get::<Volume>(id).await?.ok_or_else(|| fault::no_volume(id))
}

/// Where its bytes lie, or will; `None` while that is open.
pub async fn host_of_in(tx: &mut Tx, id: &str) -> Result<Option<String>, Fault> {
    let volume = get_in(tx, id).await?.record;
    Ok(volume.host.or(volume.pinned_host))
}

/// Takes the room that the volume shall have on its host.
pub async fn hold_in(tx: &mut Tx, volume: &Volume, provider: &str) -> Result<(), Fault> {
    let size = i64::try_from(volume.wanted.size_gib.max(volume.size_gib)).unwrap_or(i64::MAX);
    let amounts = BTreeMap::from([("DISK_GB".to_owned(), size)]);
    let allocations = BTreeMap::from([(provider.to_owned(), amounts)]);
    // Nothing new: a host that has become smaller does not stand in the way of what is there.
    if placement::of_in(tx, &volume.id).await? == allocations {
        return Ok(());
    }
    let claim = placement::Claim {
        consumer: volume.id.clone(),
        project_id: volume.project_id.clone(),
        user_id: volume.user_id.clone(),
        consumer_type: "VOLUME".into(),
        allocations,
    };
    let refused = |f: Fault| if f.code() == 409 { f.kind("AllocationRefused") } else { f };
    placement::claim_in(tx, claim).await.map_err(refused)
}

/// Id of the host's provider in placement: that of its node.
async fn provider_in(tx: &mut Tx, host: &str) -> Result<String, Fault> {
    let node = tx.list::<Node>(Query::all().name(host).limit(1)).await?.pop();
    node.map(|n| n.record.id).ok_or_else(|| Fault::unavailable(format!("Host {host} is not known.")))
}

/// The room and the host, as one: from now on the host is told of it. `zone`: the host's, where nobody asked for one.
pub async fn settle_on_in(
    tx: &mut Tx,
    mut volume: Stored<Volume>,
    host: &str,
    zone: Option<String>,
) -> Result<Stored<Volume>, Fault> {
    let provider = provider_in(tx, host).await?;
    hold_in(tx, &volume, &provider).await?;
    volume.record.host = Some(host.to_owned());
    if let (Some(zone), false) = (zone, volume.zone_pinned) {
        volume.record.zone = zone;
    }
    Ok(tx.update(&volume).await?)
}

/// Holds as much room as the volume has now, or shall have.
async fn hold_again_in(tx: &mut Tx, volume: &Volume) -> Result<(), Fault> {
    match &volume.host {
        Some(host) => {
            let provider = provider_in(tx, host).await?;
            hold_in(tx, volume, &provider).await
        }
        None => Ok(()),
    }
}

/// How a volume is to be deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deletion {
    /// With its snapshots.
    pub cascade: bool,
    /// Whatever its status.
    pub force: bool,
}

/// Marks a volume for deletion, whatever is being done with it: for whoever made it for a server of its own.
/// Deleting twice is no error, nor is one that is gone.
pub async fn delete_in(tx: &mut Tx, _ctx: &Ctx, id: &str) -> Result<(), Fault> {
    match tx.get::<Volume>(id).await? {
        Some(volume) if !volume.wanted.delete => {
            begin_delete_in(tx, volume, Deletion { cascade: true, force: true }).await
        }
        _ => Ok(()),
    }
}

/// Marks a volume for deletion; 400 where its status or what belongs to it stands in the way.
pub async fn begin_delete_in(tx: &mut Tx, mut volume: Stored<Volume>, how: Deletion) -> Result<(), Fault> {
    let id = volume.record.id.clone();
    crate::host::service::check_thawed_in(tx, volume.host.as_deref()).await?;
    let mut snapshots = tx.list::<Snapshot>(Query::all().eq("volume_id", id.as_str())).await?;
    let attached = !attachments::of_in(tx, &id).await?.is_empty();
    let busy = volume.migration_status.as_deref().is_some_and(|m| !matches!(m, "error" | "success" | "deleting"));
    let in_the_way = (!how.force && !DELETABLE.contains(&volume.status))
        || busy
        || attached
        || (volume.group_id.is_some() && !how.force)
        || (!how.cascade && snapshots.iter().any(|s| !s.delete));
    if in_the_way {
        return Err(fault::invalid_volume(
            "Volume status must be available or error or error_restoring or error_extending or error_managing and must not be migrating, attached, belong to a group, have snapshots, awaiting a transfer, or be disassociated from snapshots after volume transfer.",
        ));
    }
    if let Some(stuck) = snapshots.iter().find(|s| {
        !how.force
            && !s.delete
            && !matches!(s.status, SnapshotStatus::Available | SnapshotStatus::Error | SnapshotStatus::Deleting)
    }) {
        return Err(fault::invalid_volume(format!(
            "Failed to update snapshot {}: its status is {}.",
            stuck.record.id,
            stuck.status.as_str()
        )));
    }
    volume.record.wanted.delete = true;
    volume.record.wanted.generation += 1;
    volume.record.previous_status = Some(volume.status);
    volume.record.status = Status::Deleting;
    for snapshot in snapshots.iter_mut().filter(|s| !s.delete) {
        (snapshot.record.delete, snapshot.record.status) = (true, SnapshotStatus::Deleting);
        snapshot.record.generation = volume.wanted.generation;
        tx.update(snapshot).await?;
    }
    tx.update(&volume).await?;
    Ok(())
}

/// The end of a volume of which its host has nothing any more, with all that belongs to it.
pub(crate) async fn release_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    let of_volume = || Query::all().eq("volume_id", id);
    for snapshot in tx.list::<Snapshot>(of_volume()).await? {
        tx.delete::<Snapshot>(&snapshot.record.id).await?;
    }
    for transfer in tx.list::<Transfer>(of_volume()).await? {
        tx.delete::<Transfer>(&transfer.record.id).await?;
    }
    attachments::forget_in(tx, id).await?;
    crate::backup::ops::restored_in(tx, id).await?;
    placement::release_in(tx, id).await?;
    tx.delete::<Volume>(id).await?;
    Ok(())
}

/// The volume cannot be: error, and a message that says why.
pub(crate) async fn fail_in(
    tx: &mut Tx,
    keep_us: i64,
    id: &str,
    doing: message::ops::Doing,
    why: message::ops::Why,
) -> Result<(), Fault> {
    let Some(mut volume) = tx.get::<Volume>(id).await? else { return Ok(()) };
    if volume.wanted.delete {
        return Ok(());
    }
    volume.record.status = Status::Error;
    tell_in(tx, keep_us, &volume, doing, why).await?;
    tx.update(&volume).await?;
    crate::backup::ops::restored_in(tx, id).await?;
    Ok(())
}

async fn tell_in(
    tx: &mut Tx,
    keep_us: i64,
    volume: &Volume,
    doing: message::ops::Doing,
    why: message::ops::Why,
) -> Result<(), Fault> {
    let about = message::ops::About {
        project_id: &volume.project_id,
        request_id: &volume.request_id,
        kind: "VOLUME",
        id: &volume.id,
    };
    message::ops::tell_in(tx, keep_us, about, doing, why).await
}

/// What the user is told of an end that was none to wish for.
fn told_of(volume: &Volume, ended: Ended) -> Option<(message::ops::Doing, message::ops::Why)> {
    use message::ops as m;
    match ended {
        Ended::NotMade if volume.image.is_some() => Some((m::FETCH, m::UNKNOWN)),
        Ended::NotMade => Some((m::MAKE, m::NOT_CREATED)),
        Ended::NotExtended => Some((m::EXTEND, m::NOT_EXTENDED)),
        Ended::NotReimaged => Some((m::REIMAGE, m::NOT_REIMAGED)),
        Ended::NotUploaded => Some((m::UPLOAD, m::NOT_UPLOADED)),
        Ended::NotReverted => Some((m::MAKE, m::UNKNOWN)),
        Ended::Made | Ended::Resized | Ended::Uploaded => None,
    }
}

/// Gives the servers whose disk has grown.
async fn observe_in(tx: &mut Tx, keep_us: i64, host: &str, id: &str, seen: Seen) -> Result<Vec<String>, Fault> {
    let mut grown = Vec::new();
    let Some(mut volume) = tx.get::<Volume>(id).await? else { return Ok(grown) };
    if volume.host.as_deref() != Some(host) {
        return Ok(grown);
    }
    let attachments = attachments::of_in(tx, id).await?;
    let was_reverting = volume.status == Status::Reverting;
    let used = used(attachments.iter().map(|a| &a.record));
    let upload = volume.wanted.upload.as_ref().map(|u| u.image_id.clone()).unwrap_or_default();
    let ended = model::settle(&mut volume.record, seen.clone(), used, clock::now_us());
    for end in ended {
        match end {
            Ended::Resized => grown.extend(attachments.iter().filter_map(|a| a.server_id.clone())),
            Ended::Uploaded | Ended::NotUploaded => crate::backup::ops::uploaded_in(tx, &upload).await?,
            Ended::Made | Ended::NotMade | Ended::NotReimaged => crate::backup::ops::restored_in(tx, id).await?,
            _ => {}
        }
        if matches!(end, Ended::Resized | Ended::NotExtended) {
            hold_again_in(tx, &volume).await?;
        }
        if let Some((doing, why)) = told_of(&volume, end) {
            tracing::info!(volume = volume.id, host, reason = seen.error, "a volume failed");
            tell_in(tx, keep_us, &volume, doing, why).await?;
        }
    }
    observe_snapshots_in(tx, keep_us, &volume, &seen, was_reverting).await?;
    tx.update(&volume).await?;
    Ok(grown)
}

async fn observe_snapshots_in(
    tx: &mut Tx,
    keep_us: i64,
    volume: &Volume,
    seen: &Seen,
    was_reverting: bool,
) -> Result<(), Fault> {
    for mut snapshot in tx.list::<Snapshot>(Query::all().eq("volume_id", volume.id.as_str())).await? {
        if was_reverting && volume.status != Status::Reverting && snapshot.status == SnapshotStatus::Restoring {
            snapshot.record.status = SnapshotStatus::Available;
            snapshot = tx.update(&snapshot).await?;
        }
        match snapshots::settle(&mut snapshot.record, seen) {
            snapshots::Next::Stays => {}
            snapshots::Next::Gone => {
                tx.delete::<Snapshot>(&snapshot.record.id).await?;
                crate::group::ops::snapshot_gone_in(tx, &snapshot).await?;
            }
            next => {
                if next == snapshots::Next::Failed {
                    let about = message::ops::About {
                        project_id: &snapshot.project_id,
                        request_id: &snapshot.request_id,
                        kind: "VOLUME_SNAPSHOT",
                        id: &snapshot.record.id,
                    };
                    let (doing, why) = (message::ops::SNAPSHOT, message::ops::NOT_TAKEN);
                    message::ops::tell_in(tx, keep_us, about, doing, why).await?;
                }
                crate::group::ops::snapshot_settled_in(tx, &snapshot).await?;
                tx.update(&snapshot).await?;
            }
        }
    }
    Ok(())
}

impl Volumes {
    /// Takes what a host said of one of its volumes. Writes only when something changed.
    pub async fn observe(&self, host: &str, id: &str, seen: Seen) -> Result<(), Fault> {
        let known = self.store.get::<Volume>(id).await?;
        if known.is_none_or(|v| v.host.as_deref() != Some(host) || v.seen.as_ref() == Some(&seen)) {
            return Ok(());
        }
        let with = (host.to_owned(), id.to_owned(), seen, self.config.keep_messages_us);
        let observing = self.write(with, |tx, (host, id, seen, keep_us)| {
            Box::pin(async move { observe_in(tx, keep_us, &host, &id, seen).await })
        });
        let grown = observing.await?;
        self.tell_extended(grown).await;
        self.poke(id);
        Ok(())
    }

    /// May this host fill this image?
    pub async fn awaits_upload(&self, host: &str, image_id: &str) -> Result<bool, Fault> {
        let found = self.store.list::<Volume>(Query::all().eq("upload_image_id", image_id).eq("host", host)).await?;
        Ok(found.iter().any(|v| v.wanted.upload.as_ref().is_some_and(|u| !u.failed && u.image_id == image_id)))
    }

    /// Changes a volume that the caller may see, in one transaction, and wakes what waits for it.
    pub(crate) async fn change(
        &self,
        ctx: &Ctx,
        id: &str,
        change: impl Fn(&mut Volume) -> Result<(), Fault> + Clone + Send + Sync + 'static,
    ) -> Result<Stored<Volume>, Fault> {
        let changed = self
            .write((ctx.clone(), id.to_owned(), change), |tx, (ctx, id, change)| {
                Box::pin(async move {
                    let mut volume = visible_in(tx, &ctx, &id).await?;
                    change(&mut volume.record)?;
                    Ok(tx.update(&volume).await?)
                })
            })
            .await?;
        self.poke(id);
        Ok(changed)
    }
}

/// Changes the size that a volume shall have; quota and room are taken at once.
pub(crate) async fn extend_in(tx: &mut Tx, ctx: &Ctx, id: &str, size_gib: u64, in_use: bool) -> Result<(), Fault> {
    let mut volume = visible_in(tx, ctx, id).await?;
    let fits = volume.status == Status::Available || (in_use && volume.status == Status::InUse);
    if !fits || volume.wanted.delete {
        let wanted = if in_use { "in-use" } else { "available" };
        return Err(fault::wrong_status("Volume", id, wanted, "extend", volume.status.as_str()));
    }
    if size_gib <= volume.size_gib {
        return Err(fault::invalid_input(format!(
            "New size for extend must be greater than current size. (current: {}, extended: {size_gib}).",
            volume.size_gib
        )));
    }
    crate::host::service::check_thawed_in(tx, volume.host.as_deref()).await?;
    crate::quota::check_size_in(tx, &volume.project_id, size_gib).await?;
    let of_type = tx.get::<crate::tables::VolumeType>(&volume.volume_type).await?;
    let name = of_type.map(|t| t.record.name).unwrap_or_default();
    let more = crate::quota::asked("volumes", 0, size_gib - volume.size_gib, &name);
    crate::quota::check_in(tx, &volume.project_id, &more).await?;
    let record = &mut volume.record;
    record.wanted.size_gib = size_gib;
    record.wanted.generation += 1;
    (record.previous_status, record.status) = (Some(record.status), Status::Extending);
    record.request_id = ctx.request_id.clone();
    let full = |f: Fault| {
        if f.kind == "AllocationRefused" { fault::invalid_volume("The host has no room left for it.") } else { f }
    };
    hold_again_in(tx, &volume).await.map_err(full)?;
    tx.update(&volume).await?;
    Ok(())
}
