//! Who stands by for a router's way out. Pure.
use crate::{
    host::{HostInfo, find_host, rank},
    hosting::model::{Hosting, Task, holder},
    port::model::{Port, Status},
    router::model::Router,
};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// `device_owner` of a candidate's port.
pub const SPARE_INTERFACE: &str = "network:router_ha_interface";
/// Of the port that says where a distributed router's source NAT is.
pub const CENTRE: &str = "network:router_centralized_snat";
/// Of a leg of a router that is `ha` and not distributed, as it is shown.
pub const REPLICATED_INTERFACE: &str = "network:ha_router_replicated_interface";

/// Candidates that a router is given.
pub const WANTED: usize = 3;
/// That an operator may give it.
pub const MOST: usize = 5;
/// Priority of the first one; each further one has the next lower.
pub const FIRST: u32 = 5;
pub const PRIORITY_MAX: u32 = 32_767;

/// A host that holds the way out when those above it do not live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    pub host: String,
    /// Unlike any other of the router.
    pub priority: u32,
    /// The port that says so; "" for one that is about to be made.
    pub port_id: String,
}

/// The candidate that holds the way out.
pub fn standing<'h>(router: &Router, hosts: &'h [HostInfo]) -> Option<&'h HostInfo> {
    router.candidates.iter().filter_map(|c| find_host(hosts, &c.host)).find(|h| h.up)
}

/// The candidates that the router should have, highest first: those that it has and may keep, then those that operators have
/// asked, then live hosts by their hash. New ones come below, so that nothing moves.
pub fn choose(router: &Router, wishes: &[Hosting], hosts: &[HostInfo]) -> Vec<Candidate> {
    let about = |w: &&Hosting| w.task == Task::Route && w.object_id == router.id;
    let wishes: HashMap<&str, bool> = wishes.iter().filter(about).map(|w| (w.host.as_str(), w.here)).collect();
    let asked = |h: &HostInfo| wishes.get(h.name.as_str()) == Some(&true);
    // Whoever asks a certain host is believed to know.
    let may = |h: &HostInfo| wishes.get(h.name.as_str()).copied().unwrap_or_else(|| router.fits(h));
    let mut chosen = router.candidates.clone();
    chosen.retain(|c| find_host(hosts, &c.host).is_some_and(may));
    let is_new = |h: &&HostInfo| chosen.iter().all(|c| c.host != h.name);
    let mut new = rank(&router.id, hosts.iter().filter(|h| asked(h)).filter(is_new));
    new.truncate(MOST.saturating_sub(chosen.len()));
    let missing = WANTED.saturating_sub(chosen.len() + new.len());
    if missing > 0 {
        let rest = hosts.iter().filter(|h| h.up && may(h) && !asked(h)).filter(is_new);
        new.extend(rank(&router.id, rest).into_iter().take(missing));
    }
    for host in new {
        let priority = below(&mut chosen);
        chosen.push(Candidate { host: host.name.clone(), priority, port_id: String::new() });
    }
    chosen
}

/// The priority below all others; where there is none left, the others move up.
fn below(chosen: &mut [Candidate]) -> u32 {
    let Some(last) = chosen.last() else { return FIRST };
    if let Some(free) = last.priority.checked_sub(1) {
        return free;
    }
    for (priority, candidate) in (1..).zip(chosen.iter_mut().rev()) {
        candidate.priority = priority;
    }
    0
}

/// Is all as it should be? `ports` are the router's that [`Router::spare_ports`] names.
pub fn is_settled(router: &Router, wishes: &[Hosting], hosts: &[HostInfo], ports: &HashMap<String, Port>) -> bool {
    if !router.keeps_spares() {
        return router.spare_ports().next().is_none();
    }
    let lives = |name: &str| find_host(hosts, name).is_some_and(|h| h.up);
    let says = |id: &str, host: &str, up| {
        ports.get(id).is_some_and(|p| p.host_id == host && (p.status == Status::Active) == up)
    };
    let centre = match (router.distributed, &router.centre_port_id) {
        (true, Some(id)) => match holder(wishes, router, hosts) {
            Some(there) => says(id, &there.name, true),
            None => ports.get(id).is_some_and(|p| p.status == Status::Down),
        },
        (distributed, id) => distributed == id.is_some(),
    };
    centre
        && choose(router, wishes, hosts) == router.candidates
        && router.candidates.iter().all(|c| says(&c.port_id, &c.host, lives(&c.host)))
}

impl Router {
    /// Do hosts stand by for its way out? Without a way out there is nothing to stand by for.
    pub fn keeps_spares(&self) -> bool {
        self.ha && self.external_gateway_info.is_some()
    }

    /// Ports that say which hosts do.
    pub fn spare_ports(&self) -> impl Iterator<Item = &str> {
        self.candidates.iter().map(|c| c.port_id.as_str()).chain(self.centre_port_id.as_deref())
    }

    pub fn candidate(&self, host: &str) -> Option<&Candidate> {
        self.candidates.iter().find(|c| c.host == host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn router() -> Router {
        let gateway = json!({"network_id": "out", "enable_snat": true, "external_fixed_ips": []});
        let gateway = serde_json::from_value(gateway).unwrap();
        Router { ha: true, external_gateway_info: Some(gateway), ..Router::plain("r") }
    }

    fn hosts(n: usize) -> Vec<HostInfo> {
        let host = |i| HostInfo { name: format!("h{i}"), up: true, ..HostInfo::default() };
        (1..=n).map(host).collect()
    }

    /// Chosen, with ports.
    fn settle(router: &mut Router, wishes: &[Hosting], hosts: &[HostInfo]) -> Vec<(String, u32)> {
        router.candidates = choose(router, wishes, hosts);
        for candidate in &mut router.candidates {
            candidate.port_id = format!("port-{}", candidate.host);
        }
        let all: Vec<(String, u32)> = router.candidates.iter().map(|c| (c.host.clone(), c.priority)).collect();
        assert!(all.windows(2).all(|w| w[0].1 > w[1].1), "highest first: {all:?}");
        all
    }

    fn set_up(hosts: &mut [HostInfo], name: &str, up: bool) {
        hosts.iter_mut().filter(|h| h.name == name).for_each(|h| h.up = up);
    }

    fn held<'h>(router: &Router, hosts: &'h [HostInfo]) -> &'h str {
        &holder(&[], router, hosts).unwrap().name
    }

    #[test]
    fn candidates_take_over_in_order_and_give_back() {
        let (mut router, mut all) = (router(), hosts(6));
        let hashed = held(&router, &all).to_owned();
        let chosen = settle(&mut router, &[], &all);
        assert_eq!(chosen.iter().map(|c| c.1).collect::<Vec<_>>(), [5, 4, 3]);
        assert_eq!(chosen[0].0, hashed, "becoming `ha` moves nothing");
        for (host, _) in &chosen {
            assert_eq!(held(&router, &all), host);
            set_up(&mut all, host, false);
            assert_eq!(choose(&router, &[], &all), router.candidates, "one that is down may come back");
        }
        let stands_in = held(&router, &all).to_owned();
        assert!(chosen.iter().all(|c| c.0 != stands_in), "somebody else, while none of them lives");
        set_up(&mut all, &chosen[1].0, true);
        assert_eq!(held(&router, &all), chosen[1].0);
        set_up(&mut all, &chosen[0].0, true);
        assert_eq!(held(&router, &all), chosen[0].0);
    }

    #[test]
    fn who_joins_moves_nothing_and_who_leaves_is_replaced() {
        let (mut router, mut all) = (router(), hosts(2));
        let first = settle(&mut router, &[], &all);
        assert_eq!(first.len(), 2, "no more than there are");
        all = hosts(9);
        let filled = settle(&mut router, &[], &all);
        assert_eq!((&filled[..2], filled.len()), (&first[..], 3));
        all.retain(|h| h.name != filled[0].0);
        let after = settle(&mut router, &[], &all);
        assert_eq!((&after[..2], after[2].1), (&filled[1..], 2));
        assert_eq!(held(&router, &all), filled[1].0);
    }

    #[test]
    fn hosts_without_the_wire_or_sent_away_do_not_stand_by() {
        let (mut router, mut all) = (router(), hosts(5));
        settle(&mut router, &[], &all);
        router.wire = Some("rack1".into());
        router.availability_zone_hints = vec!["nova".into()];
        all[2].zone = "west".into();
        for host in &mut all {
            host.physical =
                Some(if ["h2", "h3", "h4"].contains(&host.name.as_str()) { vec!["rack1".into()] } else { vec![] });
        }
        let named = |list: Vec<(String, u32)>| {
            let mut names: Vec<String> = list.into_iter().map(|c| c.0).collect();
            names.sort();
            names.join(" ")
        };
        assert_eq!(named(settle(&mut router, &[], &all)), "h2 h4");
        let wishes = [Hosting::new(Task::Route, "r", "h2", false), Hosting::new(Task::Route, "r", "h5", true)];
        assert_eq!(named(settle(&mut router, &wishes, &all)), "h4 h5", "who asks is believed to know");
        assert_eq!(named(settle(&mut router, &[Hosting::new(Task::Dhcp, "r", "h4", false)], &all)), "h2 h4");
    }

    #[test]
    fn priorities_never_run_out() {
        let mut router = router();
        for n in 0..40 {
            let all: Vec<HostInfo> = hosts(9).into_iter().filter(|h| h.name != format!("h{}", n % 9 + 1)).collect();
            let before: Vec<String> = router.candidates.iter().map(|c| c.host.clone()).collect();
            let after = settle(&mut router, &[], &all);
            let kept: Vec<&String> = after.iter().map(|c| &c.0).filter(|h| before.contains(h)).collect();
            let stays: Vec<&String> = before.iter().filter(|h| after.iter().any(|c| c.0 == **h)).collect();
            assert_eq!((kept, after.len()), (stays, 3), "the order stays");
        }
    }

    #[test]
    fn hosts_share_the_routers() {
        let all = hosts(8);
        let mut first: HashMap<String, usize> = HashMap::new();
        for n in 0..400 {
            let mut router = Router { id: format!("router-{n}"), ..router() };
            for (host, _) in settle(&mut router, &[], &all) {
                *first.entry(host).or_default() += 1;
            }
        }
        assert!(first.len() == 8 && first.values().all(|n| (100..200).contains(n)), "{first:?}");
    }
}
