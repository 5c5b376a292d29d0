//! IPv6 by what real stacks do: neighbours, addresses, groups, routers, other hosts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::six::*;
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;

#[tokio::test(flavor = "multi_thread")]
async fn guests_speak_by_their_own_addresses_as_their_groups_say() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("v6");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let out = |id: &str| group(id, vec![rule6("out", Direction::Egress, None, Ports::Any, Peer::Any)]);
    let mut wanted = Wanted {
        networks: vec![network6("n", 100, 0, None)],
        ports: vec![port("a", "n", 1, "fd00:0::11", &["ga"]), port("b", "n", 2, "fd00:0::12", &["gb"])],
        groups: vec![out("ga"), out("gb")],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = guest6(&mut cloud, &plane, "a", Some("fd00:0::11")).await;
    let b = guest6(&mut cloud, &plane, "b", Some("fd00:0::12")).await;
    cloud.background(b.spawn("sh -c 'while :; do nc -6 -l -p 80 >/dev/null; done'"));
    assert!(!pings(&a, "fd00:0::12") && !a.connects("fd00:0::12", 80), "default deny");
    assert!(a.sh("ip -6 neigh show fd00:0::12").contains("fa:16:3e:00:00:02"), "answered for, not by, the guest");
    assert!(plane.stats().unwrap().ports["b"].drops["group-in"] > 0);

    let ingress = |id: &str, protocol, ports, peer| rule6(id, Direction::Ingress, Some(protocol), ports, peer);
    wanted.groups[1].rules.push(ingress("web", 6, Ports::Range(80, 80), Peer::Group("ga".into())));
    wanted.groups[1].rules.push(ingress(
        "ping",
        58,
        Ports::Icmp(128, None),
        Peer::Cidr("fd00:0::10/124".parse().unwrap()),
    ));
    apply(&plane, &wanted).await;
    assert!(soon(|| a.connects("fd00:0::12", 80)), "{:?}", plane.stats());
    assert!(pings(&a, "fd00:0::12"));
    assert!(!pings(&b, "fd00:0::11"), "a lets nobody in");
    a.sh("ping -6 -n -c 2 -i 0.2 -W 2 -s 4000 fd00:0::12");
    // Its link-local address is its own too, but no member's and in no block.
    let local = "fe80::f816:3eff:fe00:2%eth0";
    assert!(!pings(&a, local));
    wanted.groups[1].rules.push(ingress("local", 1, Ports::Any, Peer::Cidr("fe80::/10".parse().unwrap())));
    apply(&plane, &wanted).await;
    assert!(pings(&a, local), "the older name of the protocol means this family's");

    // Another's address is nobody's to use, by none of the ways to say so.
    a.sh("ip addr add fd00:0::99/64 dev eth0 nodad");
    assert!(!a.try_sh("ping -6 -n -c1 -W1 -I fd00:0::99 fd00:0::12").status.success());
    assert!(plane.stats().unwrap().ports["a"].drops["spoofed-ip"] > 0);
    wanted.ports[0].allowed_pairs = vec![AddressPair { mac: None, cidr: "fd00:0::90/124".parse().unwrap() }];
    wanted.groups[1].rules[2] = ingress("ping", 58, Ports::Any, Peer::Any);
    apply(&plane, &wanted).await;
    let spoofed = || plane.stats().unwrap().ports["a"].drops["spoofed-ip"];
    let before = spoofed();
    a.try_sh("ping -6 -n -c1 -W1 -I fd00:0::99 fd00:0::12");
    assert_eq!(spoofed(), before, "a pair allows it");
    wanted.groups[1].rules.retain(|r| r.id != "web");
    apply(&plane, &wanted).await;
    assert!(!a.connects("fd00:0::12", 80), "a removed rule closes");
    // A duplicate is told so.
    b.sh("ip addr add fd00:0::11/64 dev eth0");
    assert!(soon(|| b.sh("ip -6 addr show dev eth0").contains("dadfailed")), "{}", b.sh("ip -6 addr show dev eth0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn routers_are_found_and_join_networks() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("ra");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = Wanted {
        networks: vec![network6("n0", 100, 0, Some(Ra::Slaac)), network6("n1", 101, 1, Some(Ra::Stateful))],
        ports: vec![port("a", "n0", 1, &own(0, 1), &["g"]), port("b", "n1", 2, "fd00:1::77", &["g"])],
        groups: vec![open6("g")],
        routers: vec![router("r", vec![leg6("n0", 0, 1), leg6("n1", 1, 2)], None)],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = guest6(&mut cloud, &plane, "a", None).await;
    let b = guest6(&mut cloud, &plane, "b", None).await;
    assert!(soon(|| a.sh("ip -6 addr show dev eth0").contains(&own(0, 1))), "{}", a.sh("ip -6 addr show dev eth0"));
    assert!(a.sh("ip -6 route show default").contains("via fe80::f816:3eff:fe01:1"), "{}", a.sh("ip -6 route"));
    // The other network's guests ask DHCPv6.
    assert!(soon(|| b.sh("ip -6 route show default").contains("via fe80::f816:3eff:fe01:2")));
    assert!(!b.sh("ip -6 addr show dev eth0").contains("fd00:1"), "no address of its own making");
    let said = b.dhcp6().expect("an answer");
    assert!(
        said.contains("new_ip6_address=fd00:1::77") && said.contains("new_dhcp6_name_servers=fd00:53::1"),
        "{said}"
    );
    b.sh("ip addr add fd00:1::77/128 dev eth0 nodad");
    assert!(soon(|| pings(&a, "fd00:1::77")), "{:?}", plane.stats());
    assert!(a.sh("ping -6 -n -c1 -W2 fd00:1::77").contains("ttl=63"), "one hop");
    assert!(
        pings(&a, "fd00:0::1") && pings(&a, "fd00:1::1") && pings(&a, "fe80::f816:3eff:fe01:1%eth0"),
        "its own legs"
    );
    cloud.background(b.spawn("sh -c 'while :; do nc -6 -l -p 80 >/dev/null; done'"));
    assert!(soon(|| a.connects("fd00:1::77", 80)));
    let short = a.try_sh("ping -6 -n -c1 -W2 -t 1 fd00:1::77").stdout_text();
    assert!(short.contains("From fd00:0::1") || short.contains("From fd00::1"), "{short}");
    assert!(!pings(&a, "fd00:5::5"), "no route");
    wanted.networks[1].mtu = 1300;
    apply(&plane, &wanted).await;
    let big = a.try_sh("ping -6 -n -c2 -W1 -M do -s 1400 fd00:1::77").stdout_text();
    assert!(big.contains("mtu=1300") || big.contains("mtu = 1300"), "{big}");
    // A route through a guest, and the end of the router.
    wanted.routers[0].routes =
        vec![Route { destination: "fd00:9::/64".parse().unwrap(), nexthop: "fd00:1::77".parse().unwrap() }];
    wanted.ports[1].allowed_pairs = vec![AddressPair { mac: None, cidr: "fd00:9::/64".parse().unwrap() }];
    apply(&plane, &wanted).await;
    b.sh("ip addr add fd00:9::9/128 dev lo nodad; sysctl -qw net.ipv6.conf.lo.disable_ipv6=0; ip addr replace fd00:9::9/128 dev lo nodad");
    assert!(pings(&a, "fd00:9::9"), "{:?}", plane.stats());
    wanted.routers.clear();
    apply(&plane, &wanted).await;
    assert!(soon(|| a.sh("ip -6 route show default").is_empty()), "told that the router went");
    assert!(!pings(&a, "fd00:1::77"));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_hosts_are_reached_alike() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("v6far");
    let one = DataPlane::open(cloud.node(1)).await.unwrap();
    let two = DataPlane::open(cloud.node(2)).await.unwrap();
    let base = Wanted {
        networks: vec![network6("n0", 100, 0, None), network6("n1", 101, 1, None)],
        groups: vec![open6("g")],
        routers: vec![router("r", vec![leg6("n0", 0, 1), leg6("n1", 1, 2)], None)],
        ..Wanted::default()
    };
    let remote = |port: &str, network: &str, n: u8, address: &str, host: u8| Remote {
        port: port.into(),
        network: network.into(),
        mac: mac(n),
        addresses: vec![address.parse().unwrap()],
        vtep: vtep(host),
        groups: vec!["g".into()],
    };
    let here = vec![port("a", "n0", 1, "fd00:0::11", &["g"])];
    let there = vec![port("b", "n0", 2, "fd00:0::12", &["g"]), port("c", "n1", 3, "fd00:1::13", &["g"])];
    let far = vec![remote("b", "n0", 2, "fd00:0::12", 2), remote("c", "n1", 3, "fd00:1::13", 2)];
    apply(&one, &Wanted { ports: here, remotes: far, ..base.clone() }).await;
    apply(&two, &Wanted { ports: there, remotes: vec![remote("a", "n0", 1, "fd00:0::11", 1)], ..base }).await;
    let a = guest6(&mut cloud, &one, "a", Some("fd00:0::11")).await;
    let _b = guest6(&mut cloud, &two, "b", Some("fd00:0::12")).await;
    let c = guest6(&mut cloud, &two, "c", Some("fd00:1::13")).await;
    a.sh("ip -6 route add default via fd00:0::1");
    c.sh("ip -6 route add default via fd00:1::1");
    assert!(soon(|| pings(&a, "fd00:0::12")), "{:?} {:?}", one.stats(), two.stats());
    assert!(
        pings(&a, "fd00:1::13") && pings(&c, "fd00:0::11"),
        "routed where it starts: {:?} {:?}",
        one.stats(),
        two.stats()
    );
    assert!(pings(&a, "fe80::f816:3eff:fe00:2%eth0"), "neighbours on other hosts have link-local addresses too");
}
