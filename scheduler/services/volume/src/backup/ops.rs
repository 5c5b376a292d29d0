//! The verbs on backups: the only writer of their records.
use super::model::BackupStatus;
use crate::{
    Volumes, fault, quota,
    tables::{Backup, Upload, Volume},
    volume::{
        image,
        model::Status,
        ops::{self as volumes, NewVolume, Source, sees},
    },
};
use pilvi_image::image::{
    model::{Image, Visibility},
    ops as images,
};
use pilvi_kit::{Ctx, Fault, clock, id};
use pilvi_store::{Query, Stored, Tx};
use std::collections::BTreeMap;

/// Whose images backups are: no project's.
const OWNER: &str = "volume-backups";

pub fn no_backup(id: &str) -> Fault {
    Fault::not_found(format!("Backup {id} could not be found.")).kind("BackupNotFound")
}

pub fn invalid(reason: impl std::fmt::Display) -> Fault {
    Fault::bad_request(format!("Invalid backup: {reason}"))
}

/// What was asked for.
#[derive(Debug, Clone, Default)]
pub struct NewBackup {
    pub volume_id: String,
    pub name: Option<String>,
    pub description: Option<String>,
    pub container: Option<String>,
    pub zone: String,
    pub metadata: BTreeMap<String, String>,
    /// Also of a volume that is in use.
    pub force: bool,
}

fn check(volume: &Volume, force: bool) -> Result<(), Fault> {
    match volume.status {
        Status::InUse if !force => Err(fault::invalid_volume("Backing up an in-use volume must use the force flag.")),
        Status::Available | Status::InUse if volume.wanted.upload.is_none() && !volume.wanted.delete => Ok(()),
        status => Err(fault::invalid_volume(format!(
            "Volume to be backed up must be available or in-use, but the current status is \"{}\".",
            status.as_str()
        ))),
    }
}

/// Record, image and wish, as one.
pub async fn create_in(tx: &mut Tx, ctx: &Ctx, new: NewBackup) -> Result<Stored<Backup>, Fault> {
    let mut volume = volumes::visible_in(tx, ctx, &new.volume_id).await?;
    check(&volume, new.force)?;
    let asked = [("backups".to_owned(), 1), ("backup_gigabytes".to_owned(), volume.size_gib)];
    quota::check_in(tx, ctx.project_id(), &quota::Amounts::from(asked)).await?;
    let (backup_id, image_id) = (id::new(), id::new());
    let mut hidden = Image::new(image_id.clone(), Some(OWNER.to_owned()));
    (hidden.name, hidden.visibility) = (Some(format!("backup {backup_id}")), Visibility::Private);
    (hidden.disk_format, hidden.container_format) = (Some("qcow2".to_owned()), Some("bare".to_owned()));
    hidden.os_hidden = true;
    images::create_in(tx, &hidden).await?;
    let record = &mut volume.record;
    (record.previous_status, record.status) = (Some(record.status), Status::BackingUp);
    record.wanted.upload = Some(Upload { image_id: image_id.clone(), failed: false });
    record.wanted.generation += 1;
    record.request_id.clone_from(&ctx.request_id);
    let backup = Backup {
        id: backup_id,
        project_id: ctx.project_id().to_owned(),
        user_id: ctx.user_id().to_owned(),
        volume_id: new.volume_id,
        size_gib: volume.size_gib,
        name: new.name,
        description: new.description,
        status: BackupStatus::Creating,
        fail_reason: None,
        container: new.container,
        zone: new.zone,
        metadata: new.metadata,
        image_id,
        file: None,
        data_us: clock::now_us(),
        bootable: volume.bootable,
        image_metadata: volume.image_metadata.clone(),
        volume_metadata: volume.metadata.clone(),
        restoring: None,
    };
    tx.update(&volume).await?;
    Ok(tx.insert(&backup).await?)
}

/// The upload to this image has ended.
pub(crate) async fn uploaded_in(tx: &mut Tx, image_id: &str) -> Result<(), Fault> {
    let Some(mut backup) = tx.list::<Backup>(Query::all().eq("image_id", image_id).limit(1)).await?.pop() else {
        return Ok(());
    };
    if backup.status != BackupStatus::Creating {
        return Ok(());
    }
    let there = images::get_any_in(tx, image_id).await.ok().filter(|image| image.has_data());
    match there.as_ref().map(|image| image::file(image)) {
        Some(Ok(file)) => (backup.record.status, backup.record.file) = (BackupStatus::Available, Some(file)),
        _ => {
            backup.record.status = BackupStatus::Error;
            backup.record.fail_reason = Some("The volume's host could not send its bytes.".into());
        }
    }
    tx.update(&backup).await?;
    Ok(())
}

/// A volume was made, or could not be: if that was a restoration, it has ended.
pub(crate) async fn restored_in(tx: &mut Tx, volume_id: &str) -> Result<(), Fault> {
    for mut backup in tx.list::<Backup>(Query::all().eq("restoring", volume_id)).await? {
        backup.record.restoring = None;
        if backup.status == BackupStatus::Restoring {
            backup.record.status = BackupStatus::Available;
        }
        tx.update(&backup).await?;
    }
    Ok(())
}

pub async fn visible_in(tx: &mut Tx, ctx: &Ctx, id: &str) -> Result<Stored<Backup>, Fault> {
    tx.get::<Backup>(id).await?.filter(|b| sees(ctx, &b.project_id)).ok_or_else(|| no_backup(id))
}

/// Into a volume that is there, or a new one; gives that.
pub async fn restore_in(
    tx: &mut Tx,
    svc: &Volumes,
    ctx: &Ctx,
    id: &str,
    (volume_id, name): (Option<String>, Option<String>),
) -> Result<Stored<Volume>, Fault> {
    let mut backup = visible_in(tx, ctx, id).await?;
    let Some(file) = backup.file.clone().filter(|_| backup.status == BackupStatus::Available) else {
        return Err(invalid("Backup status must be available"));
    };
    let mut volume = match volume_id {
        Some(volume_id) => volumes::visible_in(tx, ctx, &volume_id).await?,
        None => {
            let new = NewVolume {
                name: Some(name.unwrap_or_else(|| format!("restore_backup_{id}"))),
                description: Some("auto-created_from_restore_from_backup".into()),
                size_gib: backup.size_gib,
                source: Source::Backup(id.to_owned()),
                metadata: backup.volume_metadata.clone(),
                ..NewVolume::default()
            };
            volumes::create_in(tx, svc, ctx, new).await?
        }
    };
    if volume.made || volume.host.is_some() {
        if volume.status != Status::Available || volume.wanted.delete {
            return Err(fault::invalid_volume("Volume to be restored to must be available"));
        }
        if volume.size_gib < backup.size_gib {
            return Err(fault::invalid_volume(format!(
                "volume size {} is too small to restore backup of size {}.",
                volume.size_gib, backup.size_gib
            )));
        }
        let record = &mut volume.record;
        (record.previous_status, record.status) = (Some(record.status), Status::RestoringBackup);
        record.image = Some(file);
        record.wanted.reimages += 1;
        record.wanted.generation += 1;
        record.request_id.clone_from(&ctx.request_id);
    }
    volume.record.bootable = backup.bootable;
    volume.record.image_metadata.clone_from(&backup.image_metadata);
    let volume = tx.update(&volume).await?;
    (backup.record.status, backup.record.restoring) = (BackupStatus::Restoring, Some(volume.record.id.clone()));
    tx.update(&backup).await?;
    Ok(volume)
}

/// Marks a backup for deletion: its image goes first.
pub async fn begin_delete_in(tx: &mut Tx, id: &str, force: bool) -> Result<(), Fault> {
    let mut backup = tx.get::<Backup>(id).await?.ok_or_else(|| no_backup(id))?;
    if !force && !matches!(backup.status, BackupStatus::Available | BackupStatus::Error) {
        return Err(invalid("Backup status must be available or error"));
    }
    if backup.restoring.is_some() {
        return Err(invalid("A volume is being restored from it."));
    }
    backup.record.status = BackupStatus::Deleting;
    tx.update(&backup).await?;
    Ok(())
}

impl Volumes {
    /// The rest of a deletion: the image (unless another record has it too), then the record.
    pub(crate) async fn drop_backup(&self, id: &str) -> Result<(), Fault> {
        let Some(backup) = self.store.get::<Backup>(id).await? else { return Ok(()) };
        if backup.status != BackupStatus::Deleting {
            return Ok(());
        }
        let same = Query::all().eq("image_id", backup.image_id.as_str());
        if self.store.count::<Backup>(same).await? <= 1 {
            match pilvi_image::data::ops::delete_image(&self.images, &backup.image_id).await {
                Err(fault) if fault.code() != 404 => return Err(fault),
                _ => {}
            }
        }
        self.write(id.to_owned(), |tx, id| {
            Box::pin(async move {
                tx.delete::<Backup>(&id).await?;
                Ok(())
            })
        })
        .await
    }
}
