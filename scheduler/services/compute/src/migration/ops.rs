//! The verbs on migrations: begin, cancel, and what the hosts' words make of them. Of servers that are off: [`cold`].
use super::{
    cold::{self, Cold},
    model::{self, Decision, status},
};
use crate::{
    Compute, action,
    server::{
        model::{Ended, TaskState, VmState, refusal},
        ops::{living_in, refuse_if_locked},
        reconcile::{claim_in, hold_in},
    },
    tables::{Event, Migration, MigrationKind, Moving, Seen, Server, WantedPower},
};
use pilvi_kit::{Ctx, Fault, clock, id};
use pilvi_network::port;
use pilvi_placement::allocation::ops as allocations;
use pilvi_store::{Dir, Query, Stored, Tx};
use std::collections::BTreeMap;

const VERB: &str = "live-migration";
const EVENT: &str = "compute_live_migration";
/// What of a reason is kept.
const REASON_MAX: usize = 2000;

/// What a client asks for.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// The host's name; none: the scheduler chooses.
    pub host: Option<String>,
    /// The named host is taken whatever the scheduler thinks of it.
    pub forced: bool,
}

/// What is said of a migration that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The server stays, if it can still.
    Cancel,
    /// It switches over as soon as it can, however long it then stands still.
    Hurry,
}

impl Order {
    fn fits(self, moving: &Moving) -> bool {
        !moving.cancelled && (self == Self::Cancel || moving.address.is_some())
    }

    /// Gives it; the words for the log of actions.
    fn give(self, moving: &mut Moving) -> (&'static str, &'static str) {
        match self {
            Self::Cancel => {
                moving.cancelled = true;
                ("live_migration_cancel", "compute_live_migration_abort")
            }
            Self::Hurry => {
                moving.hurry = true;
                ("live_migration_force_complete", "compute_live_migration_force_complete")
            }
        }
    }

    /// As Nova words it.
    pub fn refusal(self, number: i64, server: &str, state: &str) -> Fault {
        let word = if self == Self::Cancel { "abort_live_migration" } else { "force_complete" };
        Fault::bad_request(format!(
            "Migration {number} state of instance {server} is {state}. Cannot {word} while the migration is in this \
             state."
        ))
    }
}

pub(super) fn no_host() -> Fault {
    Fault::bad_request("No valid host was found. There are not enough hosts available.")
}

impl Compute {
    /// Begins to move a running server: to the first host that has room, or to the one that is named.
    pub async fn live_migrate(&self, ctx: &Ctx, server: &Stored<Server>, wish: &Wish) -> Result<(), Fault> {
        movable(&server.record)?;
        if let Some(name) = &wish.host {
            let node = self.fleet.node_by_name(name).await?;
            let node = node.ok_or_else(|| Fault::bad_request(format!("Compute host {name} could not be found.")))?;
            if server.host.as_ref() == Some(name) {
                let text = format!("Unable to migrate instance ({}) to current host ({name}).", server.record.id);
                return Err(Fault::bad_request(text));
            }
            if !node.is_up() {
                return Err(Fault::bad_request(format!("Compute service of {name} is unavailable at this time.")));
            }
        }
        let hosts = match &wish.host {
            Some(name) if wish.forced => vec![name.clone()],
            named => self.hosts_to_move_to(server, named.clone()).await?,
        };
        for host in hosts {
            match self.begin_migration(ctx, server, &host, None).await {
                Ok(()) => return Ok(()),
                // Another request was quicker: the next host may still have room.
                Err(fault) if fault.kind == "AllocationRefused" => continue,
                Err(fault) => return Err(fault),
            }
        }
        Err(no_host())
    }

    /// Begins a live one, or that of a server that is to be off.
    pub(super) async fn begin_migration(
        &self,
        ctx: &Ctx,
        server: &Stored<Server>,
        host: &str,
        cold: Option<&Cold>,
    ) -> Result<(), Fault> {
        let node_of = async |name: &str| -> Result<String, Fault> {
            let node = self.fleet.node_by_name(name).await?.ok_or_else(no_host)?;
            Ok(node.record.id)
        };
        let from = server.host.clone().unwrap_or_default();
        let moving = Moving {
            id: id::new(),
            from_node: node_of(&from).await?,
            to: host.to_owned(),
            to_node: node_of(host).await?,
            cold: cold.is_some(),
            flavor: cold.and_then(|cold| cold.flavor.clone()),
            ..Moving::default()
        };
        let (key, ctx) = (server.record.id.clone(), ctx.clone());
        self.store
            .write(move |tx| {
                let (key, ctx, moving) = (key.clone(), ctx.clone(), moving.clone());
                Box::pin(async move {
                    if moving.cold {
                        cold::begin_in(tx, &ctx, &key, moving).await
                    } else {
                        begin_in(tx, &ctx, &key, moving).await
                    }
                })
            })
            .await?;
        self.poke(&server.record.id);
        Ok(())
    }

    /// A migration that found no host: the log of actions says so.
    pub async fn note_failed_migration(&self, ctx: &Ctx, server: &Stored<Server>, reason: &str) -> Result<(), Fault> {
        let mut log = action::started(
            ctx,
            &server.record.id,
            &server.project_id,
            VERB,
            vec![Event::began("conductor_live_migrate_instance")],
        );
        action::finish(&mut log, &Ended::Badly(reason.to_owned()), server.host.as_deref());
        self.store
            .write(move |tx| {
                let log = log.clone();
                Box::pin(async move { action::insert_in(tx, log).await })
            })
            .await
    }

    /// Says what shall become of a migration that is under way; the hosts are told.
    pub async fn direct_migration(&self, ctx: &Ctx, migration: &Migration, order: Order) -> Result<(), Fault> {
        let (id, key, ctx) = (migration.id.clone(), migration.server_id.clone(), ctx.clone());
        let number = migration.number;
        self.store
            .write(move |tx| {
                let (id, key, ctx) = (id.clone(), key.clone(), ctx.clone());
                Box::pin(async move {
                    let mut server = living_in(tx, &key).await?;
                    let moving = server.record.moving.as_mut().filter(|m| m.id == id && order.fits(m));
                    let Some(moving) = moving else { return Err(order.refusal(number, &key, "not running")) };
                    let (action, event) = order.give(moving);
                    // The host's answer tells whether it has heard of this.
                    server.record.wanted.generation += 1;
                    let event = vec![Event::began(event)];
                    let mut log = action::started(&ctx, &key, &server.project_id, action, event);
                    action::finish(&mut log, &Ended::Well, server.host.as_deref());
                    action::insert_in(tx, log).await?;
                    tx.update(&server).await?;
                    Ok::<_, Fault>(())
                })
            })
            .await?;
        self.poke(&migration.server_id);
        Ok(())
    }

    /// Takes what one of the two hosts said.
    pub(crate) async fn observe_move(&self, host: &str, id: &str, seen: &Seen) -> Result<(), Fault> {
        let (key, host, seen) = (id.to_owned(), host.to_owned(), seen.clone());
        let Some(server) = self.store.get::<Server>(id).await? else { return Ok(()) };
        if decide(&server.record, &host, &seen) == Decision::Wait {
            return Ok(());
        }
        self.store
            .write(move |tx| {
                let (key, host, seen) = (key.clone(), host.clone(), seen.clone());
                Box::pin(async move {
                    let Some(server) = tx.get::<Server>(&key).await? else { return Ok(()) };
                    let decision = decide(&server.record, &host, &seen);
                    carry_out_in(tx, server, decision, seen).await
                })
            })
            .await?;
        self.poke(id);
        Ok(())
    }

    /// The host that a server shall move to is down before it was ready: the server stays where it is.
    pub(crate) async fn give_up_move(&self, server: &Stored<Server>) -> Result<(), Fault> {
        let id = &server.record.id;
        if server.moving.as_ref().is_some_and(|moving| moving.cold) {
            return self.give_up_cold(id, "The host there is down.").await;
        }
        self.change(id, |server| {
            let Some(moving) = server.moving.as_mut().filter(|m| !m.cancelled) else { return Ok(false) };
            moving.cancelled = true;
            server.wanted.generation += 1;
            Ok(true)
        })
        .await?;
        Ok(())
    }

    /// The migrations of a server that are under way; newest first.
    pub async fn open_migrations(&self, server_id: &str) -> Result<Vec<Stored<Migration>>, Fault> {
        let all = Query::all().eq("server_id", server_id).sort("number", Dir::Desc);
        let found = self.store.list::<Migration>(all).await?;
        Ok(found.into_iter().filter(|m| status::OPEN.contains(&m.status.as_str())).collect())
    }
}

pub(super) fn fit_to_move(server: &Server) -> Result<(), Fault> {
    if !server.volumes.is_empty() {
        return Err(Fault::bad_request(format!(
            "Migration pre-check error: the volumes of instance {} lie on its host and cannot follow.",
            server.id
        )));
    }
    let known = server.seen.as_ref().filter(|seen| !seen.runtime.is_empty() && !seen.disk_bytes.is_empty());
    if known.is_none() || server.host.is_none() {
        return Err(Fault::conflict(format!("Instance {} is not ready: its host has not reported it yet", server.id)));
    }
    Ok(())
}

fn movable(server: &Server) -> Result<(), Fault> {
    if server.task_state.is_some() || server.vm_state != VmState::Active || server.wanted.delete {
        return Err(Fault::conflict(refusal("os-migrateLive", server)));
    }
    fit_to_move(server)
}

async fn begin_in(tx: &mut Tx, ctx: &Ctx, key: &str, moving: Moving) -> Result<(), Fault> {
    let mut server = living_in(tx, key).await?;
    refuse_if_locked(ctx, &server)?;
    movable(&server.record)?;
    // As much there as here, until it is known where it stays.
    let held = allocations::of_in(tx, key).await?.into_values().next().unwrap_or_default();
    let both = BTreeMap::from([(moving.from_node.clone(), held.clone()), (moving.to_node.clone(), held)]);
    hold_in(tx, &server, both).await?;
    for port in &server.ports {
        port::ops::prepare_in(tx, &port.id, &moving.to).await?;
    }
    record_in(tx, ctx, &server, MigrationKind::Live, &moving, status::PREPARING).await?;
    let now = clock::now_us();
    let log = action::started(ctx, key, &server.project_id, VERB, vec![Event::began(EVENT)]);
    action::insert_in(tx, log).await?;
    let record = &mut server.record;
    (record.moving, record.task_state, record.changed_us) = (Some(moving), Some(TaskState::Migrating), now);
    tx.update(&server).await?;
    Ok(())
}

/// Writes a new migration down.
pub(crate) async fn record_in(
    tx: &mut Tx,
    ctx: &Ctx,
    server: &Server,
    kind: MigrationKind,
    moving: &Moving,
    status: &str,
) -> Result<(), Fault> {
    let now = clock::now_us();
    let newest = tx.list::<Migration>(Query::all().sort("number", Dir::Desc).limit(1)).await?;
    let migration = Migration {
        id: moving.id.clone(),
        number: newest.first().map_or(1, |m| m.number + 1),
        server_id: server.id.clone(),
        project_id: server.project_id.clone(),
        user_id: ctx.user_id().to_owned(),
        from: server.host.clone().unwrap_or_default(),
        to: moving.to.clone(),
        to_address: String::new(),
        status: status.to_owned(),
        flavor_id: server.flavor.id.clone(),
        new_flavor_id: moving.flavor.as_ref().map(|flavor| flavor.id.clone()),
        kind,
        created_us: now,
        updated_us: now,
    };
    tx.insert(&migration).await?;
    Ok(())
}

fn decide(server: &Server, host: &str, seen: &Seen) -> Decision {
    match server.moving.as_ref().filter(|_| !server.wanted.delete) {
        Some(moving) if moving.to == host => model::heard_there(moving, seen),
        Some(moving) if server.host.as_deref() == Some(host) => model::heard_here(server, moving, seen),
        _ => Decision::Wait,
    }
}

async fn carry_out_in(tx: &mut Tx, server: Stored<Server>, decision: Decision, seen: Seen) -> Result<(), Fault> {
    match decision {
        Decision::Wait => Ok(()),
        Decision::Go(address) => go_in(tx, server, address).await,
        Decision::Commit => commit_in(tx, server, seen).await,
        Decision::TakeBack(reason) => take_back_in(tx, server, &reason).await,
    }
}

async fn go_in(tx: &mut Tx, mut server: Stored<Server>, address: String) -> Result<(), Fault> {
    let Some(moving) = &mut server.record.moving else { return Ok(()) };
    moving.address = Some(address.clone());
    let (id, cold) = (moving.id.clone(), moving.cold);
    if cold {
        server.record.task_state = Some(TaskState::ResizeMigrating);
    }
    mark_in(tx, &id, if cold { status::COLD_RUNNING } else { status::RUNNING }, Some(address)).await?;
    tx.update(&server).await?;
    Ok(())
}

/// It runs there: all that is its own follows.
async fn commit_in(tx: &mut Tx, mut server: Stored<Server>, seen: Seen) -> Result<(), Fault> {
    let Some(moving) = server.record.moving.take() else { return Ok(()) };
    if moving.cold {
        return cold::commit_in(tx, server, moving, seen).await;
    }
    for port in &server.record.ports {
        port::ops::follow_in(tx, &port.id, &moving.to).await?;
    }
    let left = server.record.host.replace(moving.to.clone());
    server.record.left = left;
    server.record.seen = Some(seen);
    claim_in(tx, &server, &moving.to_node).await?;
    end_in(tx, server, &moving, status::COMPLETED, Ended::Well).await
}

/// It did not go: what was prepared for it is taken back.
pub(super) async fn take_back_in(tx: &mut Tx, mut server: Stored<Server>, reason: &str) -> Result<(), Fault> {
    let Some(moving) = server.record.moving.take() else { return Ok(()) };
    for port in &server.record.ports {
        port::ops::prepare_in(tx, &port.id, "").await?;
    }
    server.record.left = Some(moving.to.clone());
    if moving.cold {
        cold::back_in(tx, &mut server.record, &moving).await?;
    }
    claim_in(tx, &server, &moving.from_node).await?;
    let what = if moving.cancelled { status::CANCELLED } else { status::FAILED };
    let reason: String = reason.chars().take(REASON_MAX).collect();
    tracing::warn!(server = server.record.id, to = moving.to, reason, "the server did not move");
    end_in(tx, server, &moving, what, Ended::Badly(reason)).await
}

async fn end_in(
    tx: &mut Tx,
    mut server: Stored<Server>,
    moving: &Moving,
    what: &str,
    ended: Ended,
) -> Result<(), Fault> {
    mark_in(tx, &moving.id, what, None).await?;
    // What was switched off for the move goes on.
    let on = moving.cold && server.wanted.power == WantedPower::Running;
    server.record.task_state = on.then_some(TaskState::PoweringOn);
    server.record.changed_us = clock::now_us();
    action::finish_latest_in(tx, &server.record.id, &ended, server.host.as_deref()).await?;
    tx.update(&server).await?;
    Ok(())
}

pub(super) async fn mark_in(tx: &mut Tx, id: &str, what: &str, address: Option<String>) -> Result<(), Fault> {
    let Some(mut migration) = tx.get::<Migration>(id).await? else { return Ok(()) };
    (migration.record.status, migration.record.updated_us) = (what.to_owned(), clock::now_us());
    if let Some(address) = address {
        migration.record.to_address = address;
    }
    tx.update(&migration).await?;
    Ok(())
}

/// The server goes while it moves, or while it could still go back: its migration goes with it.
pub(crate) async fn forget_in(tx: &mut Tx, server: &mut Server) -> Result<(), Fault> {
    if let Some(resized) = server.resized.take() {
        allocations::release_in(tx, &resized.migration).await?;
        mark_in(tx, &resized.migration, status::CONFIRMED, None).await?;
    }
    match server.moving.take() {
        Some(moving) => {
            allocations::release_in(tx, &moving.id).await?;
            mark_in(tx, &moving.id, if moving.cold { status::FAILED } else { status::CANCELLED }, None).await
        }
        None => Ok(()),
    }
}
