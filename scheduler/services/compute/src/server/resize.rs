//! Resizing: another size, kept until it is confirmed or taken back. In place where the host has room, since no disk has
//! to be copied; else the server moves to another host while it is off ([`crate::migration::cold`]).
//!
//! In place, the claim in placement is the larger of both sizes until then, so that going back always fits. A disk
//! that has grown stays grown when a resize is taken back: the guest's file system may not be cut.
use crate::{
    Compute, action,
    migration::{
        cold::{self, Cold},
        model::status,
        ops::record_in,
    },
    server::{
        create,
        model::{self, Ended, Verb},
        ops::{event_of, living_in, refuse_if_locked},
        reconcile::claim_in,
    },
    tables::{Event, Flavor, FlavorCopy, MigrationKind, Moving, Resized, Server},
    volume,
};
use pilvi_kit::{Ctx, Fault, clock, id};
use pilvi_store::Tx;

/// The kind of the fault that another host may help with.
const NO_ROOM: &str = "NoRoomHere";

impl Compute {
    pub async fn resize_server(&self, ctx: &Ctx, id: &str, flavor_id: &str) -> Result<(), Fault> {
        let flavor = self.store.get::<Flavor>(flavor_id).await?;
        let flavor = flavor.ok_or_else(|| Fault::bad_request(format!("Flavor {flavor_id} could not be found.")))?;
        let new = create::copy_flavor(&flavor);
        let server = self.server(id).await?;
        if new == server.flavor {
            return Err(Fault::bad_request("When resizing, instances must change flavor!"));
        }
        if new.disk_gib < server.flavor.disk_gib && server.flavor.disk_gib > 0 {
            return Err(Fault::bad_request("Flavor's disk is too small: a disk cannot shrink."));
        }
        if let Some(image) = server.image.as_ref().filter(|_| !volume::model::backed(&server)) {
            create::fits(&new, image)?;
        }
        let there = Cold { host: None, flavor: Some(new.clone()) };
        let here = self.change_size(ctx, id, Verb::Resize, move |s| {
            s.old_flavor = Some(std::mem::replace(&mut s.flavor, new.clone()));
        });
        match here.await {
            // Volumes stay where they are, and so does the server.
            Err(full) if full.kind == NO_ROOM && server.volumes.is_empty() => {
                self.cold_migrate(ctx, &server, &there).await
            }
            outcome => outcome,
        }
    }

    pub async fn finish_resize(&self, ctx: &Ctx, id: &str, confirm: bool) -> Result<(), Fault> {
        let verb = if confirm { Verb::ConfirmResize } else { Verb::RevertResize };
        self.change_size(ctx, id, verb, move |s| {
            if !confirm && let Some(old) = s.old_flavor.take() {
                s.flavor = old;
            }
        })
        .await
    }

    async fn change_size(
        &self,
        ctx: &Ctx,
        id: &str,
        verb: Verb,
        change: impl Fn(&mut Server) + Clone + Send + Sync + 'static,
    ) -> Result<(), Fault> {
        let (key, ctx) = (id.to_owned(), ctx.clone());
        self.store
            .write(move |tx| {
                let (key, ctx, change) = (key.clone(), ctx.clone(), change.clone());
                Box::pin(async move { change_in(tx, &ctx, &key, verb, change).await })
            })
            .await?;
        self.poke(id);
        Ok(())
    }
}

async fn change_in(tx: &mut Tx, ctx: &Ctx, key: &str, verb: Verb, change: impl Fn(&mut Server)) -> Result<(), Fault> {
    let mut server = living_in(tx, key).await?;
    refuse_if_locked(ctx, &server)?;
    let before = server.record.clone();
    if !model::begin(&mut server.record, verb) {
        return Err(Fault::conflict(model::refusal(verb.name(), &before)));
    }
    change(&mut server.record);
    server.record.changed_us = clock::now_us();
    let elsewhere = match verb {
        Verb::Resize => note_in(tx, ctx, &before, &mut server.record).await?,
        verb => cold::finish_in(tx, &mut server.record, verb == Verb::ConfirmResize).await?,
    };
    if !elsewhere {
        reclaim_in(tx, &server).await?;
    }
    let mut log = action::started(ctx, key, &before.project_id, verb.name(), vec![Event::began(event_of(verb))]);
    if server.record.task_state.is_none() {
        action::finish(&mut log, &Ended::Well, server.host.as_deref());
    }
    action::insert_in(tx, log).await?;
    tx.update(&server).await?;
    Ok(())
}

/// A resize in place is in the list of migrations as well, from the host to itself.
async fn note_in(tx: &mut Tx, ctx: &Ctx, before: &Server, server: &mut Server) -> Result<bool, Fault> {
    let (id, to) = (id::new(), server.host.clone().unwrap_or_default());
    let step = Moving { id: id.clone(), to, flavor: Some(server.flavor.clone()), ..Moving::default() };
    record_in(tx, ctx, before, MigrationKind::Resize, &step, status::COLD_RUNNING).await?;
    server.resized = Some(Resized { migration: id, ..Resized::default() });
    Ok(false)
}

/// The larger of both flavors, member by member.
fn larger(a: &FlavorCopy, b: &FlavorCopy) -> FlavorCopy {
    FlavorCopy {
        vcpus: a.vcpus.max(b.vcpus),
        memory_mib: a.memory_mib.max(b.memory_mib),
        disk_gib: a.disk_gib.max(b.disk_gib),
        ephemeral_gib: a.ephemeral_gib.max(b.ephemeral_gib),
        swap_mib: a.swap_mib.max(b.swap_mib),
        ..a.clone()
    }
}

/// Claims what the server needs now, on the provider it is on.
pub(crate) async fn reclaim_in(tx: &mut Tx, server: &Server) -> Result<(), Fault> {
    let held = pilvi_placement::allocation::ops::of_in(tx, &server.id).await?;
    let Some(provider) = held.keys().next().cloned() else { return Ok(()) };
    let mut sized = server.clone();
    if let Some(old) = &server.old_flavor {
        sized.flavor = larger(&server.flavor, old);
    }
    claim_in(tx, &sized, &provider).await.map_err(|f| {
        if f.code() == 409 {
            Fault::bad_request("No valid host was found. There are not enough resources on the server's host.")
                .kind(NO_ROOM)
        } else {
            f
        }
    })
}
