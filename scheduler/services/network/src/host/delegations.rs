//! Prefixes that a host asks for, has or is to give back. Pure.
use super::reach::Reach;
use crate::{delegation::model::asker, router::model::Router, subnet::model::Subnet};
use pilvi_agent_api::v1;

/// What the host that holds a router's way out asks for.
pub fn asked(reach: &Reach, router: &Router) -> Vec<v1::Delegation> {
    let asks = |s: &&Subnet| {
        s.is_delegated()
            && asker(s, reach.legs.values(), |id| reach.routers.get(id), reach.prefix_leases.values())
                .is_some_and(|asker| asker.id == router.id)
    };
    let one = |s: &Subnet| {
        let lease = reach.prefix_leases.values().find(|l| l.router_id == router.id && l.subnet_id == s.id);
        let had = lease.filter(|l| !l.releasing && l.prefix == s.cidr);
        v1::Delegation {
            subnet_id: s.id.clone(),
            had: had.map(|l| l.prefix.clone()).unwrap_or_default(),
            until: had.map_or(0, |l| l.until),
        }
    };
    reach.subnets.values().filter(asks).map(one).collect()
}

/// What this host was lent and nobody needs.
pub fn releases(reach: &Reach, host: &str) -> Vec<v1::Release> {
    let mine = reach.prefix_leases.values().filter(|l| l.releasing && l.host_id == host);
    mine.map(|l| v1::Release { router_id: l.router_id.clone(), subnet_id: l.subnet_id.clone() }).collect()
}

/// Until when a subnet has its prefix; 0: it is its own.
pub fn until(reach: &Reach, subnet: &Subnet) -> u64 {
    let lease = reach.prefix_leases.values().find(|l| l.subnet_id == subnet.id && l.prefix == subnet.cidr);
    lease.filter(|_| subnet.is_delegated()).map_or(0, |l| l.until)
}
