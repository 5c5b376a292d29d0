//! Two nodes of one cloud: VXLAN between them, routing on both, the gateway on one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;
use std::net::Ipv4Addr;

fn remote(id: &str, network: &str, n: u8, address: &str, node: u8, groups: &[&str]) -> Remote {
    Remote {
        port: id.into(),
        network: network.into(),
        mac: mac(n),
        addresses: vec![address.parse().unwrap()],
        vtep: vtep(node),
        groups: groups.iter().map(|g| (*g).into()).collect(),
    }
}

/// What both nodes are told: the same networks, groups and router.
fn shared() -> Wanted {
    let ping = rule("ping", Direction::Ingress, Some(1), Ports::Any, Peer::Group("g".into()));
    let mut g = out_only("g");
    g.rules.push(ping);
    Wanted {
        networks: vec![network("n0", 100, 0), network("n1", 101, 1), external()],
        groups: vec![g, out_only("lone")],
        routers: vec![Router {
            id: "r".into(),
            interfaces: vec![leg("n0", 0, 1), leg("n1", 1, 2)],
            gateway: Some(Gateway { vtep: Some(vtep(1)), ..gateway(10) }),
            gateway6: None,
            routes: vec![],
        }],
        ..Wanted::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_are_one_cloud() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("over");
    let one = DataPlane::open(cloud.node(1)).await.unwrap();
    let two = DataPlane::open(cloud.node(2)).await.unwrap();
    let (mut w1, mut w2) = (shared(), shared());
    w1.ports = vec![port("a", "n0", 1, "10.0.0.11", &["g"])];
    w2.ports = vec![port("b", "n0", 2, "10.0.0.12", &["g"]), port("c", "n1", 3, "10.0.1.13", &["g"])];
    w1.remotes = vec![remote("b", "n0", 2, "10.0.0.12", 2, &["g"]), remote("c", "n1", 3, "10.0.1.13", 2, &["g"])];
    w2.remotes = vec![remote("a", "n0", 1, "10.0.0.11", 1, &["g"])];
    apply(&one, &w1).await;
    apply(&two, &w2).await;
    let mut guests = Vec::new();
    for (id, plane, address) in [("a", &one, "10.0.0.11"), ("b", &two, "10.0.0.12"), ("c", &two, "10.0.1.13")] {
        let guest = cloud.guest(id);
        plane.open_veth(id, &guest.ns, "eth0").await.unwrap();
        let via = format!("{}.1", address.rsplit_once('.').unwrap().0);
        guest.address(&format!("{address}/24"), Some(&via));
        guests.push(guest);
    }
    let [a, b, c] = &guests[..] else { unreachable!() };
    assert!(a.pings("10.0.0.12"), "one: {:?}\ntwo: {:?}", one.stats(), two.stats());
    assert!(b.pings("10.0.0.11"));
    assert!(a.sh("ping -n -c1 -W1 10.0.1.13").contains("ttl=63"), "one hop, on the host where it starts");
    assert!(c.pings("10.0.0.11"));
    a.sh("ping -n -c 2 -i 0.2 -W 2 -s 4000 10.0.0.12");

    // The gateway is on node one; b and c reach outside through it, behind its address.
    let edge = Guest::at(&one.ns_path(Ns::Edge).unwrap(), &cloud);
    let whoami = "python3 -u -c 'import socket\ns=socket.socket();s.setsockopt(1,2,1);s.bind((\"203.0.113.1\",7000));s.listen()\nwhile 1:\n c,a=s.accept();c.sendall(a[0].encode());c.close()'";
    cloud.background(edge.spawn(whoami));
    let ask = |g: &Guest| text(&g.try_sh("timeout 5 nc -d 203.0.113.1 7000").stdout);
    assert!(soon(|| ask(a) == "203.0.113.10"));
    assert_eq!(ask(b), "203.0.113.10", "one: {:?}\ntwo: {:?}", one.stats(), two.stats());
    assert_eq!(ask(c), "203.0.113.10");

    // A floating address leaves from the guest's own node.
    w2.floating = vec![Floating {
        id: "f".into(),
        address: Ipv4Addr::new(203, 0, 113, 102),
        mac: Mac([0xfa, 0x16, 0x3e, 3, 0, 102]),
        port: "b".into(),
        fixed: Ipv4Addr::new(10, 0, 0, 12),
        router: "r".into(),
    }];
    apply(&two, &w2).await;
    assert_eq!(ask(b), "203.0.113.102");
    w2.groups[0].rules.push(rule("any", Direction::Ingress, Some(1), Ports::Any, Peer::Any));
    apply(&two, &w2).await;
    assert!(edge.pings("203.0.113.102"));
    assert!(a.pings("203.0.113.102"), "from behind the gateway of the other node");
    w2.groups[0].rules.pop();

    // Membership counts across nodes.
    w1.ports[0].groups = vec!["lone".into()];
    w2.remotes[0].groups = vec!["lone".into()];
    apply(&one, &w1).await;
    apply(&two, &w2).await;
    assert!(!a.pings("10.0.0.12"), "a is no member of g any more");
    assert!(two.stats().unwrap().ports["b"].drops["group-in"] > 0);

    // Frames from an unknown tunnel end are dropped.
    w2.remotes.clear();
    w2.routers[0].gateway = None;
    apply(&two, &w2).await;
    assert!(!a.pings("10.0.0.12"));
    assert!(two.stats().unwrap().drops["vtep"] > 0);
}
