//! IPv6 to and from the outside, by real stacks: the provider routes the inside's prefix to a router that answers for itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::six::*;
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn one_router() -> Router {
    let legs = vec![leg6("n0", 0, 1), leg6("n1", 1, 2)];
    Router { gateway6: Some(gateway6(0x10)), ..router("r", legs, None) }
}

/// The provider: an address, a route to the inside, and somebody further away.
fn provider(cloud: &Cloud, plane: &DataPlane) -> Guest {
    let edge = Guest::at(&plane.ns_path(Ns::Edge).unwrap(), cloud);
    edge.sh(
        "sysctl -qw net.ipv6.conf.ext0.disable_ipv6=0 net.ipv6.conf.lo.disable_ipv6=0 net.ipv6.conf.all.forwarding=1",
    );
    edge.sh("ip addr add 2001:db8:e::1/64 dev ext0 nodad; ip addr add 2001:db8:ffff::1/128 dev lo nodad");
    edge.sh("ip -6 route add fd00::/28 via 2001:db8:e::10");
    edge
}

fn everything(d: Direction) -> MeterRule {
    MeterRule { direction: d, excluded: false, source: None, destination: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outside_is_reached_and_reaches_as_far_as_groups_let_it() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("gw6");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let out = rule6("out", Direction::Egress, None, Ports::Any, Peer::Any);
    let from_a = MeterRule { source: Some("fd00:0::11/128".parse().unwrap()), ..everything(Direction::Egress) };
    let label = |id: &str, rules| Label { id: id.into(), routers: vec!["r".into()], rules };
    let mut wanted = Wanted {
        networks: vec![network6("n0", 100, 0, None), network6("n1", 101, 1, None), external()],
        ports: vec![port("a", "n0", 1, "fd00:0::11", &["g"]), port("b", "n1", 2, "fd00:1::12", &["g"])],
        groups: vec![group("g", vec![out])],
        routers: vec![one_router()],
        labels: vec![label("in", vec![everything(Direction::Ingress)]), label("a", vec![from_a])],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let edge = provider(&cloud, &plane);
    let a = guest6(&mut cloud, &plane, "a", Some("fd00:0::11")).await;
    let b = guest6(&mut cloud, &plane, "b", Some("fd00:1::12")).await;
    a.sh("ip -6 route add default via fd00:0::1");
    b.sh("ip -6 route add default via fd00:1::1");
    assert!(soon(|| pings(&a, "2001:db8:e::1")), "{:?}", plane.stats());
    assert!(pings(&b, "2001:db8:ffff::1"), "further than the provider's link: {:?}", plane.stats());
    assert!(a.sh("ping -6 -n -c1 -W2 2001:db8:ffff::1").contains("ttl=63"), "one hop");
    assert!(edge.sh("ip -6 neigh show dev ext0").contains("2001:db8:e::10 lladdr fa:16:3e:02:00:10"), "its own MAC");
    assert!(pings(&edge, "2001:db8:e::10"), "the way out answers ping");
    let count = |id: &str| plane.meters().unwrap()[id].packets;
    let (before_in, before_a) = (count("in"), count("a"));
    a.sh("ping -6 -n -c 3 -i 0.2 -W 2 2001:db8:ffff::1");
    b.sh("ping -6 -n -c 2 -i 0.2 -W 2 2001:db8:ffff::1");
    assert_eq!((count("in") - before_in, count("a") - before_a), (5, 3), "counted by label");

    // In comes what a rule lets in, and nobody who says that he is inside.
    assert!(!pings(&edge, "fd00:0::11"), "closed");
    wanted.groups[0].rules.push(rule6("ping", Direction::Ingress, Some(58), Ports::Any, Peer::Any));
    apply(&plane, &wanted).await;
    assert!(pings(&edge, "fd00:0::11"), "{:?}", plane.stats());
    edge.sh("ip addr add fd00:1::12/128 dev lo nodad");
    assert!(!edge.try_sh("ping -6 -n -c1 -W1 -I fd00:1::12 fd00:0::11").status.success());
    assert!(plane.stats().unwrap().drops["spoofed-ip"] > 0);
    assert!(!pings(&edge, "fd00:7::1"), "no such inside");

    // Too big for what is behind: the provider's sender is told, and ours.
    wanted.networks[0].mtu = 1300;
    apply(&plane, &wanted).await;
    let big = edge.try_sh("ping -6 -n -c2 -W1 -M do -s 1400 fd00:0::11").stdout_text();
    assert!(big.contains("mtu=1300") || big.contains("mtu = 1300"), "{big}");
    let short = b.try_sh("ping -6 -n -c1 -W2 -t 1 2001:db8:ffff::1").stdout_text();
    assert!(short.contains("From fd00:1::1"), "{short}");
    // A link-local source stays on its link.
    let reserved = || plane.stats().unwrap().drops.get("reserved").copied().unwrap_or(0);
    let before = reserved();
    b.try_sh("ping -6 -n -c1 -W1 -I fe80::f816:3eff:fe00:2%eth0 2001:db8:ffff::1");
    assert!(reserved() > before, "{:?}", plane.stats());

    wanted.routers[0].gateway6 = None;
    apply(&plane, &wanted).await;
    assert!(!pings(&a, "2001:db8:e::1"), "no way out any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_may_hold_the_gateway6() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("gw6far");
    let one = DataPlane::open(cloud.node(1)).await.unwrap();
    let two = DataPlane::open(cloud.node(2)).await.unwrap();
    let held = Router { gateway6: Some(Gateway6 { vtep: Some(vtep(1)), ..gateway6(0x10) }), ..one_router() };
    let base = Wanted {
        networks: vec![network6("n0", 100, 0, None), network6("n1", 101, 1, None), external()],
        groups: vec![open6("g")],
        routers: vec![held],
        ..Wanted::default()
    };
    let far = Remote {
        port: "b".into(),
        network: "n1".into(),
        mac: mac(2),
        addresses: vec!["fd00:1::12".parse().unwrap()],
        vtep: vtep(2),
        groups: vec!["g".into()],
    };
    apply(&one, &Wanted { remotes: vec![far], ..base.clone() }).await;
    apply(&two, &Wanted { ports: vec![port("b", "n1", 2, "fd00:1::12", &["g"])], ..base }).await;
    let edge = provider(&cloud, &one);
    let b = guest6(&mut cloud, &two, "b", Some("fd00:1::12")).await;
    b.sh("ip -6 route add default via fd00:1::1");
    assert!(soon(|| pings(&b, "2001:db8:ffff::1")), "{:?} {:?}", one.stats(), two.stats());
    assert!(pings(&edge, "fd00:1::12"), "{:?} {:?}", one.stats(), two.stats());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_several_ports_follows_who_announces_it() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("move6");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = Wanted {
        networks: vec![network6("n", 100, 0, None)],
        ports: vec![
            port("a", "n", 1, "fd00:0::11", &["g"]),
            port("b", "n", 2, "fd00:0::12", &["g"]),
            port("c", "n", 3, "fd00:0::13", &["g"]),
        ],
        groups: vec![open6("g")],
        ..Wanted::default()
    };
    for n in 0..2 {
        wanted.ports[n].allowed_pairs = vec![AddressPair { mac: None, cidr: "fd00:0::99/128".parse().unwrap() }];
    }
    apply(&plane, &wanted).await;
    let a = guest6(&mut cloud, &plane, "a", Some("fd00:0::11")).await;
    let b = guest6(&mut cloud, &plane, "b", Some("fd00:0::12")).await;
    let c = guest6(&mut cloud, &plane, "c", Some("fd00:0::13")).await;
    let holder = || {
        c.sh("ip -6 neigh flush dev eth0");
        let reached = pings(&c, "fd00:0::99");
        let neighbours = c.sh("ip -6 neigh show fd00:0::99 dev eth0");
        reached.then(|| if neighbours.contains("fa:16:3e:00:00:01") { "a" } else { "b" })
    };
    // An unsolicited advertisement, as keepalived sends it.
    let take = |g: &Guest, n: u8| {
        g.sh("ip addr replace fd00:0::99/128 dev eth0 nodad");
        let say = format!(
            "import socket\ns=socket.socket(socket.AF_INET6,socket.SOCK_RAW,58)\n\
             s.setsockopt(41,18,255)\ns.bind(('fd00:0::99',0))\nt=socket.inet_pton(socket.AF_INET6,'fd00:0::99')\n\
             s.sendto(bytes([136,0,0,0,32,0,0,0])+t+bytes([2,1,0xfa,0x16,0x3e,0,0,{n}]),('ff02::1%eth0',0))"
        );
        g.sh(&format!("python3 -c \"{say}\""));
    };
    take(&b, 2);
    assert!(soon(|| holder() == Some("b")), "{:?} {}", plane.stats(), c.sh("ip -6 neigh"));
    // Another pass does not give it back.
    wanted.ports[2].hostname = "other".into();
    apply(&plane, &wanted).await;
    assert_eq!(holder(), Some("b"));
    b.sh("ip addr del fd00:0::99/128 dev eth0");
    take(&a, 1);
    assert!(soon(|| holder() == Some("a")), "{:?}", plane.stats());
    // Who may not have it gets nothing by saying that he does.
    take(&c, 3);
    c.sh("ip addr del fd00:0::99/128 dev eth0");
    assert!(soon(|| holder() == Some("a")), "{:?}", plane.stats());
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_there_by_ipv6_and_knows_who_asks() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("meta6");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = Wanted {
        networks: vec![network6("red", 100, 0, None), network6("blue", 200, 0, None)],
        ports: vec![
            port("r", "red", 1, "fd00:0::11", &[]),
            port("b", "blue", 1, "fd00:0::11", &[]),
            port("n", "red", 3, "fd00:0::13", &[]),
        ],
        ..Wanted::default()
    };
    wanted.ports[2].metadata = false;
    apply(&plane, &wanted).await;
    let listener = plane.metadata().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, port)) = listener.accept().await {
            let mut buffer = [0u8; 1024];
            let _ = stream.read(&mut buffer).await;
            let body = format!("you are {port}");
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all((head + &body).as_bytes()).await;
        }
    });
    let ask = |g: &Guest, from: &str| {
        let g = g.clone();
        let curl = format!("curl -g -s -m 4 {from} 'http://[fe80::a9fe:a9fe%25eth0]/openstack'");
        tokio::task::spawn_blocking(move || text(&g.try_sh(&curl).stdout))
    };
    let r = guest6(&mut cloud, &plane, "r", Some("fd00:0::11")).await;
    let b = guest6(&mut cloud, &plane, "b", Some("fd00:0::11")).await;
    let n = guest6(&mut cloud, &plane, "n", Some("fd00:0::13")).await;
    assert_eq!(ask(&r, "").await.unwrap(), "you are r", "{:?}", plane.stats());
    assert_eq!(ask(&b, "").await.unwrap(), "you are b", "the same addresses on another network");
    assert_eq!(ask(&n, "").await.unwrap(), "", "not every port may ask");
    assert_eq!(ask(&r, "--interface fd00:0::11").await.unwrap(), "", "by the link-local address alone");
    assert!(!r.try_sh("nc -6 -z -w 1 fe80::a9fe:a9fe%eth0 22").status.success(), "no other port of the node");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_answers_for_single_addresses_and_lets_nothing_else_in() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("ndp");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let proxied = Some(vec!["2001:db8:e:0:1::11".parse().unwrap()]);
    let inside = Interface { address: "2001:db8:e:0:1::1".parse().unwrap(), prefix: 80, ..leg6("n0", 0, 1) };
    let mut n0 = network6("n0", 100, 0, None);
    n0.subnets[0].cidr = "2001:db8:e:0:1::/80".parse().unwrap();
    let mut wanted = Wanted {
        networks: vec![n0, external()],
        ports: vec![port("a", "n0", 1, "2001:db8:e:0:1::11", &["g"]), port("b", "n0", 2, "2001:db8:e:0:1::12", &["g"])],
        groups: vec![open6("g")],
        routers: vec![Router {
            gateway6: Some(Gateway6 { proxied, ..gateway6(0x10) }),
            ..router("r", vec![inside], None)
        }],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    // The provider thinks that the inside's addresses are on his link: he asks for each of them.
    let edge = Guest::at(&plane.ns_path(Ns::Edge).unwrap(), &cloud);
    edge.sh("sysctl -qw net.ipv6.conf.ext0.disable_ipv6=0; ip addr add 2001:db8:e::1/64 dev ext0 nodad");
    let a = guest6(&mut cloud, &plane, "a", None).await;
    let b = guest6(&mut cloud, &plane, "b", None).await;
    for (guest, last) in [(&a, "11"), (&b, "12")] {
        guest.sh(&format!("ip addr add 2001:db8:e:0:1::{last}/80 dev eth0 nodad"));
        guest.sh("ip -6 route add default via 2001:db8:e:0:1::1");
    }
    assert!(soon(|| pings(&edge, "2001:db8:e:0:1::11")), "{:?}", plane.stats());
    let known = edge.sh("ip -6 neigh show dev ext0");
    assert!(known.contains("2001:db8:e:0:1::11 lladdr fa:16:3e:02:00:10"), "by the router's own MAC: {known}");
    assert!(pings(&a, "2001:db8:e::1") && pings(&edge, "2001:db8:e::10"), "{:?}", plane.stats());
    assert!(!pings(&edge, "2001:db8:e:0:1::12"), "nobody answers for it");
    edge.sh("ip -6 neigh replace 2001:db8:e:0:1::12 lladdr fa:16:3e:02:00:10 dev ext0");
    let lost = || plane.stats().unwrap().drops.get("edge").copied().unwrap_or(0);
    let before = lost();
    assert!(!pings(&edge, "2001:db8:e:0:1::12") && lost() > before, "nor does it come in by force");
    wanted.routers[0].gateway6.as_mut().unwrap().proxied = Some(vec!["2001:db8:e:0:1::12".parse().unwrap()]);
    apply(&plane, &wanted).await;
    assert!(pings(&edge, "2001:db8:e:0:1::12") && !pings(&edge, "2001:db8:e:0:1::11"), "{:?}", plane.stats());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_on_the_external_network_has_neighbours_there() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("out6port");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut outside = external();
    let six = network6("x", 9000, 0, None).subnets.remove(0);
    outside.subnets.push(Subnet { id: "six".into(), cidr: "2001:db8:e::/64".parse().unwrap(), gateway: None, ..six });
    let mut wanted = Wanted {
        networks: vec![outside],
        ports: vec![port("a", "ext", 1, "2001:db8:e::11", &["g"]), port("b", "ext", 2, "2001:db8:e::12", &["g"])],
        groups: vec![group("g", vec![rule6("out", Direction::Egress, None, Ports::Any, Peer::Any)])],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let edge = provider(&cloud, &plane);
    let a = guest6(&mut cloud, &plane, "a", Some("2001:db8:e::11")).await;
    let b = guest6(&mut cloud, &plane, "b", Some("2001:db8:e::12")).await;
    a.sh("ip -6 route add default via 2001:db8:e::1");
    assert!(soon(|| pings(&a, "2001:db8:e::1")), "{:?}", plane.stats());
    assert!(pings(&a, "2001:db8:ffff::1"), "and beyond: {:?}", plane.stats());
    let known = edge.sh("ip -6 neigh show dev ext0");
    assert!(known.contains("2001:db8:e::11 lladdr fa:16:3e:00:00:01"), "by its own hardware address: {known}");
    assert!(!pings(&edge, "2001:db8:e::11"), "its groups let nobody in");
    wanted.groups[0].rules.push(rule6("ping", Direction::Ingress, Some(58), Ports::Any, Peer::Any));
    apply(&plane, &wanted).await;
    edge.sh("ip -6 neigh flush dev ext0");
    assert!(pings(&edge, "2001:db8:e::11"), "{:?}", plane.stats());
    let local = edge.sh("ip -6 addr show dev ext0 scope link | sed -n 's/.*inet6 \\(.*\\)\\/64.*/\\1/p'");
    assert!(pings(&a, &format!("{}%eth0", local.trim())), "by its link-local address too");
    // Guests of the network find each other as ever, and nobody learns of addresses from a guest.
    assert!(pings(&b, "2001:db8:e::11"), "{:?}", plane.stats());
    b.sh("ip addr add 2001:db8:e::1/128 dev eth0 nodad");
    let say = "import socket\ns=socket.socket(socket.AF_INET6,socket.SOCK_RAW,58)\n\
               s.setsockopt(41,16,255)\nt=socket.inet_pton(socket.AF_INET6,'2001:db8:e::1')\n\
               s.sendto(bytes([136,0,0,0,96,0,0,0])+t+bytes([2,1,0xfa,0x16,0x3e,0,0,2]),('2001:db8:e::11',0))";
    let before = a.sh("ip -6 neigh show 2001:db8:e::1");
    b.sh(&format!("python3 -c \"{say}\""));
    assert!(!a.sh("ip -6 neigh show 2001:db8:e::1").contains("fa:16:3e:00:00:02"), "{before}");
    assert!(pings(&a, "2001:db8:e::1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_on_the_external_network_and_one_behind_its_own_hosts_gateway_reach_each_other() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("beside6");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut outside = external();
    let six = network6("x", 9000, 0, None).subnets.remove(0);
    outside.subnets.push(Subnet { id: "six".into(), cidr: "2001:db8:e::/64".parse().unwrap(), gateway: None, ..six });
    let wanted = Wanted {
        networks: vec![network6("n0", 100, 0, None), outside],
        ports: vec![port("a", "n0", 1, "fd00:0::11", &["g"]), port("o", "ext", 2, "2001:db8:e::12", &["g"])],
        groups: vec![open6("g")],
        routers: vec![Router { gateway6: Some(gateway6(0x10)), ..router("r", vec![leg6("n0", 0, 1)], None) }],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = guest6(&mut cloud, &plane, "a", Some("fd00:0::11")).await;
    let o = guest6(&mut cloud, &plane, "o", Some("2001:db8:e::12")).await;
    a.sh("ip -6 route add default via fd00:0::1");
    o.sh("ip -6 route add fd00::/28 via 2001:db8:e::10");
    assert!(soon(|| pings(&o, "2001:db8:e::10")), "the router's own address: {:?}", plane.stats());
    assert!(pings(&o, "fd00:0::11") && pings(&a, "2001:db8:e::12"), "{:?}", plane.stats());
    assert!(o.sh("ping -6 -n -c1 -W2 fd00:0::11").contains("ttl=63"), "one hop");
}
