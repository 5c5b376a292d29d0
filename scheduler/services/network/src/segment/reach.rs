//! Which hosts reach which segments, and what that means for the addresses of ports.
use super::model::{HostReach, Segment};
use crate::{
    Network, fault,
    host::HostInfo,
    port::{
        allocation::{self, Allocated, Holder},
        model::{FixedIp, Port},
    },
    subnet::model::Subnet,
    tables::find,
};
use pilvi_kit::Fault;
use pilvi_store::{Stored, Tx};
use std::collections::{BTreeSet, HashSet};

impl Network {
    /// Keeps what hosts say of their wires where transactions can see it; writes only what is new. Before [`Network::remember`].
    ///
    /// # Errors
    /// Those of the store.
    pub async fn learn_reach(&self, hosts: &[HostInfo]) -> Result<(), Fault> {
        // What was remembered has been learnt before: one host that comes costs no look at ten thousand records.
        let remembered = self.hosts();
        let learnt: HashSet<_> = remembered.iter().map(|host| (&host.name, &host.physical)).collect();
        for host in hosts.iter().filter(|host| !learnt.contains(&(&host.name, &host.physical))) {
            let said = HostReach { id: host.name.clone(), physical: host.physical.clone() };
            let known = self.store.get::<HostReach>(&said.id).await?.map(|found| found.record);
            if known.as_ref() == Some(&said) || (known.is_none() && said.physical.is_none()) {
                continue;
            }
            self.store
                .write(move |tx| {
                    let said = said.clone();
                    Box::pin(async move {
                        match tx.get::<HostReach>(&said.id).await? {
                            Some(mut found) => {
                                found.record = said;
                                tx.update(&found).await?;
                            }
                            None => {
                                tx.insert(&said).await?;
                            }
                        }
                        Ok::<_, Fault>(())
                    })
                })
                .await?;
        }
        Ok(())
    }
}

/// Is the network of these subnets routed?
pub fn is_routed(subnets: &[Stored<Subnet>]) -> bool {
    subnets.iter().any(|s| s.segment_id.is_some())
}

/// The segments of a network that a host reaches.
pub async fn reached_in(tx: &mut Tx, host: &str, network_id: &str) -> Result<BTreeSet<String>, Fault> {
    let host = tx.get::<HostReach>(host).await?.map(|found| found.record);
    let host = host.unwrap_or(HostReach { id: String::new(), physical: None });
    let segments = tx.list::<Segment>(find::on_network(network_id)).await?;
    let reached = segments.into_iter().filter(|s| host.reaches(s.physical_network.as_deref()));
    Ok(reached.map(|s| s.record.id).collect())
}

pub fn not_connected(host: &str, network_id: &str) -> Fault {
    fault::conflict(
        "HostNotConnectedToAnySegment",
        format!(
            "Host {host} is not connected to any segments on routed provider network '{network_id}'. It should be connected to one."
        ),
    )
}

/// 409 if addresses of a port do not work on its host.
pub async fn check_in(
    tx: &mut Tx,
    holder: Holder<'_>,
    subnets: &[Stored<Subnet>],
    fixed: &[FixedIp],
) -> Result<(), Fault> {
    let of = |f: &FixedIp| subnets.iter().find(|s| s.id == f.subnet_id).and_then(|s| s.segment_id.as_ref());
    let segments: BTreeSet<&String> = fixed.iter().filter_map(of).collect();
    if segments.is_empty() {
        return Ok(());
    }
    let reached = reached_in(tx, holder.host, holder.network_id).await?;
    if segments.into_iter().all(|segment| reached.contains(segment)) {
        return Ok(());
    }
    Err(not_compatible(holder.host, holder.port_id))
}

fn not_compatible(host: &str, port: &str) -> Fault {
    fault::conflict(
        "HostNotCompatibleWithFixedIps",
        format!(
            "Host {host} is not connected to a segment where the existing fixed_ips on port {port} will function given the routed network topology."
        ),
    )
}

/// A port is about to be on `host`: it gets the addresses that it has waited for, or those that it has must work there.
pub async fn settle_in(tx: &mut Tx, port: &mut Port, host: &str) -> Result<(), Fault> {
    if host.is_empty() || port.device_owner.starts_with("network:") {
        return Ok(());
    }
    let subnets = tx.list::<Subnet>(find::on_network(&port.network_id)).await?;
    if !is_routed(&subnets) {
        if port.deferred && !subnets.is_empty() {
            take(port, allocation::allocate_in(tx, port.clone().holder(), None).await?);
        }
        return Ok(());
    }
    let mut there = port.clone();
    host.clone_into(&mut there.host_id);
    if !port.deferred {
        return check_in(tx, there.holder(), &subnets, &port.fixed_ips).await;
    }
    take(port, allocation::allocate_in(tx, there.holder(), None).await?);
    Ok(())
}

fn take(port: &mut Port, allocated: Allocated) {
    match allocated {
        Allocated::Now(fixed) => (port.fixed_ips, port.deferred) = (fixed, false),
        Allocated::Later => port.deferred = true,
    }
}
