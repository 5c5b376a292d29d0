//! Volumes towards what is wanted, where their host cannot do it alone: a place, and the end.
//!
//! ```text
//! not placed    -> rank hosts -> one transaction: claim + host      (full meanwhile: next host)
//! on a host     -> nothing: the fleet sends, the host observes, model::settle decides
//! to be gone    -> host confirms (or is dead) -> one transaction: claim and all records go
//! upload failed -> its image goes
//! a backup to be gone -> its image, then its record
//! ```
use super::{model::Status, ops};
use crate::{
    Volumes,
    host::backend,
    message::ops as messages,
    tables::{Backup, Volume, VolumeType},
};
use async_trait::async_trait;
use pilvi_fleet::Node;
use pilvi_image::data;
use pilvi_kit::Fault;
use pilvi_placement::candidate::ops::{Request, find};
use pilvi_reconcile::{Failure, Next, Reconcile};
use pilvi_store::{Change, Query, Record, Stored};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

/// How often a deletion asks whether the host is done, besides being told.
const GONE_POLL: Duration = Duration::from_secs(2);

/// The reconciler of volumes.
pub struct VolumePlaces {
    volumes: Arc<Volumes>,
}

impl std::fmt::Debug for VolumePlaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("VolumePlaces")
    }
}

impl VolumePlaces {
    pub fn new(volumes: Arc<Volumes>) -> Self {
        VolumePlaces { volumes }
    }
}

/// Before the ids of backups, among the keys.
const BACKUP: &str = "backup/";

/// The key of a backup that is to be gone.
pub fn backup_key(id: &str) -> String {
    format!("{BACKUP}{id}")
}

/// What a pass has to do. Pure.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Place,
    Remove,
    /// An image that will not be.
    DropImage,
    Nothing,
}

pub(crate) fn plan(volume: &Volume) -> Step {
    let deleted = volume.wanted.delete;
    match &volume.wanted.upload {
        Some(upload) if upload.failed || deleted => Step::DropImage,
        _ if deleted => Step::Remove,
        _ if volume.status == Status::Creating && volume.host.is_none() => Step::Place,
        _ => Step::Nothing,
    }
}

#[async_trait]
impl Reconcile for VolumePlaces {
    fn name(&self) -> &'static str {
        "volume.volume"
    }

    async fn keys_of(&self, change: &Change) -> Vec<String> {
        if change.kind == Volume::KIND {
            return vec![change.id.clone()];
        }
        if change.kind == Backup::KIND {
            return vec![backup_key(&change.id)];
        }
        if change.kind == Node::KIND { self.volumes.leaving_of_node(&change.id).await } else { Vec::new() }
    }

    async fn all(&self) -> Result<Vec<String>, Failure> {
        let volumes = self.volumes.store.list::<Volume>(Query::all()).await?;
        let leaving = self.volumes.store.list::<Backup>(Query::all().state("deleting")).await?;
        let backups = leaving.iter().map(|b| backup_key(&b.record.id));
        Ok(volumes.into_iter().filter(|v| plan(v) != Step::Nothing).map(|v| v.record.id).chain(backups).collect())
    }

    async fn reconcile(&self, key: &str) -> Result<Next, Failure> {
        if let Some(backup) = key.strip_prefix(BACKUP) {
            self.volumes.drop_backup(backup).await?;
            return Ok(Next::Settled);
        }
        let Some(volume) = self.volumes.store.get::<Volume>(key).await? else { return Ok(Next::Settled) };
        match plan(&volume) {
            Step::Nothing => Ok(Next::Settled),
            Step::Place => self.volumes.place(&volume).await.map_err(Into::into),
            Step::Remove => self.volumes.remove(&volume).await.map_err(Into::into),
            Step::DropImage => self.volumes.drop_image(&volume).await.map_err(Into::into),
        }
    }
}

impl Volumes {
    async fn place(&self, volume: &Stored<Volume>) -> Result<Next, Fault> {
        let zones = self.zones().await?;
        for host in self.hosts_for(volume, &zones).await? {
            let zone = zones.get(&host).cloned().unwrap_or_else(|| self.config.default_zone.clone());
            match self.settle_on(&volume.record.id, &host, zone).await {
                Ok(()) => {
                    self.fleet.touch(&host);
                    return Ok(Next::Settled);
                }
                // Another request was quicker: the next host may still have room.
                Err(fault) if fault.kind == "AllocationRefused" => {}
                Err(fault) => return Err(fault),
            }
        }
        tracing::info!(volume = volume.id, "no host has room for a volume");
        let with = (volume.record.id.clone(), self.config.keep_messages_us);
        self.write(with, |tx, (id, keep_us)| {
            Box::pin(async move { ops::fail_in(tx, keep_us, &id, messages::PLACE, messages::NO_BACKEND).await })
        })
        .await?;
        Ok(Next::Settled)
    }

    async fn settle_on(&self, id: &str, host: &str, zone: String) -> Result<(), Fault> {
        self.write((id.to_owned(), host.to_owned(), zone), |tx, (id, host, zone)| {
            Box::pin(async move {
                let volume = ops::get_in(tx, &id).await?;
                if volume.host.is_none() && !volume.wanted.delete {
                    ops::settle_on_in(tx, volume, &host, Some(zone)).await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Hosts that may take the volume, those with most room first.
    async fn hosts_for(&self, volume: &Volume, zones: &BTreeMap<String, String>) -> Result<Vec<String>, Fault> {
        let size = i64::try_from(volume.wanted.size_gib).unwrap_or(i64::MAX);
        let request = Request { resources: BTreeMap::from([("DISK_GB".into(), size)]), ..Request::default() };
        let found = find(&self.placement, &request).await?;
        let free: HashMap<&str, i64> = found.iter().map(|c| (&*c.provider_uuid, c.free_of("DISK_GB"))).collect();
        let of_type = self.store.get::<VolumeType>(&volume.volume_type).await?;
        let fits_backend = of_type.is_none_or(|t| backend::fits(&t.extra_specs));
        let (same, different) = (self.hosts_of(&volume.same_host).await?, self.hosts_of(&volume.different_host).await?);
        let closed = self.closed_hosts().await?;
        let mut ranked: Vec<(i64, String)> = Vec::new();
        for node in self.fleet.nodes().await?.into_iter().map(|n| n.record) {
            let zone = zones.get(&node.name).unwrap_or(&self.config.default_zone);
            let fits = fits_backend
                && node.is_up()
                && !closed.contains(&node.name)
                && volume.pinned_host.as_ref().is_none_or(|host| *host == node.name)
                && (!volume.zone_pinned || *zone == volume.zone)
                && (same.is_empty() || same.contains(&node.name))
                && !different.contains(&node.name);
            if let (true, Some(free)) = (fits, free.get(node.id.as_str())) {
                ranked.push((-free, node.name));
            }
        }
        ranked.sort();
        Ok(ranked.into_iter().map(|(_, name)| name).collect())
    }

    async fn hosts_of(&self, volumes: &[String]) -> Result<Vec<String>, Fault> {
        let found = self.store.list::<Volume>(Query::all().ids(volumes.iter().cloned())).await?;
        Ok(found.into_iter().filter_map(|v| v.record.host).collect())
    }

    async fn remove(&self, volume: &Stored<Volume>) -> Result<Next, Fault> {
        if let Some(host) = &volume.host {
            let node = self.fleet.node_by_name(host).await?;
            // A dead host cannot confirm; should it live again, its wanted state lacks the volume.
            let alive = node.as_ref().is_some_and(|n| n.is_up());
            if alive && !self.fleet.confirmed_gone(host, &volume.record.id) {
                // Where the host's session is at another scheduler, that one sees it go (`VolumePart::settled`).
                self.fleet.touch(host);
                return Ok(Next::Again(GONE_POLL));
            }
        }
        self.release(&volume.record.id).await?;
        Ok(Next::Settled)
    }

    /// The end of a volume of which its host has nothing any more.
    pub(crate) async fn release(&self, id: &str) -> Result<(), Fault> {
        self.write(id.to_owned(), |tx, id| Box::pin(async move { ops::release_in(tx, &id).await })).await
    }

    /// Volumes to be gone on a host that changed: when it is down, nobody waits for its word any more.
    async fn leaving_of_node(&self, node: &str) -> Vec<String> {
        let Ok(Some(node)) = self.fleet.node(node).await else { return Vec::new() };
        let on = Query::all().eq("host", node.name.as_str()).eq("leaving", 1);
        self.store.list::<Volume>(on).await.unwrap_or_default().into_iter().map(|v| v.record.id).collect()
    }

    /// Removes the image of an upload that will not be, unless it is complete.
    async fn drop_image(&self, volume: &Stored<Volume>) -> Result<Next, Fault> {
        let Some(upload) = volume.wanted.upload.clone() else { return Ok(Next::Settled) };
        data::ops::drop_unfilled(&self.images, &upload.image_id).await?;
        self.write((volume.record.id.clone(), upload.image_id), |tx, (id, image_id)| {
            Box::pin(async move {
                let Some(mut volume) = tx.get::<Volume>(&id).await? else { return Ok(()) };
                if volume.wanted.upload.as_ref().is_some_and(|u| u.image_id == image_id) {
                    volume.record.wanted.upload = None;
                    tx.update(&volume).await?;
                }
                // If it was to be a backup, that has failed.
                crate::backup::ops::uploaded_in(tx, &image_id).await
            })
        })
        .await?;
        Ok(Next::Settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{tables::Upload, volume::model::tests::volume};

    #[test]
    fn the_plan_follows_what_is_wanted() {
        let mut v = volume();
        assert_eq!(plan(&v), Step::Nothing);
        v.host = None;
        assert_eq!(plan(&v), Step::Place);
        v.status = Status::Error;
        assert_eq!(plan(&v), Step::Nothing);
        v.wanted.upload = Some(Upload { image_id: "i".into(), failed: false });
        assert_eq!(plan(&v), Step::Nothing);
        v.wanted.delete = true;
        assert_eq!(plan(&v), Step::DropImage);
        v.wanted.upload = None;
        assert_eq!(plan(&v), Step::Remove);
    }
}
