//! The verb of the import: checks, the lock, the task; and imports that a crash interrupted.
use super::{
    model::{Holder, Import, is_stale},
    request::{Method, Request},
    run::{self, Job},
};
use crate::{
    Image,
    image::{
        self,
        model::{Event, Image as Record, Status},
    },
    quota,
    task::{
        self,
        model::{Status as Progress, Task},
    },
};
use pilvi_kit::{Ctx, Fault, clock, id};
use pilvi_store::{Stored, Tx};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};

/// Who asks, as far as the work that follows needs it.
#[derive(Debug, Clone)]
pub struct Asker {
    pub ctx: Ctx,
    /// The caller's token: for the image service of another region. It is never kept.
    pub token: Option<String>,
}

/// What is asked.
#[derive(Debug)]
pub struct Order<'o> {
    pub request: Request,
    /// The store that a header names.
    pub preferred: Option<&'o str>,
    /// The request as it came.
    pub body: &'o Value,
    /// What the tasks API was asked for; none for the images API.
    pub shown: Option<&'o Value>,
}

/// Starts an import; a task tells how it goes. Nothing to do is no error.
pub async fn begin(
    svc: &Arc<Image>,
    asker: &Asker,
    record: &Record,
    order: Order<'_>,
) -> Result<Option<String>, Fault> {
    let Order { request, preferred, body, shown } = order;
    check_status(record, &request.method)?;
    check_uri(svc, &request.method)?;
    let stores = stores(svc, record, &request, preferred)?;
    if stores.is_empty() {
        return Ok(None);
    }
    quota::check_import(svc, record, &request.method).await?;
    task::ops::expire(&svc.store).await?;
    let ctx = &asker.ctx;
    let task = Task {
        id: id::new(),
        kind: if shown.is_some() { task::model::TASK_IMPORT } else { task::model::IMPORT }.to_owned(),
        status: Progress::Pending,
        owner: ctx.project_id().to_owned(),
        user_id: ctx.user_id().to_owned(),
        image_id: record.id.clone(),
        request_id: ctx.request_id.clone(),
        input: shown.cloned().unwrap_or_else(|| json!({"image_id": record.id, "import_req": body, "backend": stores})),
        request: body.clone(),
        message: String::new(),
        result: None,
        roles: ctx.caller.roles.iter().map(|(_, name)| name.clone()).collect(),
        resume: None,
        ended_us: None,
    };
    lock(svc, &request, &task, &stores).await?;
    let job = Job {
        image_id: record.id.clone(),
        task_id: task.id.clone(),
        request,
        stores,
        roles: task.roles,
        asker: Some(asker.clone()),
    };
    tokio::spawn(run::run(svc.clone(), job));
    Ok(Some(task.id))
}

/// Makes an image and imports it from a URL: the tasks API's way. Gives the task's id.
pub async fn create_and_begin(
    svc: &Arc<Image>,
    ctx: &Ctx,
    image: Record,
    uri: &str,
    input: &Value,
) -> Result<String, Fault> {
    let method = json!({"name": "web-download", "uri": uri});
    let request = super::request::parse(&json!({"method": method}), &svc.config.import.methods)?;
    check_uri(svc, &request.method)?;
    quota::check_create(svc, &image).await?;
    let image = image::ops::create(&svc.store, image).await?.record;
    let asker = Asker { ctx: ctx.clone(), token: None };
    let order = Order { request, preferred: None, body: &json!({"method": method}), shown: Some(input) };
    match begin(svc, &asker, &image, order).await {
        Ok(Some(task)) => Ok(task),
        Ok(None) => Err(Fault::internal("an import without stores")),
        Err(fault) => {
            image::ops::delete(&svc.store, &image.id).await?;
            Err(fault)
        }
    }
}

fn check_uri(svc: &Image, method: &Method) -> Result<(), Fault> {
    let Method::WebDownload { uri } = method else { return Ok(()) };
    svc.fetcher.check(uri).map(|_| ()).map_err(|_| {
        let uri: String = uri.chars().take(500).collect();
        Fault::bad_request(format!("URI for web-download does not pass filtering: {uri}"))
    })
}

/// 409 unless the image is in the state that the method begins in.
fn check_status(image: &Record, method: &Method) -> Result<(), Fault> {
    let refused = |why: String| Err(Fault::conflict(why));
    let locked = image.import.task.is_some();
    match method {
        Method::CopyImage if image.status != Status::Active => {
            return refused("Only images with status active can be targeted for copying".into());
        }
        Method::CopyImage => return Ok(()),
        _ if image.status == Status::Active => {
            return refused("Image with status active cannot be target for import".into());
        }
        // An import that holds the image may have gone stale: the lock says more than the status.
        _ if image.status == Status::Importing && locked => {}
        Method::WebDownload { .. } | Method::GlanceDownload(_) if image.status != Status::Queued => {
            return refused(format!("Image needs to be in 'queued' state to use '{}' method", method.name()));
        }
        Method::GlanceDirect if image.status != Status::Uploading => {
            return refused("Image needs to be staged before 'glance-direct' method can be used".into());
        }
        _ => {}
    }
    for (name, value) in [("container_format", &image.container_format), ("disk_format", &image.disk_format)] {
        if value.is_none() {
            return refused(format!("'{name}' needs to be set before import"));
        }
    }
    Ok(())
}

/// Ids of the stores that the bytes are to go to.
fn stores(svc: &Image, image: &Record, request: &Request, preferred: Option<&str>) -> Result<Vec<String>, Fault> {
    let has = |id: &str| image.locations.iter().any(|location| location.store == id);
    let copies = request.method == Method::CopyImage;
    if request.all_stores {
        let all = svc.stores.writable().map(|store| store.id.clone());
        return Ok(all.filter(|id| !copies || !has(id)).collect());
    }
    let mut named: Vec<String> = request.stores.clone();
    if named.is_empty() {
        named.push(preferred.map_or_else(|| svc.stores.default().id.clone(), str::to_owned));
    }
    let mut wanted: Vec<String> = Vec::new();
    for id in named {
        svc.stores.to_write(Some(&id)).map_err(|fault| Fault::conflict(fault.message))?;
        if copies && has(&id) {
            return Err(Fault::bad_request(format!("Image is already present at store '{id}'")));
        }
        if !wanted.contains(&id) {
            wanted.push(id);
        }
    }
    Ok(wanted)
}

/// Takes the image for a task, and keeps the task, in one transaction.
async fn lock(svc: &Image, request: &Request, task: &Task, stores: &[String]) -> Result<(), Fault> {
    let (copies, task, stores) = (request.method == Method::CopyImage, task.clone(), stores.to_vec());
    let author = svc.store.author().map(|author| author.id);
    let stale_us = svc.config.import.stale_us();
    svc.store
        .write(move |tx| {
            let (task, stores, author) = (task.clone(), stores.clone(), author.clone());
            Box::pin(async move {
                let mut stored = image::ops::get_any_in(tx, &task.image_id).await?;
                let before = stored.record.clone();
                let stolen = steal(tx, &stored, stale_us).await?;
                let record = &mut stored.record;
                let goes_on = stolen && record.status == Status::Importing;
                if !(copies || goes_on) {
                    let next = record.status.next(Event::ImportBegins);
                    record.status =
                        next.ok_or_else(|| Fault::conflict("The image cannot be imported in its state."))?;
                }
                record.import.begin(&task.id, &stores);
                record.note_worker(&before, author.as_deref());
                tx.update(&stored).await?;
                tx.insert(&task).await?;
                Ok::<_, Fault>(())
            })
        })
        .await
}

/// 409 while another import holds the image; its task ends when it has gone stale.
async fn steal(tx: &mut Tx, image: &Stored<Record>, stale_us: i64) -> Result<bool, Fault> {
    let Some(other) = image.record.import.task.as_deref() else { return Ok(false) };
    let holder = tx.get::<Task>(other).await?;
    let known = holder.as_ref().map(|task| Holder {
        pending: task.record.status == Progress::Pending,
        silent_us: clock::now_us() - task.updated_us,
    });
    if !is_stale(known, stale_us) {
        return Err(Fault::conflict("Image has active task"));
    }
    tracing::warn!(image = image.record.id, task = other, "an import that was silent for too long loses its image");
    if let Some(mut task) = holder.filter(|task| !task.record.status.ended()) {
        task.record.end(Progress::Failure, "Expired lock preempted", None, clock::now_us());
        tx.update(&task).await?;
    }
    Ok(true)
}

/// Goes on with the imports that the last stop interrupted; to be called once at start. Those of `others`, schedulers of
/// the same store, are theirs.
pub(crate) async fn resume(svc: &Arc<Image>, others: &BTreeSet<String>) -> Result<(), Fault> {
    resume_where(svc, others.is_empty(), |image| !image.is_worked_on_by(|worker| others.contains(worker))).await
}

/// Goes on with the imports of a scheduler that is no more.
pub(crate) async fn resume_of(svc: &Arc<Image>, dead: &str) -> Result<(), Fault> {
    resume_where(svc, false, |image| image.is_worked_on_by(|worker| worker == dead)).await
}

/// `alone`: nobody else could have begun or be about to end a task that no image names.
async fn resume_where(svc: &Arc<Image>, alone: bool, ours: impl Fn(&Record) -> bool) -> Result<(), Fault> {
    for stored in task::ops::all(&svc.store).await?.into_iter().filter(|task| !task.status.ended()) {
        let task = stored.record;
        let record = match image::ops::get_any(&svc.store, &task.image_id).await {
            Ok(image) => Some(image.record).filter(|image| image.import.holds(&task.id)),
            Err(fault) if fault.code() == 404 => None,
            Err(fault) => return Err(fault),
        };
        if !record.as_ref().map_or(alone, &ours) {
            continue;
        }
        let request = super::request::parse(&task.request, &svc.config.import.methods).ok();
        match (record, request) {
            (Some(image), Some(request)) if !matches!(request.method, Method::GlanceDownload(_)) => {
                tracing::info!(image = image.id, task = task.id, "an import that was interrupted goes on");
                let me = svc.store.author().map(|author| author.id.to_string());
                held(svc, &image.id, &task.id, move |image| {
                    image.worker.clone_from(&me);
                    Ok(())
                })
                .await?;
                let stores = image.import.importing.iter().cloned().collect();
                let job = Job { image_id: image.id, task_id: task.id, request, stores, roles: task.roles, asker: None };
                tokio::spawn(run::run(svc.clone(), job));
            }
            (image, _) => {
                let why = "The service was restarted, and what this import needs is gone.";
                run::fail(svc, &task.image_id, &task.id, image.is_some(), why).await;
            }
        }
    }
    Ok(())
}

/// Changes an image that a task holds; 409 when it does so no more.
pub(super) async fn held<F>(svc: &Image, image_id: &str, task_id: &str, change: F) -> Result<Stored<Record>, Fault>
where
    F: Fn(&mut Record) -> Result<(), Fault> + Send + Sync + Clone + 'static,
{
    let task_id = task_id.to_owned();
    let changed = image::ops::change(&svc.store, image_id, move |image| {
        if !image.import.holds(&task_id) {
            return Err(Fault::conflict("Another import has taken the image."));
        }
        change(image)
    });
    image::ops::as_author(&svc.store, changed).await
}

/// How an image's import is shown.
pub fn shown(import: &Import) -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    if let Some(task) = &import.task {
        out.push(("os_glance_import_task", task.clone()));
    }
    if import.begun {
        out.push(("os_glance_importing_to_stores", Import::listed(&import.importing)));
        out.push(("os_glance_failed_import", Import::listed(&import.failed)));
    }
    out
}
