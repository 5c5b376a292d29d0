//! The verbs of lent prefixes: who asks, what a subnet becomes with a prefix and without.
use super::model::{NONE, POOL, PrefixLease, asker};
use crate::{
    address, fault,
    list::Raw,
    network::model::VirtualNetwork,
    port::{
        allocation,
        model::{FixedIp, Port, ROUTER_INTERFACE},
    },
    router::{interface, model::Router},
    segment,
    subnet::model::Subnet,
    tables::find,
};
use ipnet::IpNet;
use pilvi_kit::Fault;
use pilvi_store::{Query, Stored, Tx};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
};

/// Whether the default pool of IPv6 is the provider's.
static BY_DEFAULT: AtomicBool = AtomicBool::new(false);

/// Subnets of IPv6 that ask for the default pool have their prefix lent from now on.
pub fn choose_by_default(yes: bool) {
    BY_DEFAULT.store(yes, Ordering::Relaxed);
}

/// Does a new subnet ask for a lent prefix? One that names its block has that.
pub fn is_wish(attrs: &Raw) -> Result<bool, Fault> {
    let pool = attrs.get("subnetpool_id").and_then(Value::as_str);
    let usual = attrs.get("use_default_subnetpool") == Some(&json!(true));
    let version = attrs.get("ip_version").and_then(Value::as_u64);
    let by_default = pool.is_none() && usual && version == Some(6) && BY_DEFAULT.load(Ordering::Relaxed);
    if pool != Some(POOL) && !by_default {
        return Ok(false);
    }
    if attrs.get("cidr").is_some_and(|c| !c.is_null()) {
        return Ok(false);
    }
    let refuse = |why: &str| Err(fault::bad("BadRequest", format!("Bad subnets request: {why}")));
    if version != Some(6) {
        return refuse("Prefix Delegation can only be used with IPv6 subnets.");
    }
    if attrs.get("prefixlen").and_then(Value::as_u64).is_some_and(|n| n != 64) {
        return refuse("Prefix Delegation gives prefixes of 64 bits.");
    }
    for (member, what) in [("ipv6_ra_mode", "RA"), ("ipv6_address_mode", "Address")] {
        if !matches!(attrs.get(member).and_then(Value::as_str), Some("slaac" | "dhcpv6-stateless")) {
            return refuse(&format!("IPv6 {what} Mode must be SLAAC or Stateless for Prefix Delegation."));
        }
    }
    Ok(true)
}

/// The router that asks for a subnet's prefix.
pub async fn asker_in(tx: &mut Tx, subnet: &Subnet) -> Result<Option<String>, Fault> {
    let legs = tx.list::<Port>(find::owned_on([subnet.network_id.as_str()], ROUTER_INTERFACE)).await?;
    let ids: Vec<String> = legs.iter().map(|p| p.device_id.clone()).collect();
    let routers = tx.list::<Router>(Query::all().ids(ids.iter().map(String::as_str).take(500))).await?;
    let ways: Vec<String> = routers.iter().filter_map(|r| r.gw_port_id.clone()).collect();
    let ways = tx.list::<Port>(Query::all().ids(ways.iter().map(String::as_str))).await?;
    let ports = legs.iter().chain(&ways).map(|p| &p.record);
    let known: HashMap<&str, &Router> = routers.iter().map(|r| (r.id.as_str(), &r.record)).collect();
    let leases = tx.list::<PrefixLease>(find::lent_to([subnet.id.as_str()])).await?;
    let leases = leases.iter().map(|l| &l.record);
    Ok(asker(subnet, ports, |id| known.get(id).copied(), leases).map(|r| r.id.clone()))
}

/// A router has lost a leg, its way out or its life, or got one of them: what it was lent and cannot use goes back.
pub async fn settle_router_in(tx: &mut Tx, router_id: &str) -> Result<(), Fault> {
    for lease in tx.list::<PrefixLease>(find::of_routers([router_id])).await? {
        settle_in(tx, lease).await?;
    }
    Ok(())
}

async fn settle_in(tx: &mut Tx, mut lease: Stored<PrefixLease>) -> Result<(), Fault> {
    let subnet = tx.get::<Subnet>(&lease.subnet_id).await?;
    if let Some(subnet) = &subnet
        && asker_in(tx, subnet).await?.as_ref() == Some(&lease.router_id)
    {
        // What was to be given back is asked for once more: the host says what has become of it.
        if lease.releasing {
            tx.delete::<PrefixLease>(&lease.id).await?;
        }
        return Ok(());
    }
    if !lease.releasing {
        lease.releasing = true;
        tx.update(&lease).await?;
    }
    match subnet.filter(|s| s.cidr == lease.prefix) {
        Some(subnet) => give_in(tx, subnet, NONE).await,
        None => Ok(()),
    }
}

/// The subnet is going: so is what was lent for it.
pub async fn forget_subnet_in(tx: &mut Tx, subnet_id: &str) -> Result<(), Fault> {
    for mut lease in tx.list::<PrefixLease>(find::lent_to([subnet_id])).await? {
        lease.releasing = true;
        tx.update(&lease).await?;
    }
    Ok(())
}

/// What else the prefix would be in the way of, as text; `None`: nothing.
pub async fn overlap_in(
    tx: &mut Tx,
    subnet: &Subnet,
    router: &Router,
    prefix: &IpNet,
) -> Result<Option<String>, Fault> {
    let meets = |net: Option<IpNet>| {
        net.is_some_and(|n| n.addr().is_ipv4() == prefix.addr().is_ipv4() && address::overlap(&n, prefix))
    };
    let mut others = tx.list::<Subnet>(find::on_network(&subnet.network_id)).await?;
    let legs = interface::legs_in(tx, router).await?;
    others.extend(tx.list::<Subnet>(Query::all().ids(legs.iter().map(|l| l.subnet_id.as_str()))).await?);
    for outside in router.outside().map(str::to_owned).collect::<Vec<_>>() {
        others.extend(tx.list::<Subnet>(find::on_network(&outside)).await?);
    }
    Ok(others.iter().find(|s| s.id != subnet.id && !s.is_bare() && meets(s.net())).map(|s| s.id.clone()))
}

/// Gives a subnet another prefix: its gateway and its pools follow from that, and every port has the same address in it.
pub async fn give_in(tx: &mut Tx, mut subnet: Stored<Subnet>, cidr: &str) -> Result<(), Fault> {
    let before = subnet.record.clone();
    let net: IpNet = cidr.parse().map_err(Fault::internal)?;
    let gateway = address::default_gateway(&net).filter(|_| before.gateway_ip.is_some());
    net.to_string().clone_into(&mut subnet.cidr);
    subnet.gateway_ip = gateway.map(|ip| ip.to_string());
    subnet.allocation_pools = address::default_pools(&net, gateway);
    tx.update(&subnet).await?;
    if let Some(network) = tx.get::<VirtualNetwork>(&subnet.network_id).await? {
        tx.update(&network).await?;
    }
    for mut port in tx.list::<Port>(find::on_network(&subnet.network_id)).await? {
        let Some(at) = port.fixed_ips.iter().position(|f| f.subnet_id == subnet.id) else { continue };
        let old: Vec<FixedIp> = port.fixed_ips.iter().filter(|f| f.subnet_id == subnet.id).cloned().collect();
        allocation::release_in(tx, &old).await?;
        port.fixed_ips.retain(|f| f.subnet_id != subnet.id);
        let record = port.record.clone();
        let own = match (record.device_owner.as_str(), gateway) {
            (ROUTER_INTERFACE, Some(ip)) if is_gateway(&before, &old) => Some(ip),
            (ROUTER_INTERFACE, _) => moved(&net, &old),
            _ => address::eui64(&net, &record.mac_address),
        };
        if let Some(ip) = own {
            let fixed = allocation::lease_in(tx, record.holder(), &subnet, &ip.to_string()).await?;
            port.fixed_ips.insert(at.min(record.fixed_ips.len()), fixed);
        }
        tx.update(&port).await?;
    }
    segment::peers::settle_in(tx, &before.network_id, None, Some(&before.cidr)).await
}

fn is_gateway(before: &Subnet, old: &[FixedIp]) -> bool {
    old.iter().any(|f| Some(&f.ip_address) == before.gateway_ip.as_ref())
}

/// The same place in another prefix.
fn moved(net: &IpNet, old: &[FixedIp]) -> Option<IpAddr> {
    let ip: IpAddr = old.first()?.ip_address.parse().ok()?;
    let place = address::number(ip) & u128::from(u64::MAX);
    address::from_number(false, address::number(net.network()) | place)
}
