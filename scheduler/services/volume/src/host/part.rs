//! The volumes of one host, as the agent shall have them; and what it says of them.
use crate::{
    Volumes,
    tables::{Seen, SeenSnapshot, Snapshot, Volume},
};
use async_trait::async_trait;
use pilvi_agent_api::v1::{self, volume_source::From as Made};
use pilvi_fleet::{Affected, HostPart, Node, Part, SeenImage, short};
use pilvi_kit::Fault;
use pilvi_store::{Change, Query, Stored};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The volume service's share of every host's wanted state.
#[derive(Debug)]
pub struct VolumePart {
    volumes: Arc<Volumes>,
}

impl VolumePart {
    pub fn new(volumes: Arc<Volumes>) -> Self {
        VolumePart { volumes }
    }
}

#[async_trait]
impl HostPart for VolumePart {
    async fn wanted(&self, host: &str) -> Result<Part, Fault> {
        let store = &self.volumes.store;
        let of_host = Query::all().any_of([Query::all().eq("host", host), Query::all().eq("awaited_host", host)]);
        let volumes = store.list::<Volume>(of_host).await?;
        let ids = volumes.iter().map(|v| v.record.id.clone());
        let mut snapshots: BTreeMap<String, Vec<Snapshot>> = BTreeMap::new();
        for snapshot in store.list::<Snapshot>(Query::all().one_of("volume_id", ids)).await? {
            snapshots.entry(snapshot.volume_id.clone()).or_default().push(snapshot.record);
        }
        let volumes: Vec<Volume> = volumes.into_iter().map(|v| v.record).collect();
        Ok(Part { volumes: wanted(&volumes, &snapshots), ..Part::default() })
    }

    async fn affected(&self, changes: &[Change]) -> Affected {
        // Whatever changes about a snapshot changes its volume too.
        let of = |volume: &Volume| volume.host.iter().chain(&volume.pinned_host).take(1).cloned().collect();
        pilvi_fleet::affected_by::<Volume>(&self.volumes.store, changes, of).await
    }

    async fn observed(&self, host: &str, observed: &v1::Observed) -> Result<(), Fault> {
        for volume in &observed.volumes {
            self.volumes.observe(host, &volume.id, seen(volume)).await?;
        }
        Ok(())
    }

    /// Only whoever has the host's session knows what it has confirmed, so the last step is taken here.
    async fn settled(&self, host: &str) -> Result<(), Fault> {
        let leaving = self.volumes.store.list::<Volume>(Query::all().eq("host", host).eq("leaving", 1)).await?;
        for volume in leaving.iter().filter(|v| v.wanted.upload.is_none()) {
            if self.volumes.fleet.confirmed_gone(host, &volume.record.id) {
                self.volumes.release(&volume.record.id).await?;
            }
        }
        Ok(())
    }

    async fn host_changed(&self, node: &Stored<Node>) -> Result<(), Fault> {
        let leaving = Query::all().eq("host", node.name.as_str()).eq("leaving", 1);
        let leaving = self.volumes.store.list::<Volume>(leaving).await?;
        leaving.iter().for_each(|v| self.volumes.poke(&v.record.id));
        Ok(())
    }
}

/// What a host shall have. What something else is still being made of, or waits to be, stays until that is made. Pure.
fn wanted(volumes: &[Volume], snapshots: &BTreeMap<String, Vec<Snapshot>>) -> Vec<v1::Volume> {
    let unmade = || volumes.iter().filter(|v| !v.made && !v.wanted.delete);
    let mut needed: BTreeSet<&String> = unmade().filter_map(|v| v.source_volid.as_ref()).collect();
    needed.extend(unmade().filter_map(|v| v.snapshot_id.as_ref()));
    let needed_snapshots = |of: &Volume| -> Vec<String> {
        let there = snapshots.get(&of.id).into_iter().flatten();
        there.filter(|s| !s.delete || needed.contains(&s.id)).map(|s| s.id.clone()).collect()
    };
    let mut told = Vec::new();
    for volume in volumes {
        let snapshots = needed_snapshots(volume);
        let serves = needed.contains(&volume.id) || snapshots.iter().any(|s| needed.contains(s));
        if volume.host.is_some() && (!volume.wanted.delete || serves) {
            told.push(volume_of(volume, snapshots));
        }
    }
    told.sort_by(|a, b| a.id.cmp(&b.id));
    told
}

fn volume_of(volume: &Volume, mut snapshots: Vec<String>) -> v1::Volume {
    snapshots.sort();
    let upload = volume.wanted.upload.as_ref().filter(|u| !u.failed && !volume.wanted.delete);
    v1::Volume {
        id: volume.id.clone(),
        generation: volume.wanted.generation,
        size_gib: volume.wanted.size_gib,
        source: source(volume),
        snapshots,
        revert_to: volume.wanted.revert_to.clone().unwrap_or_default(),
        reverts: volume.wanted.reverts,
        reimages: volume.wanted.reimages,
        upload: upload.map(|u| v1::Snapshot { image_id: u.image_id.clone() }),
        request_id: volume.request_id.clone(),
    }
}

/// What it is made of; an image that it was made anew of comes before what it was made of at first.
fn source(volume: &Volume) -> Option<v1::VolumeSource> {
    let of_volume = volume.snapshot_volume_id.clone().unwrap_or_default();
    let from = match (&volume.image, &volume.snapshot_id, &volume.source_volid) {
        (Some(image), _, _) => Made::Image(image.wire()),
        (None, Some(snapshot), _) => Made::SnapshotId(snapshot.clone()),
        (None, None, Some(volume)) => Made::VolumeId(volume.clone()),
        (None, None, None) => return None,
    };
    Some(v1::VolumeSource { from: Some(from), of_volume })
}

fn seen(v: &v1::ObservedVolume) -> Seen {
    let snapshot =
        |s: &v1::ObservedVolumeSnapshot| SeenSnapshot { id: s.id.clone(), error: short(&s.error), bytes: s.bytes };
    Seen {
        generation: v.generation,
        settled: v.settled,
        error: short(&v.error),
        step: short(&v.step),
        bytes: v.bytes,
        snapshots: v.snapshots.iter().map(snapshot).collect(),
        reverts: v.reverts,
        reimages: v.reimages,
        upload: v.upload.as_ref().and_then(SeenImage::of),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{snapshot::model::tests::snapshot, volume::model::tests::volume};
    use pilvi_fleet::ImageFile;

    #[test]
    fn what_something_is_made_of_stays_until_that_is_made() {
        let (mut source, mut clone) = (volume(), volume());
        (source.wanted.delete, source.made) = (true, true);
        (clone.id, clone.snapshot_id, clone.snapshot_volume_id) = ("c".into(), Some("s".into()), Some("v".into()));
        let mut taken = snapshot();
        taken.delete = true;
        let snapshots = BTreeMap::from([("v".to_owned(), vec![taken])]);
        let told = wanted(&[source.clone(), clone.clone()], &snapshots);
        let ids: Vec<&str> = told.iter().map(|v| v.id.as_str()).collect();
        assert_eq!((ids, told[1].snapshots.as_slice()), (vec!["c", "v"], &["s".to_owned()][..]));
        let from = told[0].source.clone().unwrap();
        assert_eq!((from.from, from.of_volume.as_str()), (Some(Made::SnapshotId("s".into())), "v"));
        clone.made = true;
        assert_eq!(wanted(&[source, clone], &snapshots).len(), 1);
    }

    #[test]
    fn a_volume_made_anew_names_its_image() {
        let mut v = volume();
        v.source_volid = Some("x".into());
        assert_eq!(source(&v).unwrap().from, Some(Made::VolumeId("x".into())));
        v.image = Some(ImageFile { id: "i".into(), sha512: "h".into(), size: 3, disk_format: "raw".into() });
        assert!(matches!(source(&v).unwrap().from, Some(Made::Image(i)) if i.id == "i"));
    }
}
