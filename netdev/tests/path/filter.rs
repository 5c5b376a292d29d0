//! Security groups, judged by what real connections do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;
use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

const TCP: Option<u8> = Some(6);

fn tcp_in(id: &str, port: u16, peer: Peer) -> Rule {
    rule(id, Direction::Ingress, TCP, Ports::Range(port, port), peer)
}

async fn pair(cloud: &mut Cloud, wanted: &Wanted) -> (DataPlane, Guest, Guest) {
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    apply(&plane, wanted).await;
    let (a, b) = (cloud.guest("a"), cloud.guest("b"));
    plane.open_veth("a", &a.ns, "eth0").await.unwrap();
    plane.open_veth("b", &b.ns, "eth0").await.unwrap();
    a.address("10.0.0.11/24", None);
    b.address("10.0.0.12/24", None);
    (plane, a, b)
}

fn two(groups: Vec<Group>, of_a: &[&str], of_b: &[&str]) -> Wanted {
    Wanted {
        networks: vec![network("net", 100, 0)],
        ports: vec![port("a", "net", 1, "10.0.0.11", of_a), port("b", "net", 2, "10.0.0.12", of_b)],
        groups,
        ..Wanted::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_in_by_default_and_a_rule_opens_and_cuts() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("rules");
    let mut wanted = two(vec![out_only("ga"), out_only("gb")], &["ga"], &["gb"]);
    let (plane, a, b) = pair(&mut cloud, &wanted).await;
    cloud.background(b.spawn("sh -c 'while :; do nc -l -p 80 >/dev/null; done'"));
    cloud.background(b.spawn("sh -c 'while :; do nc -l -p 81 >/dev/null; done'"));
    assert!(!a.pings("10.0.0.12") && !a.connects("10.0.0.12", 80), "default deny");
    assert!(plane.stats().unwrap().ports["b"].drops["group-in"] > 0);

    wanted.groups[1].rules.push(tcp_in("web", 80, Peer::Any));
    apply(&plane, &wanted).await;
    assert!(soon(|| a.connects("10.0.0.12", 80)), "the rule opens it");
    assert!(!a.connects("10.0.0.12", 81), "and nothing else");
    assert!(!a.pings("10.0.0.12"));

    // A live connection dies with its rule.
    cloud.background(b.spawn("sh -c 'nc -l -p 90 | cat > /dev/null'"));
    wanted.groups[1].rules.push(tcp_in("live", 90, Peer::Any));
    apply(&plane, &wanted).await;
    let mut echo = b.spawn("python3 -u -c 'import socket\ns=socket.socket();s.bind((\"\",91));s.listen();print(\"up\")\nc,_=s.accept()\nwhile 1:\n d=c.recv(99)\n if not d: break\n c.sendall(d)'");
    let mut up = BufReader::new(echo.stdout.take().unwrap());
    up.read_line(&mut String::new()).unwrap();
    cloud.background(echo);
    wanted.groups[1].rules.push(tcp_in("echo", 91, Peer::Any));
    apply(&plane, &wanted).await;
    let stream = connect_in(&a.ns, "10.0.0.12:91".parse().unwrap()).await.unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let says = |word: &str| {
        let mut line = String::new();
        (&stream).write_all(format!("{word}\n").as_bytes()).unwrap();
        BufReader::new(&stream).read_line(&mut line).map(|_| line)
    };
    assert_eq!(says("one").unwrap(), "one\n");
    wanted.groups[0].rules.push(rule("more", Direction::Egress, TCP, Ports::Any, Peer::Any));
    apply(&plane, &wanted).await;
    assert_eq!(says("two").unwrap(), "two\n", "an unrelated change cuts nothing");
    wanted.groups[1].rules.retain(|r| r.id != "echo");
    apply(&plane, &wanted).await;
    assert!(says("three").is_err(), "the flow was live and its rule is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_group_follows_its_members() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("group");
    let web = group("web", vec![tcp_in("db", 80, Peer::Group("app".into()))]);
    let mut wanted = two(vec![out_only("app"), out_only("other"), web], &["other"], &["web"]);
    let (plane, a, b) = pair(&mut cloud, &wanted).await;
    cloud.background(b.spawn("sh -c 'while :; do nc -l -p 80 >/dev/null; done'"));
    assert!(!a.connects("10.0.0.12", 80), "not a member");
    wanted.ports[0].groups = vec!["app".into()];
    apply(&plane, &wanted).await;
    assert!(soon(|| a.connects("10.0.0.12", 80)), "a member now");
    wanted.ports[0].groups = vec!["other".into()];
    apply(&plane, &wanted).await;
    assert!(!a.connects("10.0.0.12", 80), "no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_by_prefix_egress_rules_and_icmp_errors() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("cidr");
    let udp_out = |net: &str| {
        let peer = Peer::Cidr(net.parse().unwrap());
        rule(net, Direction::Egress, Some(17), Ports::Range(1000, 2000), peer)
    };
    let ping = |net: &str| rule(net, Direction::Ingress, Some(1), Ports::Any, Peer::Cidr(net.parse().unwrap()));
    let gb = group("gb", vec![ping("10.0.0.8/29"), rule("udp", Direction::Ingress, Some(17), Ports::Any, Peer::Any)]);
    let ga =
        group("ga", vec![udp_out("10.0.0.12/32"), rule("icmp", Direction::Egress, Some(1), Ports::Any, Peer::Any)]);
    let mut wanted = two(vec![ga, gb], &["ga"], &["gb"]);
    let (plane, a, b) = pair(&mut cloud, &wanted).await;
    assert!(a.pings("10.0.0.12"), "10.0.0.11 is in 10.0.0.8/29");
    assert!(!b.pings("10.0.0.11"), "b may send nothing of its own");
    assert!(plane.stats().unwrap().ports["b"].drops["group-out"] > 0);
    // Nobody listens: the error comes back although no rule lets ICMP in to a, or out of b.
    let udp = |port: u16| {
        let script = format!(
            "import socket\ns=socket.socket(2,2);s.settimeout(1);s.connect(('10.0.0.12',{port}))\ns.send(b'x')\ntry:\n s.recv(9)\nexcept ConnectionRefusedError: print('refused')\nexcept OSError as e: print(e)"
        );
        text(&run(&mut a.command("python3", &["-c", &script])).stdout)
    };
    assert_eq!(udp(1500), "refused\n");
    assert_ne!(udp(2500), "refused\n", "outside of the range");
    wanted.groups[1].rules[0] = ping("10.0.0.0/29");
    apply(&plane, &wanted).await;
    assert!(!a.pings("10.0.0.12"), "10.0.0.11 is not in 10.0.0.0/29");
}

#[tokio::test(flavor = "multi_thread")]
async fn stateless_groups_need_a_rule_each_way_and_long_lists_work() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("stateless");
    let mut gb = group("gb", (0..99).map(|i| tcp_in(&format!("r{i}"), 1000 + i, Peer::Any)).collect());
    gb.rules.push(rule("ping", Direction::Ingress, Some(1), Ports::Icmp(8, Some(0)), Peer::Any));
    gb.stateful = false;
    let mut wanted = two(vec![open_group("ga"), gb], &["ga"], &["gb"]);
    let (plane, a, _b) = pair(&mut cloud, &wanted).await;
    assert!(!a.pings("10.0.0.12"), "the answer has no rule");
    wanted.groups[1].rules.push(rule("pong", Direction::Egress, Some(1), Ports::Icmp(0, None), Peer::Any));
    apply(&plane, &wanted).await;
    assert!(a.pings("10.0.0.12"), "the hundredth rule of its list allows it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_group_takes_nobody_of_another_network_for_its_member() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("realm");
    let mut shared = out_only("shared");
    shared.rules.push(rule("in", Direction::Ingress, None, Ports::Any, Peer::Group("shared".into())));
    let mut wanted = Wanted {
        networks: vec![network("red", 100, 0), network("blue", 200, 0)],
        ports: vec![
            port("a", "red", 1, "10.0.0.11", &["shared"]),
            port("stranger", "red", 2, "10.0.0.12", &["lone"]),
            // Somebody else's network has the stranger's address, and a member has it there.
            port("member", "blue", 3, "10.0.0.12", &["shared"]),
        ],
        groups: vec![shared, out_only("lone")],
        ..Wanted::default()
    };
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    apply(&plane, &wanted).await;
    let _a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let stranger = guest(&mut cloud, &plane, "stranger", "10.0.0.12").await;
    assert!(!stranger.pings("10.0.0.11"), "not a member on this network");
    wanted.ports[1].groups.push("shared".into());
    apply(&plane, &wanted).await;
    assert!(stranger.pings("10.0.0.11"), "now he is: {:?}", plane.stats());
    // A router between two networks makes their members one another's.
    wanted.ports[1] = port("stranger", "far", 2, "10.0.1.12", &["shared"]);
    wanted.networks.push(network("far", 300, 1));
    wanted.routers = vec![router("r", vec![leg("red", 0, 1), leg("far", 1, 2)], None)];
    apply(&plane, &wanted).await;
    stranger.sh("ip addr flush dev eth0; ip addr add 10.0.1.12/24 dev eth0; ip route add default via 10.0.1.1");
    assert!(stranger.pings("10.0.0.11"), "{:?}", plane.stats());
}
