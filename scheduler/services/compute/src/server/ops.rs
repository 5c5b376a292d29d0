//! The verbs on servers: the only writer of their records.
use crate::{
    Compute, action, fault, migration,
    server::model::{self, Ended, TaskState, Verb, VmState},
    tables::{Action, Event, FaultOf, Seen, Server, VolumeOf, VolumeStage},
    volume,
};
use pilvi_kit::{Ctx, Fault, clock};
use pilvi_store::{Query, Stored, Tx};

/// Names of the events inside an action, as Nova gives them.
pub(crate) fn event_of(verb: Verb) -> &'static str {
    match verb {
        Verb::Start => "compute_start_instance",
        Verb::Stop => "compute_stop_instance",
        Verb::RebootSoft | Verb::RebootHard => "compute_reboot_instance",
        Verb::Pause => "compute_pause_instance",
        Verb::Unpause => "compute_unpause_instance",
        Verb::Suspend => "compute_suspend_instance",
        Verb::Resume => "compute_resume_instance",
        Verb::Rebuild => "compute_rebuild_instance",
        Verb::Resize => "compute_resize_instance",
        Verb::ConfirmResize => "compute_confirm_resize",
        Verb::RevertResize => "compute_revert_resize",
        Verb::Migrate => "cold_migrate",
    }
}

/// What a change made of the record: `false` leaves the store as it is.
type Changed = Result<bool, Fault>;

impl Compute {
    /// A living server, whoever owns it.
    pub async fn server(&self, id: &str) -> Result<Stored<Server>, Fault> {
        let found = self.store.get::<Server>(id).await?;
        found.filter(|s| s.vm_state != VmState::Deleted).ok_or_else(|| fault::server_not_found(id))
    }

    /// Changes a living server in one transaction and wakes its reconciler.
    pub async fn change(
        &self,
        id: &str,
        change: impl Fn(&mut Server) -> Changed + Clone + Send + Sync + 'static,
    ) -> Result<Stored<Server>, Fault> {
        let key = id.to_owned();
        let server = self
            .store
            .write(move |tx| {
                let (key, change) = (key.clone(), change.clone());
                Box::pin(async move { change_in(tx, &key, change).await })
            })
            .await?;
        self.poke(id);
        Ok(server)
    }

    /// A user's verb: state, task, wanted state and action log, all or nothing. `prepare` sets what the
    /// verb carries (an image, a flavor) before the state is asked.
    pub async fn verb(
        &self,
        ctx: &Ctx,
        id: &str,
        verb: Verb,
        prepare: impl Fn(&mut Server) -> Result<(), Fault> + Clone + Send + Sync + 'static,
    ) -> Result<Stored<Server>, Fault> {
        let (key, ctx) = (id.to_owned(), ctx.clone());
        let server = self
            .store
            .write(move |tx| {
                let (key, ctx, prepare) = (key.clone(), ctx.clone(), prepare.clone());
                Box::pin(async move {
                    let mut server = living_in(tx, &key).await?;
                    refuse_if_locked(&ctx, &server)?;
                    let before = server.record.clone();
                    prepare(&mut server.record)?;
                    if !model::begin(&mut server.record, verb) {
                        return Err(Fault::conflict(model::refusal(verb.name(), &before)));
                    }
                    server.record.changed_us = clock::now_us();
                    let mut log = action::started(
                        &ctx,
                        &key,
                        &before.project_id,
                        verb.name(),
                        vec![Event::began(event_of(verb))],
                    );
                    if server.record.task_state.is_none() {
                        action::finish(&mut log, &Ended::Well, server.host.as_deref());
                    }
                    action::insert_in(tx, log).await?;
                    Ok::<_, Fault>(tx.update(&server).await?)
                })
            })
            .await?;
        self.poke(id);
        Ok(server)
    }

    /// Marks for deletion; the reconciler takes it from there. Deleting twice is no error.
    pub async fn delete_server(&self, ctx: &Ctx, id: &str) -> Result<(), Fault> {
        let (key, ctx) = (id.to_owned(), ctx.clone());
        self.store
            .write(move |tx| {
                let (key, ctx) = (key.clone(), ctx.clone());
                Box::pin(async move {
                    let mut server = living_in(tx, &key).await?;
                    refuse_if_locked(&ctx, &server)?;
                    if server.wanted.delete {
                        return Ok(());
                    }
                    server.record.wanted.delete = true;
                    server.record.wanted.generation += 1;
                    server.record.task_state = Some(TaskState::Deleting);
                    server.record.changed_us = clock::now_us();
                    let log = action::started(
                        &ctx,
                        &key,
                        &server.project_id,
                        "delete",
                        vec![Event::began("compute_terminate_instance")],
                    );
                    action::insert_in(tx, log).await?;
                    tx.update(&server).await?;
                    Ok::<_, Fault>(())
                })
            })
            .await?;
        self.poke(id);
        Ok(())
    }

    /// Takes what a host said of one of its servers. Writes only when something changed.
    pub async fn observe(&self, host: &str, id: &str, seen: Seen) -> Result<(), Fault> {
        let (key, host) = (id.to_owned(), host.to_owned());
        let known = self.store.get::<Server>(id).await?;
        if known.as_ref().is_some_and(|s| s.moving.is_some()) {
            self.observe_move(&host, id, &seen).await?;
        }
        if known.is_none_or(|s| s.host.as_deref() != Some(&host) || s.seen.as_ref() == Some(&seen) && !needs_look(&s)) {
            return Ok(());
        }
        self.store
            .write(move |tx| {
                let (key, host, seen) = (key.clone(), host.clone(), seen.clone());
                Box::pin(async move {
                    let Some(mut server) = tx.get::<Server>(&key).await? else { return Ok(()) };
                    if server.host.as_deref() != Some(&host) {
                        return Ok(());
                    }
                    let before = (server.vm_state, server.task_state);
                    let ended = model::settle(&mut server.record, seen, clock::now_us());
                    if let Some(ended) = &ended {
                        migration::cold::settled_in(tx, &mut server.record, before.1, ended).await?;
                    }
                    volume::ops::settle_in(tx, &mut server.record).await?;
                    if (server.vm_state, server.task_state) != before {
                        server.record.changed_us = clock::now_us();
                    }
                    if let Some(ended) = ended {
                        action::finish_latest_in(tx, &key, &ended, Some(&host)).await?;
                    }
                    tx.update(&server).await?;
                    Ok::<_, Fault>(())
                })
            })
            .await?;
        self.poke(id);
        Ok(())
    }

    /// The server cannot be: ERROR with the reason.
    pub async fn fail_server(&self, id: &str, code: u16, message: &str) -> Result<(), Fault> {
        let (key, message) = (id.to_owned(), message.to_owned());
        self.store
            .write(move |tx| {
                let (key, message) = (key.clone(), message.clone());
                Box::pin(async move {
                    let mut server = living_in(tx, &key).await?;
                    server.record.vm_state = VmState::Error;
                    server.record.task_state = None;
                    server.record.changed_us = clock::now_us();
                    let fault =
                        FaultOf { code, message: message.clone(), details: String::new(), created_us: clock::now_us() };
                    server.record.fault = Some(fault);
                    action::finish_latest_in(tx, &key, &Ended::Badly(message), None).await?;
                    tx.update(&server).await?;
                    Ok::<_, Fault>(())
                })
            })
            .await
    }

    /// The newest action log of a server first.
    pub async fn actions(&self, id: &str) -> Result<Vec<Stored<Action>>, Fault> {
        let mut actions = self.store.list::<Action>(Query::all().eq("server_id", id)).await?;
        actions.sort_by_key(|a| std::cmp::Reverse(a.start_us));
        Ok(actions)
    }
}

/// The same words again may still end a task that began since.
fn needs_look(server: &Server) -> bool {
    let moving = |volume: &VolumeOf| volume.stage != VolumeStage::Attached;
    server.task_state.is_some() || server.vm_state == VmState::Building || server.volumes.iter().any(moving)
}

pub(crate) async fn living_in(tx: &mut Tx, id: &str) -> Result<Stored<Server>, Fault> {
    let found = tx.get::<Server>(id).await?;
    found.filter(|s| s.vm_state != VmState::Deleted).ok_or_else(|| fault::server_not_found(id))
}

async fn change_in(tx: &mut Tx, id: &str, change: impl Fn(&mut Server) -> Changed) -> Result<Stored<Server>, Fault> {
    let mut server = living_in(tx, id).await?;
    if !change(&mut server.record)? {
        return Ok(server);
    }
    server.record.changed_us = clock::now_us();
    Ok(tx.update(&server).await?)
}

/// 409 for whoever is not above the lock.
pub fn refuse_if_locked(ctx: &Ctx, server: &Server) -> Result<(), Fault> {
    match &server.locked {
        Some(_) if !ctx.caller.has_role("admin") => Err(Fault::conflict(format!("Instance {} is locked", server.id))),
        _ => Ok(()),
    }
}
