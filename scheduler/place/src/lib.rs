//! Where a workload runs: request + snapshot of hosts -> ranked hosts. Pure; no I/O, no clock, no chance.
//!
//! Filter (can it run there at all?), then weigh (where best?). The decision is optimistic: the claim is
//! checked again in the transaction that makes it, and the next host in the ranking is tried when it fails.
use std::collections::{BTreeMap, BTreeSet};

/// What a workload needs.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub vcpus: u64,
    pub memory_mib: u64,
    pub disk_gib: u64,
    pub zone: Option<String>,
    /// Only this host.
    pub host: Option<String>,
    pub avoid: BTreeSet<String>,
    pub group: Option<GroupRule>,
    /// Hosts on which none or one of these must run (`same_host`, `different_host` hints).
    pub same_host_as: BTreeSet<String>,
    pub different_host_from: BTreeSet<String>,
    /// Only hosts that can use this runtime.
    pub runtime: Option<String>,
    /// Hosts where its networks have addresses for it; `None`: they have on any.
    pub reachable: Option<BTreeSet<String>>,
}

/// A server group's wish, and where its members run.
#[derive(Debug, Clone)]
pub struct GroupRule {
    pub policy: Policy,
    /// host -> members there
    pub members: BTreeMap<String, u32>,
    /// For anti-affinity: members that one host may have.
    pub max_per_host: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    Affinity,
    AntiAffinity,
    SoftAffinity,
    SoftAntiAffinity,
}

/// A host as the snapshot has it.
#[derive(Debug, Clone, Default)]
pub struct Host {
    pub name: String,
    pub zone: String,
    pub up: bool,
    pub enabled: bool,
    /// Left for claims, overcommit counted in.
    pub free_vcpus: u64,
    pub free_memory_mib: u64,
    pub free_disk_gib: u64,
    /// Servers that are being started there.
    pub busy: u32,
    /// Runtimes that it can use.
    pub runtimes: BTreeSet<String>,
}

/// Why a host was left out, in the order in which it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    Tried,
    NotNamed,
    Down,
    Disabled,
    OtherZone,
    Runtime,
    Cpu,
    Memory,
    Disk,
    Group,
    Hint,
    /// Asked last: it would do in every other way.
    Address,
}

/// The ranking, best first, and how many hosts each reason left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranking {
    pub hosts: Vec<String>,
    pub refused: BTreeMap<Reason, usize>,
}

fn refuse(request: &Request, host: &Host) -> Option<Reason> {
    let named = request.host.as_ref();
    let zone = request.zone.as_ref();
    [
        (request.avoid.contains(&host.name), Reason::Tried),
        (named.is_some_and(|n| *n != host.name), Reason::NotNamed),
        (!host.up, Reason::Down),
        (!host.enabled, Reason::Disabled),
        (zone.is_some_and(|z| *z != host.zone), Reason::OtherZone),
        (request.runtime.as_ref().is_some_and(|r| !host.runtimes.contains(r)), Reason::Runtime),
        (host.free_vcpus < request.vcpus, Reason::Cpu),
        (host.free_memory_mib < request.memory_mib, Reason::Memory),
        (host.free_disk_gib < request.disk_gib, Reason::Disk),
        (request.group.as_ref().is_some_and(|g| !g.allows(&host.name)), Reason::Group),
        (!request.same_host_as.is_empty() && !request.same_host_as.contains(&host.name), Reason::Hint),
        (request.different_host_from.contains(&host.name), Reason::Hint),
        (request.reachable.as_ref().is_some_and(|r| !r.contains(&host.name)), Reason::Address),
    ]
    .into_iter()
    .find_map(|(out, reason)| out.then_some(reason))
}

impl GroupRule {
    fn here(&self, host: &str) -> u32 {
        self.members.get(host).copied().unwrap_or(0)
    }

    fn allows(&self, host: &str) -> bool {
        match self.policy {
            Policy::Affinity => self.members.is_empty() || self.here(host) > 0,
            Policy::AntiAffinity => self.here(host) < self.max_per_host.max(1),
            Policy::SoftAffinity | Policy::SoftAntiAffinity => true,
        }
    }

    fn weight(&self, host: &str) -> i64 {
        match self.policy {
            Policy::SoftAffinity => i64::from(self.here(host)),
            Policy::SoftAntiAffinity => -i64::from(self.here(host)),
            _ => 0,
        }
    }
}

/// Ranks `hosts` for `request`: soft group wishes, then few starting servers, then most free memory, vCPUs
/// and disk, and the name at last so that equal input gives equal output.
pub fn rank(request: &Request, hosts: &[Host]) -> Ranking {
    let mut ranking = Ranking::default();
    let mut fit: Vec<&Host> = Vec::new();
    for host in hosts {
        match refuse(request, host) {
            Some(reason) => *ranking.refused.entry(reason).or_default() += 1,
            None => fit.push(host),
        }
    }
    let soft = |h: &Host| request.group.as_ref().map_or(0, |g| g.weight(&h.name));
    fit.sort_by(|a, b| {
        (soft(b), a.busy, b.free_memory_mib, b.free_vcpus, b.free_disk_gib, &a.name).cmp(&(
            soft(a),
            b.busy,
            a.free_memory_mib,
            a.free_vcpus,
            a.free_disk_gib,
            &b.name,
        ))
    });
    ranking.hosts = fit.into_iter().map(|h| h.name.clone()).collect();
    ranking
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(name: &str, memory: u64) -> Host {
        Host {
            name: name.into(),
            zone: "nova".into(),
            up: true,
            enabled: true,
            free_vcpus: 4,
            free_memory_mib: memory,
            free_disk_gib: 10,
            busy: 0,
            runtimes: BTreeSet::from(["qemu".into()]),
        }
    }

    #[test]
    fn a_runtime_that_is_asked_for_must_be_there() {
        let hosts = [host("a", 100), Host { runtimes: BTreeSet::from(["kvm".into()]), ..host("b", 200) }];
        let with = |runtime: &str| Request { runtime: Some(runtime.into()), ..Request::default() };
        assert_eq!(rank(&with("qemu"), &hosts).hosts, ["a"]);
        assert_eq!(rank(&with("kvm"), &hosts).hosts, ["b"]);
        assert_eq!(rank(&with("fake"), &hosts).refused, BTreeMap::from([(Reason::Runtime, 2)]));
    }

    #[test]
    fn only_hosts_with_addresses_will_do_and_that_is_asked_last() {
        let hosts = [host("a", 100), host("b", 200), host("c", 10)];
        let within = |names: &[&str]| Request {
            memory_mib: 50,
            reachable: Some(names.iter().map(|n| (*n).to_owned()).collect()),
            ..Request::default()
        };
        assert_eq!(rank(&within(&["a", "c"]), &hosts).hosts, ["a"]);
        let nowhere = rank(&within(&[]), &hosts);
        assert_eq!(nowhere.refused, BTreeMap::from([(Reason::Memory, 1), (Reason::Address, 2)]));
    }

    #[test]
    fn the_emptiest_host_comes_first_and_refusals_are_counted() {
        let hosts = [host("a", 100), host("b", 200), Host { up: false, ..host("c", 900) }, host("d", 10)];
        let ranking = rank(&Request { memory_mib: 50, ..Request::default() }, &hosts);
        assert_eq!(ranking.hosts, ["b", "a"]);
        assert_eq!(ranking.refused, BTreeMap::from([(Reason::Down, 1), (Reason::Memory, 1)]));
    }

    #[test]
    fn groups_keep_together_and_apart() {
        let hosts = [host("a", 100), host("b", 200)];
        let group = |policy| Some(GroupRule { policy, members: BTreeMap::from([("a".into(), 1)]), max_per_host: 1 });
        let with = |policy| rank(&Request { group: group(policy), ..Request::default() }, &hosts).hosts;
        assert_eq!(with(Policy::Affinity), ["a"]);
        assert_eq!(with(Policy::AntiAffinity), ["b"]);
        assert_eq!(with(Policy::SoftAffinity), ["a", "b"]);
    }

    proptest! {
        #[test]
        fn whatever_is_ranked_fits(memory in proptest::collection::vec(0u64..100, 0..20), need in 0u64..100) {
            let hosts: Vec<Host> = memory.iter().enumerate().map(|(i, m)| host(&format!("h{i}"), *m)).collect();
            let ranking = rank(&Request { memory_mib: need, ..Request::default() }, &hosts);
            let refused: usize = ranking.refused.values().sum();
            prop_assert_eq!(ranking.hosts.len() + refused, hosts.len());
            for name in &ranking.hosts {
                prop_assert!(hosts.iter().any(|h| h.name == *name && h.free_memory_mib >= need));
            }
        }
    }
}
