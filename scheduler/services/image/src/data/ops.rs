//! The verbs on images' bytes.
use super::{
    files::Place,
    receive::{Broken, Digest, Expected, receive},
};
use crate::{
    Image, cache, fault,
    image::{
        self,
        model::{Event, Image as Record, Location},
    },
    quota,
    signature::{self, Signed},
    store::{Bytestream, ImageStore, object},
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use pilvi_kit::{Fault, call::BodyStream};
use std::{io, sync::Arc, time::Duration};

/// Bytes of a refused upload that are read and thrown away, so that the sender gets to read why.
const DRAINED: usize = 8 << 20;

/// The bytes of an image from `offset` on, and how many the whole image has: for agents that fetch it.
/// 404 when there is no such image, 409 when it has no bytes.
pub async fn open(svc: &Image, id: &str, offset: u64) -> Result<(u64, Bytestream), Fault> {
    let stored = image::ops::get_any(&svc.store, id).await?;
    let size =
        stored.size.filter(|_| stored.has_data()).ok_or_else(|| Fault::conflict(format!("Image {id} has no data.")))?;
    if offset > size {
        return Err(Fault::new(416, format!("Image {id} has {size} bytes.")));
    }
    Ok((size, read(svc, &stored, offset, size - offset).await?))
}

/// `length` bytes from `offset` on of an image that has data: from the store of the greatest weight that gives them.
pub async fn read(svc: &Image, image: &Record, offset: u64, length: u64) -> Result<Bytestream, Fault> {
    read_preferring(svc, image, offset, length, &[]).await
}

/// [`read`], from one of these stores if it is in any.
pub async fn read_preferring(
    svc: &Image,
    image: &Record,
    offset: u64,
    length: u64,
    preferred: &[String],
) -> Result<Bytestream, Fault> {
    if let Some(stream) = cache::ops::read(svc, image, offset, length).await {
        return Ok(stream);
    }
    let mut copies: Vec<(&Location, &Arc<ImageStore>)> =
        image.locations.iter().filter_map(|l| Some((l, svc.stores.find(&l.store)?))).collect();
    copies.sort_by_key(|(_, store)| (!preferred.contains(&store.id), std::cmp::Reverse(store.weight)));
    let mut last = None;
    for (location, store) in copies {
        match store.driver.read(&location.key, offset, length).await {
            Ok(stream) if image.size == Some(length) => return Ok(cache::ops::tee(svc, image, stream)),
            Ok(stream) => return Ok(stream),
            Err(error) => {
                tracing::warn!(image = image.id, store = store.id, %error, "an image's data cannot be read");
                last = Some(error);
            }
        }
    }
    match last {
        Some(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Fault::unavailable(format!("The data of image {} cannot be read now.", image.id)))
        }
        _ => Err(fault::no_image(&image.id)),
    }
}

/// Takes an image's bytes into the default store. Runs to its end by itself: a client that goes away leaves
/// nothing half done.
pub async fn upload(svc: &Arc<Image>, id: &str, stream: BodyStream, said: Option<u64>) -> Result<(), Fault> {
    upload_to(svc, svc.stores.default().clone(), id, stream, said).await
}

/// [`upload`] into a store that takes bytes.
pub async fn upload_to(
    svc: &Arc<Image>,
    store: Arc<ImageStore>,
    id: &str,
    stream: BodyStream,
    said: Option<u64>,
) -> Result<(), Fault> {
    detached(svc, id, stream, said, store).await
}

async fn detached(
    svc: &Arc<Image>,
    id: &str,
    stream: BodyStream,
    said: Option<u64>,
    store: Arc<ImageStore>,
) -> Result<(), Fault> {
    let (own, id) = (svc.clone(), id.to_owned());
    to_its_end(svc, async move { take(&own, &id, stream, said, store).await }).await
}

/// Runs an upload as a task of its own, so that it ends by itself, while there is room for one more.
pub(super) async fn to_its_end(
    svc: &Image,
    upload: impl Future<Output = Result<(), Fault>> + Send + 'static,
) -> Result<(), Fault> {
    let permit = svc.uploads.clone().try_acquire_owned().map_err(|_| {
        Fault::unavailable("Too many uploads run at once; please try again.").header("retry-after", "10")
    })?;
    let work = async move {
        let _permit = permit;
        upload.await
    };
    tokio::spawn(work).await.map_err(Fault::internal)?
}

async fn take(
    svc: &Image,
    id: &str,
    mut stream: BodyStream,
    said: Option<u64>,
    store: Arc<ImageStore>,
) -> Result<(), Fault> {
    let (record, max) = match begin(svc, id, said).await {
        Ok(begun) => begun,
        Err(fault) => {
            drain(&mut stream).await;
            return Err(fault);
        }
    };
    let taken = into_store(svc, &record, &store, &mut stream, Expected { max, said, signed: None }).await;
    if let Err(fault) = &taken {
        tracing::info!(image = id, cause = %fault, "image data was not taken");
        give_up(svc, id).await;
        drain(&mut stream).await;
    }
    taken
}

async fn into_store(
    svc: &Image,
    image: &Record,
    store: &ImageStore,
    stream: &mut BodyStream,
    expected: Expected,
) -> Result<(), Fault> {
    let id = image.id.as_str();
    let signed = signature::required(svc.config.certificates.as_deref(), image)?;
    let expected = Expected { signed: signed.as_ref().map(|signed| signed.hash), ..expected };
    let fill = put(svc, store, id, stream, expected, |digest| judge(svc, image, digest, signed.as_ref())).await?;
    activate(svc, id, vec![Location::of(store, id)], fill).await
}

/// Puts bytes into a store. What breaks off, or is refused by who judges it, leaves nothing there.
async fn put<S, T>(
    svc: &Image,
    store: &ImageStore,
    key: &str,
    stream: S,
    expected: Expected,
    judge: impl FnOnce(Digest) -> Result<T, Fault>,
) -> Result<T, Fault>
where
    S: Stream<Item = io::Result<Bytes>> + Unpin,
{
    let broken = |broken: Broken| refusal(key, &broken);
    let incoming = object::begin(svc, store, key).await.map_err(|e| broken(Broken::Disk(e)))?;
    let taken = async {
        let (digest, incoming) = receive(stream, incoming, expected).await.map_err(broken)?;
        match judge(digest) {
            Ok(judged) if !image::ops::is_anothers(&svc.store, key).await => {
                incoming.commit().await.map(|()| judged).map_err(|e| broken(Broken::Disk(e)))
            }
            Ok(_) => {
                incoming.abort().await;
                Err(Fault::conflict(format!("Another scheduler has taken over image {key}.")))
            }
            Err(fault) => {
                incoming.abort().await;
                Err(fault)
            }
        }
    };
    let taken = taken.await;
    if taken.is_err() && image::ops::is_orphan(&svc.store, key, &[Location::of(store, key)]).await {
        object::abandon(svc, store, key).await;
    }
    taken
}

/// Checks what can be checked before the first byte, and marks the image. Gives it and the bytes allowed.
async fn begin(svc: &Image, id: &str, said: Option<u64>) -> Result<(Record, u64), Fault> {
    let record = image::ops::get_any(&svc.store, id).await?.record;
    if record.disk_format.is_none() || record.container_format.is_none() {
        return Err(Fault::bad_request("Properties disk_format, container_format must be set prior to saving data."));
    }
    quota::check_bytes(svc, &record, false, said).await?;
    let max = room(svc, &record).await?;
    if said.is_some_and(|said| said > max) || max == 0 {
        return Err(refusal(id, &Broken::TooLarge(max)));
    }
    Ok((image::ops::step(&svc.store, id, Event::UploadBegins, |_| {}).await?.record, max))
}

/// Judges bytes that arrived; gives what the image's record is to say of them.
pub(crate) fn judge(
    svc: &Image,
    image: &Record,
    digest: Digest,
    signed: Option<&Signed>,
) -> Result<impl Fn(&mut Record) + Send + Sync + Clone + 'static, Fault> {
    let (disk, container) =
        (image.disk_format.as_deref().unwrap_or_default(), image.container_format.as_deref().unwrap_or_default());
    let virtual_size =
        pilvi_disk::judge(disk, container, &digest.sketch, &svc.config.rules()).map_err(fault::bad_data)?;
    if let Some(signed) = signed {
        signed.verify(digest.signed.as_deref().unwrap_or_default())?;
    }
    Ok(move |image: &mut Record| {
        (image.size, image.virtual_size) = (Some(digest.size), virtual_size);
        (image.checksum, image.os_hash_value) = (Some(digest.md5.clone()), Some(digest.sha512.clone()));
        (image.os_hash_algo, image.read_hash) = (Some("sha512".to_owned()), None);
    })
}

/// Makes the bytes of another image the image's own as well; `fill` says what is known of them.
pub(crate) async fn share<F>(svc: &Image, from: &Record, id: &str, fill: F) -> Result<(), Fault>
where
    F: Fn(&mut Record) + Send + Sync + Clone + 'static,
{
    let broken = |error| refusal(id, &Broken::Disk(error));
    for location in &from.locations {
        let Some(store) = svc.stores.find(&location.store).filter(|s| !s.read_only) else { continue };
        if store.driver.link(&location.key, id).await.map_err(broken)? {
            return activate(svc, id, vec![Location::of(store, id)], fill).await;
        }
    }
    let store = svc.stores.default();
    copy(svc, from, store, id).await?;
    activate(svc, id, vec![Location::of(store, id)], fill).await
}

/// Copies an image's bytes into an object of a store, checking them on the way.
pub(crate) async fn copy(svc: &Image, from: &Record, store: &ImageStore, key: &str) -> Result<(), Fault> {
    let size = from.size.unwrap_or_default();
    let stream = read(svc, from, 0, size).await?;
    put(svc, store, key, stream, Expected { max: size, said: Some(size), signed: None }, |digest| {
        match from.content_hash() {
            Some(hash) if hash != digest.sha512 => {
                Err(Fault::internal(format!("the data of image {} is not what its hash says", from.id)))
            }
            _ => Ok(()),
        }
    })
    .await
}

async fn activate<F>(svc: &Image, id: &str, locations: Vec<Location>, fill: F) -> Result<(), Fault>
where
    F: Fn(&mut Record) + Send + Sync + Clone + 'static,
{
    let kept = locations.clone();
    let fill = move |image: &mut Record| {
        image.locations.clone_from(&kept);
        fill(image);
    };
    match image::ops::step(&svc.store, id, Event::Complete, fill).await {
        Ok(_) => {
            object::settled(svc, &locations).await;
            Ok(())
        }
        Err(fault) => {
            // Deleted meanwhile, or the store failed: an object that no image names is an orphan. It is left where the
            // image may name it all the same (the answer to the commit was lost) or another scheduler works on it.
            if image::ops::is_orphan(&svc.store, id, &locations).await {
                object::delete(svc, &locations).await;
            }
            Err(if fault.code() == 404 {
                Fault::new(410, format!("Image {id} was deleted during the upload."))
            } else {
                fault
            })
        }
    }
}

/// 413 unless so many bytes more may be stored for the image's owner.
pub(crate) async fn check_room(svc: &Image, id: &str, size: u64) -> Result<(), Fault> {
    let max = room(svc, &image::ops::get_any(&svc.store, id).await?.record).await?;
    if size > max { Err(refusal(id, &Broken::TooLarge(max))) } else { Ok(()) }
}

/// Bytes that an image may have.
pub(crate) async fn room(svc: &Image, image: &Record) -> Result<u64, Fault> {
    quota::room(svc, image).await
}

/// The image is queued again.
pub(crate) async fn give_up(svc: &Image, id: &str) {
    give_up_naming(svc, id, Vec::new()).await;
}

/// [`give_up`], with these locations named all the same.
pub(crate) async fn give_up_naming(svc: &Image, id: &str, named: Vec<Location>) {
    let forget = move |image: &mut Record| {
        image.forget_data();
        image.locations.clone_from(&named);
    };
    match image::ops::step(&svc.store, id, Event::Fail, forget).await {
        Err(fault) if !matches!(fault.code(), 404 | 409) => {
            tracing::error!(image = id, %fault, "cannot queue the image again")
        }
        _ => {}
    }
}

pub(crate) fn too_large(id: &str, max: u64) -> Fault {
    refusal(id, &Broken::TooLarge(max))
}

pub(crate) fn disk(id: &str, error: io::Error) -> Fault {
    refusal(id, &Broken::Disk(error))
}

pub(crate) fn refusal(id: &str, broken: &Broken) -> Fault {
    match broken {
        Broken::TooLarge(max) => {
            Fault::too_large(format!("The data of image {id} is too large: {max} bytes are allowed."))
        }
        Broken::Disk(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            Fault::too_large("Image storage media is full.")
        }
        Broken::Disk(error) => Fault::internal(format!("image {id}: {error}")),
        Broken::Silent => Fault::new(408, format!("The data of image {id} did not arrive: {broken}.")),
        Broken::Cut(_) | Broken::Length { .. } => {
            Fault::bad_request(format!("The data of image {id} did not arrive whole: {broken}."))
        }
    }
}

/// Reads on for a moment: a sender that still writes would not read the answer.
pub(crate) async fn drain(stream: &mut BodyStream) {
    let reading = async {
        let mut left = DRAINED;
        while let Some(Ok(chunk)) = stream.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(2), reading).await;
}

/// Deletes an image that somebody else was to fill and will not, unless it is complete.
pub async fn drop_unfilled(svc: &Image, id: &str) -> Result<(), Fault> {
    let gone = match image::ops::get_any(&svc.store, id).await {
        Ok(image) if image.has_data() => Ok(()),
        Ok(_) => delete_image(svc, id).await,
        Err(fault) => Err(fault),
    };
    match gone {
        // Protected by its owner meanwhile: then it stays, empty as it is.
        Err(fault) if matches!(fault.code(), 403 | 404) => Ok(()),
        other => other,
    }
}

/// Deletes an image and its bytes; who reads them now reads on.
pub async fn delete_image(svc: &Image, id: &str) -> Result<(), Fault> {
    let gone = image::ops::delete(&svc.store, id).await?;
    object::delete(svc, &gone.locations).await;
    cache::ops::forget(svc, id).await;
    if let Err(error) = svc.files.discard(id, Place::Staged).await {
        // The record is gone: the next start removes the file.
        tracing::error!(image = id, %error, "cannot remove the staged data of a deleted image");
    }
    Ok(())
}
