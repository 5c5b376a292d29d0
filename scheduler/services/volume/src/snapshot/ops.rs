//! The verbs on snapshots: the only writer of their records, but for what the volume's observation says.
use super::model::SnapshotStatus;
use crate::{
    fault, quota,
    tables::{Snapshot, Volume, VolumeType},
    volume::{model::Status, ops as volumes},
};
use pilvi_kit::{Ctx, Fault, id};
use pilvi_store::{Store, Stored, Tx};
use std::collections::BTreeMap;

/// A snapshot that the caller may see; 404 when it does not exist or is none of the caller's business.
pub async fn visible(store: &Store, ctx: &Ctx, id: &str) -> Result<Stored<Snapshot>, Fault> {
    let found = store.get::<Snapshot>(id).await?;
    found.filter(|s| volumes::sees(ctx, &s.project_id)).ok_or_else(|| fault::no_snapshot(id))
}

/// The same, inside a transaction.
pub async fn visible_in(tx: &mut Tx, ctx: &Ctx, id: &str) -> Result<Stored<Snapshot>, Fault> {
    let found = tx.get::<Snapshot>(id).await?;
    found.filter(|s| volumes::sees(ctx, &s.project_id)).ok_or_else(|| fault::no_snapshot(id))
}

/// What was asked for.
#[derive(Debug, Clone, Default)]
pub struct NewSnapshot {
    pub volume_id: String,
    pub name: Option<String>,
    pub description: Option<String>,
    pub metadata: BTreeMap<String, String>,
    /// Also of a volume that is in use.
    pub force: bool,
    pub group_snapshot_id: Option<String>,
}

/// A snapshot of a volume: for servers that become images.
pub async fn create_in(
    tx: &mut Tx,
    ctx: &Ctx,
    volume_id: &str,
    name: Option<String>,
    force: bool,
) -> Result<Stored<Snapshot>, Fault> {
    take_in(tx, ctx, NewSnapshot { volume_id: volume_id.to_owned(), name, force, ..NewSnapshot::default() }).await
}

fn check(volume: &Volume, force: bool) -> Result<(), Fault> {
    if volume.host.is_none() {
        return Err(fault::invalid_volume(
            "The snapshot cannot be created because volume has not been scheduled to any host.",
        ));
    }
    match volume.status {
        Status::Maintenance => {
            Err(fault::invalid_volume("The snapshot cannot be created when the volume is in maintenance mode."))
        }
        Status::Error => {
            Err(fault::invalid_volume("The snapshot cannot be created when the volume is in error status."))
        }
        Status::Available => Ok(()),
        status if force && volume.made && !volume.wanted.delete && !status.is_error() => Ok(()),
        status => Err(fault::invalid_volume(format!(
            "Volume {} status must be available, but current status is: {}.",
            volume.id,
            status.as_str()
        ))),
    }
}

/// Takes a snapshot: record and wish, as one.
pub async fn take_in(tx: &mut Tx, ctx: &Ctx, new: NewSnapshot) -> Result<Stored<Snapshot>, Fault> {
    let mut volume = volumes::visible_in(tx, ctx, &new.volume_id).await?;
    check(&volume, new.force)?;
    crate::host::service::check_thawed_in(tx, volume.host.as_deref()).await?;
    let of_type = tx.get::<VolumeType>(&volume.volume_type).await?;
    let asked = quota::asked("snapshots", 1, volume.size_gib, &of_type.map(|t| t.record.name).unwrap_or_default());
    quota::check_in(tx, ctx.project_id(), &asked).await?;
    volume.record.wanted.generation += 1;
    volume.record.request_id = ctx.request_id.clone();
    let snapshot = Snapshot {
        id: id::new(),
        project_id: ctx.project_id().to_owned(),
        user_id: ctx.user_id().to_owned(),
        volume_id: new.volume_id,
        volume_type: volume.volume_type.clone(),
        size_gib: volume.size_gib,
        name: new.name,
        description: new.description,
        status: SnapshotStatus::Creating,
        progress: "0%".into(),
        metadata: new.metadata,
        bootable: volume.bootable,
        image_metadata: volume.image_metadata.clone(),
        group_snapshot_id: new.group_snapshot_id,
        delete: false,
        generation: volume.wanted.generation,
        request_id: ctx.request_id.clone(),
    };
    tx.update(&volume).await?;
    Ok(tx.insert(&snapshot).await?)
}

/// Marks a snapshot for deletion, whatever its status. Deleting twice is no error, nor is one that is gone.
pub async fn delete_in(tx: &mut Tx, _ctx: &Ctx, id: &str) -> Result<(), Fault> {
    match tx.get::<Snapshot>(id).await? {
        Some(snapshot) if !snapshot.delete => begin_delete_in(tx, snapshot, true).await,
        _ => Ok(()),
    }
}

/// Marks a snapshot for deletion; 400 where its status or its group stands in the way.
pub(crate) async fn begin_delete_in(tx: &mut Tx, mut snapshot: Stored<Snapshot>, force: bool) -> Result<(), Fault> {
    let fits = force || matches!(snapshot.status, SnapshotStatus::Available | SnapshotStatus::Error);
    if !fits || (snapshot.group_snapshot_id.is_some() && !force) {
        let text =
            if force { "" } else { "Snapshot status must be available or error and must not be part of a group." };
        return Err(fault::invalid_snapshot(text));
    }
    let Some(mut volume) = tx.get::<Volume>(&snapshot.volume_id).await? else {
        tx.delete::<Snapshot>(&snapshot.record.id).await?;
        return Ok(());
    };
    crate::host::service::check_thawed_in(tx, volume.host.as_deref()).await?;
    volume.record.wanted.generation += 1;
    (snapshot.record.delete, snapshot.record.status) = (true, SnapshotStatus::Deleting);
    snapshot.record.generation = volume.wanted.generation;
    tx.update(&volume).await?;
    tx.update(&snapshot).await?;
    Ok(())
}
