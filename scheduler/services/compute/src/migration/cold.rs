//! Cold migrations, and resizes to another host: a server is switched off, its disks are copied, and it may come back.
//!
//! ```text
//!  migrate, resize -> claims on both hosts, ports prepared there, server.moving, task resize_prep
//!    pre-migrating   here: switched off; there: room for the disks, at this address
//!    migrating       here: the disks are on their way                        task resize_migrating
//!    post-migrating  there: all are durable -> ports, claim, flavor follow   task resize_finish, disks kept here
//!    finished        there: it is as it was, on or off                       VERIFY_RESIZE
//!      confirmed     the host it came from forgets it
//!      reverting     gone there -> it is here again, with the disks as they were -> reverted
//!    error           before "there": it goes on here; after: it comes back by itself
//! ```
//! While both hosts have it, the claim on the one it came from is the migration's, and the server's is on the other.
use super::{
    model::status,
    ops::{fit_to_move, mark_in, no_host, record_in, take_back_in},
};
use crate::{
    Compute, action,
    server::{
        model::{self, Ended, TaskState, Verb, refusal, state_for},
        ops::{event_of, living_in, refuse_if_locked},
        reconcile::{claim_in, hold_in, resources},
    },
    tables::{Event, FlavorCopy, Kept, MigrationKind, Moving, Resized, Seen, Server},
};
use pilvi_kit::{Ctx, Fault, clock, id};
use pilvi_network::port;
use pilvi_placement::allocation::ops as allocations;
use pilvi_store::{Stored, Tx};
use std::collections::BTreeMap;

/// What a client asks for.
#[derive(Debug, Clone, Default)]
pub struct Cold {
    /// The host's name; none: the scheduler chooses.
    pub host: Option<String>,
    /// What it shall become there; none: what it is.
    pub flavor: Option<FlavorCopy>,
}

impl Cold {
    fn verb(flavor: Option<&FlavorCopy>) -> &'static str {
        if flavor.is_some() { Verb::Resize.name() } else { Verb::Migrate.name() }
    }
}

impl Compute {
    /// Begins to move a server that is on or off: to the first host that has room, or to the one that is named.
    pub async fn cold_migrate(&self, ctx: &Ctx, server: &Stored<Server>, wish: &Cold) -> Result<(), Fault> {
        refuse_if_locked(ctx, server)?;
        let name = Cold::verb(wish.flavor.as_ref());
        if !model::begin(&mut server.record.clone(), Verb::Migrate) {
            return Err(Fault::conflict(refusal(name, server)));
        }
        fit_to_move(server)?;
        if let Some(host) = &wish.host {
            if self.fleet.node_by_name(host).await?.is_none() {
                return Err(Fault::bad_request(format!("Compute host {host} could not be found.")));
            }
            if server.host.as_ref() == Some(host) {
                return Err(Fault::bad_request("Cannot migrate to the host where the server exists."));
            }
        }
        let mut sized = server.record.clone();
        sized.flavor = wish.flavor.clone().unwrap_or(sized.flavor);
        for host in self.hosts_to_move_to(&sized, wish.host.clone()).await? {
            match self.begin_migration(ctx, server, &host, Some(wish)).await {
                // Another request was quicker: the next host may still have room.
                Err(fault) if fault.kind == "AllocationRefused" => continue,
                outcome => return outcome,
            }
        }
        Err(no_host())
    }

    /// One that found no host: the list of migrations and the log of actions say so, and the server goes on.
    pub async fn note_failed_cold(&self, ctx: &Ctx, server: &Stored<Server>, reason: &str) -> Result<(), Fault> {
        let (key, ctx, reason) = (server.record.id.clone(), ctx.clone(), reason.to_owned());
        self.store
            .write(move |tx| {
                let (key, ctx, reason) = (key.clone(), ctx.clone(), reason.clone());
                Box::pin(async move {
                    let server = living_in(tx, &key).await?;
                    let nowhere = Moving { id: id::new(), ..Moving::default() };
                    record_in(tx, &ctx, &server, MigrationKind::Cold, &nowhere, status::FAILED).await?;
                    let event = vec![Event::began("conductor_migrate_server")];
                    let mut log = action::started(&ctx, &key, &server.project_id, Verb::Migrate.name(), event);
                    action::finish(&mut log, &Ended::Badly(reason), server.host.as_deref());
                    action::insert_in(tx, log).await
                })
            })
            .await
    }

    /// Nothing has left its host yet: the server goes on there.
    pub(super) async fn give_up_cold(&self, id: &str, reason: &'static str) -> Result<(), Fault> {
        let key = id.to_owned();
        self.store
            .write(move |tx| {
                let key = key.clone();
                Box::pin(async move {
                    let server = living_in(tx, &key).await?;
                    if server.wanted.delete || server.moving.as_ref().is_none_or(|moving| !moving.cold) {
                        return Ok(());
                    }
                    take_back_in(tx, server, reason).await
                })
            })
            .await?;
        self.poke(id);
        Ok(())
    }

    /// The host that a server shall leave has nothing of it any more, or is dead: the server is back where its former
    /// disks were kept.
    pub(crate) async fn come_back(&self, id: &str) -> Result<(), Fault> {
        let key = id.to_owned();
        self.store
            .write(move |tx| {
                let key = key.clone();
                Box::pin(async move {
                    let server = living_in(tx, &key).await?;
                    come_back_in(tx, server).await
                })
            })
            .await?;
        self.poke(id);
        Ok(())
    }
}

pub(super) async fn begin_in(tx: &mut Tx, ctx: &Ctx, key: &str, moving: Moving) -> Result<(), Fault> {
    let mut server = living_in(tx, key).await?;
    refuse_if_locked(ctx, &server)?;
    let (before, name) = (server.record.clone(), Cold::verb(moving.flavor.as_ref()));
    if !model::begin(&mut server.record, Verb::Migrate) {
        return Err(Fault::conflict(refusal(name, &before)));
    }
    fit_to_move(&server)?;
    // What its ports take comes along; what the server takes may be another size there.
    let held = allocations::of_in(tx, key).await?.into_values().next().unwrap_or_default();
    let mut there = held.clone();
    let mut sized = server.record.clone();
    sized.flavor = moving.flavor.clone().unwrap_or(sized.flavor);
    let (old, new) = (resources(&server), resources(&sized));
    old.into_iter().for_each(|(class, amount)| *there.entry(class).or_default() -= amount);
    new.into_iter().for_each(|(class, amount)| *there.entry(class).or_default() += amount);
    there.retain(|_, amount| *amount > 0);
    hold_in(tx, &server, BTreeMap::from([(moving.to_node.clone(), there)])).await?;
    keep_claim_in(tx, &server, &moving, held).await?;
    for port in &server.ports {
        port::ops::prepare_in(tx, &port.id, &moving.to).await?;
    }
    let kind = if moving.flavor.is_some() { MigrationKind::Resize } else { MigrationKind::Cold };
    record_in(tx, ctx, &server, kind, &moving, status::COLD_PREPARING).await?;
    let event = event_of(if moving.flavor.is_some() { Verb::Resize } else { Verb::Migrate });
    let log = action::started(ctx, key, &server.project_id, name, vec![Event::began(event)]);
    action::insert_in(tx, log).await?;
    (server.record.moving, server.record.changed_us) = (Some(moving), clock::now_us());
    tx.update(&server).await?;
    Ok(())
}

/// The migration holds what the server had where it was.
async fn keep_claim_in(
    tx: &mut Tx,
    server: &Server,
    moving: &Moving,
    held: BTreeMap<String, i64>,
) -> Result<(), Fault> {
    let claim = allocations::Claim {
        consumer: moving.id.clone(),
        project_id: server.project_id.clone(),
        user_id: server.user_id.clone(),
        consumer_type: "MIGRATION".into(),
        allocations: BTreeMap::from([(moving.from_node.clone(), held)]),
    };
    allocations::claim_in(tx, claim).await
}

/// Its disks are there: all that is its own follows, but for the disks where it was.
pub(super) async fn commit_in(
    tx: &mut Tx,
    mut server: Stored<Server>,
    moving: Moving,
    seen: Seen,
) -> Result<(), Fault> {
    follow_in(tx, &server, &moving.to).await?;
    let record = &mut server.record;
    let from = record.host.replace(moving.to.clone()).unwrap_or_default();
    if let Some(flavor) = moving.flavor {
        record.old_flavor = Some(std::mem::replace(&mut record.flavor, flavor));
    }
    let kept = Kept { host: from, node: moving.from_node };
    record.resized = Some(Resized { migration: moving.id.clone(), from: Some(kept), ..Resized::default() });
    // The host is told: what it says of an earlier wish ends nothing.
    record.wanted.generation += 1;
    (record.seen, record.task_state, record.changed_us) = (Some(seen), Some(TaskState::ResizeFinish), clock::now_us());
    claim_in(tx, &server, &moving.to_node).await?;
    mark_in(tx, &moving.id, status::COLD_THERE, None).await?;
    tx.update(&server).await?;
    Ok(())
}

/// The ports are on that host, prepared for it or not.
async fn follow_in(tx: &mut Tx, server: &Server, host: &str) -> Result<(), Fault> {
    for port in &server.ports {
        port::ops::follow_in(tx, &port.id, host).await?;
    }
    Ok(())
}

/// It did not go: its claim is where it is, and the host hears that it may be on.
pub(super) async fn back_in(tx: &mut Tx, server: &mut Server, moving: &Moving) -> Result<(), Fault> {
    server.wanted.generation += 1;
    allocations::release_in(tx, &moving.id).await
}

/// What a resize or a cold migration becomes once the host has done what was wanted of it, or could not.
pub(crate) async fn settled_in(
    tx: &mut Tx,
    server: &mut Server,
    task: Option<TaskState>,
    ended: &Ended,
) -> Result<(), Fault> {
    let Some(resized) = &mut server.resized else { return Ok(()) };
    let migration = resized.migration.clone();
    let word = match (task, ended) {
        (Some(TaskState::ResizeFinish), Ended::Well) => status::FINISHED,
        (Some(TaskState::ResizeFinish), Ended::Badly(_)) if resized.from.is_some() => {
            (resized.returning, resized.failed) = (true, true);
            return_to_old(server);
            status::FAILED
        }
        (Some(TaskState::ResizeReverting), Ended::Well) if !resized.failed => {
            server.resized = None;
            status::REVERTED
        }
        (Some(TaskState::ResizeFinish | TaskState::ResizeReverting), _) => {
            server.resized = None;
            status::FAILED
        }
        _ => return Ok(()),
    };
    mark_in(tx, &migration, word, None).await
}

/// It cannot be there: it goes back by itself.
fn return_to_old(server: &mut Server) {
    if let Some(old) = server.old_flavor.take() {
        server.flavor = old;
    }
    server.wanted.generation += 1;
    server.vm_state = state_for(server.wanted.power);
    (server.task_state, server.fault) = (Some(TaskState::ResizeReverting), None);
}

/// Confirmed, or about to be taken back. True when another host is concerned.
pub(crate) async fn finish_in(tx: &mut Tx, server: &mut Server, confirm: bool) -> Result<bool, Fault> {
    let Some(resized) = &mut server.resized else { return Ok(false) };
    let (id, moved) = (resized.migration.clone(), resized.from.is_some());
    if !confirm {
        resized.returning = moved;
        mark_in(tx, &id, status::REVERTING, None).await?;
        return Ok(moved);
    }
    if let Some(kept) = resized.from.take() {
        server.left = Some(kept.host);
        allocations::release_in(tx, &id).await?;
    }
    server.resized = None;
    mark_in(tx, &id, status::CONFIRMED, None).await?;
    Ok(moved)
}

async fn come_back_in(tx: &mut Tx, mut server: Stored<Server>) -> Result<(), Fault> {
    let record = &mut server.record;
    let Some(resized) = record.resized.as_mut().filter(|resized| resized.returning) else { return Ok(()) };
    if record.wanted.delete {
        return Ok(());
    }
    let Some(kept) = resized.from.take() else { return Ok(()) };
    resized.returning = false;
    let migration = resized.migration.clone();
    record.left = record.host.replace(kept.host.clone());
    record.wanted.generation += 1;
    (record.seen, record.changed_us) = (None, clock::now_us());
    for port in &server.ports {
        port::ops::prepare_in(tx, &port.id, &kept.host).await?;
    }
    follow_in(tx, &server, &kept.host).await?;
    allocations::release_in(tx, &migration).await?;
    claim_in(tx, &server, &kept.node).await?;
    tx.update(&server).await?;
    Ok(())
}
