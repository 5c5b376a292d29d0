//! The verbs on locations.
use super::view::{Expected, URL_MAX};
use crate::{
    Image,
    data::{
        self,
        receive::{Digest, Hasher},
    },
    image::{
        self,
        model::{Event, Image as Record, Location, Status},
    },
    signature::{self, HashMethod},
    store::ImageStore,
    tables,
    task::{
        self,
        model::{Status as Progress, Task},
    },
};
use futures::StreamExt;
use pilvi_kit::{Ctx, Fault, id};
use pilvi_store::Query;
use serde_json::{Map, json};
use std::sync::Arc;

/// The store that a URL is in, and what it calls the object. 400 for a URL of no store.
pub fn resolve(svc: &Image, url: &str) -> Result<(Arc<ImageStore>, String), Fault> {
    if url.len() > URL_MAX {
        return Err(Fault::bad_request(format!("A location's URL has at most {URL_MAX} characters.")));
    }
    svc.stores
        .all()
        .find_map(|store| Some((store.clone(), store.driver.key_of(url)?)))
        .ok_or_else(|| Fault::bad_request("Invalid location: the URL is in no store that locations may name."))
}

/// An object of a store that removes what it is told to belongs to one image alone.
async fn free(svc: &Image, image: &str, store: &ImageStore, key: &str) -> Result<(), Fault> {
    if store.read_only {
        return Ok(());
    }
    let label = tables::location_label(&store.id, key);
    let holders = svc.store.list::<Record>(Query::all().labelled(label).limit(2)).await?;
    if holders.iter().any(|holder| holder.id != image) {
        return Err(Fault::conflict("Another image has this location."));
    }
    Ok(())
}

/// Reads an object once: what a location is taken for is what was read.
async fn digest(svc: &Image, store: &ImageStore, key: &str, signed: Option<HashMethod>) -> Result<Digest, Fault> {
    let gone = |error: std::io::Error| Fault::bad_request(format!("Invalid location: {error}"));
    let size = store.driver.size(key).await.map_err(gone)?;
    if size > svc.config.size_max {
        return Err(Fault::too_large(format!("The location holds {size} bytes; {} are allowed.", svc.config.size_max)));
    }
    let mut stream = store.driver.read(key, 0, size).await.map_err(gone)?;
    let mut hasher = Hasher::new(signed);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(gone)?;
        // Hashing 256 KiB takes a millisecond: not worth a thread of its own, but other work goes first.
        hasher.update(&chunk);
        tokio::task::yield_now().await;
    }
    let digest = hasher.finish();
    if digest.size != size {
        return Err(Fault::bad_request(format!("Invalid location: {size} bytes announced, {} came", digest.size)));
    }
    Ok(digest)
}

fn compare(what: &str, wanted: Option<&String>, found: &str) -> Result<(), Fault> {
    match wanted {
        Some(wanted) if wanted != found => {
            Err(Fault::conflict(format!("{what} is {found}, where {wanted} was expected")))
        }
        _ => Ok(()),
    }
}

fn check(expected: &Expected, digest: &Digest) -> Result<(), Fault> {
    compare("checksum", expected.checksum.as_ref(), &digest.md5)?;
    compare("os_hash_value", expected.os_hash_value.as_ref(), &digest.sha512)
}

/// A location that was read and found to hold what it should.
#[derive(Debug, Clone)]
pub struct Verified {
    pub location: Location,
    pub digest: Digest,
}

/// Reads the object of a URL, for an image that may know already what it is to hold.
pub async fn verify(
    svc: &Image,
    image: &Record,
    url: &str,
    metadata: Map<String, serde_json::Value>,
    expected: &Expected,
) -> Result<Verified, Fault> {
    let (store, key) = resolve(svc, url)?;
    free(svc, &image.id, &store, &key).await?;
    let signed = signature::required(svc.config.certificates.as_deref(), image)?;
    let digest = digest(svc, &store, &key, signed.map(|signed| signed.hash)).await?;
    check(expected, &digest)?;
    compare("os_hash_value", image.os_hash_value.as_ref(), &digest.sha512)?;
    Ok(Verified { location: Location { metadata, ..Location::of(&store, &key) }, digest })
}

/// Starts to give a queued image the bytes of a URL; a task tells how it goes.
pub async fn start(
    svc: &Arc<Image>,
    ctx: &Ctx,
    image: &Record,
    url: &str,
    expected: Expected,
    request: serde_json::Value,
) -> Result<(), Fault> {
    if image.status != Status::Queued {
        return Err(Fault::conflict(format!(
            "It's not allowed to add locations if image status is {}.",
            image.status.as_str()
        )));
    }
    let (store, key) = resolve(svc, url)?;
    free(svc, &image.id, &store, &key).await?;
    task::ops::expire(&svc.store).await?;
    image::ops::step(&svc.store, &image.id, Event::ImportBegins, |_| {}).await?;
    let task = Task {
        id: id::new(),
        kind: "location_import".to_owned(),
        status: Progress::Pending,
        owner: ctx.project_id().to_owned(),
        user_id: ctx.user_id().to_owned(),
        image_id: image.id.clone(),
        request_id: ctx.request_id.clone(),
        input: json!({"image_id": image.id, "loc_url": url, "validation_data": request}),
        request: serde_json::Value::Null,
        message: String::new(),
        result: None,
        roles: Vec::new(),
        resume: None,
        ended_us: None,
    };
    let task_id = task::ops::add(&svc.store, task).await?.record.id;
    let (svc, image, url) = (svc.clone(), image.clone(), url.to_owned());
    tokio::spawn(async move {
        let outcome = import(&svc, &image, &task_id, &url, &expected).await;
        let (status, message) = match &outcome {
            Ok(()) => (Progress::Success, String::new()),
            Err(fault) => (Progress::Failure, fault.message.clone()),
        };
        if outcome.is_err() {
            data::ops::give_up(&svc, &image.id).await;
        }
        if let Err(fault) = task::ops::advance(&svc.store, &task_id, status, &message, None).await {
            tracing::error!(task = task_id, %fault, "cannot say how a location was added");
        }
    });
    Ok(())
}

async fn import(svc: &Image, image: &Record, task: &str, url: &str, expected: &Expected) -> Result<(), Fault> {
    task::ops::advance(&svc.store, task, Progress::Processing, "", None).await?;
    let found = verify(svc, image, url, Map::new(), expected).await?;
    let signed = signature::required(svc.config.certificates.as_deref(), image)?;
    let fill = data::ops::judge(svc, image, found.digest, signed.as_ref())?;
    let location = found.location;
    image::ops::step(&svc.store, &image.id, Event::Complete, move |image| {
        image.locations = vec![location.clone()];
        fill(image);
    })
    .await
    .map(drop)
}
