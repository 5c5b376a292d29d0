//! What a crash left behind, put right at start.
use super::files::Place;
use crate::{
    Image,
    image::{
        self,
        model::{Event, Image as Record, Status},
    },
    task,
};
use pilvi_kit::Fault;
use pilvi_store::Query;
use std::collections::{BTreeMap, BTreeSet};

pub async fn recover(svc: &Image) -> Result<(), Fault> {
    let files: BTreeSet<String> = svc.files.names().await.map_err(Fault::internal)?.into_iter().collect();
    let mut images: BTreeMap<String, Status> = BTreeMap::new();
    for stored in svc.store.list::<Record>(Query::all()).await? {
        let record = stored.record;
        // The size is written when all staged bytes are there.
        let staged = record.size.is_some() && files.contains(&format!("{}.staged", record.id));
        let status = match record.status {
            Status::Saving | Status::Importing => fail(svc, &record.id).await?,
            Status::Uploading if !staged => fail(svc, &record.id).await?,
            status => status,
        };
        if record.has_data() && !files.contains(&record.id) {
            tracing::error!(image = record.id, "the data of an active image is missing");
        }
        images.insert(record.id, status);
    }
    for name in files.iter().filter(|name| is_orphan(name, &images)) {
        tracing::info!(file = name, "removing image data that belongs to no image");
        svc.files.remove_name(name).await.map_err(Fault::internal)?;
    }
    for stored in task::ops::all(&svc.store).await? {
        if !stored.status.ended() {
            task::ops::advance(&svc.store, &stored.id, task::model::Status::Failure, "The service was restarted.")
                .await?;
        }
    }
    task::ops::expire(&svc.store).await
}

async fn fail(svc: &Image, id: &str) -> Result<Status, Fault> {
    tracing::info!(image = id, "queueing an image again whose upload was cut off");
    svc.files.discard(id, Place::Part).await.map_err(Fault::internal)?;
    Ok(image::ops::step(&svc.store, id, Event::Fail, Record::forget_data).await?.status)
}

/// Only files named like ours are ever removed.
fn is_orphan(name: &str, images: &BTreeMap<String, Status>) -> bool {
    let (id, wanted): (&str, &[Status]) = match name.split_once('.') {
        None => (name, &[Status::Active, Status::Deactivated]),
        Some((id, "staged")) => (id, &[Status::Uploading]),
        Some((id, "part")) => (id, &[]),
        Some(_) => return false,
    };
    pilvi_kit::id::is_uuid(id) && !images.get(id).is_some_and(|status| wanted.contains(status))
}
