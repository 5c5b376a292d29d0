//! The verbs on images' bytes.
use super::{
    files::{Broken, Digest, Expected, Place},
    format::{self, Rules},
};
use crate::{
    Image, fault,
    image::{
        self,
        model::{Event, Image as Record},
    },
};
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use pilvi_kit::{Fault, call::BodyStream};
use std::{io, sync::Arc, time::Duration};

/// Bytes of a refused upload that are read and thrown away, so that the sender gets to read why.
const DRAINED: usize = 8 << 20;

/// The bytes of an image from `offset` on, and how many the whole image has: for agents that fetch it.
/// 404 when there is no such image, 409 when it has no bytes.
pub async fn open(svc: &Image, id: &str, offset: u64) -> Result<(u64, BoxStream<'static, io::Result<Bytes>>), Fault> {
    let stored = image::ops::get_any(&svc.store, id).await?;
    let size =
        stored.size.filter(|_| stored.has_data()).ok_or_else(|| Fault::conflict(format!("Image {id} has no data.")))?;
    if offset > size {
        return Err(Fault::new(416, format!("Image {id} has {size} bytes.")));
    }
    Ok((size, read(svc, id, offset, size - offset).await?))
}

/// `length` bytes from `offset` on of an image that has data.
pub async fn read(
    svc: &Image,
    id: &str,
    offset: u64,
    length: u64,
) -> Result<BoxStream<'static, io::Result<Bytes>>, Fault> {
    svc.files.read(id, offset, length).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => fault::no_image(id),
        _ => Fault::internal(format!("image {id}: {error}")),
    })
}

/// Takes an image's bytes. Runs to its end by itself: a client that goes away leaves nothing half done.
pub async fn upload(svc: &Arc<Image>, id: &str, stream: BodyStream, said: Option<u64>) -> Result<(), Fault> {
    detached(svc, id, stream, said, Place::Part).await
}

/// Stages an image's bytes for an import.
pub async fn stage(svc: &Arc<Image>, id: &str, stream: BodyStream, said: Option<u64>) -> Result<(), Fault> {
    detached(svc, id, stream, said, Place::Staged).await
}

async fn detached(
    svc: &Arc<Image>,
    id: &str,
    stream: BodyStream,
    said: Option<u64>,
    place: Place,
) -> Result<(), Fault> {
    let (svc, id) = (svc.clone(), id.to_owned());
    let work = async move {
        let _permit = svc.uploads.clone().try_acquire_owned().map_err(|_| {
            Fault::unavailable("Too many uploads run at once; please try again.").header("retry-after", "10")
        })?;
        take(&svc, &id, stream, said, place).await
    };
    tokio::spawn(work).await.map_err(Fault::internal)?
}

async fn take(svc: &Image, id: &str, mut stream: BodyStream, said: Option<u64>, place: Place) -> Result<(), Fault> {
    let begun = begin(svc, id, said, place).await;
    let (stored, max) = match begun {
        Ok(begun) => begun,
        Err(fault) => {
            drain(&mut stream).await;
            return Err(fault);
        }
    };
    let taken = match svc.files.receive(id, place, &mut stream, Expected { max, said }).await {
        Ok(digest) if place == Place::Part => finish(svc, &stored, digest, place).await,
        Ok(digest) => image::ops::change(&svc.store, id, move |image| {
            image.size = Some(digest.size);
            Ok(())
        })
        .await
        .map(|_| ()),
        Err(broken) => Err(refusal(id, &broken)),
    };
    if let Err(fault) = &taken {
        tracing::info!(image = id, cause = %fault, "image data was not taken");
        give_up(svc, id, place).await;
        drain(&mut stream).await;
    }
    taken
}

/// Checks what can be checked before the first byte, and marks the image. Gives it and the bytes allowed.
async fn begin(svc: &Image, id: &str, said: Option<u64>, place: Place) -> Result<(Record, u64), Fault> {
    let stored = image::ops::get_any(&svc.store, id).await?;
    if stored.disk_format.is_none() || stored.container_format.is_none() {
        return Err(Fault::bad_request("Properties disk_format, container_format must be set prior to saving data."));
    }
    let max = room(svc, &stored.record).await?;
    if said.is_some_and(|said| said > max) || max == 0 {
        return Err(refusal(id, &Broken::TooLarge(max)));
    }
    let event = if place == Place::Part { Event::UploadBegins } else { Event::StageBegins };
    Ok((image::ops::step(&svc.store, id, event, |_| {}).await?.record, max))
}

/// Judges a file that arrived, gives it its final name, makes the image active.
pub(crate) async fn finish(svc: &Image, image: &Record, digest: Digest, place: Place) -> Result<(), Fault> {
    let rules = Rules { virtual_max: svc.config.virtual_size_max, match_format: svc.config.match_format };
    let (disk, container) =
        (image.disk_format.as_deref().unwrap_or_default(), image.container_format.as_deref().unwrap_or_default());
    let virtual_size = format::judge(disk, container, &digest.head, digest.size, rules).map_err(fault::bad_data)?;
    activate(svc, &image.id, place, move |image| {
        (image.size, image.virtual_size) = (Some(digest.size), virtual_size);
        (image.checksum, image.os_hash_value) = (Some(digest.md5.clone()), Some(digest.sha512.clone()));
        image.os_hash_algo = Some("sha512".to_owned());
    })
    .await
}

/// Makes bytes that another image shared the image's own; `fill` says what is known of them.
pub(crate) async fn adopt<F>(svc: &Image, id: &str, fill: F) -> Result<(), Fault>
where
    F: Fn(&mut Record) + Send + Sync + Clone + 'static,
{
    activate(svc, id, Place::Part, fill).await
}

async fn activate<F>(svc: &Image, id: &str, place: Place, fill: F) -> Result<(), Fault>
where
    F: Fn(&mut Record) + Send + Sync + Clone + 'static,
{
    svc.files.keep(id, place).await.map_err(Fault::internal)?;
    match image::ops::step(&svc.store, id, Event::Complete, fill).await {
        Ok(_) => Ok(()),
        Err(fault) => {
            // Deleted meanwhile, or the store failed: a file without an active image is an orphan.
            svc.files.delete(id).await.map_err(Fault::internal)?;
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
async fn room(svc: &Image, image: &Record) -> Result<u64, Fault> {
    match (svc.config.project_size_max, &image.owner) {
        (Some(limit), Some(owner)) => {
            let used = image::ops::stored_by(&svc.store, owner).await?;
            Ok(svc.config.size_max.min(limit.saturating_sub(used)))
        }
        _ => Ok(svc.config.size_max),
    }
}

/// The image is queued again, its bytes removed.
pub(crate) async fn give_up(svc: &Image, id: &str, place: Place) {
    if let Err(error) = svc.files.discard(id, place).await {
        tracing::error!(image = id, %error, "cannot remove refused image data");
    }
    match image::ops::step(&svc.store, id, Event::Fail, Record::forget_data).await {
        Err(fault) if !matches!(fault.code(), 404 | 409) => {
            tracing::error!(image = id, %fault, "cannot queue the image again")
        }
        _ => {}
    }
}

fn refusal(id: &str, broken: &Broken) -> Fault {
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
async fn drain(stream: &mut BodyStream) {
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

/// Deletes an image and its bytes; who reads them now reads on.
pub async fn delete_image(svc: &Image, id: &str) -> Result<(), Fault> {
    image::ops::delete(&svc.store, id).await?;
    if let Err(error) = svc.files.delete(id).await {
        // The record is gone: the next start removes the file.
        tracing::error!(image = id, %error, "cannot remove the data of a deleted image");
    }
    Ok(())
}
