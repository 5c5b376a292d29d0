//! The verbs of candidates; the only writer of a router's list of them, and of their ports.
use super::{
    model::{CENTRE, Candidate, FIRST, MOST, PRIORITY_MAX, SPARE_INTERFACE, choose},
    network,
};
use crate::{
    fault,
    host::{HostInfo, find_host},
    hosting::{
        self,
        model::{Hosting, Task, holder},
    },
    port::{
        model::{Port, Status},
        ops::{self as ports, NewPort},
    },
    router::model::Router,
    tables::find,
};
use pilvi_kit::{Ctx, Fault};
use pilvi_store::{Stored, Tx};

/// A router changes: what it is not to have any longer goes with the change. The caller writes the router.
pub async fn follow_in(tx: &mut Tx, router: &mut Router) -> Result<(), Fault> {
    if router.ha {
        network::ensure_in(tx, &router.project_id).await?;
    }
    if !router.keeps_spares() {
        for candidate in std::mem::take(&mut router.candidates) {
            drop_port_in(tx, &candidate.port_id).await?;
        }
    }
    if !(router.keeps_spares() && router.distributed)
        && let Some(port) = router.centre_port_id.take()
    {
        drop_port_in(tx, &port).await?;
    }
    Ok(())
}

/// Gives a router the candidates that it should have, and has their ports say what is true of their hosts.
pub async fn settle_in(tx: &mut Tx, router_id: &str, hosts: &[HostInfo]) -> Result<(), Fault> {
    // Whoever knows of no host knows of none that is gone.
    if hosts.is_empty() {
        return Ok(());
    }
    let Some(mut router) = tx.get::<Router>(router_id).await? else { return Ok(()) };
    let before = (router.candidates.clone(), router.centre_port_id.clone());
    follow_in(tx, &mut router.record).await?;
    if router.keeps_spares() {
        let wishes: Vec<Hosting> =
            tx.list::<Hosting>(find::hosting(router_id)).await?.into_iter().map(|h| h.record).collect();
        let network = network::ensure_in(tx, &router.project_id).await?;
        let mut chosen = choose(&router, &wishes, hosts);
        for gone in router.candidates.iter().filter(|c| chosen.iter().all(|new| new.host != c.host)) {
            drop_port_in(tx, &gone.port_id).await?;
        }
        for candidate in &mut chosen {
            let up = find_host(hosts, &candidate.host).is_some_and(|h| h.up);
            let place = Place { network: &network, owner: SPARE_INTERFACE, host: &candidate.host, up };
            candidate.port_id = port_in(tx, &router, &candidate.port_id, place).await?;
        }
        router.candidates = chosen;
        if router.distributed {
            let had = router.centre_port_id.clone().unwrap_or_default();
            let there = holder(&wishes, &router, hosts);
            let host = there.map_or("", |h| h.name.as_str());
            let place = Place { network: &network, owner: CENTRE, host, up: there.is_some() };
            router.centre_port_id = Some(port_in(tx, &router, &had, place).await?);
        }
    }
    if before != (router.candidates.clone(), router.centre_port_id.clone()) {
        tx.update(&router).await?;
    }
    Ok(())
}

/// What a port says.
struct Place<'p> {
    network: &'p str,
    owner: &'p str,
    /// "": stays where it was.
    host: &'p str,
    up: bool,
}

/// Has a port say so, and makes it if it is not there; gives its id.
async fn port_in(tx: &mut Tx, router: &Router, id: &str, place: Place<'_>) -> Result<String, Fault> {
    let status = if place.up { Status::Active } else { Status::Down };
    let known = if id.is_empty() { None } else { tx.get::<Port>(id).await? };
    let mut port = match known {
        Some(port) => port,
        None => {
            let new = NewPort {
                project_id: Some(String::new()),
                network_id: place.network.to_owned(),
                name: format!("HA port project {}", router.project_id),
                device_id: router.id.clone(),
                device_owner: place.owner.to_owned(),
                host_id: place.host.to_owned(),
                ..NewPort::default()
            };
            ports::create_in(tx, &Ctx::internal(), new).await?
        }
    };
    let host = if place.host.is_empty() { port.host_id.clone() } else { place.host.to_owned() };
    if port.status != status || port.host_id != host {
        (port.status, port.host_id) = (status, host);
        tx.update(&port).await?;
    }
    Ok(port.record.id)
}

async fn drop_port_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    match tx.get::<Port>(id).await? {
        Some(port) => ports::remove_in(tx, &port).await,
        None => Ok(()),
    }
}

fn check_priority(router: &Router, host: &str, priority: u32) -> Result<(), Fault> {
    if priority > PRIORITY_MAX {
        return Err(bad_priority());
    }
    if router.candidates.iter().any(|c| c.priority == priority && c.host != host) {
        return Err(fault::conflict(
            "HAChassisPriorityAlreadyAssigned",
            format!("HA Chassis priority {priority} is already assigned"),
        ));
    }
    Ok(())
}

pub fn bad_priority() -> Fault {
    fault::bad("InvalidHAChassisPriority", format!("HA Chassis priority must be between 0 and {PRIORITY_MAX}"))
}

fn sort(candidates: &mut [Candidate]) {
    candidates.sort_by_key(|c| std::cmp::Reverse(c.priority));
}

/// An operator has a host stand by; `None`: below all others.
pub async fn add_in(tx: &mut Tx, mut router: Stored<Router>, host: &str, priority: Option<u32>) -> Result<(), Fault> {
    if router.candidates.len() >= MOST {
        return Err(fault::conflict(
            "RouterSchedulingFailed",
            format!("Failed scheduling router {}: {MOST} hosts stand by for it.", router.id),
        ));
    }
    let lowest = router.candidates.last().map_or(FIRST + 1, |c| c.priority);
    let wanted = priority.or_else(|| lowest.checked_sub(1)).ok_or_else(bad_priority)?;
    check_priority(&router, host, wanted)?;
    hosting::ops::set_in(tx, &Hosting::new(Task::Route, &router.id, host, true)).await?;
    if !router.keeps_spares() {
        return match priority {
            None => Ok(()),
            Some(_) => Err(fault::conflict(
                "RouterSchedulingFailed",
                format!("Failed scheduling router {}: it has no way out whose hosts could have priorities.", router.id),
            )),
        };
    }
    let network = network::ensure_in(tx, &router.project_id).await?;
    // Whether it lives is for the reconciler to see.
    let place = Place { network: &network, owner: SPARE_INTERFACE, host, up: false };
    let port_id = port_in(tx, &router, "", place).await?;
    router.candidates.push(Candidate { host: host.to_owned(), priority: wanted, port_id });
    sort(&mut router.candidates);
    tx.update(&router).await?;
    Ok(())
}

/// An operator changes the order.
pub async fn reorder_in(tx: &mut Tx, mut router: Stored<Router>, host: &str, priority: u32) -> Result<(), Fault> {
    check_priority(&router, host, priority)?;
    router.candidates.iter_mut().filter(|c| c.host == host).for_each(|c| c.priority = priority);
    sort(&mut router.candidates);
    tx.update(&router).await?;
    Ok(())
}

/// An operator has a host stand by no longer: it is not chosen again until somebody asks it to.
pub async fn take_away_in(tx: &mut Tx, mut router: Stored<Router>, host: &str) -> Result<(), Fault> {
    hosting::ops::set_in(tx, &Hosting::new(Task::Route, &router.id, host, false)).await?;
    let Some(gone) = router.candidate(host).cloned() else { return Ok(()) };
    drop_port_in(tx, &gone.port_id).await?;
    router.candidates.retain(|c| c.host != host);
    tx.update(&router).await?;
    Ok(())
}
