//! Where a routed network has addresses left, for who chooses hosts and for who counts.
//!
//! ```text
//!  IPv4 subnets of a segment --stock----> how many addresses, how many are taken
//!  ports of a server --------hosts_for--> hosts that reach, for each port, a segment that would serve it
//! ```
//! Both are hints as of now: an address is taken by the transaction that brings a port to its host, and by nothing else.
use super::{
    model::{HostReach, Segment},
    reach::is_routed,
};
use crate::{
    address,
    port::model::Port,
    subnet::model::Subnet,
    tables::{AddressLease, find},
};
use pilvi_kit::Fault;
use pilvi_store::{Store, Stored};
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

/// IPv4 addresses of one segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stock {
    /// Those of its pools, and its gateways'.
    pub total: u64,
    /// Gateways', and those of the pools that ports have.
    pub taken: u64,
}

/// Segments with IPv4 subnets.
pub async fn stocked(store: &Store) -> Result<BTreeSet<String>, Fault> {
    let subnets = store.list::<Subnet>(find::on_segments()).await?;
    Ok(subnets.into_iter().filter(|s| s.ip_version == 4).filter_map(|s| s.record.segment_id).collect())
}

/// What a segment has; `None` where that is no IPv4 address, or the segment is no more.
pub async fn stock(store: &Store, segment: &str) -> Result<Option<Stock>, Fault> {
    let mut stock = Stock::default();
    for subnet in store.list::<Subnet>(find::on_segment(segment)).await?.iter().filter(|s| s.ip_version == 4) {
        let ranges = address::ranges(&subnet.allocation_pools);
        // There is no port that answers DHCP, so none is kept for it.
        let gateway = u64::from(subnet.gateway_ip.is_some());
        stock.total += u64::try_from(address::size(&ranges)).unwrap_or(u64::MAX) + gateway;
        stock.taken += pooled(store, &subnet.id, &ranges).await? + gateway;
    }
    Ok((stock.total > 0).then_some(stock))
}

/// How many addresses of a subnet's pools are taken.
async fn pooled(store: &Store, subnet: &str, ranges: &[address::Range]) -> Result<u64, Fault> {
    let leases = store.list::<AddressLease>(find::on_subnet(subnet)).await?;
    let numbers = leases.iter().filter_map(|lease| lease.address.parse().ok()).map(address::number);
    Ok(numbers.filter(|n| address::in_ranges(ranges, *n)).count() as u64)
}

async fn has_free(store: &Store, subnet: &Subnet) -> Result<bool, Fault> {
    let ranges = address::ranges(&subnet.allocation_pools);
    let size = address::size(&ranges);
    // Addresses outside of the pools are counted too, so this says yes too rarely, and never wrongly.
    if u128::from(store.count::<AddressLease>(find::on_subnet(&subnet.id)).await?) < size {
        return Ok(true);
    }
    Ok(u128::from(pooled(store, &subnet.id, &ranges).await?) < size)
}

/// Would these subnets give a port of this owner an address of each family?
async fn has_room(store: &Store, subnets: &[&Stored<Subnet>], owner: &str) -> Result<bool, Fault> {
    for version in [4, 6] {
        let (mut asked, mut found) = (false, false);
        for subnet in subnets.iter().filter(|s| s.gives(version, owner)) {
            asked = true;
            if has_free(store, subnet).await? {
                found = true;
                break;
            }
        }
        if asked && !found {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What all hosts say of their wires.
#[derive(Debug)]
pub struct Wires(HashMap<String, HostReach>);

impl Wires {
    pub async fn read(store: &Store) -> Result<Self, Fault> {
        let all = store.list::<HostReach>(find::all()).await?;
        Ok(Wires(all.into_iter().map(|said| (said.id.clone(), said.record)).collect()))
    }

    pub fn reaches(&self, host: &str, segment: &Segment) -> bool {
        self.0.get(host).is_none_or(|said| said.reaches(segment.physical_network.as_deref()))
    }
}

/// A port that a server has, or shall have.
#[derive(Debug, Clone, Default)]
pub struct Wish<'w> {
    pub port: Option<&'w str>,
    /// Of a port that is yet to be made, with the address that was asked for.
    pub network: Option<&'w str>,
    pub address: Option<&'w str>,
    pub owner: &'w str,
}

/// Those of the hosts that reach a segment for each of the ports. `None`: all do, no port is on a routed network.
pub async fn hosts_for<'h>(
    store: &Store,
    wishes: &[Wish<'_>],
    hosts: impl IntoIterator<Item = &'h str>,
) -> Result<Option<BTreeSet<String>>, Fault> {
    let mut serving = Vec::new();
    for wish in wishes {
        serving.extend(segments_for(store, wish).await?);
    }
    if serving.is_empty() {
        return Ok(None);
    }
    let wires = Wires::read(store).await?;
    let fits = |host: &&str| serving.iter().all(|any| any.iter().any(|segment| wires.reaches(host, segment)));
    Ok(Some(hosts.into_iter().filter(fits).map(str::to_owned).collect()))
}

/// The segments that would serve a port; `None` where its host makes no difference.
async fn segments_for(store: &Store, wish: &Wish<'_>) -> Result<Option<Vec<Segment>>, Fault> {
    let port = match wish.port {
        Some(id) => store.get::<Port>(id).await?,
        None => None,
    };
    let Some(network) = port.as_ref().map(|p| p.network_id.as_str()).or(wish.network) else { return Ok(None) };
    let subnets = store.list::<Subnet>(find::on_network(network)).await?;
    if !is_routed(&subnets) {
        return Ok(None);
    }
    let mut serving: BTreeSet<&str> = BTreeSet::new();
    match port.as_ref().filter(|p| !p.deferred) {
        Some(port) => {
            let has = |s: &&Stored<Subnet>| port.fixed_ips.iter().any(|f| f.subnet_id == s.id);
            serving.extend(subnets.iter().filter(has).filter_map(|s| s.segment_id.as_deref()));
        }
        None if wish.address.is_some() => {
            let address: Option<IpAddr> = wish.address.and_then(|text| text.parse().ok());
            let holds = |s: &&Stored<Subnet>| address.is_some_and(|ip| s.net().is_some_and(|net| net.contains(&ip)));
            serving.extend(subnets.iter().filter(holds).filter_map(|s| s.segment_id.as_deref()));
        }
        None => return with_room(store, network, &subnets, wish.owner).await.map(Some),
    }
    // Without an address, or with one that is nowhere, it is not the host that decides.
    if serving.is_empty() {
        return Ok(None);
    }
    let segments = store.list::<Segment>(find::on_network(network)).await?;
    Ok(Some(segments.into_iter().map(|s| s.record).filter(|s| serving.contains(s.id.as_str())).collect()))
}

/// The segments of a routed network that would give a port addresses.
async fn with_room(
    store: &Store,
    network: &str,
    subnets: &[Stored<Subnet>],
    owner: &str,
) -> Result<Vec<Segment>, Fault> {
    let mut serving = Vec::new();
    for segment in store.list::<Segment>(find::on_network(network)).await? {
        let on: Vec<&Stored<Subnet>> = subnets.iter().filter(|s| s.segment_id.as_ref() == Some(&segment.id)).collect();
        if !on.is_empty() && has_room(store, &on, owner).await? {
            serving.push(segment.record);
        }
    }
    Ok(serving)
}
