//! Security groups as rows. Ports with the same set of groups share one policy: a list of rules in chunks of
//! 32, so that a changed rule costs a write for each set it is in, never one for each port. Who is a member
//! of a remote group stands in a table of its own, so that a guest that comes or goes costs one write.
//!
//! ```text
//!   port -> policy = name of {group, group, ..}
//!   chunks  {policy, direction, n} -> up to 32 rules, "more follows"
//!   members {group, address, realm}
//! ```
use crate::picture::Picture;
use crate::port;
use crate::realm::Realms;
use crate::table::{Bytes, CHUNK_RULES, CHUNKS, Table, Tables, name64, put};
use crate::wanted::{Direction, Family, Group, Peer, Port, Ports, Rule, Wanted};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};

const PROTOCOL: u8 = 1;
const PORTS: u8 = 2;
const TYPE: u8 = 4;
const CODE: u8 = 8;
const GROUP: u8 = 16;
const STATELESS: u8 = 32;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// What a change of rules alone can change.
pub(crate) const CHANGED: [Table; 2] = [Table::Chunks, Table::Chunks6];

/// The 64-bit name of a set of groups.
pub(crate) fn policy_name(groups: &[String]) -> u64 {
    let set: BTreeSet<&str> = groups.iter().map(String::as_str).collect();
    name64(&set.into_iter().collect::<Vec<_>>().join("\n"))
}

/// A rule's row; `None` for what is not IPv4.
fn rule_bytes(rule: &Rule, stateful: bool) -> Option<Vec<u8>> {
    if rule.family != Family::V4 {
        return None;
    }
    let (mut group, mut net, mut mask) = (0, Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
    match &rule.peer {
        Peer::Any => {}
        Peer::Cidr(IpNet::V4(cidr)) => (net, mask) = (cidr.network(), cidr.netmask()),
        Peer::Cidr(IpNet::V6(_)) => return None,
        Peer::Group(id) => group = name64(id),
    }
    Some(rule_tail(Bytes::new().u64(group).ip(net).ip(mask), rule, stateful).0)
}

/// What follows the peer in a rule's row, whatever the family.
pub(crate) fn rule_tail(row: Bytes, rule: &Rule, stateful: bool) -> Bytes {
    let mut flags = if stateful { 0 } else { STATELESS };
    if matches!(rule.peer, Peer::Group(_)) {
        flags |= GROUP;
    }
    let protocol = rule.protocol.inspect(|_| flags |= PROTOCOL).unwrap_or(0);
    // The older name of the protocol means the one of the rule's family.
    let protocol = if rule.family == Family::V6 && protocol == ICMP { ICMP6 } else { protocol };
    let (mut low, mut high, mut kind, mut code) = (0, 0, 0, 0);
    match rule.ports {
        Ports::Any => {}
        Ports::Range(from, to) => {
            flags |= PORTS;
            (low, high) = (from, to);
        }
        Ports::Icmp(t, c) => {
            flags |= TYPE;
            kind = t;
            code = c.inspect(|_| flags |= CODE).unwrap_or(0);
        }
    }
    row.u16(low).u16(high).u8(flags).u8(protocol).u8(kind).u8(code)
}

/// The sets of groups that secured ports have, by name, with those that are known.
pub(crate) fn policies(wanted: &Wanted) -> BTreeMap<u64, Vec<&Group>> {
    let groups: HashMap<&str, &Group> = wanted.groups.iter().map(|g| (g.id.as_str(), g)).collect();
    let set = |p: &Port| {
        let ids: BTreeSet<&str> = p.groups.iter().map(String::as_str).collect();
        (policy_name(&p.groups), ids.iter().filter_map(|g| groups.get(g).copied()).collect())
    };
    let mut out = BTreeMap::new();
    for (name, groups) in wanted.ports.iter().filter(|p| p.secured).map(set) {
        out.entry(name).or_insert(groups);
    }
    out
}

/// Groups that rules name as peers.
pub(crate) fn peers(wanted: &Wanted) -> BTreeSet<&str> {
    let rules = policies(wanted).into_values().flatten().flat_map(|g| &g.rules);
    rules.filter_map(|r| if let Peer::Group(id) = &r.peer { Some(id.as_str()) } else { None }).collect()
}

pub(crate) fn draw(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    let known: BTreeSet<&str> = wanted.groups.iter().map(|g| g.id.as_str()).collect();
    let mut names: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for p in wanted.ports.iter().filter(|p| p.secured) {
        let set: BTreeSet<&str> = p.groups.iter().map(String::as_str).collect();
        for missing in set.difference(&known) {
            picture.problem(Some(&p.id), format!("group {missing} is unknown: it allows nothing"));
        }
        let other = names.entry(policy_name(&p.groups)).or_insert_with(|| set.clone());
        if *other != set {
            picture.close(&p.id, "its set of groups shares its name with another");
        }
    }
    for (name, groups) in policies(wanted) {
        for problem in draw_policy(&mut picture.tables, name, &groups) {
            picture.problem(None, problem);
        }
    }
    draw_members(picture, &peers(wanted));
}

/// The rules of a set of groups; what did not fit.
pub(crate) fn draw_policy(tables: &mut Tables, policy: u64, groups: &[&Group]) -> Vec<String> {
    let mut problems = Vec::new();
    for direction in [Direction::Ingress, Direction::Egress] {
        let (chunks, problem) = policy_chunks(groups, direction, CHUNK_RULES, rule_bytes);
        problems.extend(problem);
        for (index, mut value) in chunks {
            value.0.resize(Table::Chunks.sizes().1, 0);
            put(tables, Table::Chunks, chunk_key(policy, direction, index), value);
        }
    }
    problems
}

pub(crate) fn chunk_key(policy: u64, direction: Direction, index: u32) -> Bytes {
    let direction = match direction {
        Direction::Ingress => 0,
        Direction::Egress => 1,
    };
    Bytes::new().u64(policy).u32(direction).u32(index)
}

/// The rules of some groups in chunks of `size`, none twice; and what did not fit.
pub(crate) fn policy_chunks(
    groups: &[&Group],
    direction: Direction,
    size: usize,
    row: fn(&Rule, bool) -> Option<Vec<u8>>,
) -> (Vec<(u32, Bytes)>, Option<String>) {
    let mut rows: Vec<Vec<u8>> = Vec::new();
    let mut seen = BTreeSet::new();
    // The first rule that fits decides whether state is kept, and any that keeps it is enough.
    let (stateful, stateless): (Vec<&&Group>, Vec<_>) = groups.iter().partition(|g| g.stateful);
    for group in stateful.into_iter().chain(stateless) {
        for rule in group.rules.iter().filter(|r| r.direction == direction) {
            if let Some(row) = row(rule, group.stateful)
                && seen.insert(row.clone())
            {
                rows.push(row);
            }
        }
    }
    let most = CHUNKS * size;
    let problem = (rows.len() > most).then(|| {
        let ids: Vec<&str> = groups.iter().map(|g| g.id.as_str()).collect();
        format!("groups {} have more than {most} rules", ids.join(","))
    });
    rows.truncate(most);
    let last = rows.len().div_ceil(size).saturating_sub(1);
    let chunk = |(i, chunk): (usize, &[Vec<u8>])| {
        let used = u32::try_from(chunk.len()).unwrap_or(0);
        let value = Bytes::new().u32(used).u32(u32::from(i < last)).raw(&chunk.concat());
        (u32::try_from(i).unwrap_or(u32::MAX), value)
    };
    (rows.chunks(size).enumerate().map(chunk).collect(), problem)
}

fn draw_members(picture: &mut Picture<'_>, peers: &BTreeSet<&str>) {
    let wanted = picture.wanted;
    let mut names: HashMap<u64, &str> = HashMap::new();
    let mut unclear = BTreeSet::new();
    for id in peers {
        if let Some(other) = names.insert(name64(id), id) {
            picture.problem(None, format!("groups {id} and {other} share a name: neither has members"));
            unclear.extend([*id, other]);
        }
    }
    let peers: BTreeSet<&str> = peers.difference(&unclear).copied().collect();
    let realms = Realms::of_wanted(wanted);
    let mut member = |network: &str, groups: &[String], ip: Ipv4Addr| {
        let Some(realm) = realms.of_network(network) else { return };
        for id in groups.iter().filter(|g| peers.contains(g.as_str())) {
            let key = Bytes::new().u64(name64(id)).ip(ip).u32(realm);
            put(&mut picture.tables, Table::Members, key, Bytes::new().u32(1));
        }
    };
    for p in &wanted.ports {
        for ip in port::addresses(&p.fixed) {
            member(&p.network, &p.groups, ip);
        }
        for pair in &p.allowed_pairs {
            if let IpNet::V4(net) = pair.cidr
                && net.prefix_len() == 32
            {
                member(&p.network, &p.groups, net.addr());
            }
        }
    }
    for remote in &wanted.remotes {
        for ip in &remote.addresses {
            if let IpAddr::V4(ip) = ip {
                member(&remote.network, &remote.groups, *ip);
            }
        }
    }
}
