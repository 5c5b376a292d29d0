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
        network: "ext".into(),
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

    // Whoever was told to go by the router's address reaches it on the node of the way out, which passes it on.
    edge.sh("ip neigh flush all; ip route add 203.0.113.102/32 via 203.0.113.10");
    assert!(!edge.pings("203.0.113.102"), "node one knows nothing of it");
    w1.floating = w2.floating.clone();
    apply(&one, &w1).await;
    assert!(edge.pings("203.0.113.102"), "one: {:?}\ntwo: {:?}", one.stats(), two.stats());
    assert!(a.pings("203.0.113.102"), "from the node that passes it on");
    edge.sh("ip route del 203.0.113.102/32; ip neigh flush all");
    assert!(edge.pings("203.0.113.102"));
    let answers = edge.sh("ip neigh show 203.0.113.102");
    assert!(answers.contains("fa:16:3e:03:00:66"), "the guest's node alone answers: {answers}");
    w1.floating.clear();
    apply(&one, &w1).await;
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

/// A guest that runs moves to another node, while a third one that has not heard of it goes on sending.
#[tokio::test(flavor = "multi_thread")]
async fn packets_follow_a_guest_that_has_moved() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("follow");
    let [one, two, three] = [1, 2, 3].map(|n| cloud.node(n));
    let one = DataPlane::open(one).await.unwrap();
    let two = DataPlane::open(two).await.unwrap();
    let three = DataPlane::open(three).await.unwrap();
    let base = || Wanted { networks: vec![network("n0", 100, 0)], groups: vec![open_group("g")], ..Wanted::default() };
    let guest_port = |idle: bool| Port { idle, ..port("a", "n0", 1, "10.0.0.11", &["g"]) };
    let (mut w1, mut w2, mut w3) = (base(), base(), base());
    let (a_on, b_on) =
        (|node| remote("a", "n0", 1, "10.0.0.11", node, &["g"]), remote("b", "n0", 2, "10.0.0.12", 3, &["g"]));
    (w1.ports, w1.remotes) = (vec![guest_port(false)], vec![b_on.clone()]);
    (w2.ports, w2.remotes) = (vec![guest_port(true)], vec![a_on(1), b_on.clone()]);
    // Node three knows node two by another guest there, so that it takes frames from it.
    let c = remote("c", "n0", 3, "10.0.0.13", 2, &["g"]);
    (w3.ports, w3.remotes) = (vec![port("b", "n0", 2, "10.0.0.12", &["g"])], vec![a_on(1), c.clone()]);
    apply(&one, &w1).await;
    apply(&two, &w2).await;
    apply(&three, &w3).await;
    let (before, after, b) = (cloud.guest("a1"), cloud.guest("a2"), cloud.guest("b"));
    for (plane, id, guest) in [(&one, "a", &before), (&two, "a", &after), (&three, "b", &b)] {
        plane.open_veth(id, &guest.ns, "eth0").await.unwrap();
    }
    before.address("10.0.0.11/24", None);
    b.address("10.0.0.12/24", None);
    assert!(b.pings("10.0.0.11"));

    // The switch: the guest stands still, and then runs on node two, which knows it; node one leads there; node three knows nothing.
    before.sh("ip addr flush dev eth0");
    after.address("10.0.0.11/24", None);
    (w2.ports, w2.remotes) = (vec![guest_port(false)], vec![b_on.clone()]);
    apply(&two, &w2).await;
    let told = std::time::Instant::now();
    (w1.ports, w1.remotes, w1.left) = (vec![guest_port(true)], vec![a_on(2), b_on.clone()], vec!["a".into()]);
    w2.peers = vec![vtep(1)];
    apply(&one, &w1).await;
    apply(&two, &w2).await;
    println!("follow: two passes of the packet path took {:?}", told.elapsed());
    fn counted(g: &Guest) -> String {
        text(&g.try_sh("ping -n -c 200 -i 0.005 -W 2 10.0.0.11").stdout)
    }
    let said = counted(&b);
    assert!(said.contains(" 200 received"), "{said}\none: {:?}\ntwo: {:?}", one.stats(), two.stats());

    // Told in the middle of a stream, node three sends straight there: nothing is lost on the way from one to the other.
    let stream = std::thread::spawn({
        let b = b.clone();
        move || counted(&b)
    });
    w3.remotes = vec![a_on(2), c];
    apply(&three, &w3).await;
    let said = stream.join().unwrap();
    assert!(said.contains(" 200 received"), "{said}");

    // Two that send to each other what neither has end the game.
    (w2.ports, w2.remotes, w2.left) = (vec![guest_port(true)], vec![a_on(1), b_on], vec!["a".into()]);
    apply(&two, &w2).await;
    assert!(!b.pings("10.0.0.11"));
    let drops = one.stats().unwrap().drops;
    assert!(drops["unknown-station"] > 0, "it came from where it would have to go: {drops:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legs_firewall_is_whole_though_its_router_is_on_two_nodes() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("over-fw");
    let one = DataPlane::open(cloud.node(1)).await.unwrap();
    let two = DataPlane::open(cloud.node(2)).await.unwrap();
    let allow = |protocol: u8, destination_ports| FirewallRule {
        family: Family::V4,
        protocol: Some(protocol),
        source: None,
        destination: None,
        source_ports: None,
        destination_ports,
        action: FirewallAction::Allow,
    };
    // Into n1 by one port, out of it by ping.
    let firewall = Firewall {
        id: "f".into(),
        ingress: vec![allow(6, Some((80, 80)))],
        egress: vec![allow(1, None)],
        ports: vec![],
        legs: vec![FirewallLeg { router: "r".into(), network: "n1".into(), mac: leg("n1", 1, 2).mac }],
    };
    let both = || Wanted { groups: vec![open_group("g")], firewalls: vec![firewall.clone()], ..shared() };
    let (mut w1, mut w2) = (both(), both());
    w1.ports = vec![port("a", "n0", 1, "10.0.0.11", &["g"]), port("d", "n1", 4, "10.0.1.14", &["g"])];
    w2.ports = vec![port("c", "n1", 3, "10.0.1.13", &["g"])];
    w1.remotes = vec![remote("c", "n1", 3, "10.0.1.13", 2, &["g"])];
    w2.remotes = vec![remote("a", "n0", 1, "10.0.0.11", 1, &["g"]), remote("d", "n1", 4, "10.0.1.14", 1, &["g"])];
    apply(&one, &w1).await;
    apply(&two, &w2).await;
    let a = guest(&mut cloud, &one, "a", "10.0.0.11").await;
    let d = guest(&mut cloud, &one, "d", "10.0.1.14").await;
    let c = guest(&mut cloud, &two, "c", "10.0.1.13").await;
    for port in [80, 81] {
        cloud.background(c.spawn(&format!("sh -c 'while :; do nc -l -p {port} >/dev/null; done'")));
    }
    cloud.background(a.spawn("sh -c 'while :; do nc -l -p 80 >/dev/null; done'"));
    assert!(soon(|| a.connects("10.0.1.13", 80)), "one: {:?}\ntwo: {:?}", one.stats(), two.stats());
    assert!(!a.connects("10.0.1.13", 81) && !a.pings("10.0.1.13"));
    assert!(c.pings("10.0.0.11") && !c.connects("10.0.0.11", 80), "two: {:?}", two.stats());
    assert!(d.connects("10.0.1.13", 81) && d.pings("10.0.1.13") && c.pings("10.0.1.14"), "inside of the network");
    // The way out is on node one.
    assert!(c.pings("203.0.113.1"), "one: {:?}\ntwo: {:?}", one.stats(), two.stats());
    assert!(two.stats().unwrap().ports["c"].drops["firewall"] > 0);
}
