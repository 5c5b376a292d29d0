//! Wires: which external networks the edge link carries, and with which tags.
//!
//! ```text
//!   settings.ext_vni   the one without a tag      wires {network} -> tag      tags {tag} -> network
//! ```
//! A service tag and a customer's with the same number are two wires: a tag is its number and its kind.
//! Every address outside belongs to one network, so two of them may have the same addresses. The kernel's stack resolves
//! neighbours of the untagged one alone; on the others the agent asks (`nearby.rs`), as one of our addresses there.
use crate::device::{SERVICE_TAG, wire_name};
use crate::nat::announcement;
use crate::picture::Picture;
use crate::table::{Bytes, Table, Tables, put};
use crate::transparent;
use crate::wanted::{Network, Wanted};
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Largest tag that names a network.
const VLAN_MAX: u16 = 4094;
/// `TAGS_WITHIN` of `bpf/tables.h`.
const TAGS_WITHIN: u32 = 1 << 31;

/// Who asks on a tagged wire, and whom it is worth to know before anybody asks for him.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asker {
    /// The device and the tag.
    pub name: u32,
    pub v4: Option<(Ipv4Addr, [u8; 6])>,
    pub v6: Option<(Ipv6Addr, [u8; 6])>,
    /// Next hops of our ways out.
    pub hops: BTreeSet<IpAddr>,
}

/// The network that has no tag; further ones share its wire.
pub(crate) fn untagged(wanted: &Wanted) -> Option<&Network> {
    wanted.networks.iter().find(|n| n.external && n.vlan == 0)
}

/// The number of an external network's wire: its own, or that of the first network which has no tag either.
pub(crate) fn of(picture: &Picture<'_>, network: &str) -> u32 {
    let Some(&network) = picture.networks.get(network) else { return 0 };
    if network.vlan != 0 { network.vni } else { untagged(picture.wanted).map_or(network.vni, |n| n.vni) }
}

pub(crate) fn draw(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    for network in wanted.networks.iter().filter(|n| n.vlan != 0) {
        let tag = network.vlan.min(VLAN_MAX) | if network.service_tag { SERVICE_TAG } else { 0 };
        let tag = u32::from(tag);
        let within = if transparent::passes(network) { TAGS_WITHIN } else { 0 };
        put(&mut picture.tables, Table::Wires, Bytes::new().u32(network.vni), Bytes::new().u32(tag));
        if network.external
            && !put(&mut picture.tables, Table::Tags, Bytes::new().u32(tag), Bytes::new().u32(network.vni | within))
        {
            picture.problem(None, format!("network {}: another one has tag {} on the wire", network.id, network.vlan));
        }
    }
}

/// What a frame for the network is sent by: the edge link's device and the network's tag.
pub(crate) fn name(tables: &Tables, edge_if: u32, vni: u32) -> Option<u32> {
    if edge_if == 0 {
        return None;
    }
    let Some(row) = tables.get(&Table::Wires).and_then(|rows| rows.get(vni.to_ne_bytes().as_slice())) else {
        return Some(edge_if);
    };
    wire_name(edge_if, u16::try_from(u32::from_ne_bytes(*row.first_chunk()?)).ok()?)
}

/// An address that this host answers for in an external network.
pub(crate) fn ours(tables: &Tables, vni: u32) -> Option<(Ipv4Addr, [u8; 6])> {
    let rows = tables.get(&Table::Externals)?;
    let mut found = rows.iter().filter(|(key, _)| key.starts_with(&vni.to_ne_bytes()));
    found.find_map(|(key, value)| announcement(key, value)).map(|(_, ip, mac)| (ip, mac))
}

/// Who asks in which network.
pub(crate) fn askers(wanted: &Wanted, tables: &Tables, edge_if: u32) -> HashMap<u32, Asker> {
    let has = |table: Table, key: Bytes| tables.get(&table).is_some_and(|rows| rows.contains_key(&key.0));
    let mut out = HashMap::new();
    for network in wanted.networks.iter().filter(|n| n.external && n.vlan != 0) {
        let Some(name) = name(tables, edge_if, network.vni) else { continue };
        let mut asker = Asker { name, v4: ours(tables, network.vni), ..Asker::default() };
        for router in &wanted.routers {
            // Only ways out that this host holds have a row.
            let here = |ip| has(Table::Externals, Bytes::new().u32(network.vni).ip(ip));
            let here6 = |ip: Ipv6Addr| has(Table::Addresses6, Bytes::new().u32(network.vni).raw(&ip.octets()));
            let v4 = wanted.gateways(router).filter(|(g, _)| g.network == network.id && here(g.address));
            asker.hops.extend(v4.filter_map(|(g, _)| g.next_hop).map(IpAddr::from));
            for (gateway, _) in wanted.gateways6(router).filter(|(g, _)| g.network == network.id && here6(g.address)) {
                asker.v6 = asker.v6.or(Some((gateway.address, gateway.mac.0)));
                asker.hops.extend(gateway.next_hop.map(IpAddr::from));
            }
        }
        out.insert(network.vni, asker);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture;
    use crate::sample::outside;
    use crate::table::Settings;
    use crate::wanted::{Gateway, Mac, Router};
    use std::collections::BTreeMap;

    fn router(id: &str, network: &str) -> Router {
        let gateway = Gateway {
            network: network.into(),
            address: [203, 0, 113, 10].into(),
            prefix: 24,
            next_hop: Some([203, 0, 113, 1].into()),
            mac: Mac([2, 0, 0, 0, 0, 9]),
            snat: true,
            vtep: None,
        };
        Router { id: id.into(), interfaces: vec![], gateway: Some(gateway), gateway6: None, routes: vec![] }
    }

    #[test]
    fn each_network_has_its_tag_and_its_own_addresses() {
        let networks = vec![
            outside("a", 7, 101),
            outside("b", 8, 102),
            outside("c", 9, 0),
            outside("d", 10, 101),
            outside("e", 11, 0),
        ];
        let routers = vec![router("r", "a"), router("s", "b"), router("t", "e")];
        let wanted = Wanted { networks, routers, ..Wanted::default() };
        let (tables, problems) = picture::draw(&wanted, &BTreeMap::new(), None, &Settings::default());
        assert_eq!((tables[&Table::Tags].len(), tables[&Table::Wires].len()), (2, 3));
        assert_eq!(tables[&Table::Externals].len(), 3, "the same address in each network");
        assert!(problems.len() == 1 && problems[0].message.contains("network d"), "{problems:?}");
        let askers = askers(&wanted, &tables, 5);
        assert_eq!(askers.len(), 3);
        let at = &askers[&8];
        assert_eq!(at.v4, Some(([203, 0, 113, 10].into(), [2, 0, 0, 0, 0, 9])));
        assert_eq!(crate::device::device_of(at.name), (5, Some([0x81, 0, 0, 102])));
        assert_eq!(at.hops, BTreeSet::from([[203, 0, 113, 1].into()]));
        assert_eq!((name(&tables, 5, 9), name(&tables, 0, 9)), (Some(5), None));
        assert!(ours(&tables, 9).is_some() && ours(&tables, 11).is_none(), "what has no tag is one wire");
    }

    #[test]
    fn a_service_tag_is_another_than_a_customers_of_its_number() {
        let service = Network { service_tag: true, transparent: true, ..outside("s", 7, 101) };
        let through = Network { transparent: true, ..outside("t", 8, 102) };
        let networks = vec![service, outside("c", 9, 101), through];
        let wanted = Wanted { networks, ..Wanted::default() };
        let (tables, problems) = picture::draw(&wanted, &BTreeMap::new(), None, &Settings::default());
        assert!(problems.is_empty(), "{problems:?}");
        let tag =
            |tag: u32| u32::from_ne_bytes(*tables[&Table::Tags][tag.to_ne_bytes().as_slice()].first_chunk().unwrap());
        assert_eq!((tag(0x2000 | 101), tag(101), tag(102)), (1 << 31 | 7, 9, 1 << 31 | 8));
        let header = |vni| crate::device::device_of(name(&tables, 5, vni).unwrap());
        assert_eq!(header(7), (5, Some([0x88, 0xa8, 0, 101])));
        assert_eq!(header(9), (5, Some([0x81, 0, 0, 101])));
    }
}
