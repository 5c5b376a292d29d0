//! Guests on an external network, and what is behind addresses of their own host there: the wire carries nothing of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;

/// With a tag on the wire or without one: guest `out` outside, and behind two routers one guest with a floating address
/// and one that is hidden.
async fn both_ways(name: &str, vlan: u16) {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new(name);
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let wanted = Wanted {
        networks: vec![network("n0", 100, 0), network("n1", 101, 1), Network { vlan, ..external() }],
        ports: vec![
            port("a", "n0", 1, "10.0.0.11", &["g"]),
            port("b", "n1", 2, "10.0.1.12", &["g"]),
            port("out", "ext", 3, "203.0.113.50", &["g"]),
            port("shut", "ext", 4, "203.0.113.51", &["lone"]),
        ],
        groups: vec![open_group("g"), out_only("lone")],
        routers: vec![
            router("r", vec![leg("n0", 0, 1)], Some(gateway(10))),
            router("s", vec![leg("n1", 1, 2)], Some(gateway(11))),
        ],
        floating: vec![floating(20, "a", "10.0.0.11", "r")],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let b = guest(&mut cloud, &plane, "b", "10.0.1.12").await;
    let out = guest(&mut cloud, &plane, "out", "203.0.113.50").await;
    let _shut = guest(&mut cloud, &plane, "shut", "203.0.113.51").await;
    for (from, to) in [(&out, "203.0.113.20"), (&a, "203.0.113.50"), (&b, "203.0.113.50"), (&b, "203.0.113.20")] {
        assert!(from.pings(to), "{to}: {:?}", plane.stats());
    }
    assert!(out.pings("203.0.113.11"), "a router answers for itself: {:?}", plane.stats());
    assert!(!a.pings("203.0.113.51") && !b.pings("203.0.113.51"), "groups judge as ever");
    let whoami = "python3 -u -c 'import socket\ns=socket.socket();s.setsockopt(1,2,1);s.bind((\"\",7000));s.listen()\nwhile 1:\n c,a=s.accept();c.sendall(a[0].encode());c.close()'";
    cloud.background(out.spawn(whoami));
    cloud.background(a.spawn(whoami));
    let ask = |g: &Guest, to: &str| text(&g.try_sh(&format!("timeout 5 nc -d {to} 7000")).stdout);
    assert!(soon(|| ask(&a, "203.0.113.50") == "203.0.113.20"), "seen by the floating address: {:?}", plane.stats());
    assert_eq!(ask(&b, "203.0.113.50"), "203.0.113.11", "hidden behind the router");
    assert!(soon(|| ask(&out, "203.0.113.20") == "203.0.113.50"));
    assert!(!out.connects("10.0.0.11", 7000), "inside addresses stay inside");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_outside_and_guests_behind_routers_meet_on_one_host() {
    both_ways("outside", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_they_do_on_a_tagged_wire() {
    both_ways("outtag", 33).await;
}
