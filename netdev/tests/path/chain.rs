//! Routers behind routers: what one's route gives to another's leg goes on there, to guests and to the outside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::six::*;
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;

fn to(destination: &str, nexthop: &str) -> Route {
    Route { destination: destination.parse().unwrap(), nexthop: nexthop.parse().unwrap() }
}

/// A leg that is not its network's gateway.
fn far_leg(network: &str, third: u8, last: u8, n: u8) -> Interface {
    Interface { address: format!("10.0.{third}.{last}").parse().unwrap(), ..leg(network, third, n) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_behind_two_routers_is_reached_and_reaches_out() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("chain");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    // n0 --inner-- transit (n1) --outer-- outside, and n2 beside it.
    let inner = router("inner", vec![leg("n0", 0, 1), far_leg("n1", 1, 2, 2)], None);
    let outer = router("outer", vec![leg("n1", 1, 3), leg("n2", 2, 4)], Some(gateway(10)));
    let inner = Router { routes: vec![to("0.0.0.0/0", "10.0.1.1")], ..inner };
    let outer = Router { routes: vec![to("10.0.0.0/24", "10.0.1.2")], ..outer };
    let mut wanted = Wanted {
        networks: vec![network("n0", 100, 0), network("n1", 101, 1), network("n2", 102, 2), external()],
        ports: vec![port("a", "n0", 1, "10.0.0.11", &["g"]), port("b", "n2", 5, "10.0.2.12", &["g"])],
        groups: vec![open_group("g")],
        routers: vec![inner, outer],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let b = guest(&mut cloud, &plane, "b", "10.0.2.12").await;
    let edge = Guest::at(&plane.ns_path(Ns::Edge).unwrap(), &cloud);
    let whoami = "python3 -u -c 'import socket\ns=socket.socket();s.setsockopt(1,2,1);s.bind((\"203.0.113.1\",7000));s.listen()\nwhile 1:\n c,a=s.accept();c.sendall(a[0].encode());c.close()'";
    cloud.background(edge.spawn(whoami));
    let seen = |guest: &Guest| text(&guest.try_sh("timeout 5 nc -d 203.0.113.1 7000").stdout);

    assert!(soon(|| a.pings("10.0.2.12")) && b.pings("10.0.0.11"), "{:?}", plane.stats());
    assert!(a.sh("ping -n -c1 -W1 10.0.2.12").contains("ttl=62"), "two hops");
    assert!(
        a.try_sh("ping -n -c1 -W1 -t1 10.0.2.12").stdout.windows(4).any(|w| w == b"Time"),
        "the first router says so"
    );
    // Out behind the outer router's address.
    assert!(soon(|| seen(&a) == "203.0.113.10"), "{:?}", plane.stats());
    assert!(!edge.pings("10.0.0.11"), "it hides");

    // A floating address of the outer router leads to the guest behind the inner one.
    wanted.floating = vec![floating(101, "a", "10.0.0.11", "outer")];
    apply(&plane, &wanted).await;
    assert!(soon(|| edge.pings("203.0.113.101")), "{:?}", plane.stats());
    assert!(soon(|| seen(&a) == "203.0.113.101"), "{:?}", plane.stats());

    // Two routers that each think the other has it: the packet ends.
    wanted.routers[1].routes.push(to("10.9.0.0/16", "10.0.1.2"));
    apply(&plane, &wanted).await;
    assert!(!a.pings("10.9.0.1"));
    assert!(plane.stats().unwrap().drops.get("ttl").copied().unwrap_or(0) > 0, "{:?}", plane.stats());
}

/// A leg of IPv6 that is not its network's gateway.
fn far_leg6(network: &str, third: u8, last: u8, n: u8) -> Interface {
    Interface { address: format!("fd00:{third}::{last:x}").parse().unwrap(), ..leg6(network, third, n) }
}

/// Routers `r0` to `r<n-1>` in a row, each on the network before it (`n<k>`, it is the gateway) and on the one behind; the
/// first network's guests reach the last's and back.
fn row(n: u8) -> Vec<Router> {
    let one = |k: u8| {
        let legs = vec![leg6(&format!("n{k}"), k, 2 * k + 1), far_leg6(&format!("n{}", k + 1), k + 1, 2, 2 * k + 2)];
        let on = (k + 1 < n).then(|| to(&format!("fd00:{n}::/64"), &format!("fd00:{}::1", k + 1)));
        let back = (k > 0).then(|| to("fd00:0::/64", &format!("fd00:{k}::2")));
        Router { routes: on.into_iter().chain(back).collect(), ..router(&format!("r{k}"), legs, None) }
    };
    (0..n).map(one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_passes_up_to_four_routers_that_each_say_what_is_wrong() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("chain6");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = Wanted {
        networks: (0..=5).map(|k| network6(&format!("n{k}"), 100 + u32::from(k), k, None)).collect(),
        ports: vec![
            port("a", "n0", 1, "fd00:0::11", &["g"]),
            port("b", "n4", 5, "fd00:4::12", &["g"]),
            port("c", "n5", 6, "fd00:5::13", &["g"]),
        ],
        groups: vec![open6("g")],
        routers: row(4),
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = guest6(&mut cloud, &plane, "a", Some("fd00:0::11")).await;
    let b = guest6(&mut cloud, &plane, "b", Some("fd00:4::12")).await;
    let c = guest6(&mut cloud, &plane, "c", Some("fd00:5::13")).await;
    a.sh("ip -6 route add default via fd00:0::1");
    b.sh("ip -6 route add default via fd00:4::2");
    c.sh("ip -6 route add default via fd00:5::2");
    assert!(soon(|| pings(&a, "fd00:4::12")) && pings(&b, "fd00:0::11"), "{:?}", plane.stats());
    assert!(a.sh("ping -6 -n -c1 -W2 fd00:4::12").contains("ttl=60"), "one of each router");
    // Each of them says by its own address, of the leg towards the sender, that the packet ends there.
    for (hops, router) in [(1, "fd00::1"), (2, "fd00:1::1"), (3, "fd00:2::1"), (4, "fd00:3::1")] {
        let said = a.try_sh(&format!("ping -6 -n -c1 -W2 -t {hops} fd00:4::12")).stdout_text();
        assert!(said.contains(&format!("From {router} ")) && said.contains("Time"), "{hops}: {said}");
    }
    // And what is too big for the network behind it.
    wanted.networks[3].mtu = 1300;
    apply(&plane, &wanted).await;
    let big = a.try_sh("ping -6 -n -c2 -W2 -M do -s 1400 fd00:4::12").stdout_text();
    assert!(big.contains("From fd00:2::1 ") && (big.contains("mtu=1300") || big.contains("mtu = 1300")), "{big}");
    assert!(pings(&a, "fd00:4::12"));
    // A leg of a router in between that has a firewall lets nothing pass.
    let closed = |leg: &Interface| Firewall {
        id: "f".into(),
        ingress: vec![],
        egress: vec![],
        ports: vec![],
        legs: vec![FirewallLeg { router: "r2".into(), network: leg.network.clone(), mac: leg.mac }],
    };
    wanted.firewalls = vec![closed(&wanted.routers[2].interfaces[0])];
    apply(&plane, &wanted).await;
    assert!(!pings(&a, "fd00:4::12") && plane.stats().unwrap().drops["firewall"] > 0);
    wanted.firewalls.clear();
    // Five are too many, and so are two that each think the other has it.
    wanted.routers = row(5);
    apply(&plane, &wanted).await;
    let ended = || plane.stats().unwrap().drops.get("ttl").copied().unwrap_or(0);
    let before = ended();
    assert!(!pings(&a, "fd00:5::13") && ended() > before, "{:?}", plane.stats());
    wanted.routers = row(4);
    wanted.routers[0].routes.push(to("fd99::/64", "fd00:1::1"));
    wanted.routers[1].routes.push(to("fd99::/64", "fd00:1::2"));
    apply(&plane, &wanted).await;
    let before = ended();
    assert!(!pings(&a, "fd99::1") && ended() > before, "{:?}", plane.stats());
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_goes_out_and_comes_in_through_two_routers() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("out6");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let out = gateway6(0x10);
    let inner = router("inner", vec![leg6("n0", 0, 1), far_leg6("n1", 1, 2, 2)], None);
    let outer = Router { gateway6: Some(out), ..router("outer", vec![leg6("n1", 1, 3)], None) };
    let wanted = Wanted {
        networks: vec![network6("n0", 100, 0, None), network6("n1", 101, 1, None), external()],
        ports: vec![port("a", "n0", 1, "fd00:0::11", &["g"])],
        groups: vec![open6("g")],
        routers: vec![
            Router { routes: vec![to("::/0", "fd00:1::1")], ..inner },
            Router { routes: vec![to("fd00:0::/64", "fd00:1::2")], ..outer },
        ],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let edge = Guest::at(&plane.ns_path(Ns::Edge).unwrap(), &cloud);
    edge.sh("sysctl -qw net.ipv6.conf.ext0.disable_ipv6=0; ip addr add 2001:db8:e::1/64 dev ext0 nodad");
    edge.sh("ip -6 route add fd00::/28 via 2001:db8:e::10");
    let a = guest6(&mut cloud, &plane, "a", Some("fd00:0::11")).await;
    a.sh("ip -6 route add default via fd00:0::1");
    assert!(soon(|| pings(&a, "2001:db8:e::1")) && pings(&edge, "fd00:0::11"), "{:?}", plane.stats());
    assert!(edge.sh("ping -6 -n -c1 -W2 fd00:0::11").contains("ttl=62"), "two hops");
    let said = edge.try_sh("ping -6 -n -c1 -W2 -t 2 fd00:0::11").stdout_text();
    assert!(said.contains("From fd00:1::2 "), "the inner one says so: {said}");
}
