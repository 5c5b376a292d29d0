//! Names, as dig hears them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
use crate::cloud::*;
use hickory_proto::op::Message;
use hickory_proto::rr::{RData, Record, rdata::A};
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn ready() -> bool {
    let dig = std::process::Command::new("dig").arg("-v").output().is_ok();
    if !dig {
        eprintln!("SKIPPED: needs dig (dnsutils)");
    }
    dig && root()
}

fn zone(network: &str, domain: &str, names: &[(&str, &str)]) -> Zone {
    let name = |(name, ip): &(&str, &str)| Name { name: (*name).into(), addresses: vec![ip.parse().unwrap()] };
    Zone { network: network.into(), domain: domain.into(), closed: false, names: names.iter().map(name).collect() }
}

/// A name server of the outside that calls everything 192.0.2.7; how often it was asked.
fn outside() -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (at, asked) = (socket.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let Ok(asked) = Message::from_vec(&buffer[..length]) else { continue };
            count.fetch_add(1, Ordering::Relaxed);
            // What a forger sends before the answer: an id that is not the question's.
            let mut reply = Message::response(asked.metadata.id ^ 1, asked.metadata.op_code);
            reply.add_queries(asked.queries.clone());
            let name = asked.queries[0].name.clone();
            reply.add_answer(Record::from_rdata(name.clone(), 60, RData::A(A::new(6, 6, 6, 6))));
            socket.send_to(&reply.to_vec().unwrap(), from).unwrap();
            reply.metadata.id = asked.metadata.id;
            reply.answers = vec![Record::from_rdata(name, 60, RData::A(A::new(192, 0, 2, 7)))];
            socket.send_to(&reply.to_vec().unwrap(), from).unwrap();
        }
    });
    (at, asked)
}

fn dig(guest: &Guest, words: &str) -> String {
    text(&guest.try_sh(&format!("dig @169.254.169.253 +tries=1 +time=3 +noall +answer +short {words}")).stdout)
        .trim()
        .into()
}

fn status(guest: &Guest, words: &str) -> String {
    let said = text(&guest.try_sh(&format!("dig @169.254.169.253 +tries=1 +time=3 {words}")).stdout);
    said.split("status: ").nth(1).and_then(|s| s.split(',').next()).unwrap_or("silence").into()
}

/// A network whose subnet names no name servers.
fn quiet(id: &str, vni: u32, third: u8) -> Network {
    let mut network = network(id, vni, third);
    network.subnets[0].dns.clear();
    network
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_find_each_other_by_name() {
    if !ready() {
        return;
    }
    let mut cloud = Cloud::new("names");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let (server, asked) = outside();
    // The first is silent, the second answers.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    plane.forward_names_to(vec![silent.local_addr().unwrap(), server]);
    let mut wanted = Wanted {
        networks: vec![quiet("n0", 100, 0), quiet("n1", 101, 1), external()],
        ports: vec![port("a", "n0", 1, "10.0.0.11", &["g"]), port("b", "n1", 2, "10.0.1.12", &["g"])],
        groups: vec![open_group("g")],
        zones: vec![
            zone("n0", "blue.example.", &[("web", "10.0.0.11"), ("web", "fd00::11"), ("db", "10.0.0.13")]),
            zone("n1", "red.example.", &[("web", "10.0.1.12")]),
        ],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let b = guest(&mut cloud, &plane, "b", "10.0.1.12").await;
    // No router: behind the address that DHCP is said to come from stands the resolver.
    for (guest, third) in [(&a, 0), (&b, 1)] {
        guest.sh(&format!("ip route replace 169.254.169.253/32 via 10.0.{third}.2"));
    }
    assert!(soon(|| dig(&a, "web.blue.example") == "10.0.0.11"), "{:?}", plane.stats());
    assert_eq!(dig(&a, "web"), "10.0.0.11");
    assert_eq!(dig(&a, "AAAA web.blue.example"), "fd00::11");
    assert_eq!(dig(&a, "-x 10.0.0.13"), "db.blue.example.");
    assert_eq!(dig(&b, "web"), "10.0.1.12", "each network has its own");
    assert_eq!(status(&b, "db"), "NXDOMAIN", "another network's name");
    assert_eq!(status(&a, "-c CH web"), "REFUSED");
    assert_eq!(asked.load(Ordering::Relaxed), 0, "nothing of that went outside");
    assert_eq!(dig(&a, "www.example.org +time=6"), "192.0.2.7", "the second server, and not the forger");
    assert!(soon(|| dig(&b, "www.example.org +noedns") == "192.0.2.7"), "the silent one is not asked first again");
    // DHCP tells of it.
    let said = a.dhcp().unwrap();
    assert!(said.contains("new_domain_name_servers=169.254.169.253"), "{said}");
    assert!(said.contains("32 169 254 169 253 10 0 0 2"), "a way there: {said}");
    // With routers the way leads through their legs, also from the network that is not their first.
    wanted.routers = vec![router("r", vec![leg("n0", 0, 1), leg("n1", 1, 2)], None)];
    apply(&plane, &wanted).await;
    for (guest, third) in [(&a, 0), (&b, 1)] {
        guest.sh(&format!("ip route replace 169.254.169.253/32 via 10.0.{third}.1"));
    }
    assert!(soon(|| dig(&a, "web") == "10.0.0.11"), "{:?}", plane.stats());
    assert_eq!(dig(&b, "web"), "10.0.1.12", "{:?}", plane.stats());
    // A renamed guest is found by its new name at once.
    wanted.zones[0].names[0].name = "shop".into();
    apply(&plane, &wanted).await;
    assert_eq!(dig(&b, "web"), "10.0.1.12");
    assert_eq!(dig(&a, "shop.blue.example."), "10.0.0.11");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_questions_is_its_senders_trouble_alone() {
    if !ready() {
        return;
    }
    let mut cloud = Cloud::new("flood");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    // Nobody ever answers.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    plane.forward_names_to(vec![silent.local_addr().unwrap()]);
    let wanted = Wanted {
        networks: vec![quiet("n0", 100, 0)],
        ports: vec![
            port("a", "n0", 1, "10.0.0.11", &["g"]),
            port("b", "n0", 2, "10.0.0.12", &["g"]),
            port("c", "n0", 3, "10.0.0.13", &["none"]),
        ],
        groups: vec![open_group("g"), group("none", vec![])],
        zones: vec![zone("n0", "", &[("web", "10.0.0.11")])],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let mut guests = Vec::new();
    for (id, address) in [("a", "10.0.0.11"), ("b", "10.0.0.12"), ("c", "10.0.0.13")] {
        let guest = guest(&mut cloud, &plane, id, address).await;
        guest.sh("ip route replace 169.254.169.253/32 via 10.0.0.2");
        guests.push(guest);
    }
    let (a, b, c) = (&guests[0], &guests[1], &guests[2]);
    assert!(soon(|| dig(b, "web") == "10.0.0.11"));
    let flood = "python3 -c 'import socket,os\ns=socket.socket(2,2);s.connect((\"169.254.169.253\",53))\nq=bytes([0,1,1,0,0,1,0,0,0,0,0,0])+b\"\\x03www\\x07example\\x00\\x00\\x01\\x00\\x01\"\nfor i in range(200000):\n try:\n  s.send(q if i%2 else os.urandom(60))\n except OSError: pass'";
    cloud.background(a.spawn(flood));
    // A question may be lost in the queue of the link; whoever asks again is answered.
    for _ in 0..20 {
        let said = dig(b, "web +tries=4 +time=1");
        assert!(said.ends_with("10.0.0.11"), "{said}");
    }
    assert_eq!(status(c, "web +time=1"), "silence", "its groups let nothing out");
    assert_eq!(status(b, "www.example.org +time=9"), "SERVFAIL", "nobody outside answers");
}
