//! Mirrors to collectors outside: what comes there is taken apart by hand and compared with what the port sent and got.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::six::{network6, open6};
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;
use std::collections::BTreeMap;
use std::io::Read;
use std::net::IpAddr;
use std::process::Child;

pub(crate) const NEAR: &str = "10.255.0.99";
/// Behind the collector's host, by a route of the operator's.
const FAR: &str = "198.51.100.7";
pub(crate) const SIX: &str = "fd00:c::99";
const OUTGOING: u8 = 4;

/// Every frame of a device as long as it runs, with the kind that the kernel gives it.
struct Ear(Child);

impl Ear {
    fn at(guest: &Guest) -> Self {
        Self::on(guest, "eth0")
    }

    fn on(guest: &Guest, device: &str) -> Self {
        let script = "import socket,sys,select
s=socket.socket(17,3,socket.htons(3));s.setsockopt(1,33,1<<26);s.bind((sys.argv[1],0))
print(\"ready\",flush=True);end=False
while True:
 r,_,_=select.select([s]+([] if end else [sys.stdin]),[],[],2 if end else None)
 if s in r: f,a=s.recvfrom(70000);print(a[2],f.hex())
 elif sys.stdin in r: end=True
 elif end: break";
        let mut child = guest.spawn(&format!("python3 -c '{script}' {device}"));
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        Self(child)
    }

    /// Ends when nothing has come for a while.
    fn frames(mut self) -> Vec<(u8, Vec<u8>)> {
        drop(self.0.stdin.take());
        let mut said = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        self.0.wait().unwrap();
        let bytes = |hex: &str| -> Vec<u8> {
            (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
        };
        let line = |l: &str| l.split_once(' ').map(|(kind, hex)| (kind.parse().unwrap(), bytes(hex))).unwrap();
        said.lines().map(line).collect()
    }
}

/// A frame in GRE, taken apart as RFC 2890 and the ERSPAN draft say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    pub from: IpAddr,
    pub to: IpAddr,
    /// Key or session.
    pub id: u32,
    pub erspan: bool,
    pub number: Option<u32>,
    pub cut: bool,
    /// Of the frame, as the header of ERSPAN repeats it: urgency and number.
    pub tag: Option<(u32, u32)>,
    pub frame: Vec<u8>,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(*bytes[at..].first_chunk().unwrap())
}

pub(crate) fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(*bytes[at..].first_chunk().unwrap())
}

fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c.get(1).copied().unwrap_or(0))).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

pub(crate) fn copy(outer: &[u8]) -> Option<Copy> {
    let (from, to, gre): (IpAddr, IpAddr, &[u8]) = match half(outer, 12) {
        0x0800 if outer[23] == 47 => {
            assert_eq!((outer[14], sum(&outer[14..34])), (0x45, 0xffff), "a sound header");
            assert_eq!(usize::from(half(outer, 16)), outer.len() - 14);
            let four = |at: usize| IpAddr::from(*outer[at..].first_chunk::<4>().unwrap());
            (four(26), four(30), &outer[34..])
        }
        0x86dd if outer[20] == 47 => {
            assert_eq!(usize::from(half(outer, 18)), outer.len() - 54);
            let six = |at: usize| IpAddr::from(*outer[at..].first_chunk::<16>().unwrap());
            (six(22), six(38), &outer[54..])
        }
        _ => return None,
    };
    Some(match word(gre, 0) {
        0x2000_6558 => {
            let frame = gre[8..].to_vec();
            Copy { from, to, id: word(gre, 4), erspan: false, number: None, cut: false, tag: None, frame }
        }
        0x1000_88be => {
            let header = word(gre, 8);
            assert_eq!(header >> 28, 1, "type II");
            assert_eq!(word(gre, 12), header & 0x3ff, "the index is the session's");
            Copy {
                from,
                to,
                id: header & 0x3ff,
                erspan: true,
                number: Some(word(gre, 4)),
                cut: header >> 10 & 1 == 1,
                tag: (header >> 11 & 3 == 3).then_some((header >> 13 & 7, header >> 16 & 0xfff)),
                frame: gre[16..].to_vec(),
            }
        }
        other => panic!("GRE {other:08x}"),
    })
}

fn copies(frames: &[(u8, Vec<u8>)]) -> Vec<Copy> {
    frames.iter().filter(|(kind, _)| *kind != OUTGOING).filter_map(|(_, frame)| copy(frame)).collect()
}

fn sorted(mut frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    frames.sort();
    frames
}

fn of(copies: &[Copy], id: u32) -> Vec<Vec<u8>> {
    sorted(copies.iter().filter(|c| c.id == id).map(|c| c.frame.clone()).collect())
}

/// The frames that a port sent, and those that it got: not what the host itself answered (ARP and neighbours).
fn seen(frames: Vec<(u8, Vec<u8>)>) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (sent, got): (Vec<_>, Vec<_>) = frames.into_iter().partition(|(kind, _)| *kind == OUTGOING);
    let answered = |f: &[u8]| half(f, 12) == 0x0806 || (half(f, 12) == 0x86dd && f[54] == 136);
    let frames = |v: Vec<(u8, Vec<u8>)>| v.into_iter().map(|(_, f)| f);
    (sorted(frames(sent).collect()), sorted(frames(got).filter(|f| !answered(f)).collect()))
}

fn both(one: &[Vec<u8>], two: &[Vec<u8>]) -> Vec<Vec<u8>> {
    sorted([one, two].concat())
}

pub(crate) fn gre(key: u32) -> Wrap {
    Wrap::Gre { key }
}

pub(crate) fn erspan(session: u16) -> Wrap {
    Wrap::Erspan { session }
}

pub(crate) fn tap(port: &str, ingress: bool, egress: bool, address: &str, wrap: Wrap) -> Tap {
    let id = format!("{port}-{ingress}-{egress}-{address}-{wrap:?}");
    let to = Looker::Collector { address: address.parse().unwrap(), wrap };
    Tap { id, port: port.into(), ingress, egress, to }
}

/// A host on the underlay of nodes that have the edge namespace of `config`.
fn collector(cloud: &mut Cloud, config: &Config) -> Guest {
    let far = cloud.guest("collector");
    let (edge, ns) = (config.edge().unwrap(), far.ns.file_name().unwrap().to_str().unwrap().to_owned());
    let peer = format!("c{:08x}", std::process::id());
    run(std::process::Command::new("ip")
        .args(["-n", &edge, "link", "add", &peer, "type", "veth"])
        .args(["peer", "name", "eth0", "netns", &ns]));
    let edge = Guest::at(&ns_path(&edge), cloud);
    edge.sh(&format!("ip link set {peer} master under0 up"));
    far.sh("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0; ip link set eth0 up");
    far.sh(&format!(
        "ip addr add {NEAR}/16 dev eth0; ip addr add {FAR}/32 dev lo; ip addr add {SIX}/64 dev eth0 nodad"
    ));
    far
}

/// What an operator does for collectors behind others, and of IPv6.
pub(crate) fn routes(cloud: &Cloud, config: &Config) -> Guest {
    let node = Guest::at(&ns_path(&config.node()), cloud);
    node.sh(&format!("ip route add {FAR}/32 via {NEAR}"));
    node.sh("sysctl -qw net.ipv6.conf.under0.disable_ipv6=0; ip addr add fd00:c::1/64 dev under0 nodad");
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn collectors_get_every_frame_as_it_was() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("collect");
    let config = cloud.node(1);
    let plane = DataPlane::open(config.clone()).await.unwrap();
    let far = collector(&mut cloud, &config);
    routes(&cloud, &config);
    let mut wanted = Wanted {
        networks: vec![network("n", 100, 0)],
        ports: vec![
            port("a", "n", 1, "10.0.0.11", &["g"]),
            port("b", "n", 2, "10.0.0.12", &["g"]),
            port("c", "n", 3, "10.0.0.13", &["g"]),
        ],
        groups: vec![open_group("g")],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let b = guest(&mut cloud, &plane, "b", "10.0.0.12").await;
    let _c = guest(&mut cloud, &plane, "c", "10.0.0.13").await;
    let ping = || {
        // Who the other is, is asked anew each time: that frame is neither IPv4 nor IPv6.
        a.sh("ip neigh flush dev eth0");
        let said = a.try_sh("ping -n -c 3 -i 0.2 -W 2 -s 1300 10.0.0.12");
        assert!(said.status.success(), "what is looked at goes on: {:?}", plane.stats());
    };
    // Each is another way to be reached; with key and session the directions are told apart.
    for (address, source, erspans) in [
        (NEAR, "10.255.0.1", false),
        (FAR, "10.255.0.1", false),
        (NEAR, "10.255.0.1", true),
        (SIX, "fd00:c::1", false),
        (SIX, "fd00:c::1", true),
    ] {
        let wrap = |id: u16| if erspans { erspan(id) } else { gre(u32::from(id)) };
        wanted.taps = vec![
            tap("a", true, false, address, wrap(101)),
            tap("a", false, true, address, wrap(102)),
            tap("a", true, true, address, wrap(103)),
            // Another port for the same collector, and one that nobody asked to see.
            tap("b", false, true, address, wrap(201)),
        ];
        apply(&plane, &wanted).await;
        // Neighbours on the underlay are found first: what waits for that is the kernel's.
        ping();
        let (ear, at_a, at_b) = (Ear::at(&far), Ear::at(&a), Ear::at(&b));
        ping();
        let got = copies(&ear.frames());
        let ((sent, received), (by_b, _)) = (seen(at_a.frames()), seen(at_b.frames()));
        assert!(sent.len() >= 4 && received.len() >= 3, "{} {}", sent.len(), received.len());
        assert_eq!(of(&got, 101), received, "{address} {erspans}: what it gets; {:?}", plane.stats());
        assert_eq!(of(&got, 102), sent, "{address} {erspans}: what it sends");
        assert_eq!(of(&got, 103), both(&sent, &received), "{address} {erspans}: both");
        // Whether b asks again who a is, is b's to choose, and when.
        let v4 =
            |frames: Vec<Vec<u8>>| -> Vec<Vec<u8>> { frames.into_iter().filter(|f| half(f, 12) == 0x0800).collect() };
        assert_eq!(v4(of(&got, 201)), v4(by_b), "{address} {erspans}: of another port");
        assert!(
            got.iter()
                .all(|c| c.from == source.parse::<IpAddr>().unwrap() && c.to == address.parse::<IpAddr>().unwrap())
        );
        assert!(got.iter().all(|c| c.erspan == erspans && !c.cut));
        for id in [101, 102, 103] {
            let numbers: Vec<u32> = got.iter().filter(|c| c.id == id).filter_map(|c| c.number).collect();
            assert!(numbers.windows(2).all(|w| w[1] == w[0] + 1), "one number after the other: {numbers:?}");
        }
    }
    wanted.taps.clear();
    apply(&plane, &wanted).await;
    let ear = Ear::at(&far);
    ping();
    assert_eq!(copies(&ear.frames()), [], "nobody is looked at any more");
}

/// What TCP carried in copies of no more than a wire's size with sound checksums.
fn stream(got: &[Copy]) -> Vec<u8> {
    let mut octets: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    for frame in got.iter().map(|c| &c.frame).filter(|f| half(f, 12) == 0x0800 && f[23] == 6) {
        assert!(frame.len() <= 1464, "{}", frame.len());
        let (header, segment) = (usize::from(frame[46] >> 4) * 4, &frame[34..14 + usize::from(half(frame, 16))]);
        let pseudo = [&frame[26..34], &[0, 6], &u16::try_from(segment.len()).unwrap().to_be_bytes()].concat();
        assert_eq!(sum(&[&pseudo[..], segment].concat()), 0xffff, "a sound checksum");
        // What was sent again may be cut elsewhere.
        let known = octets.entry(word(segment, 4)).or_default();
        if known.len() < segment.len() - header {
            *known = segment[header..].to_vec();
        }
    }
    octets.into_values().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn large_frames_come_as_a_wire_would_carry_them() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("collectbig");
    let config = cloud.node(1);
    let plane = DataPlane::open(config.clone()).await.unwrap();
    let far = collector(&mut cloud, &config);
    routes(&cloud, &config);
    let mut wanted = two_guests();
    wanted.taps = vec![tap("a", false, true, NEAR, gre(7))];
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let b = guest(&mut cloud, &plane, "b", "10.0.0.12").await;
    for guest in [&a, &b] {
        guest.sh("ip link set eth0 mtu 1450");
    }
    assert!(a.pings("10.0.0.12"));
    // On a machine that is busy with other things the queue of copies may lose one; what comes is sound each time.
    let whole = (0..3u16).any(|n| {
        let port = 9000 + n;
        cloud.background(b.spawn(&format!("nc -l -p {port}")));
        assert!(soon(|| b.sh("ss -ltn").contains(&format!(":{port}"))));
        let (ear, at_a) = (Ear::at(&far), Ear::at(&a));
        a.sh(&format!("head -c 200000 /dev/zero | tr '\\0' x | nc -N -w 5 10.0.0.12 {port}"));
        let got = copies(&ear.frames());
        let largest = at_a.frames().iter().map(|(_, f)| f.len()).max().unwrap();
        assert!(largest > 1464, "the guest gives its kernel's large frames: {largest}");
        let said = stream(&got);
        assert!(said.iter().all(|b| *b == b'x') && said.len() > 100_000, "{} {:?}", said.len(), plane.stats());
        said.len() == 200_000
    });
    assert!(whole, "{:?}", plane.stats());

    // What the way out has no room for: ERSPAN says that it was cut, GRE could not.
    let big = || a.try_sh("ping -n -c 2 -i 0.2 -W 2 -s 1422 10.0.0.12");
    wanted.taps = vec![tap("a", false, true, SIX, gre(8)), tap("a", false, true, SIX, erspan(9))];
    apply(&plane, &wanted).await;
    assert!(a.pings("10.0.0.12"));
    let before = plane.stats().unwrap().drops.get("too-big").copied().unwrap_or(0);
    let (ear, at_a) = (Ear::at(&far), Ear::at(&a));
    assert!(big().status.success());
    let got = copies(&ear.frames());
    let (sent, _) = seen(at_a.frames());
    let whole: Vec<&Vec<u8>> = sent.iter().filter(|f| f.len() == 1464).collect();
    let cut: Vec<&Copy> = got.iter().filter(|c| c.cut).collect();
    assert!(whole.len() == 2 && cut.len() == 2, "{} {}", whole.len(), cut.len());
    // 1514 - Ethernet, IPv6, GRE and ERSPAN.
    assert!(cut.iter().all(|c| c.id == 9 && c.frame.len() == 1444));
    assert!(cut.iter().all(|c| whole.iter().any(|w| w.starts_with(&c.frame))));
    assert!(got.iter().filter(|c| c.id == 8).all(|c| c.frame.len() < 1464));
    assert_eq!(plane.stats().unwrap().drops.get("too-big").copied().unwrap_or(0), before + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_of_ipv6_are_looked_at_as_well() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("collectsix");
    let config = cloud.node(1);
    let plane = DataPlane::open(config.clone()).await.unwrap();
    let far = collector(&mut cloud, &config);
    let six = |id: &str, n: u8| port(id, "n", n, &format!("fd00:0::{n:x}"), &["g"]);
    let wanted = Wanted {
        networks: vec![network6("n", 100, 0, None)],
        ports: vec![six("a", 1), six("b", 2)],
        groups: vec![open6("g")],
        taps: vec![tap("a", true, true, NEAR, gre(6)), tap("a", true, true, NEAR, erspan(66))],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = six::guest6(&mut cloud, &plane, "a", Some("fd00:0::1")).await;
    let _b = six::guest6(&mut cloud, &plane, "b", Some("fd00:0::2")).await;
    assert!(soon(|| six::pings(&a, "fd00:0::2")));
    let (ear, at_a) = (Ear::at(&far), Ear::at(&a));
    assert!(six::pings(&a, "fd00:0::2"));
    let got = copies(&ear.frames());
    let (sent, received) = seen(at_a.frames());
    let echo = |frames: Vec<Vec<u8>>| -> Vec<Vec<u8>> {
        frames.into_iter().filter(|f| f[54] == 128 || f[54] == 129).collect()
    };
    for id in [6, 66] {
        assert_eq!(echo(of(&got, id)), echo(both(&sent, &received)), "{id}: {:?}", plane.stats());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_of_guests_are_in_the_copies_and_those_of_subports_are_not() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("collecttag");
    let config = cloud.node(1);
    let plane = DataPlane::open(config.clone()).await.unwrap();
    let far = collector(&mut cloud, &config);
    let bare = |id: &str, n: u8| Port {
        secured: false,
        groups: vec![],
        ..port(id, "n", n, &format!("10.0.0.{}", n + 10), &[])
    };
    let wanted = Wanted {
        networks: vec![Network { transparent: true, ..network("n", 100, 0) }, network("m", 101, 1)],
        ports: vec![
            bare("a", 1),
            bare("b", 2),
            Port { parent: Some(Parent { port: "a".into(), vlan: 5 }), network: "m".into(), ..bare("s", 3) },
        ],
        taps: vec![
            tap("a", false, true, NEAR, gre(1)),
            tap("b", true, false, NEAR, gre(2)),
            tap("b", true, false, NEAR, erspan(3)),
            tap("s", false, true, NEAR, erspan(4)),
        ],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let b = guest(&mut cloud, &plane, "b", "10.0.0.12").await;
    assert!(a.pings("10.0.0.12"), "{:?}", plane.stats());
    // Urgency 5; a protocol for experiments.
    let (macs, rest) = ("fa163e000002fa163e000001", format!("88b5{}", "41".repeat(60)));
    let tagged = |tci: &str| format!("{macs}8100{tci}{rest}");
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
    };
    let ear = Ear::at(&far);
    for tci in ["a064", "0005"] {
        let send = "import socket,sys;s=socket.socket(17,3);s.bind(('eth0',0));s.send(bytes.fromhex(sys.argv[1]))";
        drop(run(&mut a.command("python3", &["-c", send, &tagged(tci)])));
    }
    let got = copies(&ear.frames());
    let marked: Vec<&Copy> = got.iter().filter(|c| c.frame.ends_with(&[0x41; 60])).collect();
    let frame = bytes(&tagged("a064"));
    let seen =
        |id: u32| -> Vec<_> { marked.iter().filter(|c| c.id == id).map(|c| (c.frame.as_slice(), c.tag)).collect() };
    assert_eq!(seen(1), [(frame.as_slice(), None)], "{:?}", plane.stats());
    assert_eq!(seen(2), [(frame.as_slice(), None)]);
    assert_eq!(seen(3), [(frame.as_slice(), Some((5, 100)))]);
    assert_eq!(seen(4), [(bytes(&format!("{macs}{rest}")).as_slice(), None)], "the subport's frame has none");
    drop(b);
}

/// A single host has no underlay: copies leave by the link to the provider. There a guest may collect, by its floating address,
/// even one that is looked at itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_collects_by_its_floating_address_and_no_copy_is_copied() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("collectfip");
    let config = cloud.config();
    let plane = DataPlane::open(config.clone()).await.unwrap();
    let (fip, outside) = ("203.0.113.20", "203.0.113.1");
    let mut wanted = Wanted {
        networks: vec![network("n", 100, 0), network("m", 101, 1), external()],
        ports: vec![
            port("a", "n", 1, "10.0.0.11", &["g"]),
            port("b", "n", 2, "10.0.0.12", &["g"]),
            port("c", "m", 3, "10.0.1.13", &["g"]),
        ],
        groups: vec![open_group("g")],
        routers: vec![router("r", vec![leg("m", 1, 1)], Some(gateway(10)))],
        floating: vec![floating(20, "c", "10.0.1.13", "r")],
        taps: vec![tap("a", true, true, fip, gre(5)), tap("a", true, true, outside, erspan(6))],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let _b = guest(&mut cloud, &plane, "b", "10.0.0.12").await;
    let c = guest(&mut cloud, &plane, "c", "10.0.1.13").await;
    // The provider's router, as a host.
    let edge = Guest::at(&ns_path(&config.edge().unwrap()), &cloud);
    assert!(a.pings("10.0.0.12"));
    let (ear, out, at_a) = (Ear::at(&c), Ear::on(&edge, "ext0"), Ear::at(&a));
    assert!(a.pings("10.0.0.12"));
    let (got, out) = (copies(&ear.frames()), copies(&out.frames()));
    let (sent, received) = seen(at_a.frames());
    let all = both(&sent, &received);
    assert_eq!(of(&got, 5), all, "{:?}", plane.stats());
    assert_eq!(of(&out, 6), all, "{:?}", plane.stats());
    let (c_ip, router_ip): (IpAddr, IpAddr) = ("10.0.1.13".parse().unwrap(), "203.0.113.10".parse().unwrap());
    assert!(got.iter().all(|copy| copy.to == c_ip && copy.from == router_ip));

    // c collects what c gets: a copy of a copy would be one without end.
    wanted.taps.push(tap("c", true, true, fip, gre(7)));
    apply(&plane, &wanted).await;
    let ear = Ear::at(&c);
    assert!(a.pings("10.0.0.12") && c.pings(outside));
    let got = copies(&ear.frames());
    let inner = |id: u32| of(&got, id).len();
    assert!(inner(5) >= 4 && inner(7) >= 4, "{} {}", inner(5), inner(7));
    assert!(got.iter().all(|copy| half(&copy.frame, 12) != 0x0800 || copy.frame[23] != 47), "no copy of a copy");
    assert!(plane.stats().unwrap().drops.get("copy").copied().unwrap_or(0) >= 4);
}
