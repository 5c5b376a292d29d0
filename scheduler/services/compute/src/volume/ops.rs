//! The verbs on a server's volumes: the server's record and the volume's attachment change in one transaction.
//!
//! The host plugs a new volume into a running guest and says so; until then it is reserved.
use super::model::{self, Became};
use crate::{
    Compute, action,
    server::{
        model::{Ended, VmState},
        ops::{living_in, refuse_if_locked},
        reconcile::owner,
    },
    tables::{Event, ImageCopy, Server, VolumeFrom, VolumeOf, VolumeStage, VolumeWish},
};
use pilvi_fleet::ImageFile;
use pilvi_kit::{Ctx, Fault, clock};
use pilvi_store::{Stored, Tx};
use pilvi_volume::{
    Volumes,
    attachment::ops::{self as attachments, Claim},
    snapshot::ops as snapshots,
    volume::{
        create::{NewVolume, Source},
        ops as volumes,
    },
};
use std::collections::BTreeSet;

/// 409 unless the server is at rest in a state where its volumes may change.
fn refuse_busy(server: &Server, verb: &str) -> Result<(), Fault> {
    let fits = matches!(
        (server.vm_state, verb),
        (VmState::Active | VmState::Paused | VmState::Stopped | VmState::Resized, _) | (VmState::Suspended, DETACH)
    );
    // It may go back to a host that the volume is not on.
    let between = verb == ATTACH && server.resized.as_ref().is_some_and(|resized| resized.from.is_some());
    if fits && server.task_state.is_none() && !between {
        return Ok(());
    }
    Err(Fault::conflict(crate::server::model::refusal(verb, server)))
}

const ATTACH: &str = "attach_volume";
const DETACH: &str = "detach_volume";

async fn log_in(tx: &mut Tx, ctx: &Ctx, server: &Server, verb: &str) -> Result<(), Fault> {
    let event = format!("compute_{verb}");
    let mut log = action::started(ctx, &server.id, &server.project_id, verb, vec![Event::began(&event)]);
    action::finish(&mut log, &Ended::Well, server.host.as_deref());
    action::insert_in(tx, log).await
}

/// What the volume service refuses is said as compute says it.
fn refused(fault: Fault) -> Fault {
    match fault.code() {
        409 => fault,
        _ if fault.status.is_client_error() && fault.code() != 404 => {
            Fault { status: Fault::bad_request("").status, ..fault }
        }
        _ => fault,
    }
}

fn unreadable(kind: &str, id: &str) -> Fault {
    Fault::bad_request(format!("Block Device Mapping is Invalid: failed to get {kind} {id}."))
}

/// A wish to attach.
#[derive(Debug, Clone, Default)]
pub struct Attach {
    pub volume_id: String,
    pub device: Option<String>,
    pub tag: Option<String>,
    pub delete_on_termination: bool,
}

impl Compute {
    /// What a root volume brings to boot; refuses wishes for what the caller has not, or that cannot be.
    pub(crate) async fn look_at_volumes(&self, ctx: &Ctx, wishes: &[VolumeWish]) -> Result<Option<ImageCopy>, Fault> {
        let mut root = None;
        for wish in wishes {
            let (image_metadata, bootable) = match &wish.from {
                VolumeFrom::Blank => continue,
                VolumeFrom::Image(id) => {
                    let image = self.image_copy(ctx, id).await?;
                    if image.min_disk_gib > wish.size_gib {
                        return Err(Fault::bad_request(format!(
                            "Volume is smaller than the minimum size specified in image metadata. Volume size is {} bytes, minimum size is {} bytes.",
                            wish.size_gib << 30,
                            image.min_disk_gib << 30
                        )));
                    }
                    if wish.root {
                        root = Some(image);
                    }
                    continue;
                }
                VolumeFrom::Volume(id) => {
                    let volume =
                        volumes::visible(&self.store, ctx, id).await.map_err(|_| unreadable("volume", id))?.record;
                    (volume.image_metadata, volume.bootable)
                }
                VolumeFrom::Snapshot(id) => {
                    let snapshot =
                        snapshots::visible(&self.store, ctx, id).await.map_err(|_| unreadable("snapshot", id))?.record;
                    (snapshot.image_metadata, snapshot.bootable)
                }
            };
            if wish.root && !bootable && matches!(wish.from, VolumeFrom::Volume(_)) {
                return Err(Fault::bad_request("Block Device Mapping is Invalid: the root volume is not bootable."));
            }
            if wish.root {
                root = Some(self.booted_from(ctx, image_metadata).await?);
            }
        }
        Ok(root)
    }

    /// A volume as something to boot: it remembers of its image what matters.
    async fn booted_from(
        &self,
        ctx: &Ctx,
        properties: std::collections::BTreeMap<String, String>,
    ) -> Result<ImageCopy, Fault> {
        let file = |key: &str| properties.get(key).map(String::as_str);
        let kernel = self.boot_file(ctx, file("kernel_id")).await?;
        let ramdisk = self.boot_file(ctx, file("ramdisk_id")).await?;
        Ok(ImageCopy {
            id: file("image_id").unwrap_or_default().to_owned(),
            name: file("image_name").unwrap_or_default().to_owned(),
            file: ImageFile::default(),
            kernel,
            ramdisk,
            min_disk_gib: 0,
            properties,
        })
    }

    /// The only host that the server's volumes allow; an error where there is none such.
    pub(crate) async fn host_of_volumes(&self, server: &Server) -> Result<Option<String>, Fault> {
        let mut hosts = BTreeSet::new();
        for wish in &server.volume_wishes {
            let volume_id = match &wish.from {
                VolumeFrom::Volume(id) => id.clone(),
                VolumeFrom::Snapshot(id) => {
                    snapshots::visible(&self.store, &owner(server), id).await?.record.volume_id.clone()
                }
                _ => continue,
            };
            hosts.extend(volumes::visible(&self.store, &owner(server), &volume_id).await?.record.host);
        }
        let mut hosts = hosts.into_iter();
        match (hosts.next(), hosts.next()) {
            (_, Some(_)) => Err(Fault::bad_request("The volumes lie on different hosts.")),
            (host, None) => Ok(host),
        }
    }

    /// Gives the server a volume.
    pub async fn attach_volume(
        &self,
        ctx: &Ctx,
        server: &Stored<Server>,
        wish: Attach,
    ) -> Result<(Stored<Server>, VolumeOf), Fault> {
        refuse_busy(server, ATTACH)?;
        let (id, ctx) = (server.record.id.clone(), ctx.clone());
        let done = self
            .store
            .write(move |tx| {
                let (id, ctx, wish) = (id.clone(), ctx.clone(), wish.clone());
                Box::pin(async move { attach_in(tx, &ctx, &id, wish).await })
            })
            .await?;
        self.poke(&done.0.record.id);
        Ok(done)
    }

    /// Takes a volume away; it is free once the guest has let go of it.
    pub async fn detach_volume(&self, ctx: &Ctx, server_id: &str, volume_id: &str) -> Result<(), Fault> {
        let (id, volume_id, ctx) = (server_id.to_owned(), volume_id.to_owned(), ctx.clone());
        self.store
            .write(move |tx| {
                let (id, volume_id, ctx) = (id.clone(), volume_id.clone(), ctx.clone());
                Box::pin(async move {
                    let mut server = living_in(tx, &id).await?;
                    refuse_if_locked(&ctx, &server)?;
                    refuse_busy(&server, DETACH)?;
                    let volume = of_mut(&mut server.record, &volume_id)?;
                    if volume.root {
                        return Err(Fault::bad_request("Cannot detach a root device volume"));
                    }
                    if volume.stage == VolumeStage::Detaching {
                        return Err(Fault::bad_request(
                            "Invalid volume: Invalid input received: it is being detached.",
                        ));
                    }
                    volume.stage = VolumeStage::Detaching;
                    attachments::begin_detaching_in(tx, &volume_id).await.map_err(refused)?;
                    server.record.wanted.generation += 1;
                    server.record.changed_us = clock::now_us();
                    log_in(tx, &ctx, &server, DETACH).await?;
                    tx.update(&server).await?;
                    Ok::<_, Fault>(())
                })
            })
            .await?;
        self.poke(server_id);
        Ok(())
    }

    /// Whether the volume goes with the server.
    pub async fn keep_volume(&self, server_id: &str, volume_id: &str, delete: bool) -> Result<(), Fault> {
        let volume_id = volume_id.to_owned();
        self.change(server_id, move |server| {
            of_mut(server, &volume_id)?.delete_on_termination = delete;
            Ok(true)
        })
        .await?;
        Ok(())
    }
}

fn of_mut<'s>(server: &'s mut Server, volume_id: &str) -> Result<&'s mut VolumeOf, Fault> {
    let found = server.volumes.iter_mut().find(|volume| volume.volume_id == volume_id);
    found.ok_or_else(|| super::api::not_attached(volume_id))
}

async fn attach_in(tx: &mut Tx, ctx: &Ctx, id: &str, wish: Attach) -> Result<(Stored<Server>, VolumeOf), Fault> {
    let mut server = living_in(tx, id).await?;
    refuse_if_locked(ctx, &server)?;
    refuse_busy(&server, ATTACH)?;
    let volume = volumes::visible_in(tx, ctx, &wish.volume_id)
        .await
        .map_err(|_| Fault::not_found(format!("Volume {} could not be found.", wish.volume_id)))?;
    if server.volumes.iter().any(|have| have.volume_id == wish.volume_id) {
        return Err(Fault::bad_request(format!("Invalid volume: volume {} already attached", wish.volume_id)));
    }
    if server.volumes.len() >= model::VOLUMES_MAX {
        return Err(Fault::forbidden(format!(
            "The maximum allowed number of disk devices ({}) to attach to a single instance has been exceeded.",
            model::VOLUMES_MAX
        )));
    }
    if server.host.is_none() {
        return Err(Fault::conflict(format!("Instance {id} is not ready")));
    }
    if volume.host.is_some() && volume.host != server.host {
        return Err(Fault::bad_request(format!(
            "Invalid volume: the bytes of {} lie on another host than the instance.",
            wish.volume_id
        )));
    }
    let device = model::device_name(&server, wish.device.as_deref());
    let claim = Claim {
        volume_id: wish.volume_id.clone(),
        server_id: id.to_owned(),
        device: Some(device.clone()),
        ..Claim::default()
    };
    let attachment = attachments::attach_in(tx, ctx, claim).await.map_err(refused)?;
    let volume = VolumeOf {
        volume_id: wish.volume_id,
        attachment_id: attachment.record.id,
        device,
        delete_on_termination: wish.delete_on_termination,
        tag: wish.tag,
        ..VolumeOf::default()
    };
    server.record.volumes.push(volume.clone());
    server.record.wanted.generation += 1;
    server.record.changed_us = clock::now_us();
    log_in(tx, ctx, &server, ATTACH).await?;
    Ok((tx.update(&server).await?, volume))
}

/// The user's own volumes are kept for a new server from the moment it was asked for.
pub(crate) async fn reserve_in(tx: &mut Tx, ctx: &Ctx, server: &mut Server) -> Result<(), Fault> {
    for wish in &mut server.volume_wishes {
        let VolumeFrom::Volume(id) = &wish.from else { continue };
        let claim = Claim { volume_id: id.clone(), server_id: server.id.clone(), ..Claim::default() };
        let attachment = attachments::attach_in(tx, ctx, claim).await.map_err(refused)?;
        wish.attachment_id = Some(attachment.record.id);
    }
    Ok(())
}

/// The server has a host: what is to be made is made there, and all of it is the server's.
pub(crate) async fn place_in(tx: &mut Tx, svc: &Volumes, server: &mut Server, host: &str) -> Result<(), Fault> {
    let ctx = owner(server);
    let wishes = std::mem::take(&mut server.volume_wishes);
    for wish in wishes {
        let (volume_id, attachment_id) = match (wish.from, wish.attachment_id) {
            (VolumeFrom::Volume(id), Some(attachment)) => (id, attachment),
            (from, _) => {
                let source = match from {
                    VolumeFrom::Blank => Source::Blank,
                    VolumeFrom::Image(id) => Source::Image(id),
                    VolumeFrom::Snapshot(id) => Source::Snapshot(id),
                    VolumeFrom::Volume(id) => Source::Volume(id),
                };
                let new = NewVolume {
                    name: Some(String::new()),
                    size_gib: wish.size_gib,
                    source,
                    volume_type: wish.volume_type,
                    host: Some(host.to_owned()),
                    ..NewVolume::default()
                };
                let volume = volumes_created_in(tx, svc, &ctx, new).await?;
                let claim = Claim { volume_id: volume.clone(), server_id: server.id.clone(), ..Claim::default() };
                let attachment = attachments::attach_in(tx, &ctx, claim).await.map_err(refused)?;
                (volume, attachment.record.id)
            }
        };
        let asked = if wish.root { Some("/dev/vda") } else { wish.device.as_deref() };
        let device = model::device_name(server, asked);
        server.volumes.push(VolumeOf {
            volume_id,
            attachment_id,
            device,
            root: wish.root,
            delete_on_termination: wish.delete_on_termination,
            tag: wish.tag,
            stage: VolumeStage::Attaching,
        });
    }
    Ok(())
}

async fn volumes_created_in(tx: &mut Tx, svc: &Volumes, ctx: &Ctx, new: NewVolume) -> Result<String, Fault> {
    let made = pilvi_volume::volume::create::create_in(tx, svc, ctx, new).await;
    // Another host may have room.
    Ok(made.map_err(|f| if f.kind == "AllocationRefused" { f } else { refused(f) })?.record.id)
}

/// Takes what the host said last of the server's machine.
pub(crate) async fn settle_in(tx: &mut Tx, server: &mut Server) -> Result<(), Fault> {
    let host = server.host.clone().unwrap_or_default();
    for news in model::settle(server) {
        let done = match &news {
            Became::Attached(volume) => attachments::place_in(tx, &volume.attachment_id, &host, &volume.device).await,
            Became::Detached(volume) => attachments::detach_in(tx, &volume.attachment_id, false).await,
        };
        match done {
            // An administrator has cut it off by force.
            Err(fault) if fault.code() == 404 => {}
            other => other?,
        }
    }
    Ok(())
}

/// Gives back every volume of a server that is no more.
pub(crate) async fn release_in(tx: &mut Tx, server: &Server) -> Result<(), Fault> {
    let had = server.volumes.iter().map(|volume| (volume.attachment_id.clone(), volume.delete_on_termination));
    let kept = server.volume_wishes.iter().filter_map(|wish| Some((wish.attachment_id.clone()?, false)));
    for (attachment, delete) in had.chain(kept) {
        attachments::detach_in(tx, &attachment, delete).await?;
    }
    Ok(())
}
