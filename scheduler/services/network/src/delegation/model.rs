//! What is lent to a router for a subnet, and which subnets are such.
use crate::{
    port::model::{Port, ROUTER_GATEWAY, ROUTER_INTERFACE},
    router::model::Router,
    subnet::model::Subnet,
};
use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};
use std::net::Ipv6Addr;

/// The pool that stands for the provider's.
pub const POOL: &str = "prefix_delegation";
/// The block of a subnet that has no prefix yet.
pub const NONE: &str = "::/64";

/// A prefix that some host holds for a router, or is to give back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixLease {
    pub id: String,
    pub router_id: String,
    pub subnet_id: String,
    /// Who said so last.
    pub host_id: String,
    pub prefix: String,
    /// Seconds since 1970; `u64::MAX`: for ever.
    pub until: u64,
    pub releasing: bool,
}

impl PrefixLease {
    pub fn key(router_id: &str, subnet_id: &str) -> String {
        format!("{router_id}/{subnet_id}")
    }
}

impl Subnet {
    pub fn is_delegated(&self) -> bool {
        self.subnetpool_id.as_deref() == Some(POOL)
    }
    /// Has nobody lent it a prefix?
    pub fn is_bare(&self) -> bool {
        self.is_delegated() && self.cidr == NONE
    }
}

/// Is it an address of a subnet without a prefix? No other address begins so.
pub fn is_bare_address(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok_and(|ip| ip.segments()[..4] == [0; 4])
}

/// A prefix that guests can use: of 64 bits, global or unique local.
pub fn usable(text: &str) -> Option<Ipv6Net> {
    let net: Ipv6Net = text.parse().ok()?;
    let first = net.addr().octets()[0];
    let of_guests = first & 0xe0 == 0x20 || first & 0xfe == 0xfc;
    (net.prefix_len() == 64 && net == net.trunc() && of_guests).then_some(net)
}

/// The router that asks for the subnet's prefix, among those with a port of `ports`: the one that was lent it if it still can.
pub fn asker<'p>(
    subnet: &Subnet,
    ports: impl Iterator<Item = &'p Port> + Clone,
    router: impl Fn(&str) -> Option<&'p Router>,
    leases: impl Iterator<Item = &'p PrefixLease>,
) -> Option<&'p Router> {
    let has_leg = |p: &&Port| {
        p.device_owner == ROUTER_INTERFACE && p.admin_state_up && p.fixed_ips.iter().any(|f| f.subnet_id == subnet.id)
    };
    let leads_out = |r: &&Router| {
        let way = ports.clone().find(|p| Some(&p.id) == r.gw_port_id.as_ref() && p.device_owner == ROUTER_GATEWAY);
        r.admin_state_up && way.is_some_and(|p| p.fixed_ips.iter().any(|f| f.ip_address.contains(':')))
    };
    let has = |l: &&PrefixLease| l.subnet_id == subnet.id && !l.releasing;
    let lent: Vec<&str> = leases.filter(has).map(|l| l.router_id.as_str()).collect();
    let routers = ports.clone().filter(has_leg).filter_map(|p| router(&p.device_id)).filter(leads_out);
    routers.min_by_key(|r| (!lent.contains(&r.id.as_str()), r.id.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_guests_can_use_is_told_from_what_they_cannot() {
        assert!(usable("2001:db8:7::/64").is_some() && usable("fd00:1:2:3::/64").is_some());
        for wrong in ["::/64", "2001:db8::/56", "2001:db8::1/64", "fe80::/64", "ff00::/64", "10.0.0.0/24", "2001:db8::"]
        {
            assert!(usable(wrong).is_none(), "{wrong}");
        }
        assert!(is_bare_address("::1") && is_bare_address("::f816:3eff:fe00:1"));
        assert!(!is_bare_address("0:0:0:1::1") && !is_bare_address("10.0.0.1") && !is_bare_address(""));
    }
}
