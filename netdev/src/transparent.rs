//! Networks whose guests may send frames with tags to each other. Such frames go by hardware address; those for many, by which
//! guests find each other there, go to every port of the network (`bpf/tagged.h`), as the cloud knows nothing of what is inside.
//!
//! ```text
//!   floods  {network, 0..} -> ports of this host with a device, then each other host that has ports of the network
//! ```
use crate::picture::Picture;
use crate::table::{Bytes, Table, put};
use crate::view::is_apart;
use crate::wanted::{Network, Port};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// `FLOODS` of `bpf/tables.h`: ports of this host and other hosts that one frame is copied to.
const FLOODS: usize = 128;
const LOCAL: u32 = 1;
const REMOTE: u32 = 2;

/// Whether a port's guest may send tags: not one that has its device by a tag itself, nor outside of the cloud.
pub(crate) fn takes(network: &Network, port: &Port) -> bool {
    network.transparent && !network.external && port.parent.is_none()
}

pub(crate) fn draw(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    for network in wanted.networks.iter().filter(|n| n.transparent && !is_apart(wanted, &n.id)) {
        let its = wanted.ports.iter().filter(|p| p.network == network.id && takes(network, p));
        let here: BTreeSet<u32> = its.filter_map(|p| picture.devices.get(&p.id).copied()).collect();
        // Who has nobody of the network need not hear of it.
        let far = wanted.remotes.iter().filter(|r| r.network == network.id && Some(r.vtep) != picture.vtep);
        let far: BTreeSet<Ipv4Addr> = if here.is_empty() { BTreeSet::new() } else { far.map(|r| r.vtep).collect() };
        let here = here.into_iter().map(|ifindex| Bytes::new().u32(LOCAL).u32(ifindex));
        let rows: Vec<Bytes> = here.chain(far.into_iter().map(|vtep| Bytes::new().u32(REMOTE).ip(vtep))).collect();
        if rows.len() > FLOODS {
            let left = rows.len() - FLOODS;
            picture.problem(
                None,
                format!("network {}: tagged frames for many do not reach {left} of its places", network.id),
            );
        }
        for (index, row) in (0u32..).zip(rows.into_iter().take(FLOODS)) {
            put(&mut picture.tables, Table::Floods, Bytes::new().u32(network.vni).u32(index), row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture;
    use crate::table::{Settings, Tables};
    use crate::wanted::{Mac, Remote, Wanted};
    use std::collections::BTreeMap;

    fn port(n: u8) -> Port {
        Port {
            id: format!("p{n}"),
            network: "n".into(),
            mac: Mac([2, 0, 0, 0, 0, n]),
            fixed: vec![],
            groups: vec![],
            secured: false,
            up: true,
            allowed_pairs: vec![],
            hostname: String::new(),
            dhcp_options: vec![],
            metadata: false,
            parent: None,
            idle: false,
        }
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

    fn drawn(ports: u8, transparent: bool) -> (Tables, usize) {
        let network =
            Network { id: "n".into(), vni: 7, mtu: 1450, external: false, vlan: 0, transparent, subnets: vec![] };
        let devices: BTreeMap<String, u32> = (0..ports).map(|n| (format!("p{n}"), u32::from(n) + 10)).collect();
        let wanted = Wanted {
            networks: vec![network],
            ports: (0..ports).map(port).collect(),
            remotes: vec![remote(1, 2), remote(2, 2), remote(3, 3), remote(4, 1)],
            ..Wanted::default()
        };
        let own = Some(Ipv4Addr::new(192, 0, 2, 1));
        let (tables, problems) = picture::draw(&wanted, &devices, own, &Settings::default());
        (tables, problems.len())
    }

    #[test]
    fn frames_for_many_go_to_ports_here_and_once_to_each_other_host() {
        let (tables, problems) = drawn(2, true);
        let rows: Vec<&Vec<u8>> = tables[&Table::Floods].values().collect();
        assert_eq!((rows.len(), problems), (4, 0));
        let kinds: Vec<u8> = rows.iter().map(|row| row[0]).collect();
        assert_eq!(kinds, [1, 1, 2, 2]);
        assert_eq!(drawn(2, false).0[&Table::Floods].len(), 0);
        assert_eq!(drawn(0, true).0[&Table::Floods].len(), 0, "nobody here sends any");
        let (tables, problems) = drawn(200, true);
        assert_eq!((tables[&Table::Floods].len(), problems), (FLOODS, 1));
    }
}
