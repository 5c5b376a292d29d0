//! The verbs on locations.
use super::view::{Expected, URL_MAX};
use crate::{
    Image,
    data::{
        self,
        receive::{Digest, Summing},
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
    svc.stores.all().find_map(|store| Some((store.clone(), store.driver.key_of(url)?))).ok_or_else(|| {
        Fault::bad_request(if svc.stores.all().any(|store| store.driver.is_meant(url)) {
            "Invalid location: the URI does not pass filtering."
        } else {
            "Invalid location: the URL is in no store that locations may name."
        })
    })
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

fn gone(error: std::io::Error) -> Fault {
    Fault::bad_request(format!("Invalid location: {error}"))
}

fn too_large(svc: &Image, size: u64) -> Fault {
    Fault::too_large(format!("The location holds {size} bytes; {} are allowed.", svc.config.size_max))
}

/// Reads an object once: what a location is taken for is what was read. Gives the hash that was `asked` for as well.
async fn digest(
    svc: &Image,
    store: &ImageStore,
    key: &str,
    signed: Option<HashMethod>,
    asked: Option<HashMethod>,
) -> Result<(Digest, Option<String>), Fault> {
    let size = store.driver.size(key).await.map_err(gone)?;
    if size > svc.config.size_max {
        return Err(too_large(svc, size));
    }
    let mut stream = store.driver.read(key, 0, size).await.map_err(gone)?;
    let (summing, mut also) = (Summing::begin(signed), asked.map(HashMethod::start));
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(gone)?;
        summing.update(&chunk).await.map_err(Fault::internal)?;
        // The hash of one chunk takes less than a millisecond: not worth a thread of its own.
        if let Some(also) = &mut also {
            also.update(&chunk);
        }
    }
    let digest = summing.finish().await.map_err(Fault::internal)?;
    if digest.size != size {
        return Err(Fault::bad_request(format!("Invalid location: {size} bytes announced, {} came", digest.size)));
    }
    Ok((digest, also.map(|also| hex::encode(also.finish()))))
}

/// A location that was read.
#[derive(Debug, Clone)]
pub struct Found {
    pub location: Location,
    pub digest: Digest,
    /// The hash that was asked for, in hex.
    pub asked: Option<String>,
}

/// Reads the object of a URL, for an image that may have bytes already: then they must be the same.
pub async fn find(
    svc: &Image,
    image: &Record,
    url: &str,
    metadata: Map<String, serde_json::Value>,
    asked: Option<HashMethod>,
) -> Result<Found, Fault> {
    let (store, key) = resolve(svc, url)?;
    free(svc, &image.id, &store, &key).await?;
    let signed = signature::required(svc.config.certificates.as_deref(), image)?;
    let (digest, asked) = digest(svc, &store, &key, signed.map(|signed| signed.hash), asked).await?;
    if image.content_hash().is_some_and(|hash| hash != digest.sha512) {
        return Err(Fault::conflict("The location holds other bytes than the image."));
    }
    Ok(Found { location: Location { metadata, ..Location::of(&store, &key) }, digest, asked })
}

/// Starts to give a queued image the bytes of a URL; a task tells how it goes.
pub async fn start(
    svc: &Arc<Image>,
    ctx: &Ctx,
    image: &Record,
    url: &str,
    expected: Option<Expected>,
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
        let outcome = import(&svc, &image, &task_id, &url, expected.as_ref()).await;
        let (status, message) = match &outcome {
            Ok(()) => (Progress::Success, String::new()),
            Err(fault) => (Progress::Failure, fault.message.clone()),
        };
        if outcome.is_err() {
            give_up(&svc, &image.id, &url).await;
        }
        if let Err(fault) = task::ops::advance(&svc.store, &task_id, status, &message, None).await {
            tracing::error!(task = task_id, %fault, "cannot say how a location was added");
        }
    });
    Ok(())
}

async fn import(svc: &Image, image: &Record, task: &str, url: &str, expected: Option<&Expected>) -> Result<(), Fault> {
    task::ops::advance(&svc.store, task, Progress::Processing, "", None).await?;
    let signed = signature::required(svc.config.certificates.as_deref(), image)?;
    if !svc.config.hash_locations && signed.is_none() {
        return believe(svc, image, url, expected.cloned()).await;
    }
    let found = find(svc, image, url, Map::new(), expected.map(|e| e.method)).await?;
    if let (Some(expected), Some(asked)) = (expected, &found.asked)
        && expected.value != *asked
    {
        return Err(Fault::conflict(format!("os_hash_value is {asked}, where {} was expected", expected.value)));
    }
    let (location, content) = (found.location, found.digest.sha512.clone());
    let fill = data::ops::judge(svc, image, found.digest, signed.as_ref())?;
    let expected = expected.filter(|e| e.method != HashMethod::Sha512).cloned();
    image::ops::step(&svc.store, &image.id, Event::Complete, move |image| {
        image.locations = vec![location.clone()];
        fill(image);
        // The image shows the hash that was asked for, and keeps in mind the one that hosts check.
        if let Some(expected) = &expected {
            (image.os_hash_algo, image.os_hash_value) =
                (Some(expected.algorithm.clone()), Some(expected.value.clone()));
            image.read_hash = Some(content.clone());
        }
    })
    .await
    .map(drop)
}

/// Gives an image the bytes of a URL unread, as an operator may want it who trusts those who name them: it has the size
/// that its store tells and the hash that was said, if any. Hosts check that hash where it is one of theirs, and judge
/// what they start.
async fn believe(svc: &Image, image: &Record, url: &str, said: Option<Expected>) -> Result<(), Fault> {
    let (store, key) = resolve(svc, url)?;
    free(svc, &image.id, &store, &key).await?;
    let size = store.driver.size(&key).await.map_err(gone)?;
    if size > svc.config.size_max {
        return Err(too_large(svc, size));
    }
    let location = Location::of(&store, &key);
    image::ops::step(&svc.store, &image.id, Event::Complete, move |image| {
        (image.locations, image.size) = (vec![location.clone()], Some(size));
        image.os_hash_algo = said.as_ref().map(|said| said.algorithm.clone());
        image.os_hash_value = said.as_ref().map(|said| said.value.clone());
    })
    .await
    .map(drop)
}

/// The image is queued again. A location that cannot be removed stays named, as clients know it from Glance; the next
/// bytes that the image gets take its place.
async fn give_up(svc: &Image, id: &str, url: &str) {
    let stays = resolve(svc, url).ok().filter(|(store, _)| store.read_only);
    let kept: Vec<Location> = stays.iter().map(|(store, key)| Location::of(store, key)).collect();
    data::ops::give_up_naming(svc, id, kept).await;
}
