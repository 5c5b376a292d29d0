//! `createImage`: a server's disk becomes an image.
//!
//! ```text
//!  POST action -> image record (queued) + wanted.snapshot = its id      one transaction; task image_snapshot
//!  host: disk copied                          -> image_pending_upload
//!  host: sending ([`Compute::awaits_snapshot`] lets it) -> image_uploading -> image active, no task
//!  host: failed; server failed, reset or deleted -> wanted.snapshot without a task: the image goes
//!  image deleted by its owner                 -> host stops, no task
//! ```
//! The image's id names the snapshot everywhere, so whatever is sent or said twice does no harm.
use super::{
    model::{Ended, TaskState, VmState, refusal},
    ops::living_in,
};
use crate::{
    Compute, action,
    tables::{Event, Server},
    volume::{image, model},
};
use pilvi_fleet::ImageStage;
use pilvi_image::{
    data,
    image::{
        model::{Image, Visibility},
        ops as images,
    },
};
use pilvi_kit::{Call, Ctx, Fault, Reply, Response, Schema, call::BodyStream, clock, id};
use pilvi_reconcile::Next;
use pilvi_store::{Query, Stored, Tx};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::LazyLock};

const VERB: &str = "createImage";
const EVENT: &str = "compute_snapshot_instance";
/// Of the image that the server was made from, what does not hold for its snapshot.
const NOT_INHERITED: &[&str] = &["cache_in_nova", "bittorrent", "img_signature"];

static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["name"], "additionalProperties": false, "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"\S"},
        "metadata": {"type": "object", "additionalProperties": false,
            "patternProperties": {r"^[a-zA-Z0-9\-_:. ]{1,255}$": {"type": "string", "maxLength": 255}}}}})
    })
});

/// Is a snapshot being made?
pub fn is_on(server: &Server) -> bool {
    use TaskState as T;
    matches!(server.task_state, Some(T::ImageSnapshot | T::ImagePendingUpload | T::ImageUploading))
}

/// The image that the host shall make.
pub fn wish(server: &Server) -> Option<String> {
    server.wanted.snapshot.clone().filter(|_| is_on(server))
}

/// Takes what the host said of the snapshot. `Some` when it has ended.
pub fn settle(server: &mut Server) -> Option<Ended> {
    let image = wish(server)?;
    let seen = server.seen.as_ref()?.snapshot.clone().filter(|s| s.image_id == image)?;
    server.task_state = match seen.stage {
        ImageStage::Packing => Some(TaskState::ImagePendingUpload),
        ImageStage::Uploading => Some(TaskState::ImageUploading),
        ImageStage::Done | ImageStage::Gone => {
            server.wanted.snapshot = None;
            None
        }
        // The image is still there: the reconciler sees it without a task, and removes it.
        ImageStage::Failed(reason) => {
            server.task_state = None;
            return Some(Ended::Badly(reason));
        }
    };
    server.task_state.is_none().then_some(Ended::Well)
}

/// Begins a snapshot; 409 when the server's state does not allow one.
fn begin(server: &mut Server, image_id: &str) -> Result<(), Fault> {
    use VmState as V;
    let fits = matches!(server.vm_state, V::Active | V::Stopped | V::Paused | V::Suspended);
    if !fits || server.task_state.is_some() || server.wanted.delete || server.wanted.snapshot.is_some() {
        return Err(Fault::conflict(refusal(VERB, server)));
    }
    // The generation stays: a guest that has powered itself off meanwhile is not to be started by this.
    server.wanted.snapshot = Some(image_id.to_owned());
    server.task_state = Some(TaskState::ImageSnapshot);
    Ok(())
}

/// The handler of the action.
pub async fn create(svc: &Compute, call: &Call, server: &Stored<Server>, body: &Value) -> Reply {
    CREATE.check(body)?;
    let name = body["name"].as_str().unwrap_or_default().trim().to_owned();
    let metadata = super::api::strings(body.get("metadata"));
    let image_id = svc.create_image(&call.ctx, &server.record.id, &name, &metadata).await?;
    if call.at_least(2, 45) {
        return Ok(Response::accepted(json!({"image_id": image_id})));
    }
    let base = call.base_url.strip_suffix("/compute").unwrap_or(&call.base_url);
    Ok(Response::empty(202).header("location", format!("{base}/image/v2/images/{image_id}")))
}

impl Compute {
    /// Image record, task and action log, all or nothing. Gives the image's id. Of a server that runs from volumes the image
    /// has no bytes but names snapshots of them, and is there at once.
    async fn create_image(
        &self,
        ctx: &Ctx,
        server_id: &str,
        name: &str,
        metadata: &BTreeMap<String, String>,
    ) -> Result<String, Fault> {
        let (image_id, quotas) = (id::new(), self.quotas.clone());
        let (key, ctx, name, metadata) = (server_id.to_owned(), ctx.clone(), name.to_owned(), metadata.clone());
        let made = image_id.clone();
        let of_volumes = self
            .store
            .write(move |tx| {
                let (key, ctx, name, metadata) = (key.clone(), ctx.clone(), name.clone(), metadata.clone());
                let (image_id, quotas) = (image_id.clone(), quotas.clone());
                Box::pin(async move {
                    let limits = quotas.limits_in(tx, ctx.project_id()).await?;
                    let limit = limits.get("metadata_items").copied().unwrap_or(-1);
                    if usize::try_from(limit).is_ok_and(|limit| metadata.len() > limit) {
                        return Err(Fault::forbidden(format!("Maximum number of metadata items exceeds {limit}")));
                    }
                    record_in(tx, &ctx, &key, &image_id, &name, metadata).await
                })
            })
            .await?;
        if of_volumes {
            let nothing = BodyStream::new(Box::pin(futures::stream::empty()));
            data::ops::upload(&self.images, &made, nothing, Some(0)).await?;
        } else {
            self.poke(server_id);
        }
        Ok(made)
    }

    /// May this host fill this image?
    pub async fn awaits_snapshot(&self, host: &str, image_id: &str) -> Result<bool, Fault> {
        let servers = self.store.list::<Server>(Query::all().eq("host", host).eq("alive", 1)).await?;
        Ok(servers.iter().any(|s| wish(s).as_deref() == Some(image_id)))
    }

    /// Removes the image of a snapshot that will not be, unless it is complete.
    pub(crate) async fn drop_snapshot(&self, server: &Stored<Server>) -> Result<Next, Fault> {
        let Some(image_id) = server.wanted.snapshot.clone() else { return Ok(Next::Settled) };
        data::ops::drop_unfilled(&self.images, &image_id).await?;
        let key = server.record.id.clone();
        self.store
            .write(move |tx| {
                let (key, image_id) = (key.clone(), image_id.clone());
                Box::pin(async move {
                    let Some(mut server) = tx.get::<Server>(&key).await? else { return Ok(()) };
                    if server.wanted.snapshot.as_deref() == Some(&image_id) && !is_on(&server) {
                        server.record.wanted.snapshot = None;
                        tx.update(&server).await?;
                    }
                    Ok::<_, Fault>(())
                })
            })
            .await?;
        Ok(Next::Settled)
    }
}

/// The image's record, what becomes of the server meanwhile, and its log. Gives whether the image is one of volumes.
async fn record_in(
    tx: &mut Tx,
    ctx: &Ctx,
    key: &str,
    image_id: &str,
    name: &str,
    mut metadata: BTreeMap<String, String>,
) -> Result<bool, Fault> {
    let server = living_in(tx, key).await?;
    let mut busy = server.clone();
    begin(&mut busy.record, image_id)?;
    let of_volumes = model::backed(&server);
    let mut log = action::started(ctx, key, &server.project_id, VERB, vec![Event::began(EVENT)]);
    if of_volumes {
        metadata.extend(image::snapshots_in(tx, ctx, &server, name).await?);
        action::finish(&mut log, &Ended::Well, server.host.as_deref());
    } else {
        busy.record.changed_us = clock::now_us();
        tx.update(&busy).await?;
    }
    let mut image = describe_in(tx, ctx, &server, image_id, name, &metadata).await?;
    if of_volumes {
        image.disk_format = Some("raw".to_owned());
    }
    images::create_in(tx, &image).await?;
    action::insert_in(tx, log).await?;
    Ok(of_volumes)
}

/// The image as it is before it has bytes.
async fn describe_in(
    tx: &mut Tx,
    ctx: &Ctx,
    server: &Server,
    image_id: &str,
    name: &str,
    metadata: &BTreeMap<String, String>,
) -> Result<Image, Fault> {
    let mut image = Image::new(image_id.to_owned(), Some(ctx.project_id().to_owned()));
    (image.name, image.visibility) = (Some(name.to_owned()), Visibility::Private);
    (image.disk_format, image.container_format) = (Some("qcow2".to_owned()), Some("bare".to_owned()));
    let mut properties = BTreeMap::new();
    if let Some(base) = &server.image {
        let inherited = |name: &String| !NOT_INHERITED.iter().any(|start| name.starts_with(start));
        properties.extend(base.properties.iter().filter(|(k, _)| inherited(k)).map(|(k, v)| (k.clone(), v.clone())));
        properties.insert("base_image_ref".to_owned(), base.id.clone());
        if let Ok(base) = images::get_any_in(tx, &base.id).await {
            (image.min_ram, image.min_disk) = (base.min_ram, base.min_disk);
        }
    }
    if server.flavor.disk_gib > 0 {
        image.min_disk = i64::try_from(server.flavor.disk_gib).unwrap_or(i64::MAX);
    }
    let roles: Vec<&str> = ctx.caller.roles.iter().map(|(_, name)| name.as_str()).collect();
    for (key, value) in [
        ("instance_uuid", server.id.as_str()),
        ("user_id", ctx.user_id()),
        ("owner_id", ctx.project_id()),
        ("image_type", "snapshot"),
        ("image_location", "snapshot"),
        ("image_state", "available"),
        ("boot_roles", &roles.join(",")),
    ] {
        properties.insert(key.to_owned(), value.to_owned());
    }
    // What the user says comes last, as in Nova; who made it of what stays true.
    let fixed = ["instance_uuid", "user_id", "owner_id"];
    let said = metadata.iter().filter(|(k, _)| !fixed.contains(&k.as_str()));
    properties.extend(said.map(|(k, v)| (k.clone(), v.clone())));
    images::set_properties(&mut image, properties)?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        server::{
            model::{self, tests::server},
            reconcile,
        },
        tables::{Seen, WantedPower},
    };
    use pilvi_fleet::SeenImage;

    fn active() -> Server {
        let mut s = server();
        (s.vm_state, s.task_state, s.launched_us) = (VmState::Active, None, Some(1));
        s
    }

    fn says(server: &Server, image: &str, stage: ImageStage) -> Seen {
        Seen {
            generation: server.wanted.generation,
            power: Some(WantedPower::Running),
            settled: true,
            snapshot: Some(SeenImage { image_id: image.into(), stage }),
            ..Seen::default()
        }
    }

    #[test]
    fn a_snapshot_goes_through_its_tasks() {
        let mut s = active();
        begin(&mut s, "i").unwrap();
        assert_eq!((model::status(s.vm_state, s.task_state), s.wanted.generation), ("ACTIVE", 1));
        assert_eq!(begin(&mut s, "j").unwrap_err().code(), 409);
        // What was said of an older one ends nothing, nor does a power that is as wanted.
        let seen = says(&s, "old", ImageStage::Done);
        assert_eq!(model::settle(&mut s, seen, 1), None);
        assert_eq!(s.task_state, Some(TaskState::ImageSnapshot));
        for (stage, task) in
            [(ImageStage::Packing, TaskState::ImagePendingUpload), (ImageStage::Uploading, TaskState::ImageUploading)]
        {
            let seen = says(&s, "i", stage);
            assert_eq!(model::settle(&mut s, seen, 1), None);
            assert_eq!((s.task_state, wish(&s).as_deref()), (Some(task), Some("i")));
            assert_eq!(reconcile::plan(&s, 0, 10), reconcile::Step::Nothing);
        }
        let seen = says(&s, "i", ImageStage::Done);
        assert_eq!(model::settle(&mut s, seen.clone(), 1), Some(Ended::Well));
        assert_eq!((s.task_state, s.wanted.snapshot.clone(), s.vm_state), (None, None, VmState::Active));
        // Said again, with the next one begun, it ends nothing.
        begin(&mut s, "j").unwrap();
        assert_eq!(model::settle(&mut s, seen, 1), None);
        assert!(is_on(&s));
    }

    #[test]
    fn what_fails_or_is_overtaken_leaves_an_image_to_remove() {
        let mut s = active();
        begin(&mut s, "i").unwrap();
        let seen = says(&s, "i", ImageStage::Failed("disk full".into()));
        assert_eq!(model::settle(&mut s, seen, 1), Some(Ended::Badly("disk full".into())));
        assert_eq!((s.vm_state, wish(&s)), (VmState::Active, None));
        assert_eq!(reconcile::plan(&s, 0, 10), reconcile::Step::DropSnapshot);
        assert_eq!(begin(&mut s, "j").unwrap_err().code(), 409);
        let mut s = active();
        begin(&mut s, "i").unwrap();
        (s.wanted.delete, s.task_state) = (true, Some(TaskState::Deleting));
        assert_eq!(reconcile::plan(&s, 0, 10), reconcile::Step::DropSnapshot);
        s.wanted.snapshot = None;
        assert_eq!(reconcile::plan(&s, 0, 10), reconcile::Step::Remove);
    }

    #[test]
    fn only_servers_that_stand_somewhere_can_be_taken() {
        for (vm, fits) in [
            (VmState::Active, true),
            (VmState::Stopped, true),
            (VmState::Paused, true),
            (VmState::Suspended, true),
            (VmState::Building, false),
            (VmState::Error, false),
            (VmState::Resized, false),
        ] {
            let mut s = active();
            s.vm_state = vm;
            assert_eq!(begin(&mut s, "i").is_ok(), fits, "{vm:?}");
        }
    }
}
