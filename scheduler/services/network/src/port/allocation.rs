//! Which addresses a port gets: the wishes of the client, or one of each family.
//!
//! An address is held by an [`AddressLease`], whose id and claim are unique in the store, so two racing
//! creates can never both keep one. Free addresses are found by drawing at random (a draw is one look-up by
//! key), and only in a subnet so full that draws keep failing by looking for a gap.
use super::model::{FixedIp, Port, ROUTER_INTERFACE};
use crate::{
    address, fault,
    segment::reach,
    subnet::model::Subnet,
    tables::{AddressLease, find},
};
use pilvi_kit::Fault;
use pilvi_store::{Stored, Tx};
use serde::Deserialize;
use std::net::IpAddr;

/// One entry of `fixed_ips` as a client sends it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Wish {
    pub subnet_id: Option<String>,
    pub ip_address: Option<String>,
}

/// For whom addresses are allocated.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'p> {
    pub port_id: &'p str,
    pub network_id: &'p str,
    pub mac: &'p str,
    pub device_owner: &'p str,
    /// "": nobody knows yet.
    pub host: &'p str,
}

/// What a port got.
#[derive(Debug)]
pub enum Allocated {
    Now(Vec<FixedIp>),
    /// Its network is routed, and which addresses would work depends on its host.
    Later,
}

impl Holder<'_> {
    fn is_own(&self) -> bool {
        self.device_owner.starts_with("network:")
    }
    fn is_router(&self) -> bool {
        self.device_owner == ROUTER_INTERFACE
    }
}

/// Draws before gaps are looked for.
const DRAWS: usize = 12;

/// Allocates for a new port, or for one whose addresses were all taken away.
pub async fn allocate_in(tx: &mut Tx, holder: Holder<'_>, wishes: Option<&[Wish]>) -> Result<Allocated, Fault> {
    let mut subnets: Vec<Stored<Subnet>> = tx.list::<Subnet>(find::on_network(holder.network_id)).await?;
    let mut got = match wishes {
        Some(wishes) => wished(tx, holder, &subnets, wishes).await?,
        None if reach::is_routed(&subnets) && !holder.is_own() => {
            if holder.host.is_empty() {
                return Ok(Allocated::Later);
            }
            by_segment(tx, holder, &subnets).await?
        }
        None => usual(tx, holder, &subnets).await?,
    };
    one_segment(holder, &mut subnets, &got)?;
    if !holder.host.is_empty() && !holder.is_own() {
        reach::check_in(tx, holder, &subnets, &got).await?;
    }
    let explicitly_none = wishes.is_some_and(<[Wish]>::is_empty);
    if !holder.is_router() && !explicitly_none {
        for subnet in subnets.iter().filter(|s| s.is_auto_address()) {
            if got.iter().all(|f| f.subnet_id != subnet.id) {
                got.extend(self_made(tx, holder, subnet).await?);
            }
        }
    }
    Ok(Allocated::Now(got))
}

/// Addresses of one of the segments that the host reaches: of the first that has some left.
async fn by_segment(tx: &mut Tx, holder: Holder<'_>, subnets: &[Stored<Subnet>]) -> Result<Vec<FixedIp>, Fault> {
    let reached = reach::reached_in(tx, holder.host, holder.network_id).await?;
    let mut last = reach::not_connected(holder.host, holder.network_id);
    for segment in reached {
        let on: Vec<Stored<Subnet>> =
            subnets.iter().filter(|s| s.segment_id.as_ref() == Some(&segment)).cloned().collect();
        if on.is_empty() {
            continue;
        }
        match usual(tx, holder, &on).await {
            Err(full) if full.kind == "IpAddressGenerationFailure" => last = full,
            other => return other,
        }
    }
    Err(last)
}

/// 400 for addresses of two segments; only the segment's subnets stay among those that more may come from.
fn one_segment(holder: Holder<'_>, subnets: &mut Vec<Stored<Subnet>>, got: &[FixedIp]) -> Result<(), Fault> {
    let of = |f: &FixedIp| subnets.iter().find(|s| s.id == f.subnet_id).and_then(|s| s.segment_id.clone());
    let mut segments: Vec<Option<String>> = got.iter().map(of).collect();
    segments.dedup();
    match segments.as_slice() {
        [] => Ok(()),
        [one] => {
            subnets.retain(|s| s.segment_id == *one);
            Ok(())
        }
        _ if holder.is_own() => Ok(()),
        _ => Err(fault::bad("FixedIpsSubnetsNotOnSameSegment", "Cannot allocate addresses from different segments.")),
    }
}

/// One address of each family that has subnets with addresses to give.
async fn usual(tx: &mut Tx, holder: Holder<'_>, subnets: &[Stored<Subnet>]) -> Result<Vec<FixedIp>, Fault> {
    let mut got = Vec::new();
    for version in [4, 6] {
        let able: Vec<&Stored<Subnet>> = subnets.iter().filter(|s| s.gives(version, holder.device_owner)).collect();
        if able.is_empty() {
            continue;
        }
        let mut found = None;
        for subnet in able {
            found = free_in(tx, holder, subnet).await?;
            if found.is_some() {
                break;
            }
        }
        let Some(found) = found else {
            // Another segment may have both: what this one has given goes back.
            release_in(tx, &got).await?;
            return Err(fault::no_address(holder.network_id));
        };
        got.push(found);
    }
    Ok(got)
}

async fn wished(
    tx: &mut Tx,
    holder: Holder<'_>,
    subnets: &[Stored<Subnet>],
    wishes: &[Wish],
) -> Result<Vec<FixedIp>, Fault> {
    let mut got = Vec::new();
    // Named addresses first, so that a drawn one is not one of them.
    for wish in wishes.iter().filter(|w| w.ip_address.is_some()) {
        let address = wish.ip_address.as_deref().unwrap_or_default();
        let subnet = subnet_for(subnets, wish, address)?;
        got.extend(named(tx, holder, subnet, address).await?);
    }
    for wish in wishes.iter().filter(|w| w.ip_address.is_none()) {
        let Some(id) = wish.subnet_id.as_deref() else {
            return Err(fault::invalid("IP allocation requires subnet_id or ip_address"));
        };
        let subnet = own_subnet(subnets, id, holder.network_id)?;
        if subnet.is_auto_address() && !holder.is_router() {
            got.extend(self_made(tx, holder, subnet).await?);
        } else {
            got.push(free_in(tx, holder, subnet).await?.ok_or_else(|| fault::no_address(holder.network_id))?);
        }
    }
    Ok(got)
}

fn own_subnet<'s>(subnets: &'s [Stored<Subnet>], id: &str, network_id: &str) -> Result<&'s Stored<Subnet>, Fault> {
    subnets.iter().find(|s| s.id == id).ok_or_else(|| {
        fault::invalid(format!(
            "Failed to create port on network {network_id}, because fixed_ips included invalid subnet {id}"
        ))
    })
}

fn subnet_for<'s>(subnets: &'s [Stored<Subnet>], wish: &Wish, address: &str) -> Result<&'s Stored<Subnet>, Fault> {
    let ip: IpAddr = address.parse().map_err(|_| fault::address_off_network(address))?;
    let holds = |s: &Stored<Subnet>| s.net().is_some_and(|n| n.contains(&ip) && (ip.is_ipv6() || is_host(&n, ip)));
    match &wish.subnet_id {
        Some(id) => {
            let subnet = subnets.iter().find(|s| s.id == *id).ok_or_else(|| {
                fault::invalid(format!("Failed to create port, because fixed_ips included invalid subnet {id}"))
            })?;
            if holds(subnet) {
                return Ok(subnet);
            }
            Err(fault::bad(
                "InvalidIpForSubnet",
                format!("IP address {address} is not a valid IP for the specified subnet."),
            ))
        }
        None => subnets.iter().find(|s| holds(s)).ok_or_else(|| fault::address_off_network(address)),
    }
}

fn is_host(net: &ipnet::IpNet, ip: IpAddr) -> bool {
    let hosts = address::hosts(net);
    (hosts.first..=hosts.last).contains(&address::number(ip))
}

async fn named(tx: &mut Tx, holder: Holder<'_>, subnet: &Subnet, address: &str) -> Result<Option<FixedIp>, Fault> {
    let own = subnet.net().and_then(|n| address::eui64(&n, holder.mac)).map(|ip| ip.to_string());
    if subnet.is_auto_address() && !holder.is_router() && own.as_deref() != Some(address) {
        return Err(fault::bad(
            "AllocationOnAutoAddressSubnet",
            format!(
                "IPv6 address {address} cannot be directly assigned to a port on subnet {} as the subnet is configured for automatic addresses",
                subnet.id
            ),
        ));
    }
    if tx.get::<AddressLease>(&AddressLease::key(&subnet.id, address)).await?.is_some() {
        return Err(fault::address_in_use(holder.network_id, address));
    }
    Ok(Some(lease_in(tx, holder, subnet, address).await?))
}

pub(crate) async fn lease_in(
    tx: &mut Tx,
    holder: Holder<'_>,
    subnet: &Subnet,
    address: &str,
) -> Result<FixedIp, Fault> {
    tx.insert(&AddressLease::new(&subnet.id, address, holder.port_id)).await?;
    Ok(FixedIp { subnet_id: subnet.id.clone(), ip_address: address.to_owned() })
}

/// The address that the guest makes of its MAC. `None` if somebody took it by name before.
async fn self_made(tx: &mut Tx, holder: Holder<'_>, subnet: &Subnet) -> Result<Option<FixedIp>, Fault> {
    let Some(ip) = subnet.net().and_then(|n| address::eui64(&n, holder.mac)) else { return Ok(None) };
    let address = ip.to_string();
    if tx.get::<AddressLease>(&AddressLease::key(&subnet.id, &address)).await?.is_some() {
        return Err(fault::address_in_use(holder.network_id, &address));
    }
    Ok(Some(lease_in(tx, holder, subnet, &address).await?))
}

fn draw(ranges: &[address::Range]) -> Option<u128> {
    address::pick(ranges, &mut rand::rng())
}

async fn free_in(tx: &mut Tx, holder: Holder<'_>, subnet: &Subnet) -> Result<Option<FixedIp>, Fault> {
    let ranges = address::ranges(&subnet.allocation_pools);
    let v4 = subnet.ip_version == 4;
    for _ in 0..DRAWS {
        let Some(address) = draw(&ranges).and_then(|n| address::from_number(v4, n)) else { return Ok(None) };
        let address = address.to_string();
        if tx.get::<AddressLease>(&AddressLease::key(&subnet.id, &address)).await?.is_none() {
            return Ok(Some(lease_in(tx, holder, subnet, &address).await?));
        }
    }
    let leases = tx.list::<AddressLease>(find::on_subnet(&subnet.id)).await?;
    let mut taken: Vec<u128> = leases.iter().filter_map(|l| l.address.parse().ok()).map(address::number).collect();
    taken.sort_unstable();
    match address::first_gap(&ranges, &taken).and_then(|n| address::from_number(v4, n)) {
        Some(ip) => Ok(Some(lease_in(tx, holder, subnet, &ip.to_string()).await?)),
        None => Ok(None),
    }
}

/// Gives addresses back.
pub async fn release_in(tx: &mut Tx, fixed: &[FixedIp]) -> Result<(), Fault> {
    for one in fixed {
        tx.delete::<AddressLease>(&AddressLease::key(&one.subnet_id, &one.ip_address)).await?;
    }
    Ok(())
}

/// Changes a port's addresses to what is wished: what it has and is wished stays, the rest goes.
pub async fn reallocate_in(
    tx: &mut Tx,
    holder: Holder<'_>,
    have: &[FixedIp],
    wishes: &[Wish],
) -> Result<Vec<FixedIp>, Fault> {
    let mut kept: Vec<FixedIp> = Vec::new();
    let mut open: Vec<Wish> = Vec::new();
    for wish in wishes {
        let same = |f: &&FixedIp| {
            wish.subnet_id.as_ref().is_none_or(|s| *s == f.subnet_id)
                && wish.ip_address.as_ref().is_none_or(|a| *a == f.ip_address)
                && (wish.subnet_id.is_some() || wish.ip_address.is_some())
        };
        let asked_by_name = |f: &FixedIp| {
            wish.ip_address.is_none() && wishes.iter().any(|w| w.ip_address.as_ref() == Some(&f.ip_address))
        };
        match have.iter().find(|f| same(f) && !kept.contains(f) && !asked_by_name(f)) {
            Some(found) => kept.push(found.clone()),
            None => open.push(wish.clone()),
        }
    }
    let gone: Vec<FixedIp> = have.iter().filter(|f| !kept.contains(f)).cloned().collect();
    release_in(tx, &gone).await?;
    if open.is_empty() {
        let subnets = tx.list::<Subnet>(find::on_network(holder.network_id)).await?;
        for subnet in subnets.iter().filter(|s| s.is_auto_address() && !holder.is_router() && !wishes.is_empty()) {
            if kept.iter().all(|f| f.subnet_id != subnet.id) {
                kept.extend(self_made(tx, holder, subnet).await?);
            }
        }
        return Ok(kept);
    }
    let fresh = allocate_more_in(tx, holder, &open, &kept).await?;
    let on_kept = |f: &FixedIp| kept.iter().any(|k| k.subnet_id == f.subnet_id && k.ip_address == f.ip_address);
    let fresh: Vec<FixedIp> = fresh.into_iter().filter(|f| !on_kept(f)).collect();
    kept.extend(fresh);
    Ok(kept)
}

async fn allocate_more_in(
    tx: &mut Tx,
    holder: Holder<'_>,
    open: &[Wish],
    kept: &[FixedIp],
) -> Result<Vec<FixedIp>, Fault> {
    let mut subnets: Vec<Stored<Subnet>> = tx.list::<Subnet>(find::on_network(holder.network_id)).await?;
    let mut got = wished(tx, holder, &subnets, open).await?;
    let all: Vec<FixedIp> = got.iter().chain(kept).cloned().collect();
    one_segment(holder, &mut subnets, &all)?;
    if !holder.host.is_empty() && !holder.is_own() {
        reach::check_in(tx, holder, &subnets, &all).await?;
    }
    for subnet in subnets.iter().filter(|s| s.is_auto_address() && !holder.is_router()) {
        if got.iter().chain(kept).all(|f| f.subnet_id != subnet.id) {
            got.extend(self_made(tx, holder, subnet).await?);
        }
    }
    Ok(got)
}

/// A new subnet where hosts make their own addresses: every port of the network has one from now on.
pub async fn join_auto_subnet_in(tx: &mut Tx, subnet: &Subnet) -> Result<(), Fault> {
    let siblings = tx.list::<Subnet>(find::on_network(&subnet.network_id)).await?;
    for mut port in tx.list::<Port>(find::on_network(&subnet.network_id)).await? {
        let elsewhere = subnet.segment_id.is_some()
            && !port
                .fixed_ips
                .iter()
                .any(|f| siblings.iter().any(|s| s.id == f.subnet_id && s.segment_id == subnet.segment_id));
        if port.device_owner.starts_with("network:") || elsewhere {
            continue;
        }
        let record = port.record.clone();
        let holder = record.holder();
        if let Some(fixed) = self_made(tx, holder, subnet).await? {
            port.fixed_ips.push(fixed);
            tx.update(&port).await?;
        }
    }
    Ok(())
}

impl Port {
    pub fn holder(&self) -> Holder<'_> {
        Holder {
            port_id: &self.id,
            network_id: &self.network_id,
            mac: &self.mac_address,
            device_owner: &self.device_owner,
            host: &self.host_id,
        }
    }
}
