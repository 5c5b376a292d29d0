//! What makes a subnet sound: block, gateway, pools, routes and IPv6 modes agree. Pure.
use super::model::{Route, Subnet};
use crate::{
    address::{self, Pool, Range},
    fault,
};
use ipnet::IpNet;
use pilvi_kit::Fault;
use std::net::IpAddr;

/// Name servers and host routes of one subnet.
const SERVERS_MAX: usize = 5;
const ROUTES_MAX: usize = 20;

/// Checks everything that concerns the subnet alone.
pub fn check(subnet: &Subnet) -> Result<(), Fault> {
    let net = subnet.net().ok_or_else(|| fault::invalid(format!("'{}' is not a block of addresses", subnet.cidr)))?;
    let v4 = subnet.ip_version == 4;
    if net.addr().is_ipv4() != v4 {
        return Err(fault::invalid(format!(
            "cidr '{}' does not match the ip_version '{}'",
            subnet.cidr, subnet.ip_version
        )));
    }
    if net.prefix_len() == 0 {
        return Err(fault::invalid("0 is not allowed as CIDR prefix length"));
    }
    if net.addr().is_multicast() || net.addr().is_loopback() {
        return Err(fault::invalid(format!("cidr '{}' is not a block that hosts can have", subnet.cidr)));
    }
    modes(subnet, &net)?;
    gateway(subnet, &net)?;
    pools(subnet, &net)?;
    same_family(subnet, v4)
}

fn same_family(subnet: &Subnet, v4: bool) -> Result<(), Fault> {
    if subnet.dns_nameservers.len() > SERVERS_MAX {
        return Err(fault::bad(
            "DNSNameServersExhausted",
            format!(
                "Unable to complete operation for {}. The number of DNS nameservers exceeds the limit {SERVERS_MAX}.",
                subnet.id
            ),
        ));
    }
    if subnet.host_routes.len() > ROUTES_MAX {
        return Err(fault::bad(
            "HostRoutesExhausted",
            format!(
                "Unable to complete operation for {}. The number of host routes exceeds the limit {ROUTES_MAX}.",
                subnet.id
            ),
        ));
    }
    let of_family = |text: &str| text.contains(':') != v4;
    if let Some(wrong) = subnet.dns_nameservers.iter().find(|s| !of_family(s)) {
        return Err(fault::invalid(format!(
            "dns_nameserver '{wrong}' does not match the ip_version '{}'",
            subnet.ip_version
        )));
    }
    let wrong = |r: &&Route| !of_family(&r.destination) || !of_family(&r.nexthop);
    match subnet.host_routes.iter().find(wrong) {
        Some(r) => Err(fault::invalid(format!(
            "host route '{} via {}' does not match the ip_version '{}'",
            r.destination, r.nexthop, subnet.ip_version
        ))),
        None => Ok(()),
    }
}

fn modes(subnet: &Subnet, net: &IpNet) -> Result<(), Fault> {
    let (ra, mode) = (subnet.ipv6_ra_mode.as_deref(), subnet.ipv6_address_mode.as_deref());
    if ra.is_none() && mode.is_none() {
        return Ok(());
    }
    if subnet.ip_version == 4 {
        return Err(fault::invalid("ipv6_ra_mode or ipv6_address_mode cannot be set when ip_version is set to 4"));
    }
    if !subnet.enable_dhcp {
        return Err(fault::invalid("ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False"));
    }
    if let (Some(ra), Some(mode)) = (ra, mode)
        && ra != mode
    {
        return Err(fault::invalid(format!(
            "ipv6_ra_mode set to '{ra}' with ipv6_address_mode set to '{mode}' is not valid. If both attributes are set, they must be the same value"
        )));
    }
    let auto = |m: Option<&str>| matches!(m, Some("slaac" | "dhcpv6-stateless"));
    if (auto(ra) || auto(mode)) && net.prefix_len() != 64 {
        return Err(fault::invalid(format!(
            "Invalid CIDR {} for IPv6 address mode. OpenStack uses the EUI-64 address format, which requires the prefix to be /64",
            subnet.cidr
        )));
    }
    Ok(())
}

fn gateway(subnet: &Subnet, net: &IpNet) -> Result<(), Fault> {
    let Some(text) = &subnet.gateway_ip else { return Ok(()) };
    let ip: IpAddr = text.parse().map_err(|_| fault::invalid(format!("gateway_ip '{text}' is not an address")))?;
    if ip.is_ipv4() != net.addr().is_ipv4() {
        return Err(fault::invalid(format!(
            "gateway_ip '{text}' does not match the ip_version '{}'",
            subnet.ip_version
        )));
    }
    let hosts = address::hosts(net);
    let n = address::number(ip);
    // The first address of an IPv6 block is the routers' own anycast address and may be a gateway.
    if net.contains(&ip) && ip.is_ipv4() && !(hosts.first..=hosts.last).contains(&n) {
        return Err(fault::invalid("Gateway is not valid on subnet"));
    }
    let hit = subnet.allocation_pools.iter().find(|p| address::in_ranges(&address::ranges(std::slice::from_ref(p)), n));
    match hit {
        Some(pool) => Err(fault::conflict(
            "GatewayConflictWithAllocationPools",
            format!("Gateway ip {text} conflicts with allocation pool {}-{}.", pool.start, pool.end),
        )),
        None => Ok(()),
    }
}

fn pools(subnet: &Subnet, net: &IpNet) -> Result<(), Fault> {
    let hosts = address::hosts(net);
    let mut ranges: Vec<Range> = Vec::new();
    for pool in &subnet.allocation_pools {
        let range = range_of(pool, net)?;
        if range.first < hosts.first || range.last > hosts.last {
            return Err(fault::bad(
                "OutOfBoundsAllocationPool",
                format!(
                    "The allocation pool {}-{} spans beyond the subnet cidr {}.",
                    pool.start, pool.end, subnet.cidr
                ),
            ));
        }
        if ranges.iter().any(|r| r.first <= range.last && range.first <= r.last) {
            return Err(fault::conflict(
                "OverlappingAllocationPools",
                format!("Found overlapping allocation pools: {}-{} for subnet {}.", pool.start, pool.end, subnet.cidr),
            ));
        }
        ranges.push(range);
    }
    Ok(())
}

fn range_of(pool: &Pool, net: &IpNet) -> Result<Range, Fault> {
    let refuse = || {
        fault::bad("InvalidAllocationPool", format!("The allocation pool {}-{} is not valid.", pool.start, pool.end))
    };
    let parse =
        |s: &str| s.parse::<IpAddr>().ok().filter(|ip| ip.is_ipv4() == net.addr().is_ipv4()).map(address::number);
    let range = Range { first: parse(&pool.start).ok_or_else(refuse)?, last: parse(&pool.end).ok_or_else(refuse)? };
    if range.first > range.last { Err(refuse()) } else { Ok(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(cidr: &str) -> Subnet {
        Subnet {
            id: "s".into(),
            project_id: "p".into(),
            network_id: "n".into(),
            name: String::new(),
            description: None,
            ip_version: if cidr.contains(':') { 6 } else { 4 },
            cidr: cidr.into(),
            gateway_ip: None,
            allocation_pools: vec![],
            dns_nameservers: vec![],
            host_routes: vec![],
            enable_dhcp: true,
            ipv6_ra_mode: None,
            ipv6_address_mode: None,
            subnetpool_id: None,
            segment_id: None,
            service_types: vec![],
            dns_publish_fixed_ip: false,
            leak_routes: false,
            tags: vec![],
        }
    }

    fn pool(start: &str, end: &str) -> Pool {
        Pool { start: start.into(), end: end.into() }
    }

    fn kind(change: impl FnOnce(&mut Subnet)) -> String {
        let mut s = subnet("10.0.0.0/24");
        change(&mut s);
        check(&s).unwrap_err().kind.into_owned()
    }

    #[test]
    fn what_does_not_agree_is_refused_by_name() {
        assert!(check(&subnet("10.0.0.0/24")).is_ok());
        assert_eq!(kind(|s| s.gateway_ip = Some("10.0.0.255".into())), "InvalidInput");
        assert_eq!(kind(|s| s.gateway_ip = Some("fd00::1".into())), "InvalidInput");
        assert_eq!(kind(|s| s.allocation_pools = vec![pool("10.0.0.9", "10.0.0.2")]), "InvalidAllocationPool");
        assert_eq!(kind(|s| s.allocation_pools = vec![pool("10.0.0.9", "10.0.1.2")]), "OutOfBoundsAllocationPool");
        assert_eq!(
            kind(|s| s.allocation_pools = vec![pool("10.0.0.2", "10.0.0.9"), pool("10.0.0.9", "10.0.0.10")]),
            "OverlappingAllocationPools"
        );
        let both = |s: &mut Subnet| {
            s.gateway_ip = Some("10.0.0.5".into());
            s.allocation_pools = vec![pool("10.0.0.2", "10.0.0.9")];
        };
        assert_eq!(kind(both), "GatewayConflictWithAllocationPools");
        assert_eq!(kind(|s| s.ip_version = 6), "InvalidInput");
        assert_eq!(kind(|s| s.ipv6_ra_mode = Some("slaac".into())), "InvalidInput");
        assert_eq!(kind(|s| s.dns_nameservers = vec!["::1".into()]), "InvalidInput");
        assert_eq!(check(&subnet("224.0.0.0/8")).unwrap_err().code(), 400);
        assert_eq!(check(&subnet("0.0.0.0/0")).unwrap_err().code(), 400);
    }
}
