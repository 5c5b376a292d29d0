//! Limits and marks, by what arrives. Limits are so low that no pace of the machine decides.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::six::*;
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;
use std::net::Ipv4Addr;

const SENT: usize = 200;

fn quality(of: Limited) -> Quality {
    Quality { of, egress: Rate::default(), ingress: Rate::default(), dscp: None }
}

/// Counts datagrams to a port for as long as they come; prints the number and the last one's type of service.
fn counter(guest: &Guest, port: u16) -> std::process::Child {
    let mut child = guest.spawn(&format!(
        "python3 -u -c 'import socket\ns=socket.socket(2,2);s.setsockopt(0,13,1);s.bind((\"\",{port}));s.settimeout(20);print(\"up\")\nn=0;tos=0\ntry:\n while 1:\n  d,c,f,a=s.recvmsg(2000,99);s.settimeout(2);n+=1;tos=c[0][2][0]\nexcept OSError: print(n,tos)'"
    ));
    // It listens before anybody sends.
    let mut line = [0u8; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    child
}

fn send(guest: &Guest, to: &str, port: u16, bytes: usize) {
    let script = format!(
        "import socket\ns=socket.socket(2,2);s.connect(('{to}',{port}))\nfor i in range({SENT}): s.send(b'x'*{bytes})"
    );
    run(&mut guest.command("python3", &["-c", &script]));
}

/// How many of the datagrams arrived, and the type of service.
fn arrived(from: &Guest, at: &Guest, to: &str, bytes: usize) -> (usize, u8) {
    let child = counter(at, 7777);
    send(from, to, 7777, bytes);
    let said = text(&child.wait_with_output().unwrap().stdout);
    let (n, tos) = said.trim().split_once(' ').unwrap();
    (n.parse().unwrap(), tos.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_and_addresses_have_limits_each_way() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("quality");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = Wanted {
        networks: vec![network("n0", 100, 0), external()],
        ports: vec![port("a", "n0", 1, "10.0.0.11", &["g"]), port("b", "n0", 2, "10.0.0.12", &["g"])],
        groups: vec![open_group("g")],
        routers: vec![router("r", vec![leg("n0", 0, 1)], Some(gateway(10)))],
        floating: vec![floating(101, "a", "10.0.0.11", "r")],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let b = guest(&mut cloud, &plane, "b", "10.0.0.12").await;
    let edge = Guest::at(&plane.ns_path(Ns::Edge).unwrap(), &cloud);
    assert!(a.pings("10.0.0.12") && a.pings("203.0.113.1"));
    assert_eq!(arrived(&a, &b, "10.0.0.12", 100), (SENT, 0), "no limit, no mark");

    // A kilobit a second: 125 bytes; 8 kilobits at once: 1000 bytes. One packet of 142 bytes may owe.
    let slow = Rate { kbps: 1, burst_kbit: 8, ..Rate::default() };
    wanted.qualities = vec![Quality { egress: slow, dscp: Some(46), ..quality(Limited::Port("a".into())) }];
    apply(&plane, &wanted).await;
    let (n, tos) = arrived(&a, &b, "10.0.0.12", 100);
    assert!((5..SENT / 2).contains(&n), "{n}");
    assert_eq!(tos, 46 << 2);
    assert!(plane.stats().unwrap().ports["a"].drops["rate"] as usize >= SENT / 2);
    assert_eq!(arrived(&b, &a, "10.0.0.11", 100).0, SENT, "the other way is free");

    let few = Rate { packets: 1, burst_packets: 10, ..Rate::default() };
    wanted.qualities = vec![Quality { ingress: few, ..quality(Limited::Port("b".into())) }];
    apply(&plane, &wanted).await;
    let (n, tos) = arrived(&a, &b, "10.0.0.12", 1000);
    assert!((5..SENT / 2).contains(&n), "{n}");
    assert_eq!(tos, 0, "the mark went with its rule");
    assert!(plane.stats().unwrap().ports["b"].drops["rate"] > 0);

    // A floating address, and everybody behind a gateway.
    let address = |last| Limited::Address(Ipv4Addr::new(203, 0, 113, last).into());
    wanted.qualities =
        vec![Quality { egress: few, ..quality(address(101)) }, Quality { egress: few, ..quality(address(10)) }];
    apply(&plane, &wanted).await;
    assert_eq!(arrived(&a, &b, "10.0.0.12", 100).0, SENT, "inside nothing is limited");
    assert_eq!(arrived(&edge, &a, "203.0.113.101", 100).0, SENT, "towards the guest it is free");
    for guest in [&a, &b] {
        let (n, _) = arrived(guest, &edge, "203.0.113.1", 100);
        assert!((5..SENT / 2).contains(&n), "{n}");
    }
    wanted.qualities = vec![Quality { ingress: few, ..quality(address(101)) }];
    apply(&plane, &wanted).await;
    let (n, _) = arrived(&edge, &a, "203.0.113.101", 100);
    assert!((5..SENT / 2).contains(&n), "{n}");
    wanted.qualities.clear();
    apply(&plane, &wanted).await;
    assert_eq!(arrived(&edge, &a, "203.0.113.101", 100).0, SENT);
}

/// How many questions of a burst come back answered.
fn answered(guest: &Guest, to: &str) -> usize {
    let said = guest.try_sh(&format!("ping -6 -n -q -c 40 -i 0.02 -W 1 {to}")).stdout_text();
    said.split(" received").next().and_then(|s| s.rsplit(' ').next()).and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_a_way_out_hold_for_ipv6_as_well() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("quality6");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let out = gateway6(0x10);
    let legs = vec![leg("n4", 4, 1), leg6("n0", 0, 2)];
    let mut wanted = Wanted {
        networks: vec![network("n4", 99, 4), network6("n0", 100, 0, None), external()],
        ports: vec![port("a", "n0", 1, "fd00:0::11", &["g"]), port("b", "n4", 2, "10.0.4.12", &["h"])],
        groups: vec![open6("g"), open_group("h")],
        routers: vec![Router { gateway6: Some(out), ..router("r", legs, Some(gateway(10))) }],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let edge = Guest::at(&plane.ns_path(Ns::Edge).unwrap(), &cloud);
    edge.sh("sysctl -qw net.ipv6.conf.ext0.disable_ipv6=0; ip addr add 2001:db8:e::1/64 dev ext0 nodad");
    edge.sh("ip -6 route add fd00::/28 via 2001:db8:e::10");
    let a = guest6(&mut cloud, &plane, "a", Some("fd00:0::11")).await;
    a.sh("ip -6 route add default via fd00:0::1");
    assert!(soon(|| answered(&a, "2001:db8:e::1") == 40), "{:?}", plane.stats());
    // One limit for both families, by the way out's address of IPv4.
    let few = Rate { packets: 1, burst_packets: 10, ..Rate::default() };
    wanted.qualities =
        vec![Quality { egress: few, ..quality(Limited::Address(Ipv4Addr::new(203, 0, 113, 10).into())) }];
    apply(&plane, &wanted).await;
    assert!((5..20).contains(&answered(&a, "2001:db8:e::1")), "{:?}", plane.stats());
    let b = guest(&mut cloud, &plane, "b", "10.0.4.12").await;
    let rate = || plane.stats().unwrap().drops["rate"];
    let before = rate();
    b.try_sh("ping -n -q -c 20 -i 0.02 -W 1 203.0.113.1");
    assert!(rate() > before, "what IPv6 has used up is gone for IPv4 too");
    // A router that has no IPv4 outside has it by its other address, each way.
    wanted.routers[0].gateway = None;
    let own = Limited::Address("2001:db8:e::10".parse().unwrap());
    wanted.qualities = vec![Quality { ingress: few, ..quality(own) }];
    apply(&plane, &wanted).await;
    assert!((5..20).contains(&answered(&a, "2001:db8:e::1")), "{:?}", plane.stats());
    wanted.qualities.clear();
    apply(&plane, &wanted).await;
    assert_eq!(answered(&a, "2001:db8:e::1"), 40);
}
