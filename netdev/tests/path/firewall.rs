//! Firewalls of ports and of routers' legs, judged by what real connections do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::six::{guest6, leg6, network6, open6, pings as pings6};
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

const TCP: u8 = 6;
const ICMP: u8 = 1;

fn allow(protocol: u8) -> FirewallRule {
    FirewallRule {
        family: Family::V4,
        protocol: Some(protocol),
        source: None,
        destination: None,
        source_ports: None,
        destination_ports: None,
        action: FirewallAction::Allow,
    }
}

fn web(allows: bool) -> FirewallRule {
    let action = if allows { FirewallAction::Allow } else { FirewallAction::Deny };
    FirewallRule { destination_ports: Some((80, 80)), action, ..allow(TCP) }
}

fn from(source: &str, rule: FirewallRule) -> FirewallRule {
    FirewallRule { source: Some(source.parse().unwrap()), ..rule }
}

fn v6(rule: FirewallRule) -> FirewallRule {
    FirewallRule { family: Family::V6, ..rule }
}

fn any() -> FirewallRule {
    FirewallRule { protocol: None, ..allow(0) }
}

fn of_port(ingress: Vec<FirewallRule>, egress: Vec<FirewallRule>) -> Firewall {
    Firewall { id: "f".into(), ingress, egress, ports: vec!["b".into()], legs: vec![] }
}

/// Of the leg that `b` is behind.
fn of_leg(ingress: Vec<FirewallRule>, egress: Vec<FirewallRule>) -> Firewall {
    let leg = FirewallLeg { router: "r".into(), network: "n1".into(), mac: leg("n1", 1, 2).mac };
    Firewall { ports: vec![], legs: vec![leg], ..of_port(ingress, egress) }
}

fn listens(guest: &Guest, port: u16) -> Child {
    guest.spawn(&format!("sh -c 'while :; do nc -l -p {port} >/dev/null; done'"))
}

/// A server that says what it hears, once it listens.
fn echoes(guest: &Guest, port: u16) -> Child {
    let mut echo = guest.spawn(&format!(
        "python3 -u -c 'import socket\ns=socket.socket(socket.AF_INET6);s.bind((\"::\",{port}));s.listen();print(\"up\")\nwhile 1:\n c,_=s.accept()\n while 1:\n  d=c.recv(99)\n  if not d: break\n  c.sendall(d)'"
    ));
    BufReader::new(echo.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    echo
}

async fn talk(ns: &Path, to: &str) -> TcpStream {
    let stream = connect_in(ns, to.parse().unwrap()).await.unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    stream
}

fn hears(mut stream: &TcpStream, word: &str) -> bool {
    let mut heard = vec![0; word.len()];
    stream.write_all(word.as_bytes()).is_ok() && stream.read_exact(&mut heard).is_ok() && heard == word.as_bytes()
}

fn dropped(plane: &DataPlane, port: &str) -> u64 {
    plane.stats().unwrap().ports[port].drops.get("firewall").copied().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ports_firewall_goes_by_the_order_of_its_rules_and_knows_its_flows() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("fw-port");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = two_guests();
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let b = guest(&mut cloud, &plane, "b", "10.0.0.12").await;
    for child in [listens(&b, 80), listens(&b, 81), listens(&a, 80), echoes(&b, 90)] {
        cloud.background(child);
    }
    assert!(soon(|| a.connects("10.0.0.12", 80)), "no firewall");
    wanted.firewalls = vec![of_port(vec![], vec![])];
    apply(&plane, &wanted).await;
    assert!(!a.connects("10.0.0.12", 80) && !a.pings("10.0.0.12") && !b.pings("10.0.0.11"), "no rule, nothing");
    assert!(dropped(&plane, "b") > 0, "{:?}", plane.stats());
    assert!(dropped(&plane, "a") == 0);

    // The first rule that fits decides.
    wanted.firewalls = vec![of_port(vec![web(false), allow(TCP)], vec![allow(ICMP)])];
    apply(&plane, &wanted).await;
    assert!(soon(|| a.connects("10.0.0.12", 81)), "{:?}", plane.stats());
    assert!(!a.connects("10.0.0.12", 80) && !a.pings("10.0.0.12"));
    assert!(b.pings("10.0.0.11"), "answers need no rule");
    assert!(!b.connects("10.0.0.11", 80), "and a rule for one direction opens one");
    wanted.firewalls = vec![of_port(vec![allow(TCP), web(false)], vec![allow(ICMP)])];
    apply(&plane, &wanted).await;
    assert!(a.connects("10.0.0.12", 80), "the same rules in another order");

    // Addresses and ports of both ends; beyond the first sixteen rules too.
    let mut many: Vec<FirewallRule> = (0..40).map(|i| from(&format!("172.16.{i}.0/24"), allow(TCP))).collect();
    many.push(FirewallRule { source_ports: Some((4000, 4001)), ..from("10.0.0.8/29", web(true)) });
    wanted.firewalls = vec![of_port(many, vec![])];
    apply(&plane, &wanted).await;
    let by = |port: u16| a.try_sh(&format!("echo x | timeout 3 nc -N -w 2 -p {port} 10.0.0.12 80")).status.success();
    assert!(by(4001) && !by(4002), "{:?}", plane.stats());

    // A live connection dies with its rule, not with another.
    wanted.firewalls = vec![of_port(vec![web(true), allow(TCP)], vec![])];
    apply(&plane, &wanted).await;
    let stream = talk(&a.ns, "10.0.0.12:90").await;
    assert!(hears(&stream, "one"));
    wanted.firewalls[0].ingress.remove(0);
    apply(&plane, &wanted).await;
    assert!(hears(&stream, "two"), "an unrelated rule went");
    wanted.firewalls[0].ingress = vec![web(true)];
    apply(&plane, &wanted).await;
    assert!(!hears(&stream, "three"), "its rule went");

    // Groups are another filter: both must allow. A port without them has its firewall all the same.
    wanted.firewalls = vec![of_port(vec![any()], vec![any()])];
    wanted.ports[1].groups = vec!["none".into()];
    wanted.groups.push(out_only("none"));
    apply(&plane, &wanted).await;
    assert!(!a.connects("10.0.0.12", 80) && !a.pings("10.0.0.12"));
    wanted.ports[1].secured = false;
    wanted.ports[1].groups = vec![];
    wanted.firewalls = vec![of_port(vec![web(true)], vec![])];
    apply(&plane, &wanted).await;
    assert!(soon(|| a.connects("10.0.0.12", 80)), "{:?}", plane.stats());
    assert!(!a.connects("10.0.0.12", 81) && !b.pings("10.0.0.11"));
    wanted.firewalls.clear();
    apply(&plane, &wanted).await;
    assert!(a.connects("10.0.0.12", 81) && b.pings("10.0.0.11"), "nothing is left of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_about_an_allowed_packet_comes_back() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("fw-error");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let udp = |ports| FirewallRule { destination_ports: Some(ports), ..allow(17) };
    let wanted = Wanted { firewalls: vec![of_port(vec![], vec![udp((1000, 2000))])], ..two_guests() };
    apply(&plane, &wanted).await;
    let _a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let b = guest(&mut cloud, &plane, "b", "10.0.0.12").await;
    let asks = |port: u16| {
        let script = format!(
            "import socket\ns=socket.socket(2,2);s.settimeout(1);s.connect(('10.0.0.11',{port}))\ns.send(b'x')\ntry:\n s.recv(9)\nexcept ConnectionRefusedError: print('refused')\nexcept OSError as e: print(e)"
        );
        text(&run(&mut b.command("python3", &["-c", &script])).stdout)
    };
    assert_eq!(asks(1500), "refused\n", "nobody listens, and no rule lets ICMP in");
    assert_ne!(asks(2500), "refused\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legs_firewall_judges_what_passes_the_router_there_and_nothing_else() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("fw-leg");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = joined();
    wanted.networks.push(external());
    wanted.routers = vec![router("r", vec![leg("n0", 0, 1), leg("n1", 1, 2)], Some(gateway(10)))];
    wanted.floating = vec![floating(101, "b", "10.0.1.12", "r")];
    wanted.ports = one_in_each();
    wanted.ports.push(port("c", "n1", 3, "10.0.1.13", &["g"]));
    wanted.firewalls = vec![of_leg(vec![web(true)], vec![])];
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let b = guest(&mut cloud, &plane, "b", "10.0.1.12").await;
    let c = guest(&mut cloud, &plane, "c", "10.0.1.13").await;
    let edge = Guest::at(&plane.ns_path(Ns::Edge).unwrap(), &cloud);
    for child in [listens(&b, 80), listens(&b, 81), listens(&a, 80), echoes(&b, 90)] {
        cloud.background(child);
    }
    assert!(soon(|| a.connects("10.0.1.12", 80)), "{:?}", plane.stats());
    assert!(!a.connects("10.0.1.12", 81) && !a.pings("10.0.1.12"));
    assert!(!b.pings("10.0.0.11") && !b.connects("10.0.0.11", 80) && !b.pings("203.0.113.1"), "nothing may leave");
    assert!(soon(|| edge.connects("203.0.113.101", 80)), "by the inside's address");
    assert!(!edge.connects("203.0.113.101", 81) && !edge.pings("203.0.113.101"));
    // Inside of the network and of the router itself it says nothing, nor of the router's other leg.
    assert!(c.connects("10.0.1.12", 81) && c.pings("10.0.1.12") && b.pings("10.0.1.13"), "{:?}", plane.stats());
    assert!(b.pings("10.0.1.1") && b.pings("10.0.0.1"), "{:?}", plane.stats());
    assert!(a.pings("203.0.113.1"));

    wanted.firewalls = vec![of_leg(vec![], vec![from("10.0.1.12/32", allow(ICMP)), web(true)])];
    apply(&plane, &wanted).await;
    assert!(b.pings("10.0.0.11") && b.pings("203.0.113.1") && !c.pings("10.0.0.11"), "{:?}", plane.stats());
    assert!(soon(|| c.connects("10.0.0.11", 80)));
    assert!(!a.connects("10.0.1.12", 80) && !a.pings("10.0.1.12"));

    // A live connection dies with its rule.
    let echo = FirewallRule { destination_ports: Some((90, 90)), ..allow(TCP) };
    wanted.firewalls = vec![of_leg(vec![web(true), echo], vec![])];
    apply(&plane, &wanted).await;
    let stream = talk(&a.ns, "10.0.1.12:90").await;
    assert!(hears(&stream, "one"));
    wanted.firewalls[0].ingress.remove(0);
    apply(&plane, &wanted).await;
    assert!(hears(&stream, "two"), "an unrelated rule went");
    wanted.firewalls[0].ingress.clear();
    apply(&plane, &wanted).await;
    assert!(!hears(&stream, "three"), "its rule went");
    // A port's own and its leg's are two filters.
    let mut own = of_port(vec![web(true)], vec![]);
    own.id = "own".into();
    wanted.firewalls = vec![of_leg(vec![allow(TCP)], vec![]), own];
    apply(&plane, &wanted).await;
    assert!(soon(|| a.connects("10.0.1.12", 80)) && !a.connects("10.0.1.12", 81), "{:?}", plane.stats());
    wanted.firewalls[0].ingress.clear();
    apply(&plane, &wanted).await;
    assert!(!a.connects("10.0.1.12", 80) && c.connects("10.0.1.12", 80));
}

#[tokio::test(flavor = "multi_thread")]
async fn both_kinds_know_ipv6() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("fw-six");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = Wanted {
        networks: vec![network6("n0", 100, 0, None), network6("n1", 101, 1, None)],
        ports: vec![
            port("a", "n0", 1, "fd00:0::11", &["g"]),
            port("b", "n1", 2, "fd00:1::12", &["g"]),
            port("c", "n1", 3, "fd00:1::13", &["g"]),
        ],
        groups: vec![open6("g")],
        routers: vec![router("r", vec![leg6("n0", 0, 1), leg6("n1", 1, 2)], None)],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = guest6(&mut cloud, &plane, "a", Some("fd00:0::11")).await;
    let b = guest6(&mut cloud, &plane, "b", Some("fd00:1::12")).await;
    let c = guest6(&mut cloud, &plane, "c", Some("fd00:1::13")).await;
    a.sh("ip -6 route add default via fd00:0::1");
    b.sh("ip -6 route add default via fd00:1::1");
    c.sh("ip -6 route add default via fd00:1::1");
    cloud.background(b.spawn("sh -c 'while :; do nc -6 -l -p 80 >/dev/null; done'"));
    cloud.background(echoes(&b, 90));
    assert!(soon(|| a.connects("fd00:1::12", 80)) && pings6(&a, "fd00:1::12"), "no firewall: {:?}", plane.stats());
    // A rule of one family says nothing of the other; the older name of ICMP means this family's.
    wanted.firewalls = vec![of_port(vec![any(), v6(web(false)), v6(allow(TCP))], vec![v6(allow(ICMP))])];
    apply(&plane, &wanted).await;
    let stream = talk(&c.ns, "[fd00:1::12]:90").await;
    assert!(hears(&stream, "one"));
    assert!(
        !c.connects("fd00:1::12", 80) && !pings6(&c, "fd00:1::12") && pings6(&b, "fd00:1::13"),
        "{:?}",
        plane.stats()
    );
    wanted.firewalls[0].ingress.pop();
    apply(&plane, &wanted).await;
    assert!(!hears(&stream, "two"), "its rule went");

    wanted.firewalls =
        vec![of_leg(vec![v6(from("fd00:0::/64", web(true)))], vec![v6(from("fd00:1::13/128", allow(ICMP)))])];
    apply(&plane, &wanted).await;
    assert!(soon(|| a.connects("fd00:1::12", 80)), "{:?}", plane.stats());
    assert!(!a.connects("fd00:1::12", 90) && !pings6(&a, "fd00:1::12") && !pings6(&b, "fd00:0::11"));
    assert!(pings6(&c, "fd00:0::11"), "{:?}", plane.stats());
    assert!(pings6(&c, "fd00:1::12") && c.connects("fd00:1::12", 90), "inside of the network");
    assert!(
        pings6(&b, "fd00:1::1") && pings6(&b, "fd00:0::1") && pings6(&b, "fe80::f816:3eff:fe01:2%eth0"),
        "the router"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn between_two_routers_a_firewall_lets_nothing_pass() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("fw-chain");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let to = |destination: &str, nexthop: &str| Route {
        destination: destination.parse().unwrap(),
        nexthop: nexthop.parse().unwrap(),
    };
    // n0 --inner-- n1 --outer-- n2: nobody is in the middle at whose port it could be asked.
    let middle = Interface { address: "10.0.1.2".parse().unwrap(), ..leg("n1", 1, 2) };
    let inner =
        Router { routes: vec![to("10.0.2.0/24", "10.0.1.1")], ..router("r", vec![leg("n0", 0, 1), middle], None) };
    let outer = router("outer", vec![leg("n1", 1, 3), leg("n2", 2, 4)], None);
    let outer = Router { routes: vec![to("10.0.0.0/24", "10.0.1.2")], ..outer };
    let mut wanted = Wanted {
        networks: vec![network("n0", 100, 0), network("n1", 101, 1), network("n2", 102, 2)],
        ports: vec![port("a", "n0", 1, "10.0.0.11", &["g"]), port("b", "n2", 5, "10.0.2.12", &["g"])],
        groups: vec![open_group("g")],
        routers: vec![inner, outer],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let _b = guest(&mut cloud, &plane, "b", "10.0.2.12").await;
    assert!(soon(|| a.pings("10.0.2.12")), "{:?}", plane.stats());
    wanted.firewalls = vec![of_leg(vec![any()], vec![any()])];
    apply(&plane, &wanted).await;
    assert!(!a.pings("10.0.2.12"));
    assert!(dropped(&plane, "a") > 0, "{:?}", plane.stats());
}

/// How long a connection that must fail takes to do so, as a word.
fn refused_at_once(guest: &Guest, to: &str, port: u16) -> bool {
    let script = format!(
        "import socket\ntry:\n socket.create_connection(('{to}',{port}),timeout=3)\nexcept ConnectionRefusedError: print('refused')\nexcept OSError: print('silence')"
    );
    text(&run(&mut guest.command("python3", &["-c", &script])).stdout) == "refused\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_rejected_is_told() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("fw-reject");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let reject = |rule| FirewallRule { action: FirewallAction::Reject, ..rule };
    let mut wanted = joined();
    wanted.networks.push(external());
    wanted.routers = vec![router("r", vec![leg("n0", 0, 1), leg("n1", 1, 2)], Some(gateway(10)))];
    wanted.floating = vec![floating(101, "b", "10.0.1.12", "r")];
    wanted.ports = one_in_each();
    wanted.firewalls = vec![of_port(vec![reject(web(true)), web(true)], vec![reject(allow(TCP))])];
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let b = guest(&mut cloud, &plane, "b", "10.0.1.12").await;
    let edge = Guest::at(&plane.ns_path(Ns::Edge).unwrap(), &cloud);
    cloud.background(listens(&b, 80));
    cloud.background(listens(&a, 80));
    assert!(soon(|| refused_at_once(&a, "10.0.1.12", 80)), "through the router: {:?}", plane.stats());
    assert!(!refused_at_once(&a, "10.0.1.12", 81), "what no rule fits is dropped");
    assert!(
        refused_at_once(&edge, "203.0.113.101", 80),
        "from outside, by the address that was asked: {:?}",
        plane.stats()
    );
    assert!(refused_at_once(&b, "10.0.0.11", 80), "what it sends itself");
    assert!(dropped(&plane, "b") > 0);
    // A leg tells as well, though nothing else may leave by it.
    wanted.firewalls = vec![of_leg(vec![reject(web(true))], vec![])];
    apply(&plane, &wanted).await;
    assert!(refused_at_once(&a, "10.0.1.12", 80) && !refused_at_once(&b, "10.0.0.11", 80), "{:?}", plane.stats());
    wanted.firewalls = vec![of_leg(vec![], vec![reject(web(true))])];
    apply(&plane, &wanted).await;
    assert!(refused_at_once(&b, "10.0.0.11", 80) && !refused_at_once(&a, "10.0.1.12", 80), "{:?}", plane.stats());
}
