//! Whom a guest's broadcasts and multicasts reach: the ports of its network on this host, and once each other host that has
//! some (`bpf/many.h`). Nobody is asked what he listens to.
//!
//! ```text
//!   floods  {network, 0..} -> ports of this host, then each other host that has ports of the network
//! ```
//! Networks of a wire have none: there a switch of the provider's would have to be asked as well. But where guests' own tags pass
//! within the wire's (`transparent.rs`), frames with such tags have rows of their own (`FLOOD_TAGGED`): ports of this host that
//! take tags, and the wire. Networks whose ports are kept apart have none.
use crate::picture::Picture;
use crate::table::{Bytes, Table, put};
use crate::transparent;
use crate::view::is_apart;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// `FLOODS` of `bpf/tables.h`: ports of this host and other hosts that one frame is copied to.
const FLOODS: usize = 128;
const LOCAL: u32 = 1;
const REMOTE: u32 = 2;
const WIRE: u32 = 5;
/// `FLOOD_TAGGED` of `bpf/tables.h`.
const TAGGED: u32 = 1 << 31;

#[derive(Default)]
struct Places {
    here: BTreeSet<u32>,
    far: BTreeSet<Ipv4Addr>,
}

/// Where the ports of each network are that has some here: who has none need not hear of it.
fn places<'a>(picture: &Picture<'a>) -> BTreeMap<&'a str, Places> {
    let wanted = picture.wanted;
    let mut all: BTreeMap<&str, Places> = BTreeMap::new();
    for port in &wanted.ports {
        if let Some(&name) = picture.devices.get(&port.id) {
            all.entry(&port.network).or_default().here.insert(name);
        }
    }
    for remote in wanted.remotes.iter().filter(|r| Some(r.vtep) != picture.vtep) {
        if let Some(places) = all.get_mut(remote.network.as_str()) {
            places.far.insert(remote.vtep);
        }
    }
    all
}

/// For tagged frames of networks of a wire. It comes first, so that no number of ports keeps a frame from it.
fn draw_wires(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    for network in wanted.networks.iter().filter(|n| transparent::passes(n)) {
        let here = wanted.ports.iter().filter(|p| p.network == network.id && transparent::takes(network, p));
        let here: BTreeSet<u32> = here.filter_map(|p| picture.devices.get(&p.id).copied()).collect();
        if here.is_empty() {
            continue;
        }
        let wire = std::iter::once(Bytes::new().u32(WIRE).u32(0));
        let rows = wire.chain(here.into_iter().map(|name| Bytes::new().u32(LOCAL).u32(name)));
        for (index, row) in (0u32..).zip(rows.take(FLOODS)) {
            put(&mut picture.tables, Table::Floods, Bytes::new().u32(network.vni | TAGGED).u32(index), row);
        }
    }
}

pub(crate) fn draw(picture: &mut Picture<'_>) {
    draw_wires(picture);
    let wanted = picture.wanted;
    let mut all = places(picture);
    for network in wanted.networks.iter().filter(|n| !n.external) {
        let Some(places) = all.remove(network.id.as_str()) else { continue };
        let count = places.here.len() + places.far.len();
        if count < 2 || is_apart(wanted, &network.id) {
            continue;
        }
        let here = places.here.into_iter().map(|name| Bytes::new().u32(LOCAL).u32(name));
        let rows = here.chain(places.far.into_iter().map(|vtep| Bytes::new().u32(REMOTE).ip(vtep)));
        for (index, row) in (0u32..).zip(rows.take(FLOODS)) {
            put(&mut picture.tables, Table::Floods, Bytes::new().u32(network.vni).u32(index), row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture;
    use crate::sample;
    use crate::table::{Settings, Tables};
    use crate::wanted::{Mac, Port, Remote, View, Wanted};

    fn port(n: u8) -> Port {
        sample::port(&format!("p{n}"), "n", Mac([2, 0, 0, 0, 0, n]))
    }

    fn remote(n: u8, host: u8) -> Remote {
        Remote {
            port: format!("r{n}"),
            network: "n".into(),
            mac: Mac([2, 0, 0, 0, 1, n]),
            addresses: vec![],
            vtep: Ipv4Addr::new(192, 0, 2, host),
            groups: vec![],
        }
    }

    fn wanted(ports: u8) -> Wanted {
        let network = sample::network("n", 7);
        Wanted {
            networks: vec![network],
            ports: (0..ports).map(port).collect(),
            remotes: vec![remote(1, 2), remote(2, 2), remote(3, 3), remote(4, 1)],
            ..Wanted::default()
        }
    }

    fn drawn(wanted: &Wanted) -> (Tables, usize) {
        let devices = wanted.ports.iter().zip(10..).map(|(p, n)| (p.id.clone(), n)).collect();
        let own = Some(Ipv4Addr::new(192, 0, 2, 1));
        let (tables, problems) = picture::draw(wanted, &devices, own, &Settings::default());
        (tables, problems.len())
    }

    fn floods(wanted: &Wanted) -> usize {
        drawn(wanted).0[&Table::Floods].len()
    }

    #[test]
    fn frames_for_many_go_to_ports_here_and_once_to_each_other_host() {
        let (tables, problems) = drawn(&wanted(2));
        let rows: Vec<&Vec<u8>> = tables[&Table::Floods].values().collect();
        assert_eq!((rows.len(), problems), (4, 0));
        let kinds: Vec<u8> = rows.iter().map(|row| row[0]).collect();
        assert_eq!(kinds, [1, 1, 2, 2]);
        let (tables, problems) = drawn(&wanted(200));
        assert_eq!((tables[&Table::Floods].len(), problems), (FLOODS, 0), "a bound, and no complaint in each pass");
    }

    #[test]
    fn who_is_alone_has_no_others() {
        assert_eq!(floods(&wanted(0)), 0, "nobody here sends any");
        assert_eq!(floods(&Wanted { remotes: vec![], ..wanted(1) }), 0);
        assert_eq!(floods(&wanted(1)), 3);
        let mut outside = wanted(2);
        outside.networks[0].external = true;
        assert_eq!(floods(&outside), 0);
        outside.networks[0].transparent = true;
        assert_eq!(floods(&outside), 0, "without a tag of its own a wire takes none of the guests'");
        outside.networks[0].vlan = 5;
        outside.ports[1].parent = Some(crate::wanted::Parent { port: "p0".into(), vlan: 9 });
        let (tables, _) = drawn(&outside);
        let rows: Vec<(&[u8], u8)> = tables[&Table::Floods].iter().map(|(k, v)| (&k[..4], v[0])).collect();
        let tagged = (7u32 | 1 << 31).to_ne_bytes();
        assert_eq!(rows, [(&tagged[..], 5), (&tagged[..], 1)], "the wire, and who takes tags");
        let apart = View { network: "n".into(), ports: vec![], apart: true };
        assert_eq!(floods(&Wanted { views: vec![apart], ..wanted(2) }), 0);
    }
}
