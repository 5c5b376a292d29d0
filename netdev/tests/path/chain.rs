//! Routers behind routers: what one's route gives to another's leg goes on there, to guests and to the outside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
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
