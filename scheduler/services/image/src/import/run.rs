//! The work of one import.
//!
//! ```text
//! web-download    --.
//! glance-download --+--> staged file --> plug-ins --> hashed, judged, signature --> store, store, ... --> active
//! glance-direct   --'
//! copy-image      ------------------------------------------------------------> store, store, ...
//! ```
//!
//! The staged file stays until the end, so that a crash anywhere lets the import begin again. While it runs, the task
//! is touched every now and then; an import whose image another one has taken stops.
use super::{
    download,
    ops::{Asker, held},
    request::{Method, Request},
};
use crate::{
    Image,
    data::{self, files::Place, receive},
    image::{
        self,
        model::{Event, Image as Record, Location, Status},
    },
    plugin::{self, Work},
    signature,
    store::{ImageStore, object},
    task::{self, model::Status as Progress},
};
use pilvi_kit::Fault;
use serde_json::json;
use std::{future::Future, path::PathBuf, sync::Arc};

/// One import.
#[derive(Debug, Clone)]
pub struct Job {
    pub image_id: String,
    pub task_id: String,
    pub request: Request,
    /// Ids of the stores that the bytes are still to go to.
    pub stores: Vec<String>,
    /// Names of the caller's roles.
    pub roles: Vec<String>,
    /// None after a restart.
    pub asker: Option<Asker>,
}

impl Job {
    pub fn staged(&self, svc: &Image) -> PathBuf {
        svc.files.temporary(&self.image_id, Place::Staged)
    }
    fn copies(&self) -> bool {
        self.request.method == Method::CopyImage
    }
}

pub async fn run(svc: Arc<Image>, job: Job) {
    let outcome = tokio::select! {
        outcome = work(&svc, &job) => outcome,
        lost = heartbeat(&svc, &job) => Err(lost),
    };
    match outcome {
        Ok(()) => succeed(&svc, &job).await,
        Err(fault) => {
            tracing::info!(image = job.image_id, task = job.task_id, cause = %fault, "an import failed");
            fail(&svc, &job.image_id, &job.task_id, true, &fault.message).await;
        }
    }
}

/// Says that the import is alive; ends when the image is another's.
async fn heartbeat(svc: &Image, job: &Job) -> Fault {
    loop {
        tokio::time::sleep(svc.config.import.beat()).await;
        let touched = async {
            held(svc, &job.image_id, &job.task_id, |_| Ok(())).await?;
            task::ops::touch(&svc.store, &job.task_id).await
        };
        match touched.await {
            Err(fault) if matches!(fault.code(), 404 | 409) => return fault,
            Err(fault) => tracing::warn!(task = job.task_id, %fault, "an import cannot say that it is alive"),
            Ok(()) => {}
        }
    }
}

async fn discard(svc: &Image, image_id: &str) {
    if let Err(error) = svc.files.discard(image_id, Place::Staged).await {
        tracing::error!(image = image_id, %error, "cannot remove a staged file");
    }
}

async fn succeed(svc: &Image, job: &Job) {
    discard(svc, &job.image_id).await;
    let ended = held(svc, &job.image_id, &job.task_id, |image| {
        image.import.end(true);
        image.staged = None;
        Ok(())
    });
    log(&job.task_id, ended.await.map(|_| ()));
    let result = Some(json!({"image_id": job.image_id}));
    log(&job.task_id, task::ops::advance(&svc.store, &job.task_id, Progress::Success, "", result).await);
}

/// Takes an import back: the image is queued again, unless it was active before, and the task says why.
pub(super) async fn fail(svc: &Image, image_id: &str, task_id: &str, holds: bool, why: &str) {
    if holds {
        let ended = held(svc, image_id, task_id, |image| {
            image.import.end(false);
            if let Some(next) = image.status.next(Event::Fail) {
                image.status = next;
                image.forget_data();
                image.staged = None;
            }
            Ok(())
        });
        match ended.await {
            Ok(image) if !image.has_data() => discard(svc, image_id).await,
            // Deleted meanwhile.
            Err(fault) if fault.code() == 404 => discard(svc, image_id).await,
            outcome => log(task_id, outcome.map(|_| ())),
        }
    }
    log(task_id, task::ops::advance(&svc.store, task_id, Progress::Failure, why, None).await);
}

fn log(task_id: &str, outcome: Result<(), Fault>) {
    if let Err(fault) = outcome
        && !matches!(fault.code(), 404 | 409)
    {
        tracing::error!(task = task_id, %fault, "cannot say how an import ended");
    }
}

async fn work(svc: &Arc<Image>, job: &Job) -> Result<(), Fault> {
    task::ops::advance(&svc.store, &job.task_id, Progress::Processing, "", None).await?;
    let described = match &job.request.method {
        Method::CopyImage => return copy(svc, job).await,
        Method::GlanceDirect => None,
        Method::WebDownload { uri } => download::web(svc, job, uri).await.map(|()| None)?,
        Method::GlanceDownload(source) => match download::image(svc, job, source).await? {
            Some(described) => Some(described),
            None => return Ok(()),
        },
    };
    let mut record = image::ops::get_any(&svc.store, &job.image_id).await?.record;
    let staged = job.staged(svc);
    if let Some(described) = &described {
        (record.disk_format, record.container_format) =
            (described.disk_format.clone(), described.container_format.clone());
    }
    let mut made = Work::new(&record, &staged, &job.task_id);
    made.properties = described.map(|described| described.properties).unwrap_or_default();
    let (settings, limits, roles) = (svc.config.import.plugins.clone(), svc.config.limits(), job.roles.clone());
    let plugged = move || {
        let outcome = plugin::run(&settings, &limits, &roles, &staged, &mut made);
        (made, outcome)
    };
    let (made, outcome) = tokio::task::spawn_blocking(plugged).await.map_err(Fault::internal)?;
    outcome?;
    keep(svc, job, &record, &made).await
}

/// Hashes and judges what is to be kept, and brings it to its stores.
async fn keep(svc: &Image, job: &Job, record: &Record, made: &Work) -> Result<(), Fault> {
    let mut record = record.clone();
    (record.disk_format, record.container_format) =
        (Some(made.disk_format.clone()), Some(made.container_format.clone()));
    let signed = signature::required(svc.config.certificates.as_deref(), &record)?;
    let digest = receive::digest(&made.path, signed.as_ref().map(|s| s.hash)).await.map_err(Fault::internal)?;
    data::ops::check_room(svc, &job.image_id, digest.size).await?;
    let hash = digest.sha512.clone();
    if record.has_data() && record.content_hash() != Some(hash.as_str()) {
        return Err(Fault::conflict("The image has other data by now."));
    }
    let judged = data::ops::judge(svc, &record, digest, signed.as_ref())?;
    let (disk, container, properties) = (record.disk_format, record.container_format, made.properties.clone());
    let fill = move |image: &mut Record| {
        judged(image);
        (image.disk_format, image.container_format) = (disk.clone(), container.clone());
        image.properties.extend(properties.iter().map(|(name, value)| (name.clone(), Some(value.clone()))));
    };
    to_stores(svc, job, fill, |store| {
        let (id, path) = (job.image_id.clone(), made.path.clone());
        async move { object::put_file(svc, &store, &id, &path).await.map_err(|e| data::ops::disk(&id, e)) }
    })
    .await
}

/// The image's own bytes, to stores that do not have them.
async fn copy(svc: &Image, job: &Job) -> Result<(), Fault> {
    let record = image::ops::get_any(&svc.store, &job.image_id).await?.record;
    to_stores(
        svc,
        job,
        |_| {},
        |store| {
            let (record, id) = (record.clone(), job.image_id.clone());
            async move { data::ops::copy(svc, &record, &store, &id).await }
        },
    )
    .await
}

/// Brings bytes to each store by `put`. The image is active with the first of them, or, when all must succeed, with
/// the last; what failed is taken back.
async fn to_stores<F, P, Fut>(svc: &Image, job: &Job, fill: F, put: P) -> Result<(), Fault>
where
    F: Fn(&mut Record) + Send + Sync + Clone + 'static,
    P: Fn(Arc<ImageStore>) -> Fut,
    Fut: Future<Output = Result<(), Fault>>,
{
    let must = job.request.all_must_succeed;
    let mut kept: Vec<Location> = Vec::new();
    let mut last = None;
    for id in &job.stores {
        let outcome = match svc.stores.to_write(Some(id)) {
            Ok(store) => put(store.clone()).await.map(|()| Location::of(&store, &job.image_id)),
            Err(fault) => Err(fault),
        };
        match outcome {
            Ok(location) => {
                kept.push(location.clone());
                let done = if must { Vec::new() } else { vec![location] };
                if let Err(fault) = arrived(svc, job, id, done, fill.clone()).await {
                    // What the record names already is not ours to take back.
                    let orphans = if must { kept.as_slice() } else { &kept[kept.len() - 1..] };
                    object::delete(svc, orphans).await;
                    return Err(fault);
                }
            }
            Err(fault) => {
                tracing::warn!(image = job.image_id, store = id, cause = %fault, "an import did not reach a store");
                let failed = id.clone();
                held(svc, &job.image_id, &job.task_id, move |image| {
                    image.import.failed(&failed);
                    Ok(())
                })
                .await?;
                if must {
                    object::delete(svc, &kept).await;
                    return Err(fault);
                }
                last = Some(fault);
            }
        }
    }
    if must {
        let all = kept.clone();
        if let Err(fault) = arrived(svc, job, "", all, fill).await {
            object::delete(svc, &kept).await;
            return Err(fault);
        }
    }
    match last {
        // A copy that failed leaves an image that is as good as before.
        Some(fault) if kept.is_empty() && !job.copies() => {
            Err(Fault { message: format!("None of the uploads finished! {}", fault.message), ..fault })
        }
        _ => Ok(()),
    }
}

/// The image's record learns of objects that are there.
async fn arrived<F>(svc: &Image, job: &Job, store: &str, locations: Vec<Location>, fill: F) -> Result<(), Fault>
where
    F: Fn(&mut Record) + Send + Sync + Clone + 'static,
{
    let (store, named) = (store.to_owned(), locations.clone());
    held(svc, &job.image_id, &job.task_id, move |image| {
        image.import.arrived(&store);
        if locations.is_empty() {
            return Ok(());
        }
        if image.status == Status::Importing {
            image.status = Status::Active;
            fill(image);
            image.locations.clear();
        }
        image.locations.extend(locations.iter().cloned());
        Ok(())
    })
    .await?;
    object::settled(svc, &named).await;
    Ok(())
}
