//! The verbs of subnets; the only writer of the record.
use super::{leak, model::Subnet, shape};
use crate::{
    address,
    attribute::overlay,
    delegation, fault,
    list::Raw,
    network::model::VirtualNetwork,
    port::{allocation, model::Port},
    quota, segment, subnet_pool,
    tables::{AddressLease, find},
};
use ipnet::IpNet;
use pilvi_kit::{Ctx, Fault};
use pilvi_store::{Query, Stored, Tx};
use serde_json::{Value, json};

/// Makes a subnet on a network, of a given block or cut from a pool.
pub async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<Subnet>, Fault> {
    let text = |name: &str| attrs.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let network_id = text("network_id");
    quota::check_in::<Subnet>(tx, &text("project_id"), "subnet").await?;
    let mut network =
        tx.get::<VirtualNetwork>(&network_id).await?.ok_or_else(|| fault::network_missing(&network_id))?;
    let (net, pool) = subnet_pool::ops::block_in(tx, ctx, attrs).await?;
    let subnet = build(attrs, &net, pool)?;
    shape::check(&subnet)?;
    let siblings = tx.list::<Subnet>(find::on_network(&network_id)).await?;
    if !subnet.is_bare() {
        refuse_overlap(&net, &siblings, &network_id)?;
    }
    crate::network::ops::check_subnet_mtu(network.mtu, subnet.ip_version)?;
    segment::ops::settle_subnet_in(tx, &mut network, &siblings, None, &subnet).await?;
    // The network's revision tells that its subnets changed, and two racing creates meet here.
    tx.update(&network).await?;
    let stored = tx.insert(&subnet).await?;
    if subnet.is_auto_address() {
        allocation::join_auto_subnet_in(tx, &subnet).await?;
    }
    if subnet.segment_id.is_none() {
        return Ok(stored);
    }
    segment::peers::settle_in(tx, &network_id, None, None).await?;
    tx.get(&subnet.id).await?.ok_or_else(|| fault::subnet_missing(&subnet.id))
}

fn build(attrs: &Raw, net: &IpNet, pool: Option<String>) -> Result<Subnet, Fault> {
    let version = if net.addr().is_ipv4() { 4 } else { 6 };
    if attrs.get("ip_version").and_then(Value::as_u64).is_some_and(|v| v != version) {
        let wanted = crate::check::plain(&attrs["ip_version"]);
        return Err(fault::invalid(format!("cidr '{net}' does not match the ip_version '{wanted}'")));
    }
    let gateway = match attrs.get("gateway_ip") {
        Some(Value::String(ip)) => ip.parse().ok(),
        Some(_) => None,
        None => address::default_gateway(net),
    };
    let mut document = attrs.clone();
    document.insert("id".into(), json!(pilvi_kit::id::new()));
    document.insert("cidr".into(), json!(net.to_string()));
    document.insert("ip_version".into(), json!(version));
    document.insert("gateway_ip".into(), json!(gateway.map(|g| g.to_string())));
    document.insert("subnetpool_id".into(), json!(pool));
    for name in ["ipv6_ra_mode", "ipv6_address_mode"] {
        document.entry(name).or_insert(Value::Null);
    }
    for name in ["dns_nameservers", "host_routes", "service_types"] {
        document.entry(name).or_insert(json!([]));
    }
    document.entry("allocation_pools").or_insert(json!(address::default_pools(net, gateway)));
    serde_json::from_value(Value::Object(document)).map_err(Fault::internal)
}

fn refuse_overlap(net: &IpNet, siblings: &[Stored<Subnet>], network_id: &str) -> Result<(), Fault> {
    let hit = siblings
        .iter()
        .filter(|s| !s.is_bare())
        .filter_map(|s| s.net())
        .any(|s| s.addr().is_ipv4() == net.addr().is_ipv4() && address::overlap(&s, net));
    if hit {
        return Err(fault::invalid(format!(
            "Requested subnet with cidr: {net} for network: {network_id} overlaps with another subnet"
        )));
    }
    Ok(())
}

pub async fn update_in(tx: &mut Tx, mut found: Stored<Subnet>, changes: &Raw) -> Result<(), Fault> {
    let before = found.record.clone();
    let after: Subnet = overlay(&before, changes)?;
    shape::check(&after)?;
    if after.leak_routes && !before.leak_routes {
        leak::check_in(tx, &after).await?;
    }
    if before.gateway_ip != after.gateway_ip
        && let Some(old) = &before.gateway_ip
        && let Some(lease) = tx.get::<AddressLease>(&AddressLease::key(&before.id, old)).await?
        && let Some(port) = tx.get::<Port>(&lease.port_id).await?
        && port.device_owner == crate::port::model::ROUTER_INTERFACE
    {
        return Err(fault::conflict(
            "GatewayIpInUse",
            format!("Current gateway ip {old} already in use by port {}. Unable to update.", port.id),
        ));
    }
    let network = tx.get::<VirtualNetwork>(&before.network_id).await?;
    let mut network = network.ok_or_else(|| fault::network_missing(&before.network_id))?;
    let siblings = tx.list::<Subnet>(find::on_network(&before.network_id)).await?;
    segment::ops::settle_subnet_in(tx, &mut network, &siblings, Some(&before), &after).await?;
    found.record = after;
    tx.update(&found).await?;
    tx.update(&network).await?;
    if found.segment_id.is_none() || before.gateway_ip == found.gateway_ip {
        return Ok(());
    }
    let moved = before.gateway_ip.as_deref().map(|old| (before.id.as_str(), old));
    segment::peers::settle_in(tx, &before.network_id, moved, None).await
}

/// The subnet has left its network.
async fn leave_network(tx: &mut Tx, subnet: &Subnet) -> Result<(), Fault> {
    if let Some(mut network) = tx.get::<VirtualNetwork>(&subnet.network_id).await? {
        network.record.segment_subnets.remove(&subnet.id);
        tx.update(&network).await?;
    }
    Ok(())
}

/// Refused while ports hold addresses; self-made IPv6 addresses just go, unless they are a router's.
pub async fn delete_in(tx: &mut Tx, found: Stored<Subnet>) -> Result<(), Fault> {
    let leases = tx.list::<AddressLease>(find::on_subnet(&found.id)).await?;
    if !leases.is_empty() {
        let ids: Vec<String> = leases.iter().map(|l| l.port_id.clone()).collect();
        let ports = tx.list::<Port>(Query::all().ids(ids.iter().map(String::as_str).take(500))).await?;
        let held = |p: &Stored<Port>| !found.is_auto_address() || p.device_owner.starts_with("network:");
        if ids.len() > 500 || ports.iter().any(held) {
            return Err(fault::conflict(
                "SubnetInUse",
                format!(
                    "Unable to complete operation on subnet {}: One or more ports have an IP allocation from this subnet.",
                    found.id
                ),
            ));
        }
        for mut port in ports {
            port.fixed_ips.retain(|f| f.subnet_id != found.id);
            tx.update(&port).await?;
        }
        for lease in leases {
            tx.delete::<AddressLease>(&lease.id).await?;
        }
    }
    if found.is_delegated() {
        delegation::ops::forget_subnet_in(tx, &found.id).await?;
    }
    tx.delete::<Subnet>(&found.id).await?;
    leave_network(tx, &found).await?;
    segment::peers::settle_in(tx, &found.network_id, None, Some(&found.cidr)).await
}
