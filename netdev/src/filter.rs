//! Security groups as rows. Ports with the same set of groups share one policy: a list of rules in chunks of
//! 32, so that a changed rule costs a write for each set it is in, never one for each port. Who is a member
//! of a remote group stands in a table of its own, so that a guest that comes or goes costs one write.
//!
//! ```text
//!   port -> policy = name of {group, group, ..}
//!   chunks  {policy, direction, n} -> up to 32 rules, "more follows"
//!   members {group, address}
//! ```
use crate::picture::Picture;
use crate::port;
use crate::table::{Bytes, CHUNK_RULES, CHUNKS, Table, name64, put};
use crate::wanted::{Direction, Family, Group, Peer, Ports, Rule};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};

const PROTOCOL: u8 = 1;
const PORTS: u8 = 2;
const TYPE: u8 = 4;
const CODE: u8 = 8;
const GROUP: u8 = 16;
const STATELESS: u8 = 32;

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
    let mut flags = if stateful { 0 } else { STATELESS };
    let (mut group, mut net, mut mask) = (0, Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
    match &rule.peer {
        Peer::Any => {}
        Peer::Cidr(IpNet::V4(cidr)) => (net, mask) = (cidr.network(), cidr.netmask()),
        Peer::Cidr(IpNet::V6(_)) => return None,
        Peer::Group(id) => {
            flags |= GROUP;
            group = name64(id);
        }
    }
    let protocol = rule.protocol.inspect(|_| flags |= PROTOCOL).unwrap_or(0);
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
    let row = Bytes::new().u64(group).ip(net).ip(mask).u16(low).u16(high);
    Some(row.u8(flags).u8(protocol).u8(kind).u8(code).0)
}

pub(crate) fn draw(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    let groups: HashMap<&str, &Group> = wanted.groups.iter().map(|g| (g.id.as_str(), g)).collect();
    let mut policies: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for p in wanted.ports.iter().filter(|p| p.secured) {
        let set: BTreeSet<&str> = p.groups.iter().map(String::as_str).collect();
        for missing in set.iter().filter(|g| !groups.contains_key(*g)) {
            picture.problem(Some(&p.id), format!("group {missing} is unknown: it allows nothing"));
        }
        let other = policies.entry(policy_name(&p.groups)).or_insert_with(|| set.clone());
        if *other != set {
            picture.close(&p.id, "its set of groups shares its name with another");
        }
    }
    let mut peers = BTreeSet::new();
    for (name, set) in &policies {
        let members: Vec<&Group> = set.iter().filter_map(|g| groups.get(g).copied()).collect();
        for rule in members.iter().flat_map(|g| &g.rules) {
            if let Peer::Group(id) = &rule.peer {
                peers.insert(id.as_str());
            }
        }
        for direction in [Direction::Ingress, Direction::Egress] {
            draw_policy(picture, *name, &members, direction);
        }
    }
    draw_members(picture, &peers);
}

fn draw_policy(picture: &mut Picture<'_>, policy: u64, groups: &[&Group], direction: Direction) {
    let mut rows: Vec<Vec<u8>> = Vec::new();
    let mut seen = BTreeSet::new();
    for group in groups {
        for rule in group.rules.iter().filter(|r| r.direction == direction) {
            if let Some(row) = rule_bytes(rule, group.stateful)
                && seen.insert(row.clone())
            {
                rows.push(row);
            }
        }
    }
    if rows.len() > CHUNKS * CHUNK_RULES {
        let ids: Vec<&str> = groups.iter().map(|g| g.id.as_str()).collect();
        picture.problem(None, format!("groups {} have more than {} rules", ids.join(","), CHUNKS * CHUNK_RULES));
        rows.truncate(CHUNKS * CHUNK_RULES);
    }
    let last = rows.len().div_ceil(CHUNK_RULES).saturating_sub(1);
    for (i, chunk) in rows.chunks(CHUNK_RULES).enumerate() {
        let index = u32::try_from(i).unwrap_or(u32::MAX);
        let used = u32::try_from(chunk.len()).unwrap_or(0);
        let direction = match direction {
            Direction::Ingress => 0,
            Direction::Egress => 1,
        };
        let key = Bytes::new().u64(policy).u32(direction).u32(index);
        let mut value = Bytes::new().u32(used).u32(u32::from(i < last)).raw(&chunk.concat());
        value.0.resize(Table::Chunks.sizes().1, 0);
        put(&mut picture.tables, Table::Chunks, key, value);
    }
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
    let mut member = |groups: &[String], ip: Ipv4Addr| {
        for id in groups.iter().filter(|g| peers.contains(g.as_str())) {
            let key = Bytes::new().u64(name64(id)).ip(ip).u32(0);
            put(&mut picture.tables, Table::Members, key, Bytes::new().u32(1));
        }
    };
    for p in &wanted.ports {
        for ip in port::addresses(&p.fixed) {
            member(&p.groups, ip);
        }
        for pair in &p.allowed_pairs {
            if let IpNet::V4(net) = pair.cidr
                && net.prefix_len() == 32
            {
                member(&p.groups, net.addr());
            }
        }
    }
    for remote in &wanted.remotes {
        for ip in &remote.addresses {
            if let IpAddr::V4(ip) = ip {
                member(&remote.groups, *ip);
            }
        }
    }
}
