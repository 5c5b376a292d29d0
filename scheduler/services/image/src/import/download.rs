//! Bytes from elsewhere, into the staged file: from a URL, from another region's image service, from this one.
//!
//! A connection that breaks costs what came since the last checkpoint at most: the rest is asked for by range, and
//! taken when the server still has the same file. A server that cannot do that is asked for everything again.
use super::{ops::held, request::Source, run::Job};
use crate::{
    Image,
    data::{self, staging::Staged},
    image::{
        self,
        model::{Image as Record, Status},
    },
    task,
};
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use pilvi_kit::{
    Fault,
    fetch::{Got, Header, Named, Progress, Refused, Resume},
};
use serde_json::Value;
use std::{collections::BTreeMap, io, time::Duration};
use tokio::time::Instant;

/// Tries in a row that bring nothing new: before the first byte, and after it.
const TRIES: (u32, u32) = (3, 10);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long a sender may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// Bytes of another region's description of an image.
const DESCRIPTION_MAX: usize = 1 << 20;
/// Properties that come along with the bytes, by their beginnings.
const COPIED: &[&str] = &["hw_", "trait:", "os_distro", "os_secure_boot", "os_type"];

/// What another image service says of an image.
#[derive(Debug, Clone, Default)]
pub struct Described {
    pub disk_format: Option<String>,
    pub container_format: Option<String>,
    pub properties: BTreeMap<String, String>,
    size: Option<u64>,
    sha512: Option<String>,
}

/// Why a stream ended before its end.
enum Cut {
    /// The sender: more may be had.
    Broken(String),
    /// Nothing more helps.
    Final(Fault),
}

impl From<Fault> for Cut {
    fn from(fault: Fault) -> Self {
        Cut::Final(fault)
    }
}

/// From the URL of an import.
pub async fn web(svc: &Image, job: &Job, uri: &str) -> Result<(), Fault> {
    fetch(svc, job, uri, Named::ByUser, &[]).await.map(|_| ())
}

/// From the image service of a region. None when everything is done: this service's images need not move.
pub async fn image(svc: &Image, job: &Job, source: &Source) -> Result<Option<Described>, Fault> {
    let known = matches!(source.interface.as_str(), "public" | "internal" | "admin");
    if !known || source.region != svc.config.region {
        return remote(svc, job, source).await.map(Some);
    }
    let asker = job.asker.as_ref().ok_or_else(|| Fault::internal("an import without its caller"))?;
    let from = image::ops::visible(&svc.store, &asker.ctx, &source.image).await?.record;
    check_active(from.status.as_str())?;
    let size = from.size.unwrap_or(0);
    data::ops::check_room(svc, &job.image_id, size).await?;
    let copied = from.properties.iter().filter(|(name, _)| is_copied(name));
    let described = Described {
        disk_format: from.disk_format.clone(),
        container_format: from.container_format.clone(),
        properties: copied.filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect(),
        size: Some(size),
        sha512: None,
    };
    if svc.config.import.plugins.plugins.is_empty() && job.stores == [svc.stores.default().id.clone()] {
        share(svc, job, from, described).await?;
        return Ok(None);
    }
    let stream = data::ops::read(svc, &from, 0, size).await?;
    let mut staged = Staged::open(&job.staged(svc), 0).await.map_err(Fault::internal)?;
    match pump(svc, job, &mut staged, stream, size, &mut Progress::default()).await {
        Ok(()) => staged.sync().await.map(|_| Some(described)).map_err(Fault::internal),
        Err(Cut::Broken(why)) => Err(Fault::internal(why)),
        Err(Cut::Final(fault)) => Err(fault),
    }
}

async fn share(svc: &Image, job: &Job, from: Record, described: Described) -> Result<(), Fault> {
    let source = from.clone();
    data::ops::share(svc, &source, &job.image_id, move |image| {
        (image.disk_format, image.container_format) =
            (described.disk_format.clone(), described.container_format.clone());
        (image.size, image.virtual_size) = (from.size, from.virtual_size);
        (image.checksum, image.os_hash_algo, image.os_hash_value) =
            (from.checksum.clone(), from.os_hash_algo.clone(), from.os_hash_value.clone());
        image.read_hash.clone_from(&from.read_hash);
        let properties = described.properties.iter();
        image.properties.extend(properties.map(|(name, value)| (name.clone(), Some(value.clone()))));
    })
    .await
}

fn is_copied(name: &str) -> bool {
    COPIED.iter().any(|start| name.starts_with(start)) && crate::image::view::check_name(name).is_ok()
}

fn check_active(status: &str) -> Result<(), Fault> {
    if status == Status::Active.as_str() {
        return Ok(());
    }
    Err(Fault::conflict(format!("Source image status should be active instead of {status}")))
}

/// From another region, with the caller's own token.
async fn remote(svc: &Image, job: &Job, source: &Source) -> Result<Described, Fault> {
    let nowhere = || {
        Fault::bad_request(format!(
            "No image service is known at the interface '{}' of region '{}'.",
            source.interface, source.region
        ))
    };
    let cloud = svc.cloud.get().ok_or_else(nowhere)?;
    let endpoint = cloud.image_endpoint(&source.region, &source.interface).await?.ok_or_else(nowhere)?;
    let token = job.asker.as_ref().and_then(|asker| asker.token.clone()).ok_or_else(nowhere)?;
    let endpoint = endpoint.trim_end_matches('/').trim_end_matches("/v2");
    let url = format!("{endpoint}/v2/images/{}", source.image);
    let secret = [Header { name: "x-auth-token", value: &token, secret: true }];
    let got = svc.fetcher.get(&url, Named::ByOperator, &secret).await.map_err(|refused| refusal(&url, &refused))?;
    let text = got.bytes(DESCRIPTION_MAX).await.map_err(|error| Fault::new(502, format!("{url}: {error}")))?;
    let described = described(&serde_json::from_slice(&text).unwrap_or(Value::Null))?;
    data::ops::check_room(svc, &job.image_id, described.size.unwrap_or(0)).await?;
    let size = fetch(svc, job, &format!("{url}/file"), Named::ByOperator, &secret).await?;
    if described.size.is_some_and(|said| said != size) {
        return Err(Fault::new(502, format!("{size} bytes came from {url}, which is not what it says.")));
    }
    if let Some(wanted) = &described.sha512 {
        let digest = data::receive::digest(&job.staged(svc), None).await.map_err(Fault::internal)?;
        if digest.sha512 != *wanted {
            return Err(Fault::new(502, format!("The data from {url} is not what its hash says.")));
        }
    }
    Ok(described)
}

fn described(body: &Value) -> Result<Described, Fault> {
    let text = |key: &str| body[key].as_str().map(str::to_owned);
    check_active(body["status"].as_str().unwrap_or("unknown"))?;
    let properties = body.as_object().into_iter().flatten().filter(|(name, _)| is_copied(name));
    let known = |format: Option<String>, all: &[&str]| format.filter(|name| all.contains(&name.as_str()));
    Ok(Described {
        disk_format: known(text("disk_format"), image::model::DISK_FORMATS),
        container_format: known(text("container_format"), image::model::CONTAINER_FORMATS),
        properties: properties.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect(),
        size: body["size"].as_u64(),
        sha512: text("os_hash_value").filter(|_| body["os_hash_algo"] == "sha512"),
    })
}

fn refusal(url: &str, refused: &Refused) -> Fault {
    let code = match refused {
        Refused::Filtered(_) | Refused::Address(_) | Refused::Redirects => 400,
        Refused::Status(status) if status.is_client_error() => 400,
        _ => 502,
    };
    let url: String = url.chars().take(500).collect();
    Fault::new(code, format!("Nothing came from {url}: {refused}"))
}

/// Fetches a file into the staging area, however often the connection breaks; gives its size.
async fn fetch(svc: &Image, job: &Job, url: &str, named: Named, headers: &[Header<'_>]) -> Result<u64, Fault> {
    let record = image::ops::get_any(&svc.store, &job.image_id).await?.record;
    let max = data::ops::room(svc, &record).await?;
    let deadline = Instant::now() + svc.config.import.limit();
    let mut progress = task::ops::progress(&svc.store, &job.task_id).await?.unwrap_or_default();
    let mut tries = 0;
    loop {
        let before = progress.have;
        let why = match once(svc, job, url, named, headers, &mut progress, max).await {
            Ok(size) => return Ok(size),
            Err(Cut::Final(fault)) => return Err(fault),
            Err(Cut::Broken(why)) => why,
        };
        // The image may be another's by now, or gone.
        held(svc, &job.image_id, &job.task_id, |_| Ok(())).await?;
        tries = if progress.have > before { 1 } else { tries + 1 };
        let most = if progress.have == 0 { TRIES.0 } else { TRIES.1 };
        let pause = Duration::from_secs(1 << (tries - 1).min(8)).min(PAUSE_MAX);
        if tries >= most || Instant::now() + pause > deadline {
            return Err(Fault::new(502, format!("{url}: {why} ({} bytes came)", progress.have)));
        }
        tracing::info!(image = job.image_id, have = progress.have, why, "a download broke off and goes on");
        tokio::time::sleep(pause).await;
    }
}

/// One connection.
async fn once(
    svc: &Image,
    job: &Job,
    url: &str,
    named: Named,
    headers: &[Header<'_>],
    progress: &mut Progress,
    max: u64,
) -> Result<u64, Cut> {
    let known = progress.clone();
    let range = known.range();
    let mut all = headers.to_vec();
    all.extend(known.headers(range.as_deref()));
    let got: Got = match svc.fetcher.get(url, named, &all).await {
        Ok(got) => got,
        // What is here is not a beginning of what is there.
        Err(Refused::Status(status)) if status.as_u16() == 416 && known.have > 0 => {
            *progress = Progress::default();
            return Err(Cut::Broken("the file has changed".to_owned()));
        }
        Err(refused) if refused.is_passing() => return Err(Cut::Broken(refused.to_string())),
        Err(refused) => return Err(Cut::Final(refusal(url, &refused))),
    };
    if progress.learn(&got) == Resume::Start {
        progress.have = 0;
    }
    if progress.total.is_some_and(|total| total > max) {
        return Err(Cut::Final(data::ops::too_large(&job.image_id, max)));
    }
    let mut staged = Staged::open(&job.staged(svc), progress.have).await.map_err(Fault::internal)?;
    let pumped = pump(svc, job, &mut staged, got.body, max, progress).await;
    let size = staged.sync().await.map_err(Fault::internal)?;
    progress.have = size;
    match (pumped, progress.total) {
        (Ok(()), Some(total)) if size < total => Err(Cut::Broken("the connection broke".to_owned())),
        (Ok(()), Some(total)) if size > total => {
            Err(Cut::Final(Fault::new(502, format!("{url} is longer than it says."))))
        }
        (Ok(()), _) => Ok(size),
        (Err(cut), _) => Err(cut),
    }
}

/// Writes a stream into the staged file, telling at every checkpoint how far it is.
async fn pump(
    svc: &Image,
    job: &Job,
    staged: &mut Staged,
    mut stream: BoxStream<'static, io::Result<Bytes>>,
    max: u64,
    progress: &mut Progress,
) -> Result<(), Cut> {
    loop {
        let chunk = match tokio::time::timeout(SILENCE, stream.next()).await {
            Err(_) => return Err(Cut::Broken("the sender was silent".to_owned())),
            Ok(None) => return Ok(()),
            Ok(Some(Err(error))) => return Err(Cut::Broken(error.to_string())),
            Ok(Some(Ok(chunk))) => chunk,
        };
        if staged.length() + chunk.len() as u64 > max {
            return Err(Cut::Final(data::ops::too_large(&job.image_id, max)));
        }
        let durable = staged.write(&chunk).await.map_err(|error| data::ops::disk(&job.image_id, error))?;
        if let Some(have) = durable {
            progress.have = have;
            held(svc, &job.image_id, &job.task_id, move |image| {
                image.staged = Some(have);
                Ok(())
            })
            .await?;
            task::ops::checkpoint(&svc.store, &job.task_id, progress).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn another_services_words_are_read_with_care() {
        let body = json!({"status": "active", "disk_format": "raw", "container_format": "bare", "size": 5, "hw_cpu_cores": "5",
            "trait:X": "required", "os_distro": "rhel", "speed": "88", "os_glance_x": "y", "hw_bad": 7, "os_hash_algo": "sha512", "os_hash_value": "ab"});
        let read = described(&body).unwrap();
        assert_eq!(read.properties.keys().collect::<Vec<_>>(), ["hw_cpu_cores", "os_distro", "trait:X"]);
        assert_eq!(
            (read.size, read.sha512.as_deref(), read.disk_format.as_deref()),
            (Some(5), Some("ab"), Some("raw"))
        );
        assert!(described(&json!({"status": "queued"})).is_err() && described(&Value::Null).is_err());
        assert_eq!(described(&json!({"status": "active", "disk_format": "../x"})).unwrap().disk_format, None);
    }
}
