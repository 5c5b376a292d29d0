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
    let mut staging: BTreeSet<String> = BTreeSet::new();
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for stored in svc.store.list::<Record>(Query::all()).await? {
        let record = stored.record;
        // The size is written when all staged bytes are there.
        let staged = record.size.is_some() && files.contains(&format!("{}.staged", record.id));
        let status = match record.status {
            Status::Saving | Status::Importing => fail(svc, &record.id).await?,
            Status::Uploading if !staged => fail(svc, &record.id).await?,
            status => status,
        };
        if status == Status::Uploading {
            staging.insert(record.id.clone());
        }
        for location in record.locations {
            known.entry(location.store).or_default().insert(location.key);
        }
    }
    for name in files {
        // Only files named like ours are ever removed.
        let orphan = |id: &str| pilvi_kit::id::is_uuid(id) && !staging.contains(id);
        if name.strip_suffix(".staged").is_some_and(orphan) {
            tracing::info!(file = name, "removing staged data that belongs to no image");
            svc.files.remove_name(&name).await.map_err(Fault::internal)?;
        }
    }
    for store in svc.stores.all() {
        let keys = known.remove(&store.id).unwrap_or_default();
        // A store that is out of reach now must not keep the others from working.
        if let Err(error) = store.driver.recover(&keys).await {
            tracing::error!(store = store.id, %error, "what a crash left in a store was not removed");
        }
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
    svc.files.discard(id, Place::Staged).await.map_err(Fault::internal)?;
    Ok(image::ops::step(&svc.store, id, Event::Fail, Record::forget_data).await?.status)
}
