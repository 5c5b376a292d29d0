//! Rows from wanted state: what the programs will read.
use super::*;
use crate::sample;
use crate::table::name64;
use crate::wanted::*;

fn base() -> (Wanted, BTreeMap<String, u32>) {
    let subnet = Subnet {
        id: "s".into(),
        cidr: "10.0.0.0/24".parse().unwrap(),
        gateway: None,
        dhcp: true,
        dhcp_server: Some(Ipv4Addr::new(10, 0, 0, 2)),
        dns: vec![],
        routes: vec![],
        lease_seconds: 60,
        ra: None,
    };
    let port = Port {
        fixed: vec![Fixed { subnet: "s".into(), address: "10.0.0.11".parse().unwrap() }],
        groups: vec!["g".into()],
        secured: true,
        metadata: true,
        ..sample::port("p", "n", Mac([2, 0, 0, 0, 0, 1]))
    };
    let wanted = Wanted {
        networks: vec![Network { subnets: vec![subnet], ..sample::network("n", 7) }],
        ports: vec![port],
        groups: vec![Group { id: "g".into(), stateful: true, rules: vec![] }],
        ..Wanted::default()
    };
    (wanted, BTreeMap::from([("p".to_owned(), 9)]))
}

fn rows(wanted: &Wanted, devices: &BTreeMap<String, u32>) -> (Tables, Vec<Problem>) {
    draw(wanted, devices, Some(Ipv4Addr::new(192, 0, 2, 1)), &Settings::default())
}

fn count(tables: &Tables, table: Table) -> usize {
    tables[&table].len()
}

#[test]
fn nothing_wanted_leaves_only_the_settings() {
    let (tables, problems) = rows(&Wanted::default(), &BTreeMap::new());
    assert!(problems.is_empty());
    for t in Table::ALL {
        assert_eq!(count(&tables, t), usize::from(t == Table::Settings), "{t:?}");
    }
}

#[test]
fn every_row_has_its_declared_size_and_the_same_input_gives_the_same_rows() {
    let (mut wanted, devices) = base();
    let peer = Peer::Group("g".into());
    let rule = |i: u16, peer: &Peer| Rule {
        id: i.to_string(),
        direction: Direction::Ingress,
        family: Family::V4,
        protocol: Some(6),
        ports: Ports::Range(i, i),
        peer: peer.clone(),
    };
    wanted.groups[0].rules = (0..70).map(|i| rule(i, &peer)).collect();
    wanted.routers = vec![Router {
        id: "r".into(),
        interfaces: vec![Interface {
            network: "n".into(),
            address: "10.0.0.1".parse().unwrap(),
            prefix: 24,
            mac: Mac([2, 0, 0, 0, 1, 1]),
            leaked: false,
        }],
        gateway6: None,
        gateway: Some(Gateway {
            network: "x".into(),
            address: Ipv4Addr::new(203, 0, 113, 5),
            prefix: 24,
            next_hop: Some(Ipv4Addr::new(203, 0, 113, 1)),
            mac: Mac([2, 0, 0, 0, 2, 1]),
            snat: true,
            vtep: None,
        }),
        routes: vec![],
    }];
    wanted.remotes = vec![Remote {
        port: "q".into(),
        network: "n".into(),
        mac: Mac([2, 0, 0, 0, 0, 2]),
        addresses: vec!["10.0.0.12".parse().unwrap(), "fd00::1".parse().unwrap()],
        vtep: Ipv4Addr::new(192, 0, 2, 2),
        groups: vec!["g".into()],
    }];
    let (tables, problems) = rows(&wanted, &devices);
    assert_eq!(problems, []);
    for (table, rows) in &tables {
        for (key, value) in rows {
            assert_eq!((key.len(), value.len()), table.sizes(), "{table:?}");
        }
    }
    assert_eq!(count(&tables, Table::Chunks), 3, "70 rules in chunks of 32");
    assert_eq!(count(&tables, Table::Members), 2);
    assert_eq!(count(&tables, Table::Routes), 3, "leg, external prefix, default");
    assert_eq!(count(&tables, Table::Externals), 1);
    assert_eq!(count(&tables, Table::Vteps), 1);
    assert_eq!(count(&tables, Table::Addresses), 4, "guest, remote, leg, DHCP server");
    assert_eq!(tables, rows_again(&wanted, &devices));
}

fn rows_again(wanted: &Wanted, devices: &BTreeMap<String, u32>) -> Tables {
    rows(wanted, devices).0
}

#[test]
fn a_port_without_its_device_writes_nothing() {
    let (wanted, _) = base();
    let (tables, _) = rows(&wanted, &BTreeMap::new());
    for t in [Table::Ports, Table::Live, Table::Sources] {
        assert_eq!(count(&tables, t), 0);
    }
}

#[test]
fn wider_pairs_are_repeated_in_narrower_sources() {
    let (mut wanted, devices) = base();
    let other = Mac([2, 0, 0, 0, 0, 0x77]);
    wanted.ports[0].allowed_pairs = vec![AddressPair { mac: Some(other), cidr: "10.0.0.0/24".parse().unwrap() }];
    let (tables, problems) = rows(&wanted, &devices);
    assert_eq!(problems, []);
    assert_eq!(count(&tables, Table::Sources), 2);
    for (key, value) in &tables[&Table::Sources] {
        let macs: Vec<&[u8]> = value.chunks(6).collect();
        assert!(macs.contains(&&other.0[..]), "{key:?}");
        assert!(!macs.contains(&&[0u8; 6][..]), "a free place must not let zeroes in");
        let host = u32::from_ne_bytes(key[..4].try_into().unwrap()) == 64;
        assert_eq!(macs.contains(&&wanted.ports[0].mac.0[..]), host);
    }
}

#[test]
fn problems_name_their_port_and_close_it() {
    let (mut wanted, devices) = base();
    wanted.ports[0].groups.push("missing".into());
    let (tables, problems) = rows(&wanted, &devices);
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].port.as_deref(), Some("p"));
    assert_eq!(count(&tables, Table::Chunks), 0, "default deny");
    wanted.networks[0].vni = 1 << 24;
    assert!(rows(&wanted, &devices).1.iter().any(|p| p.message.contains("out of range")));
}

#[test]
fn a_gateway_elsewhere_is_a_tunnel_and_not_ours_to_answer_for() {
    let (mut wanted, devices) = base();
    let far = Ipv4Addr::new(192, 0, 2, 9);
    let gateway = |vtep| Gateway {
        network: "x".into(),
        address: Ipv4Addr::new(203, 0, 113, 5),
        prefix: 24,
        next_hop: None,
        mac: Mac([2, 0, 0, 0, 2, 1]),
        snat: true,
        vtep,
    };
    let router = |vtep| Router {
        id: "r".into(),
        interfaces: vec![],
        gateway: Some(gateway(vtep)),
        gateway6: None,
        routes: vec![],
    };
    wanted.routers = vec![router(Some(far))];
    let (tables, _) = rows(&wanted, &devices);
    assert_eq!(count(&tables, Table::Externals), 0);
    assert_eq!(count(&tables, Table::Vteps), 1, "its answers must be let in");
    assert_eq!(tables[&Table::Routes].values().next().unwrap()[16..20], far.octets());
    wanted.routers = vec![router(Some(Ipv4Addr::new(192, 0, 2, 1)))];
    assert_eq!(count(&rows(&wanted, &devices).0, Table::Externals), 1, "our own tunnel end is here");
}

#[test]
fn the_same_groups_in_any_order_are_one_policy() {
    let order = |a: &str, b: &str| crate::filter::policy_name(&[a.into(), b.into()]);
    assert_eq!(order("a", "b"), order("b", "a"));
    assert_ne!(order("a", "b"), order("a", "c"));
    assert_eq!(crate::filter::policy_name(&[]), name64(""));
}

#[test]
fn a_port_whose_guest_is_elsewhere_has_its_device_and_nothing_else() {
    let (mut wanted, devices) = base();
    wanted.ports[0].idle = true;
    let at = Ipv4Addr::new(192, 0, 2, 7);
    let (port, address) = (wanted.ports[0].clone(), "10.0.0.11".parse().unwrap());
    let remote = Remote {
        port: port.id.clone(),
        network: port.network.clone(),
        mac: port.mac,
        addresses: vec![address],
        vtep: at,
        groups: port.groups.clone(),
    };
    wanted.remotes = vec![remote];
    let in_use = crate::device::in_use(&wanted, &devices);
    assert!(in_use.is_empty());
    let (tables, problems) = rows(&wanted, &in_use);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!((count(&tables, Table::Ports), count(&tables, Table::Sources)), (0, 0));
    // Its packets go to where it is, as if it had never been here.
    let without = Wanted { ports: Vec::new(), ..wanted.clone() };
    let (bare, _) = rows(&without, &BTreeMap::new());
    for table in [Table::Addresses, Table::Stations, Table::Vteps] {
        assert!(count(&tables, table) > 0 && tables[&table] == bare[&table], "{table:?}");
    }
    let applied = crate::device::report(&wanted, &devices, &BTreeMap::new(), problems);
    assert!(applied.ports[0].wired, "a guest can be given its tap");
}
