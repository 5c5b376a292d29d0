//! The verbs on the cache.
use super::disk::Disk;
use crate::{
    Image,
    data::{self, receive::Hasher},
    image::{
        self,
        model::{Image as Record, Status},
    },
    store::{Bytestream, Incoming},
};
use futures::{StreamExt, stream};
use pilvi_kit::Fault;
use std::sync::Arc;

/// The cache, or 404 where there is none.
pub fn disk(svc: &Image) -> Result<&Arc<Disk>, Fault> {
    svc.cache.as_ref().ok_or_else(|| Fault::not_found("Caching via API is not supported at this site."))
}

/// Do its bytes lie in remote stores alone? Those are cached as they pass; others when they are queued.
fn is_remote(svc: &Image, image: &Record) -> bool {
    let remote = |store: &str| svc.stores.find(store).is_some_and(|store| store.driver.is_remote());
    !image.locations.is_empty() && image.locations.iter().all(|l| remote(&l.store))
}

/// The bytes, if they are cached.
pub async fn read(svc: &Image, image: &Record, offset: u64, length: u64) -> Option<Bytestream> {
    svc.cache.as_ref()?.read(&image.id, image.content_hash()?, offset, length).await
}

/// Writes what passes from remote stores into the cache.
pub fn tee(svc: &Image, image: &Record, stream: Bytestream) -> Bytestream {
    if is_remote(svc, image) { keep(svc, image, stream) } else { stream }
}

/// Writes what passes into the cache. Whatever goes wrong there, the reader gets its bytes.
fn keep(svc: &Image, image: &Record, stream: Bytestream) -> Bytestream {
    let (Some(disk), Some(hash)) = (svc.cache.clone(), image.content_hash()) else { return stream };
    if image.size.is_none_or(|size| size > disk.size_max) {
        return stream;
    }
    match disk.begin(&image.id, hash) {
        Ok(Some(writing)) => {
            let taking = Taking {
                disk,
                writing: Some(Box::new(writing)),
                hasher: Some(Hasher::new(None)),
                hash: hash.to_owned(),
            };
            stream::unfold((stream, taking), step).boxed()
        }
        Ok(None) => stream,
        Err(error) => {
            tracing::warn!(image = image.id, %error, "an image cannot be cached");
            stream
        }
    }
}

/// An image on its way into the cache.
struct Taking {
    disk: Arc<Disk>,
    writing: Option<Box<dyn Incoming>>,
    hasher: Option<Hasher>,
    hash: String,
}

impl Drop for Taking {
    /// The reader went away before the end.
    fn drop(&mut self) {
        if let (Some(writing), Ok(runtime)) = (self.writing.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(writing.abort());
        }
    }
}

async fn step(
    (mut stream, mut taking): (Bytestream, Taking),
) -> Option<(std::io::Result<bytes::Bytes>, (Bytestream, Taking))> {
    match stream.next().await {
        Some(Ok(chunk)) => {
            if let (Some(writing), Some(hasher)) = (&mut taking.writing, &mut taking.hasher) {
                hasher.update(&chunk);
                if let Err(error) = writing.write(chunk.clone()).await {
                    tracing::warn!(%error, "an image is not cached");
                    give_up(&mut taking).await;
                }
            }
            Some((Ok(chunk), (stream, taking)))
        }
        Some(Err(error)) => {
            give_up(&mut taking).await;
            Some((Err(error), (stream, taking)))
        }
        None => {
            end(&mut taking).await;
            None
        }
    }
}

async fn give_up(taking: &mut Taking) {
    if let Some(writing) = taking.writing.take() {
        writing.abort().await;
    }
}

/// All bytes passed: they are cached if they are the image's.
async fn end(taking: &mut Taking) {
    let (Some(writing), Some(hasher)) = (taking.writing.take(), taking.hasher.take()) else { return };
    let digest = hasher.finish();
    if digest.sha512 != taking.hash {
        tracing::error!("a store gave other bytes than those of the image");
        writing.abort().await;
        return;
    }
    let kept = match writing.commit().await {
        Ok(()) => taking.disk.prune().await.map(drop),
        Err(error) => Err(error),
    };
    if let Err(error) = kept {
        tracing::warn!(%error, "an image is not cached");
    }
}

/// Queues an image, and wakes who fetches.
pub async fn queue(svc: &Image, image: &Record) -> Result<(), Fault> {
    let disk = disk(svc)?;
    if image.status != Status::Active {
        return Err(Fault::bad_request("Only images with status active can be targeted for queueing"));
    }
    let Some(hash) = image.content_hash() else {
        return Err(Fault::bad_request("Only images whose hash is known are cached."));
    };
    if !disk.has(&image.id, hash).await {
        disk.queue(&image.id).await.map_err(Fault::internal)?;
        svc.cache_wake.notify_one();
    }
    Ok(())
}

/// Fetches what is queued, one after the other. What fails is queued no more: a download caches it as well.
pub async fn fetch_queued(svc: &Image) -> Result<(), Fault> {
    let Some(disk) = svc.cache.clone() else { return Ok(()) };
    for id in disk.queued().await.map_err(Fault::internal)? {
        if let Err(fault) = fetch(svc, &id).await {
            tracing::warn!(image = id, %fault, "a queued image was not cached");
        }
        disk.unqueue(&id).await.map_err(Fault::internal)?;
    }
    Ok(())
}

async fn fetch(svc: &Image, id: &str) -> Result<(), Fault> {
    let image = image::ops::get_any(&svc.store, id).await?;
    let mut stream = data::ops::read(svc, &image, 0, image.size.unwrap_or(0)).await?;
    if !is_remote(svc, &image) {
        stream = keep(svc, &image, stream);
    }
    while let Some(chunk) = stream.next().await {
        chunk.map_err(Fault::internal)?;
    }
    Ok(())
}

/// Removes what no image has any more.
pub async fn clean(svc: &Image) -> Result<(), Fault> {
    let disk = disk(svc)?;
    for entry in disk.entries().await.map_err(Fault::internal)? {
        if svc.store.get::<Record>(&entry.image).await?.is_none() {
            disk.remove(&entry.image).await.map_err(Fault::internal)?;
        }
    }
    Ok(())
}

/// An image was deleted.
pub async fn forget(svc: &Image, id: &str) {
    let Some(disk) = &svc.cache else { return };
    let _ = disk.unqueue(id).await;
    if let Err(error) = disk.remove(id).await {
        tracing::warn!(image = id, %error, "a deleted image stays in the cache until it is cleaned");
    }
}
