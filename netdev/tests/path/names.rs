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
    let names = names.iter().map(name).collect();
    Zone { network: network.into(), domain: domain.into(), closed: false, also: String::new(), names }
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

/// It also answers connections, with more than fits into a datagram, which it cuts.
fn talkative() -> SocketAddr {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(at).unwrap();
    let said = |question: &[u8], whole: bool| {
        let asked = Message::from_vec(question).unwrap();
        let mut reply = Message::response(asked.metadata.id, asked.metadata.op_code);
        reply.add_queries(asked.queries.clone());
        let name = &asked.queries[0].name;
        let record = |n: u8| Record::from_rdata(name.clone(), 60, RData::A(A::new(192, 0, 2, n)));
        reply.add_answers(if whole { (1..=200).map(record).collect() } else { Vec::new() });
        reply.metadata.truncation = !whole;
        reply.to_vec().unwrap()
    };
    std::thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&said(&buffer[..length], false), from).unwrap();
        }
    });
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut question).unwrap();
            let whole = said(&question, true);
            stream.write_all(&u16::try_from(whole.len()).unwrap().to_be_bytes()).unwrap();
            stream.write_all(&whole).unwrap();
        }
    });
    at
}

fn dig6(guest: &Guest, words: &str) -> String {
    let ask = format!("dig @fe80::a9fe:a9fd%eth0 +tries=1 +time=3 +noall +answer +short {words}");
    text(&guest.try_sh(&ask).stdout).trim().into()
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
async fn what_does_not_fit_comes_by_a_connection() {
    if !ready() {
        return;
    }
    let mut cloud = Cloud::new("names-tcp");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    plane.forward_names_to(vec![talkative()]);
    let many: Vec<String> = (20..80).map(|n| format!("10.0.0.{n}")).collect();
    let mut names: Vec<(&str, &str)> = many.iter().map(|a| ("many-servers-of-one-name", a.as_str())).collect();
    names.push(("web", "10.0.0.11"));
    let wanted = Wanted {
        networks: vec![quiet("n0", 100, 0), quiet("n1", 101, 1)],
        ports: vec![
            port("a", "n0", 1, "10.0.0.11", &["g"]),
            port("b", "n0", 2, "10.0.0.12", &["none"]),
            port("c", "n1", 3, "10.0.1.13", &["g"]),
        ],
        groups: vec![open_group("g"), group("none", vec![])],
        // The second network has no names here: its guests reach no resolver.
        zones: vec![zone("n0", "blue.example.", &names)],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let mut guests = Vec::new();
    for (id, address, via) in [("a", "10.0.0.11", 0), ("b", "10.0.0.12", 0), ("c", "10.0.1.13", 1)] {
        let guest = guest(&mut cloud, &plane, id, address).await;
        guest.sh(&format!("ip route replace 169.254.169.253/32 via 10.0.{via}.2"));
        guests.push(guest);
    }
    let (a, b, c) = (&guests[0], &guests[1], &guests[2]);
    let lines = |said: &str| said.lines().count();
    assert!(soon(|| dig(a, "+tcp web") == "10.0.0.11"), "{:?}", plane.stats());
    assert_eq!(lines(&dig(a, "many-servers-of-one-name.blue.example +noedns")), 60, "cut, and asked again by TCP");
    assert_eq!(dig(a, "+noedns +ignore many-servers-of-one-name.blue.example"), "", "a datagram says that it is cut");
    assert_eq!(lines(&dig(a, "+tcp +keepopen web db many-servers-of-one-name")), 1 + 60, "three questions, one way");
    assert_eq!(lines(&dig(a, "www.example.org")), 200, "and so is what others know");
    assert!(dig(b, "+tcp web +time=1").contains("timed out") || dig(b, "+tcp web +time=1").is_empty(), "its groups");
    assert!(!dig(c, "+tcp web +time=1").contains("10.0.0.11"), "another network");
    // Connections of one port have their number: more are closed, and those of others are not.
    let script = "import socket,time
l=[socket.create_connection((\"169.254.169.253\",53)) for i in range(20)]
time.sleep(1)
def shut(s):
    s.settimeout(0.2)
    try: return s.recv(1)==b\"\"
    except TimeoutError: return False
    except OSError: return True
print(sum(1 for s in l if not shut(s)))";
    assert_eq!(a.sh(&format!("python3 -c '{script}'")).trim(), "8");
    assert!(soon(|| dig(a, "+tcp web") == "10.0.0.11"), "they were given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_by_ipv6_need_no_route() {
    use crate::cloud::six::*;
    if !ready() {
        return;
    }
    let mut cloud = Cloud::new("names6");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut networks = vec![network6("n0", 100, 0, Some(Ra::Stateless)), network6("n1", 101, 1, Some(Ra::Stateful))];
    networks.iter_mut().for_each(|n| n.subnets[0].dns.clear());
    let wanted = Wanted {
        networks,
        ports: vec![
            port("a", "n0", 1, &own(0, 1), &["g"]),
            port("b", "n1", 2, "fd00:1::77", &["g"]),
            port("c", "n0", 3, &own(0, 3), &["none"]),
        ],
        groups: vec![open6("g"), group("none", vec![])],
        routers: vec![router("r", vec![leg6("n0", 0, 1), leg6("n1", 1, 2)], None)],
        zones: vec![
            zone("n0", "blue.example.", &[("web", "fd00::11"), ("db", "10.0.0.13")]),
            zone("n1", "red.example.", &[("web", "fd00:1::11")]),
        ],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = guest6(&mut cloud, &plane, "a", None).await;
    let b = guest6(&mut cloud, &plane, "b", None).await;
    let c = guest6(&mut cloud, &plane, "c", None).await;
    assert!(soon(|| dig6(&a, "AAAA web") == "fd00::11"), "{:?}", plane.stats());
    assert_eq!(dig6(&a, "db.blue.example"), "10.0.0.13");
    assert_eq!(dig6(&a, "-x fd00::11"), "web.blue.example.");
    assert_eq!(dig6(&b, "AAAA web"), "fd00:1::11", "each network has its own");
    assert_eq!(dig6(&a, "+tcp AAAA web"), "fd00::11", "{:?}", plane.stats());
    assert!(!dig6(&c, "AAAA web +time=1").contains("fd00"), "its groups let nothing out");
    assert!(!dig6(&c, "+tcp AAAA web +time=1").contains("fd00"), "by no way");
    // Guests are told of it.
    let said = b.dhcp6().expect("an answer");
    assert!(said.contains("new_dhcp6_name_servers=fe80::a9fe:a9fd"), "{said}");
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
    // The flood ends at its own port's rate: no question of another is lost in a queue.
    for _ in 0..20 {
        let said = dig(b, "web +tries=1 +time=3");
        assert!(said.ends_with("10.0.0.11"), "{said}");
    }
    assert!(plane.stats().unwrap().ports["a"].drops["rate"] > 0, "{:?}", plane.stats());
    assert_eq!(status(c, "web +time=1"), "silence", "its groups let nothing out");
    assert_eq!(status(b, "www.example.org +time=9"), "SERVFAIL", "nobody outside answers");
}
