//! What a crash left behind, put right at start.
use super::files::Place;
use crate::{
    Image,
    image::{
        self,
        model::{Image as Record, Status},
    },
    store::object,
    task,
};
use pilvi_kit::Fault;
use pilvi_store::Query;
use std::collections::{BTreeMap, BTreeSet};

/// At start. What `others`, schedulers of the same store, work on is theirs.
pub async fn recover(svc: &Image, others: &BTreeSet<String>) -> Result<(), Fault> {
    let mut staging: BTreeSet<String> = BTreeSet::new();
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for stored in svc.store.list::<Record>(Query::all()).await? {
        if stored.is_worked_on_by(|worker| others.contains(worker)) {
            continue;
        }
        let record = settle(svc, stored.record).await?;
        let waits = matches!(record.status, Status::Uploading | Status::Importing);
        if waits || record.staged.is_some() || !record.import.importing.is_empty() {
            staging.insert(record.id.clone());
        }
        for location in record.locations {
            known.entry(location.store).or_default().insert(location.key);
        }
    }
    if others.is_empty() {
        remove_orphans(svc, &staging, known).await?;
    }
    task::ops::expire(&svc.store).await
}

/// What a dead scheduler was working on: it will not write any more.
pub async fn inherit(svc: &Image, dead: &str) -> Result<(), Fault> {
    for stored in svc.store.list::<Record>(Query::all()).await? {
        if stored.is_worked_on_by(|worker| worker == dead) {
            settle(svc, stored.record).await?;
        }
    }
    Ok(())
}

/// Not while other schedulers are at work: what they have begun since is not told from what nobody wants.
async fn remove_orphans(
    svc: &Image,
    staging: &BTreeSet<String>,
    known: BTreeMap<String, BTreeSet<String>>,
) -> Result<(), Fault> {
    for name in svc.files.names().await.map_err(Fault::internal)? {
        if is_orphan(&name, staging) {
            tracing::info!(file = name, "removing staged data that belongs to no image");
            svc.files.remove_name(&name).await.map_err(Fault::internal)?;
        }
    }
    object::recover(svc, &known).await
}

/// What an image's record says after a stop: an upload that was cut off is queued again, a staging with what is durable
/// of it; an import that holds its image goes on later.
async fn settle(svc: &Image, record: Record) -> Result<Record, Fault> {
    let cut = match record.status {
        Status::Saving => true,
        Status::Importing => record.import.task.is_none(),
        // The size is written when all staged bytes are there.
        Status::Uploading => record.size.is_none(),
        _ => false,
    };
    let staged = svc.files.temporary(&record.id, Place::Staged);
    let have = tokio::fs::metadata(&staged).await.map_or(0, |file| file.len());
    let lost = record.status == Status::Uploading && record.size.is_some_and(|size| size != have);
    if lost {
        tracing::error!(image = record.id, "staged data is missing");
    }
    if !cut && !lost {
        return Ok(record);
    }
    tracing::info!(image = record.id, "queueing an image again whose upload was cut off");
    let durable = record.staged.filter(|staged| *staged <= have);
    let stored = image::ops::abandon(&svc.store, &record.id, move |image: &mut Record| {
        image.forget_data();
        image.import.end(false);
        image.staged = durable;
    });
    Ok(stored.await?.record)
}

/// Only files named like ours are ever removed.
fn is_orphan(name: &str, staging: &BTreeSet<String>) -> bool {
    match name.split_once('.') {
        Some((id, "staged")) => pilvi_kit::id::is_uuid(id) && !staging.contains(id),
        // Made by a plug-in: the import that goes on makes it again.
        Some((id, rest)) => pilvi_kit::id::is_uuid(id) && rest.starts_with("work-"),
        None => false,
    }
}
