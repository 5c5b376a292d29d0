//! The verb of the import, and the work it starts.
use crate::{
    Image,
    data::{self, files::Place},
    image::{
        self,
        model::{Event, Status},
    },
    task::{
        self,
        model::{Status as Progress, Task},
    },
};
use pilvi_kit::{Ctx, Fault, id};
use serde_json::{Value, json};
use std::sync::Arc;

/// Starts the import of staged bytes; a task tells how it goes.
pub async fn staged(svc: &Arc<Image>, ctx: &Ctx, image_id: &str, request: &Value) -> Result<(), Fault> {
    let stored = image::ops::get_any(&svc.store, image_id).await?;
    if stored.status != Status::Uploading {
        return Err(Fault::conflict(format!(
            "Image needs to be staged before 'glance-direct' method can be used (it is {})",
            stored.status.as_str()
        )));
    }
    image::ops::step(&svc.store, image_id, Event::ImportBegins, |_| {}).await?;
    let task = Task {
        id: id::new(),
        kind: "api_image_import".to_owned(),
        status: Progress::Pending,
        owner: ctx.project_id().to_owned(),
        user_id: ctx.user_id().to_owned(),
        image_id: image_id.to_owned(),
        request_id: ctx.request_id.clone(),
        input: json!({"image_id": image_id, "import_req": request, "backend": [image::view::STORE]}),
        message: String::new(),
        ended_us: None,
    };
    let task_id = task::ops::add(&svc.store, task).await?.record.id;
    let (svc, image_id) = (svc.clone(), image_id.to_owned());
    tokio::spawn(async move { run(&svc, &image_id, &task_id).await });
    Ok(())
}

async fn run(svc: &Image, image_id: &str, task_id: &str) {
    let outcome = work(svc, image_id, task_id).await;
    let (status, message) = match &outcome {
        Ok(()) => (Progress::Success, String::new()),
        Err(fault) => (Progress::Failure, fault.message.clone()),
    };
    if outcome.is_err() {
        data::ops::give_up(svc, image_id, Place::Staged).await;
    }
    if let Err(fault) = task::ops::advance(&svc.store, task_id, status, &message).await {
        tracing::error!(task = task_id, %fault, "cannot say how the import ended");
    }
}

async fn work(svc: &Image, image_id: &str, task_id: &str) -> Result<(), Fault> {
    task::ops::advance(&svc.store, task_id, Progress::Processing, "").await?;
    let stored = image::ops::get_any(&svc.store, image_id).await?;
    let digest = svc.files.digest(image_id, Place::Staged).await.map_err(Fault::internal)?;
    data::ops::finish(svc, &stored.record, digest, Place::Staged).await
}
