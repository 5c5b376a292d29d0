//! Several ways to one destination, as real connections take them: out of a router, and to guests behind guests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::six::*;
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;
use std::collections::BTreeSet;

/// The provider's network with a second subnet, which another of his routers serves.
fn two_subnets() -> Network {
    let mut network = external();
    let second = Subnet {
        id: "ext-two".into(),
        cidr: "198.51.100.0/24".parse().unwrap(),
        gateway: Some("198.51.100.1".parse().unwrap()),
        ..network.subnets[0].clone()
    };
    network.subnets.push(second);
    network
}

fn second(last: u8) -> Gateway {
    Gateway { address: [198, 51, 100, last].into(), next_hop: Some([198, 51, 100, 1].into()), ..gateway(last) }
}

fn way(out: Gateway, balanced: bool) -> Way {
    Way { router: "r".into(), out: Out::V4(out), balanced }
}

/// Tells everybody who asks by UDP where he comes from, on 192.0.2.99.
const WHO: &str = "python3 -u -c 'import socket\ns=socket.socket(2,2);s.bind((\"192.0.2.99\",7000))\nwhile 1:\n d,a=s.recvfrom(9);s.sendto(a[0].encode(),a)'";

/// Who the provider says that the guest is, for each of `n` flows, each of which is asked for twice.
fn faces(guest: &Guest, n: u16) -> (BTreeSet<String>, bool) {
    let ask = format!(
        "import socket\nfor p in range(20000,20000+{n}):\n s=socket.socket(2,2);s.settimeout(2);s.bind(('',p));s.connect(('192.0.2.99',7000))\n for i in (1,2):\n  s.send(b'x')\n  try: print(s.recv(99).decode(),end=' ')\n  except OSError: print('none',end=' ')\n print()"
    );
    let said = text(&guest.command("python3", &["-c", &ask]).output().unwrap().stdout);
    let flows: Vec<Vec<&str>> = said.lines().map(|l| l.split_whitespace().collect()).collect();
    let steady = flows.iter().all(|f| f.len() == 2 && f[0] == f[1]);
    (flows.into_iter().flatten().map(str::to_owned).collect(), steady)
}

fn set(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|s| (*s).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_leads_out_by_two_addresses() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("ways");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = Wanted {
        networks: vec![network("n0", 100, 0), two_subnets()],
        ports: vec![port("a", "n0", 1, "10.0.0.11", &["g"])],
        groups: vec![open_group("g")],
        routers: vec![router("r", vec![leg("n0", 0, 1)], Some(gateway(10)))],
        ways: vec![way(second(20), false)],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let edge = Guest::at(&plane.ns_path(Ns::Edge).unwrap(), &cloud);
    edge.sh("ip addr add 192.0.2.99/32 dev lo");
    cloud.background(edge.spawn(WHO));
    assert!(soon(|| faces(&a, 1).0 == set(&["203.0.113.10"])), "{:?}", plane.stats());
    assert_eq!(faces(&a, 40), (set(&["203.0.113.10"]), true), "the first, unless it is said otherwise");
    assert!(edge.pings("203.0.113.10") && edge.pings("198.51.100.20"), "both answer");
    assert!(a.pings("198.51.100.1"), "each leads to its own network");
    // A floating address of the second network reaches the guest.
    let floating = Floating { address: [198, 51, 100, 30].into(), ..floating(30, "a", "10.0.0.11", "r") };
    wanted.floating = vec![floating];
    apply(&plane, &wanted).await;
    assert!(soon(|| edge.pings("198.51.100.30")), "{:?}", plane.stats());
    wanted.floating.clear();
    wanted.ways[0].balanced = true;
    apply(&plane, &wanted).await;
    let both = set(&["198.51.100.20", "203.0.113.10"]);
    assert_eq!(faces(&a, 40), (both.clone(), true), "spread, and each flow keeps its way: {:?}", plane.stats());
    // Another host's guests take the same ways by the host that holds them.
    wanted.ways.clear();
    apply(&plane, &wanted).await;
    assert_eq!(faces(&a, 10).0, set(&["203.0.113.10"]));
    assert!(!edge.pings("198.51.100.20"), "gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn ways_are_taken_by_the_host_that_holds_them() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("waysfar");
    let one = DataPlane::open(cloud.node(1)).await.unwrap();
    let two = DataPlane::open(cloud.node(2)).await.unwrap();
    let held = |gateway: Gateway| Gateway { vtep: Some(vtep(1)), ..gateway };
    let base = Wanted {
        networks: vec![network("n0", 100, 0), two_subnets()],
        groups: vec![open_group("g")],
        routers: vec![router("r", vec![leg("n0", 0, 1)], Some(held(gateway(10))))],
        ways: vec![way(held(second(20)), true)],
        ..Wanted::default()
    };
    let remote = Remote {
        port: "a".into(),
        network: "n0".into(),
        mac: mac(1),
        addresses: vec!["10.0.0.11".parse().unwrap()],
        vtep: vtep(2),
        groups: vec!["g".into()],
    };
    apply(&one, &Wanted { remotes: vec![remote], ..base.clone() }).await;
    apply(&two, &Wanted { ports: vec![port("a", "n0", 1, "10.0.0.11", &["g"])], ..base }).await;
    let a = guest(&mut cloud, &two, "a", "10.0.0.11").await;
    let edge = Guest::at(&one.ns_path(Ns::Edge).unwrap(), &cloud);
    edge.sh("ip addr add 192.0.2.99/32 dev lo");
    cloud.background(edge.spawn(WHO));
    let both = set(&["198.51.100.20", "203.0.113.10"]);
    assert!(soon(|| faces(&a, 20) == (both.clone(), true)), "{:?} {:?}", one.stats(), two.stats());
}

#[tokio::test(flavor = "multi_thread")]
async fn static_routes_share_what_is_behind_two_guests() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("share");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let route = |to: &str, via: &str| Route { destination: to.parse().unwrap(), nexthop: via.parse().unwrap() };
    let behind = |id: &str, network: &str, n: u8, address: &str, pair: &str| Port {
        allowed_pairs: vec![AddressPair { mac: None, cidr: pair.parse().unwrap() }],
        ..port(id, network, n, address, &["g"])
    };
    let mut both = open_group("g");
    both.rules.extend(open6("six").rules);
    let wanted = Wanted {
        networks: vec![
            network("n0", 100, 0),
            network("n1", 101, 1),
            network6("m0", 110, 5, None),
            network6("m1", 111, 6, None),
        ],
        ports: vec![
            port("a", "n0", 1, "10.0.0.11", &["g"]),
            behind("b", "n1", 2, "10.0.1.12", "172.16.0.0/16"),
            behind("c", "n1", 3, "10.0.1.13", "172.16.0.0/16"),
            port("d", "m0", 4, "fd00:5::11", &["g"]),
            behind("e", "m1", 5, "fd00:6::12", "fd00:9::/64"),
            behind("f", "m1", 6, "fd00:6::13", "fd00:9::/64"),
        ],
        groups: vec![both],
        routers: vec![Router {
            routes: vec![
                route("172.16.0.0/16", "10.0.1.12"),
                route("172.16.0.0/16", "10.0.1.13"),
                route("fd00:9::/64", "fd00:6::12"),
                route("fd00:9::/64", "fd00:6::13"),
            ],
            ..router("r", vec![leg("n0", 0, 1), leg("n1", 1, 2), leg6("m0", 5, 3), leg6("m1", 6, 4)], None)
        }],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let serve = |family: u8, address: &str, name: &str| {
        format!(
            "python3 -u -c 'import socket\ns=socket.socket({family},2);s.bind((\"{address}\",7000))\nwhile 1:\n d,a=s.recvfrom(9);s.sendto(b\"{name}\",a)'"
        )
    };
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    for (id, address) in [("b", "10.0.1.12"), ("c", "10.0.1.13")] {
        let guest = guest(&mut cloud, &plane, id, address).await;
        guest.sh("ip addr add 172.16.0.9/32 dev lo");
        cloud.background(guest.spawn(&serve(2, "172.16.0.9", id)));
    }
    let d = guest6(&mut cloud, &plane, "d", Some("fd00:5::11")).await;
    d.sh("ip -6 route add default via fd00:5::1");
    for (id, address) in [("e", "fd00:6::12"), ("f", "fd00:6::13")] {
        let guest = guest6(&mut cloud, &plane, id, Some(address)).await;
        guest.sh("ip -6 route add default via fd00:6::1; sysctl -qw net.ipv6.conf.lo.disable_ipv6=0; ip addr add fd00:9::9/128 dev lo nodad");
        cloud.background(guest.spawn(&serve(10, "fd00:9::9", id)));
    }
    let ask = |guest: &Guest, family: u8, to: &str| -> BTreeSet<String> {
        let ask = format!(
            "import socket\nfor p in range(20000,20030):\n s=socket.socket({family},2);s.settimeout(1);s.bind(('',p));s.connect(('{to}',7000))\n for i in (1,2):\n  s.send(b'x')\n  try: print(s.recv(99).decode(),end='')\n  except OSError: print('-',end='')\n print()"
        );
        let said = text(&guest.command("python3", &["-c", &ask]).output().unwrap().stdout);
        said.split_whitespace().map(str::to_owned).collect()
    };
    assert!(
        soon(|| ask(&a, 2, "172.16.0.9") == set(&["bb", "cc"])),
        "{:?} {:?}",
        ask(&a, 2, "172.16.0.9"),
        plane.stats()
    );
    assert!(
        soon(|| ask(&d, 10, "fd00:9::9") == set(&["ee", "ff"])),
        "{:?} {:?}",
        ask(&d, 10, "fd00:9::9"),
        plane.stats()
    );
}
