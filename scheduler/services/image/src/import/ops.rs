//! The verb of the import, and the work it starts.
use crate::{
    Image,
    data::{self, files::Place},
    image::{
        self,
        model::{Event, Status},
    },
    store::ImageStore,
    task::{
        self,
        model::{Status as Progress, Task},
    },
};
use pilvi_kit::{Ctx, Fault, id};
use serde_json::{Value, json};
use std::sync::Arc;

/// Starts the import of staged bytes; a task tells how it goes.
pub async fn staged(
    svc: &Arc<Image>,
    ctx: &Ctx,
    image_id: &str,
    stores: Vec<Arc<ImageStore>>,
    request: &Value,
) -> Result<(), Fault> {
    let stored = image::ops::get_any(&svc.store, image_id).await?;
    if stored.status != Status::Uploading {
        return Err(Fault::conflict(format!(
            "Image needs to be staged before 'glance-direct' method can be used (it is {})",
            stored.status.as_str()
        )));
    }
    start(svc, ctx, image_id, Way::Staged(stores), request).await
}

/// An image of a cloud, as a client names it.
#[derive(Debug, Clone)]
pub struct Source {
    pub image: String,
    pub region: String,
    /// Of the catalogue: `public`, `internal` or `admin`.
    pub interface: String,
}

/// Starts the import of another image's bytes; a task tells how it goes.
pub async fn downloaded(
    svc: &Arc<Image>,
    ctx: &Ctx,
    image_id: &str,
    source: Source,
    request: &Value,
) -> Result<(), Fault> {
    let stored = image::ops::get_any(&svc.store, image_id).await?;
    if stored.status != Status::Queued {
        return Err(Fault::conflict(format!(
            "Image needs to be in 'queued' state to use 'glance-download' method (it is {})",
            stored.status.as_str()
        )));
    }
    start(svc, ctx, image_id, Way::Downloaded(ctx.clone(), source), request).await
}

/// Where the bytes come from.
enum Way {
    Staged(Vec<Arc<ImageStore>>),
    /// As the caller sees it.
    Downloaded(Ctx, Source),
}

impl Way {
    /// Ids of the stores that the bytes go to.
    fn stores(&self, svc: &Image) -> Vec<String> {
        match self {
            Way::Staged(stores) => stores.iter().map(|store| store.id.clone()).collect(),
            Way::Downloaded(..) => vec![svc.stores.default().id.clone()],
        }
    }
}

async fn start(svc: &Arc<Image>, ctx: &Ctx, image_id: &str, way: Way, request: &Value) -> Result<(), Fault> {
    task::ops::expire(&svc.store).await?;
    image::ops::step(&svc.store, image_id, Event::ImportBegins, |_| {}).await?;
    let task = Task {
        id: id::new(),
        kind: "api_image_import".to_owned(),
        status: Progress::Pending,
        owner: ctx.project_id().to_owned(),
        user_id: ctx.user_id().to_owned(),
        image_id: image_id.to_owned(),
        request_id: ctx.request_id.clone(),
        input: json!({"image_id": image_id, "import_req": request, "backend": way.stores(svc)}),
        message: String::new(),
        ended_us: None,
    };
    let task_id = task::ops::add(&svc.store, task).await?.record.id;
    let (svc, image_id) = (svc.clone(), image_id.to_owned());
    tokio::spawn(async move { run(&svc, &image_id, &task_id, way).await });
    Ok(())
}

async fn run(svc: &Image, image_id: &str, task_id: &str, way: Way) {
    let outcome = work(svc, image_id, task_id, way).await;
    let (status, message) = match &outcome {
        Ok(()) => (Progress::Success, String::new()),
        Err(fault) => (Progress::Failure, fault.message.clone()),
    };
    if outcome.is_err() {
        data::ops::give_up(svc, image_id).await;
    }
    if let Err(fault) = task::ops::advance(&svc.store, task_id, status, &message).await {
        tracing::error!(task = task_id, %fault, "cannot say how the import ended");
    }
}

async fn work(svc: &Image, image_id: &str, task_id: &str, way: Way) -> Result<(), Fault> {
    task::ops::advance(&svc.store, task_id, Progress::Processing, "").await?;
    match way {
        Way::Staged(stores) => {
            let stored = image::ops::get_any(&svc.store, image_id).await?;
            let digest = svc.files.digest(image_id, Place::Staged).await.map_err(Fault::internal)?;
            data::ops::keep_staged(svc, &stored.record, digest, &stores).await
        }
        Way::Downloaded(ctx, source) => copy(svc, &ctx, image_id, &source).await,
    }
}

/// Properties that come along with the bytes, by their beginnings.
const COPIED: &[&str] = &["hw_", "trait:", "os_distro", "os_secure_boot", "os_type"];

async fn copy(svc: &Image, ctx: &Ctx, image_id: &str, source: &Source) -> Result<(), Fault> {
    if source.region != svc.config.region || !matches!(source.interface.as_str(), "public" | "internal" | "admin") {
        return Err(Fault::bad_request(format!(
            "No image service is known at the interface '{}' of region '{}'.",
            source.interface, source.region
        )));
    }
    let from = image::ops::visible(&svc.store, ctx, &source.image).await?.record;
    if from.status != Status::Active {
        return Err(Fault::conflict(format!("Image {} is not active.", from.id)));
    }
    data::ops::check_room(svc, image_id, from.size.unwrap_or(0)).await?;
    let source = from.clone();
    data::ops::share(svc, &source, image_id, move |image| {
        (image.disk_format, image.container_format) = (from.disk_format.clone(), from.container_format.clone());
        (image.size, image.virtual_size) = (from.size, from.virtual_size);
        (image.checksum, image.os_hash_algo, image.os_hash_value) =
            (from.checksum.clone(), from.os_hash_algo.clone(), from.os_hash_value.clone());
        let copied = from.properties.iter().filter(|(name, _)| COPIED.iter().any(|start| name.starts_with(start)));
        image.properties.extend(copied.map(|(name, value)| (name.clone(), value.clone())));
    })
    .await
}
