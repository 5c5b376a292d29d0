//! Objects of stores that no image names, yet or any more: kept in mind until they are in an image or gone.
//!
//! ```text
//!  begin --> arriving --> named by an image: forgotten
//!                    '--> refused, cut off, found at a start --.
//!  image or copy deleted (same transaction) --> doomed ----------> removed, forgotten; again later when that fails
//! ```
//!
//! Directories need no record of what arrives: they can be looked through ([`Driver::scans`]). Buckets cannot, as
//! other clouds may share them.
//!
//! [`Driver::scans`]: super::Driver::scans
use super::{ImageStore, Incoming};
use crate::{Image, data::files::read_file, image::model::Location, tables};
use futures::StreamExt;
use pilvi_kit::Fault;
use pilvi_store::Tx;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Arriving,
    Doomed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// `store.key`
    pub id: String,
    pub store: String,
    pub key: String,
    pub state: State,
    /// Of an upload that has not ended.
    pub upload: Option<String>,
}

impl Object {
    fn new(store: &str, key: &str, state: State, upload: Option<&str>) -> Self {
        let id = format!("{store}.{key}");
        Object { id, store: store.to_owned(), key: key.to_owned(), state, upload: upload.map(str::to_owned) }
    }
}

async fn put(svc: &Image, object: Object) -> Result<(), Fault> {
    svc.store
        .write(move |tx| {
            let object = object.clone();
            Box::pin(async move { put_in(tx, object).await })
        })
        .await
}

async fn put_in(tx: &mut Tx, object: Object) -> Result<(), Fault> {
    match tx.get::<Object>(&object.id).await? {
        Some(mut stored) => {
            stored.record = object;
            tx.update(&stored).await?;
        }
        None => {
            tx.insert(&object).await?;
        }
    }
    Ok(())
}

/// The image goes, or a copy of it: its objects are to go.
pub(crate) async fn doom_in(tx: &mut Tx, locations: &[Location]) -> Result<(), Fault> {
    for location in locations {
        put_in(tx, Object::new(&location.store, &location.key, State::Doomed, None)).await?;
    }
    Ok(())
}

async fn forget(svc: &Image, id: String) {
    let forgotten = svc.store.write(move |tx| {
        let id = id.clone();
        Box::pin(async move { tx.delete::<Object>(&id).await })
    });
    if let Err(error) = forgotten.await {
        tracing::error!(%error, "cannot forget an object; the next start looks at it again");
    }
}

/// Begins an object, and keeps it in mind where a crash would leave it unseen.
pub(crate) async fn begin(svc: &Image, store: &ImageStore, key: &str) -> io::Result<Box<dyn Incoming>> {
    let incoming = store.driver.begin(key).await?;
    if store.driver.scans() {
        return Ok(incoming);
    }
    match put(svc, Object::new(&store.id, key, State::Arriving, incoming.upload())).await {
        Ok(()) => Ok(incoming),
        Err(fault) => {
            incoming.abort().await;
            Err(io::Error::other(fault.to_string()))
        }
    }
}

/// An image names these now.
pub(crate) async fn settled(svc: &Image, locations: &[Location]) {
    for location in locations {
        if svc.stores.find(&location.store).is_some_and(|store| !store.driver.scans()) {
            forget(svc, format!("{}.{}", location.store, location.key)).await;
        }
    }
}

/// Removes an object that no image names. What fails stays doomed and is tried again.
pub(crate) async fn abandon(svc: &Image, store: &ImageStore, key: &str) {
    let id = format!("{}.{key}", store.id);
    let known = match svc.store.get::<Object>(&id).await {
        Ok(known) => known.map(|stored| stored.record),
        Err(error) => {
            tracing::error!(store = store.id, key, %error, "cannot look an object up");
            None
        }
    };
    let upload = known.as_ref().and_then(|object| object.upload.clone());
    match store.driver.abandon(key, upload.as_deref()).await {
        Ok(()) if known.is_some() => forget(svc, id).await,
        Ok(()) => {}
        Err(error) => {
            tracing::warn!(store = store.id, key, %error, "cannot remove image data now; it is tried again");
            let doomed = Object::new(&store.id, key, State::Doomed, upload.as_deref());
            if let Err(fault) = put(svc, doomed).await {
                tracing::error!(store = store.id, key, %fault, "cannot keep an object in mind");
            }
        }
    }
}

/// Removes the objects of an image or copy that is gone.
pub(crate) async fn delete(svc: &Image, locations: &[Location]) {
    for location in locations {
        if let Some(store) = svc.stores.find(&location.store) {
            abandon(svc, store, &location.key).await;
        }
    }
}

/// Puts a complete file of this machine into a store; the file stays.
pub(crate) async fn put_file(svc: &Image, store: &ImageStore, key: &str, path: &Path) -> io::Result<()> {
    if store.driver.take_file(key, path).await? {
        return Ok(());
    }
    let mut incoming = begin(svc, store, key).await?;
    let sent = async {
        let mut stream = read_file(path.to_owned(), 0, u64::MAX).await?;
        while let Some(chunk) = stream.next().await {
            incoming.write(chunk?).await?;
        }
        Ok(())
    };
    let outcome = match sent.await {
        Ok(()) => incoming.commit().await,
        Err(error) => {
            incoming.abort().await;
            Err(error)
        }
    };
    if outcome.is_err() {
        abandon(svc, store, key).await;
    }
    outcome
}

/// Tries again to remove what is doomed.
pub(crate) async fn sweep(svc: &Image) -> Result<(), Fault> {
    for stored in svc.store.list::<Object>(tables::doomed()).await? {
        if let Some(store) = svc.stores.find(&stored.store) {
            abandon(svc, store, &stored.key).await;
        }
    }
    Ok(())
}

/// What a crash left: objects that arrived are an image's or go; each store looks through what it can.
pub(crate) async fn recover(svc: &Image, known: &BTreeMap<String, BTreeSet<String>>) -> Result<(), Fault> {
    let is_known = |store: &str, key: &str| known.get(store).is_some_and(|keys| keys.contains(key));
    for stored in svc.store.list::<Object>(pilvi_store::Query::all()).await? {
        let object = stored.record;
        match svc.stores.find(&object.store) {
            _ if is_known(&object.store, &object.key) => forget(svc, object.id).await,
            Some(store) => abandon(svc, store, &object.key).await,
            None => {}
        }
    }
    for store in svc.stores.all() {
        let none = BTreeSet::new();
        // A store that is out of reach now must not keep the others from working.
        if let Err(error) = store.driver.recover(known.get(&store.id).unwrap_or(&none)).await {
            tracing::error!(store = store.id, %error, "what a crash left in a store was not removed");
        }
    }
    Ok(())
}
