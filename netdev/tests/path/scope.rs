//! Address scopes, by what real packets reach.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::six::*;
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;

fn scope(id: &str, family: Family, network: &str) -> Scope {
    Scope { id: id.into(), family, network: network.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_keeps_scopes_apart() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("scope");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = Wanted {
        networks: vec![network("n0", 100, 0), network("n1", 101, 1), network("n2", 102, 2), external()],
        ports: vec![
            port("a", "n0", 1, "10.0.0.11", &["g"]),
            port("b", "n1", 2, "10.0.1.12", &["g"]),
            port("c", "n2", 3, "10.0.2.13", &["g"]),
        ],
        groups: vec![open_group("g")],
        routers: vec![router("r", vec![leg("n0", 0, 1), leg("n1", 1, 2), leg("n2", 2, 3)], Some(gateway(10)))],
        scopes: vec![scope("s", Family::V4, "n0"), scope("t", Family::V4, "n1"), scope("s", Family::V4, "n2")],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let b = guest(&mut cloud, &plane, "b", "10.0.1.12").await;
    let c = guest(&mut cloud, &plane, "c", "10.0.2.13").await;
    let edge = Guest::at(&plane.ns_path(Ns::Edge).unwrap(), &cloud);
    edge.sh("ip route add 10.0.0.0/16 via 203.0.113.10");
    let whoami = "python3 -u -c 'import socket\ns=socket.socket();s.setsockopt(1,2,1);s.bind((\"203.0.113.1\",7000));s.listen()\nwhile 1:\n c,a=s.accept();c.sendall(a[0].encode());c.close()'";
    cloud.background(edge.spawn(whoami));
    let seen = |guest: &Guest| text(&guest.try_sh("timeout 5 nc -d 203.0.113.1 7000").stdout);
    let lost = || plane.stats().unwrap().drops.get("scope").copied().unwrap_or(0);

    // The outside has no scope: everybody hides, inside scopes do not meet.
    assert!(a.pings("10.0.2.13") && c.pings("10.0.0.11"), "one scope: {:?}", plane.stats());
    let before = lost();
    assert!(!a.pings("10.0.1.12") && !b.pings("10.0.2.13"), "two scopes");
    assert!(lost() > before);
    assert!(a.pings("10.0.0.1"), "a leg answers its own");
    assert!(soon(|| seen(&a) == "203.0.113.10") && seen(&b) == "203.0.113.10", "{:?}", plane.stats());
    assert!(!edge.pings("10.0.0.11"));

    // The outside is in the scope of a and c: they are known there as they are.
    wanted.scopes.push(scope("s", Family::V4, "ext"));
    apply(&plane, &wanted).await;
    assert!(soon(|| seen(&a) == "10.0.0.11") && seen(&c) == "10.0.2.13", "{:?}", plane.stats());
    assert_eq!(seen(&b), "203.0.113.10", "the other scope still hides");
    assert!(edge.pings("10.0.0.11") && !edge.pings("10.0.1.12"), "{:?}", plane.stats());

    // Floating addresses lead from one scope into another.
    wanted.floating = vec![floating(101, "b", "10.0.1.12", "r")];
    apply(&plane, &wanted).await;
    assert!(edge.pings("203.0.113.101") && a.pings("203.0.113.101"), "{:?}", plane.stats());
    assert_eq!(seen(&b), "203.0.113.101");

    // Nobody hides: who is of another scope has no way out but by his floating address.
    wanted.floating.clear();
    wanted.routers[0].gateway.as_mut().unwrap().snat = false;
    apply(&plane, &wanted).await;
    assert_eq!((seen(&a).as_str(), seen(&b).as_str()), ("10.0.0.11", ""));

    // All of one scope, the outside too: nothing is hidden although the router would.
    wanted.routers[0].gateway.as_mut().unwrap().snat = true;
    wanted.scopes[1].id = "s".into();
    apply(&plane, &wanted).await;
    assert!(soon(|| seen(&b) == "10.0.1.12") && a.pings("10.0.1.12") && edge.pings("10.0.1.12"), "{:?}", plane.stats());
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_of_ipv6_are_their_own() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("scope6");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let way_out = gateway6(0x10);
    let legs = vec![leg6("n0", 0, 1), leg6("n1", 1, 2)];
    let mut wanted = Wanted {
        networks: vec![network6("n0", 100, 0, None), network6("n1", 101, 1, None), external()],
        ports: vec![port("a", "n0", 1, "fd00:0::11", &["g"]), port("b", "n1", 2, "fd00:1::12", &["g"])],
        groups: vec![open6("g")],
        routers: vec![Router { gateway6: Some(way_out), ..router("r", legs, None) }],
        scopes: vec![scope("s", Family::V6, "n0"), scope("s", Family::V6, "ext"), scope("t", Family::V4, "n1")],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let edge = Guest::at(&plane.ns_path(Ns::Edge).unwrap(), &cloud);
    edge.sh("sysctl -qw net.ipv6.conf.ext0.disable_ipv6=0 net.ipv6.conf.all.forwarding=1");
    edge.sh("ip addr add 2001:db8:e::1/64 dev ext0 nodad; ip -6 route add fd00::/28 via 2001:db8:e::10");
    let a = guest6(&mut cloud, &plane, "a", Some("fd00:0::11")).await;
    let b = guest6(&mut cloud, &plane, "b", Some("fd00:1::12")).await;
    a.sh("ip -6 route add default via fd00:0::1");
    b.sh("ip -6 route add default via fd00:1::1");
    assert!(soon(|| pings(&a, "2001:db8:e::1")) && pings(&edge, "fd00:0::11"), "one scope: {:?}", plane.stats());
    assert!(!pings(&a, "fd00:1::12") && !pings(&b, "2001:db8:e::1") && !pings(&edge, "fd00:1::12"), "two scopes");
    wanted.scopes.clear();
    apply(&plane, &wanted).await;
    assert!(pings(&a, "fd00:1::12") && pings(&b, "2001:db8:e::1") && pings(&edge, "fd00:1::12"), "{:?}", plane.stats());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaked_subnet_is_known_outside_as_it_is() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("leak");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = Wanted {
        networks: vec![network("n0", 100, 0), network("n1", 101, 1), external()],
        ports: vec![port("a", "n0", 1, "10.0.0.11", &["g"]), port("b", "n1", 2, "10.0.1.12", &["g"])],
        groups: vec![open_group("g")],
        routers: vec![router("r", vec![leg("n0", 0, 1), leg("n1", 1, 2)], Some(gateway(10)))],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let b = guest(&mut cloud, &plane, "b", "10.0.1.12").await;
    let edge = Guest::at(&plane.ns_path(Ns::Edge).unwrap(), &cloud);
    let told = || edge.sh("ip -4 route show via 203.0.113.10");
    let whoami = "python3 -u -c 'import socket\ns=socket.socket();s.setsockopt(1,2,1);s.bind((\"203.0.113.1\",7000));s.listen()\nwhile 1:\n c,a=s.accept();c.sendall(a[0].encode());c.close()'";
    cloud.background(edge.spawn(whoami));
    let seen = |guest: &Guest| text(&guest.try_sh("timeout 5 nc -d 203.0.113.1 7000").stdout);
    assert!(soon(|| seen(&a) == "203.0.113.10") && told().is_empty(), "{:?}", plane.stats());
    assert!(!edge.pings("10.0.0.11"));

    // One of two subnets is leaked: the provider knows the way there, and it hides no more.
    wanted.routers[0].interfaces[0].leaked = true;
    apply(&plane, &wanted).await;
    assert!(told().starts_with("10.0.0.0/24 ") && told().lines().count() == 1, "{}", told());
    assert!(edge.pings("10.0.0.11"), "{:?}", plane.stats());
    assert!(soon(|| seen(&a) == "10.0.0.11") && a.pings("10.0.1.12"), "{:?}", plane.stats());

    // The other hides, and whoever sends to it by the same way outside finds nothing.
    edge.sh("ip route add 10.0.1.0/24 via 203.0.113.10");
    let lost = || plane.stats().unwrap().drops.get("no-route").copied().unwrap_or(0);
    let before = lost();
    assert!(seen(&b) == "203.0.113.10" && !edge.pings("10.0.1.12"), "{:?}", plane.stats());
    assert!(lost() > before, "{:?}", plane.stats());

    // Floating addresses are as before, for who is leaked too: what turns round within the cloud is hidden.
    wanted.floating = vec![floating(101, "b", "10.0.1.12", "r")];
    apply(&plane, &wanted).await;
    assert!(edge.pings("203.0.113.101") && a.pings("203.0.113.101"), "{:?}", plane.stats());
    assert_eq!(seen(&b), "203.0.113.101");
    wanted.floating.clear();

    // Of another scope than the outside, or by a router that hides nothing: it is known all the same.
    wanted.scopes = vec![scope("s", Family::V4, "n0"), scope("t", Family::V4, "ext")];
    wanted.routers[0].gateway.as_mut().unwrap().snat = false;
    apply(&plane, &wanted).await;
    assert!(soon(|| seen(&a) == "10.0.0.11") && edge.pings("10.0.0.11"), "{:?}", plane.stats());

    // Taken back: hidden again, the provider forgets, and so does a node that starts anew.
    wanted.scopes.clear();
    wanted.routers[0].gateway.as_mut().unwrap().snat = true;
    drop(plane);
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    wanted.routers[0].interfaces[0].leaked = false;
    apply(&plane, &wanted).await;
    let kept = edge.sh("ip -4 route show via 203.0.113.10");
    assert!(kept.starts_with("10.0.1.0/24 ") && kept.lines().count() == 1, "what was put there by hand stays: {kept}");
    let seen = |guest: &Guest| text(&guest.try_sh("timeout 5 nc -d 203.0.113.1 7000").stdout);
    assert!(soon(|| seen(&a) == "203.0.113.10") && !edge.pings("10.0.0.11"), "{:?}", plane.stats());
}
