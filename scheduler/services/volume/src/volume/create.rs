//! A new volume: what it is made of, whether the project may have it, and its record.
use super::{image, model::Status, ops};
use crate::{
    Volumes,
    backup::model::BackupStatus,
    fault, quota,
    snapshot::model::SnapshotStatus,
    tables::{Group, Volume, VolumeType, Wanted},
    volume_type::ops as types,
};
use pilvi_fleet::ImageFile;
use pilvi_kit::{Ctx, Fault, id};
use pilvi_store::{Stored, Tx};
use std::collections::BTreeMap;

/// What a volume is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Source {
    #[default]
    Blank,
    /// Id of an image that the caller may see.
    Image(String),
    Snapshot(String),
    Volume(String),
    Backup(String),
}

/// What was asked for.
#[derive(Debug, Clone, Default)]
pub struct NewVolume {
    pub name: Option<String>,
    pub description: Option<String>,
    /// 0: that of the source.
    pub size_gib: u64,
    pub source: Source,
    /// Name or id.
    pub volume_type: Option<String>,
    pub zone: Option<String>,
    /// Decided by the caller: the name of a new server's host.
    pub host: Option<String>,
    pub metadata: BTreeMap<String, String>,
    pub group_id: Option<String>,
    /// Ids of volumes: on the host of one of them, on none of their hosts.
    pub same_host: Vec<String>,
    pub different_host: Vec<String>,
}

/// What a source gives to what is made of it.
#[derive(Debug, Default)]
struct Given {
    size_gib: u64,
    least: Option<Least>,
    volume_type: Option<String>,
    zone: Option<String>,
    host: Option<String>,
    bootable: bool,
    image_metadata: BTreeMap<String, String>,
    image: Option<ImageFile>,
    snapshot_id: Option<String>,
    snapshot_volume_id: Option<String>,
    source_volid: Option<String>,
}

/// Whose size may not be undercut.
#[derive(Debug)]
enum Least {
    Snapshot,
    Volume,
    Backup,
}

/// Makes the record in the caller's transaction; quota and, where the host is known, room are taken in it.
pub async fn create_in(tx: &mut Tx, volumes: &Volumes, ctx: &Ctx, new: NewVolume) -> Result<Stored<Volume>, Fault> {
    let given = given_in(tx, ctx, &new).await?;
    let size_gib = size_of(&new, &given)?;
    let of_type = type_of_in(tx, ctx, &new, &given).await?;
    if let Some(group) = &new.group_id {
        check_group_in(tx, ctx, group, &of_type).await?;
    }
    quota::check_size_in(tx, ctx.project_id(), size_gib).await?;
    let asked = quota::asked("volumes", 1, size_gib, &of_type.name);
    quota::check_in(tx, ctx.project_id(), &asked).await?;
    let zone = new.zone.clone().or(given.zone);
    let volume = Volume {
        id: id::new(),
        project_id: ctx.project_id().to_owned(),
        user_id: ctx.user_id().to_owned(),
        name: new.name,
        description: new.description,
        size_gib,
        status: Status::Creating,
        previous_status: None,
        migration_status: None,
        bootable: given.bootable,
        multiattach: types::multiattach(&of_type),
        read_only: None,
        volume_type: of_type.record.id,
        zone_pinned: new.zone.is_some(),
        zone: zone.unwrap_or_else(|| volumes.config.default_zone.clone()),
        host: None,
        pinned_host: new.host.clone().or(given.host),
        same_host: new.same_host,
        different_host: new.different_host,
        snapshot_id: given.snapshot_id,
        snapshot_volume_id: given.snapshot_volume_id,
        source_volid: given.source_volid,
        image: given.image,
        image_metadata: given.image_metadata,
        metadata: new.metadata,
        group_id: new.group_id,
        wanted: Wanted { generation: 1, size_gib, ..Wanted::default() },
        seen: None,
        made: false,
        launched_us: None,
        request_id: ctx.request_id.clone(),
    };
    let stored = tx.insert(&volume).await?;
    match new.host {
        Some(host) => ops::settle_on_in(tx, stored, &host, None).await,
        None => Ok(stored),
    }
}

async fn given_in(tx: &mut Tx, ctx: &Ctx, new: &NewVolume) -> Result<Given, Fault> {
    match &new.source {
        Source::Blank => Ok(Given::default()),
        Source::Image(id) => {
            let found = pilvi_image::image::ops::get_any_in(tx, id).await?;
            let size_gib = image::least_gib(&found);
            image::check(&found, if new.size_gib == 0 { size_gib } else { new.size_gib })?;
            Ok(Given {
                size_gib,
                bootable: true,
                image_metadata: image::metadata(&found),
                image: Some(image::file(&found)?),
                ..Given::default()
            })
        }
        Source::Snapshot(id) => of_snapshot_in(tx, ctx, id).await,
        Source::Volume(id) => of_volume_in(tx, ctx, id).await,
        Source::Backup(id) => of_backup_in(tx, ctx, id).await,
    }
}

async fn of_snapshot_in(tx: &mut Tx, ctx: &Ctx, id: &str) -> Result<Given, Fault> {
    let snapshot = crate::snapshot::ops::visible_in(tx, ctx, id).await?.record;
    if snapshot.status != SnapshotStatus::Available || snapshot.delete {
        return Err(fault::invalid_snapshot("Originating snapshot status must be one of 'available' values"));
    }
    let volume = tx.get::<Volume>(&snapshot.volume_id).await?;
    Ok(Given {
        size_gib: snapshot.size_gib,
        least: Some(Least::Snapshot),
        volume_type: Some(snapshot.volume_type),
        zone: volume.as_ref().map(|v| v.zone.clone()),
        host: volume.as_ref().and_then(|v| v.host.clone()),
        bootable: snapshot.bootable,
        image_metadata: snapshot.image_metadata,
        snapshot_id: Some(snapshot.id),
        snapshot_volume_id: Some(snapshot.volume_id),
        ..Given::default()
    })
}

async fn of_volume_in(tx: &mut Tx, ctx: &Ctx, id: &str) -> Result<Given, Fault> {
    let source = ops::visible_in(tx, ctx, id).await?.record;
    if !matches!(source.status, Status::Available | Status::InUse) || !source.made {
        return Err(fault::invalid_volume("Originating volume status must be one of 'available, in-use' values"));
    }
    Ok(Given {
        size_gib: source.size_gib,
        least: Some(Least::Volume),
        volume_type: Some(source.volume_type),
        zone: Some(source.zone),
        host: source.host,
        bootable: source.bootable,
        image_metadata: source.image_metadata,
        source_volid: Some(source.id),
        ..Given::default()
    })
}

async fn of_backup_in(tx: &mut Tx, ctx: &Ctx, id: &str) -> Result<Given, Fault> {
    let backup = crate::backup::ops::visible_in(tx, ctx, id).await?.record;
    if backup.status != BackupStatus::Available || backup.file.is_none() {
        return Err(crate::backup::ops::invalid("Backup status must be available"));
    }
    Ok(Given {
        size_gib: backup.size_gib,
        least: Some(Least::Backup),
        bootable: backup.bootable,
        image_metadata: backup.image_metadata,
        image: backup.file,
        ..Given::default()
    })
}

fn size_of(new: &NewVolume, given: &Given) -> Result<u64, Fault> {
    let (size, least) = (if new.size_gib == 0 { given.size_gib } else { new.size_gib }, given.size_gib);
    match given.least {
        Some(Least::Snapshot) if size < least => Err(fault::invalid_input(format!(
            "Volume size '{size}'GB cannot be smaller than the snapshot size {least}GB. They must be >= original snapshot size."
        ))),
        Some(Least::Volume) if size < least => Err(fault::invalid_input(format!(
            "Volume size '{size}'GB cannot be smaller than original volume size  {least}GB. They must be >= original volume size."
        ))),
        Some(Least::Backup) if size < least => Err(fault::invalid_input(format!(
            "Volume size {size}GB cannot be smaller than the backup size {least}GB. It must be >= backup size."
        ))),
        _ if size == 0 => Err(fault::invalid_input(
            "Invalid volume size provided for create request: 0 (size argument must be an integer (or string representation of an integer) and greater than zero).",
        )),
        _ => Ok(size),
    }
}

/// The type asked for; else that of the source, the project's default, everybody's.
async fn type_of_in(tx: &mut Tx, ctx: &Ctx, new: &NewVolume, given: &Given) -> Result<Stored<VolumeType>, Fault> {
    if let Some(wish) = &new.volume_type {
        return types::usable_in(tx, ctx, wish).await;
    }
    if let Some(id) = &given.volume_type
        && let Some(found) = tx.get::<VolumeType>(id).await?
    {
        return Ok(found);
    }
    types::default_in(tx, ctx.project_id()).await
}

async fn check_group_in(tx: &mut Tx, ctx: &Ctx, id: &str, of_type: &VolumeType) -> Result<(), Fault> {
    let group = tx.get::<Group>(id).await?.filter(|g| ops::sees(ctx, &g.project_id));
    let group = group.ok_or_else(|| Fault::not_found(format!("Group {id} could not be found.")))?;
    if group.volume_types.contains(&of_type.id) {
        return Ok(());
    }
    let names = of_type.name.as_str();
    Err(fault::invalid_input(format!(
        "Invalid volume_type provided: {names} (requested type must be supported by this group)."
    )))
}
