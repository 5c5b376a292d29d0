//! The verbs on a server's interfaces: port, list of ports and wanted generation change in one transaction.
//!
//! The host wires a new port and gives the device to the running guest; a paused one gets it when it goes on, one that is
//! off with its next start. A device that is taken away goes once the guest lets go of it.
use crate::{
    Compute, action,
    server::{
        model::{Ended, VmState},
        ops::{living_in, refuse_if_locked},
        reconcile::{owner, wire_one_in},
        resize::reclaim_in,
    },
    tables::{Event, NetworkWish, Server},
};
use pilvi_kit::{Ctx, Fault, clock};
use pilvi_network::{network::ops as networks, port::ops as ports};
use pilvi_store::{Stored, Tx};

/// Interfaces that one server may have.
const PORTS_MAX: usize = 32;

/// 409 unless the server is at rest in a state where its interfaces may change.
fn refuse_busy(server: &Server, verb: &str) -> Result<(), Fault> {
    if let Some(task) = server.task_state {
        return Err(Fault::conflict(format!(
            "Cannot '{verb}' instance {} while it is in task_state {}",
            server.id,
            task.as_str()
        )));
    }
    if !matches!(server.vm_state, VmState::Active | VmState::Paused | VmState::Stopped) {
        return Err(Fault::conflict(format!(
            "Cannot '{verb}' instance {} while it is in vm_state {}",
            server.id,
            server.vm_state.as_str()
        )));
    }
    Ok(())
}

async fn log_in(tx: &mut Tx, ctx: &Ctx, server: &Server, verb: &str) -> Result<(), Fault> {
    let event = format!("compute_{verb}");
    let mut log = action::started(ctx, &server.id, &server.project_id, verb, vec![Event::began(&event)]);
    action::finish(&mut log, &Ended::Well, server.host.as_deref());
    action::insert_in(tx, log).await
}

impl Compute {
    /// Gives the server one more interface: the port of the wish, or a new one on its network (none: the
    /// project's only network). Gives back the server and the port's id.
    pub async fn attach_interface(
        &self,
        ctx: &Ctx,
        server: &Stored<Server>,
        mut wish: NetworkWish,
    ) -> Result<(Stored<Server>, String), Fault> {
        const VERB: &str = "attach_interface";
        refuse_busy(server, VERB)?;
        if let Some(id) = &wish.port_id {
            let port = ports::visible(&self.store, ctx, id)
                .await
                .map_err(|_| Fault::not_found(format!("Port id {id} could not be found.")))?;
            if port.device_profile.is_some() {
                return Err(Fault::bad_request("Feature not supported with Ports that have accelerators."));
            }
            if port.hardware_offload_type.is_some() {
                return Err(Fault::bad_request("No host has devices for ports with hardware offload."));
            }
        } else if let Some(id) = &wish.network_id {
            networks::visible(&self.store, ctx, id)
                .await
                .map_err(|_| Fault::not_found(format!("Network {id} could not be found.")))?;
        } else {
            let chosen = networks::choose_for_server(&self.store, ctx).await;
            let chosen = chosen.map_err(|f| if f.code() == 409 { Fault::bad_request(f.message) } else { f })?;
            wish.network_id =
                Some(chosen.into_iter().next().ok_or_else(|| Fault::bad_request("No network to attach."))?);
        }
        let (id, ctx) = (server.record.id.clone(), ctx.clone());
        let done = self
            .store
            .write(move |tx| {
                let (id, ctx, wish) = (id.clone(), ctx.clone(), wish.clone());
                Box::pin(async move {
                    let mut server = living_in(tx, &id).await?;
                    refuse_if_locked(&ctx, &server)?;
                    refuse_busy(&server, VERB)?;
                    if server.ports.len() >= PORTS_MAX {
                        return Err(Fault::forbidden(format!("A server has at most {PORTS_MAX} interfaces.")));
                    }
                    let Some(host) = server.host.clone() else {
                        return Err(Fault::conflict(format!("Instance {id} is not ready")));
                    };
                    if wish.port_id.as_ref().is_some_and(|p| server.ports.iter().any(|have| have.id == *p)) {
                        return Err(Fault::conflict("The port is still in use.").kind("PortInUse"));
                    }
                    let port = wire_one_in(tx, &owner(&server), &server, &wish, &host).await?;
                    let port_id = port.id.clone();
                    server.record.ports.push(port);
                    reclaim_in(tx, &server).await?;
                    server.record.wanted.generation += 1;
                    server.record.changed_us = clock::now_us();
                    log_in(tx, &ctx, &server, VERB).await?;
                    Ok::<_, Fault>((tx.update(&server).await?, port_id))
                })
            })
            .await?;
        self.poke(&done.0.record.id);
        Ok(done)
    }

    /// Takes an interface away; a port that was made for the server is deleted, another is set free.
    pub async fn detach_interface(&self, ctx: &Ctx, server_id: &str, port_id: &str) -> Result<(), Fault> {
        const VERB: &str = "detach_interface";
        let (id, port_id, ctx) = (server_id.to_owned(), port_id.to_owned(), ctx.clone());
        self.store
            .write(move |tx| {
                let (id, port_id, ctx) = (id.clone(), port_id.clone(), ctx.clone());
                Box::pin(async move {
                    let mut server = living_in(tx, &id).await?;
                    refuse_if_locked(&ctx, &server)?;
                    let Some(at) = server.ports.iter().position(|p| p.id == port_id) else {
                        return Err(Fault::not_found(format!("Port {port_id} is not attached to instance {id}")));
                    };
                    refuse_busy(&server, VERB)?;
                    let port = server.record.ports.remove(at);
                    let gone = if port.ours {
                        ports::delete_in(tx, &owner(&server), &port.id).await
                    } else {
                        ports::release_device_in(tx, &port.id).await.map(|_| ())
                    };
                    match gone {
                        Err(fault) if fault.code() != 404 => return Err(fault),
                        _ => {}
                    }
                    reclaim_in(tx, &server).await?;
                    server.record.wanted.generation += 1;
                    server.record.changed_us = clock::now_us();
                    log_in(tx, &ctx, &server, VERB).await?;
                    tx.update(&server).await?;
                    Ok::<_, Fault>(())
                })
            })
            .await?;
        self.poke(server_id);
        Ok(())
    }
}
