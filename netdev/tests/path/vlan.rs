//! Networks on a tagged wire, by a provider who builds his frames himself: the kernel need not know tags.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::six::*;
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;
use std::process::Stdio;

/// Somebody who speaks in tags, such as the provider at his end of the wire: answers ARP, neighbour solicitations and pings for one IPv4 and one IPv6 address in each of
/// some networks (by tags from the outer to the inner, 0: none; service tags as 0x88a8NNNN), and says what else it hears. Commands on standard
/// input make it send.
const SPEAKER: &str = r#"
import select, socket, struct, sys
dev, me = sys.argv[1], sys.argv[2:]
mac = lambda t: bytes.fromhex(t.replace(":", ""))
text = lambda b: b.hex(":")
pton = socket.inet_pton
key = lambda t: () if t in ("0", "-") else tuple(int(x, 0) for x in t.split("+"))
hosts = {}
for one in me:
    tag, m, v4, v6 = one.split(",")
    hosts[key(tag)] = (mac(m), pton(2, v4), pton(10, v6))
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind((dev, 3)); s.setsockopt(263, 8, 1)
def total(b):
    b += b"\0" * (len(b) % 2)
    t = sum(struct.unpack("!%dH" % (len(b) // 2), b))
    while t >> 16: t = (t & 0xffff) + (t >> 16)
    return struct.pack("!H", ~t & 0xffff)
def ipv4(proto, src, dst, body):
    h = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0, 64, proto, 0, src, dst)
    return h[:10] + total(h) + h[12:] + body
def ipv6(src, dst, body):
    t = total(src + dst + struct.pack("!II", len(body), 58) + body)
    return struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + src + dst + body[:2] + t + body[4:]
def send(tags, dst, src, kind, body):
    head = b"".join(struct.pack("!HH", t >> 16 or 0x8100, t & 0xffff) for t in tags)
    s.send(dst + src + head + struct.pack("!H", kind) + body)
def echo(tags, tag, to, dip, what=b"hello"):
    m, v4, v6 = hosts[tag]
    if ":" in dip:
        send(tags, to, m, 0x86dd, ipv6(v6, pton(10, dip), struct.pack("!BBHHH", 128, 0, 0, 7, 1) + what))
    else:
        b = struct.pack("!BBHHH", 8, 0, 0, 7, 1) + what
        send(tags, to, m, 0x800, ipv4(1, v4, pton(2, dip), b[:2] + total(b) + b[4:]))
say = lambda *w: print(*w, flush=True)
say("ready")
while True:
    for f in select.select([s, sys.stdin], [], [])[0]:
        if f is sys.stdin:
            line = sys.stdin.readline()
            if not line: sys.exit()
            what, tags, tag, to, ip = line.split()
            tags = [int(t, 0) for t in tags.split("+")] if tags != "-" else []
            tag = key(tag)
            if what == "echo": echo(tags, tag, mac(to), ip)
            elif what == "big": echo(tags, tag, mac(to), ip, b"x" * (1422 + (4 if tags[0] >> 16 == 0 else 0) - 4 * len(tags)))
            elif what == "arp":
                m, v4, v6 = hosts[tag]
                send(tags, b"\xff" * 6, m, 0x806, struct.pack("!HHBBH6s4s6s4s", 1, 0x800, 6, 4, 1, m, v4, b"\0" * 6, pton(2, ip)))
            elif what == "ns":
                m, v4, v6 = hosts[tag]
                t = pton(10, ip)
                ns = struct.pack("!BBHI", 135, 0, 0, 0) + t + b"\1\1" + m
                send(tags, b"\x33\x33\xff" + t[13:], m, 0x86dd, ipv6(v6, pton(10, "ff02::1:ff00:0")[:13] + t[13:], ns))
            continue
        b, aux, _, a = s.recvmsg(2000, 200)
        if a[2] == 4: continue
        st, _, _, _, _, tci, tpid = struct.unpack("IIIHHHH", aux[0][2][:20])
        back = []
        one = lambda kind, n: back.append(n & 0xfff | (kind << 16 if kind != 0x8100 else 0))
        if st & 16 and tci & 0xfff: one(tpid if st & 64 else 0x8100, tci)
        k, at = struct.unpack("!H", b[12:14])[0], 14
        while k in (0x8100, 0x88a8):
            tci, inner = struct.unpack("!HH", b[at:at + 4])
            one(k, tci)
            k, at = inner, at + 4
        src, p = b[6:12], b[at:]
        m, v4, v6 = hosts.get(tuple(back), (b"", b"", b""))
        tag = "+".join(str(t) if t < 65536 else hex(t) for t in back) or "0"
        if k == 0x806:
            op, sha, spa, tpa = struct.unpack("!H", p[6:8])[0], p[8:14], p[14:18], p[24:28]
            if op == 1 and spa == tpa: say("announce", tag, socket.inet_ntoa(spa), text(sha))
            elif op == 1 and tpa == v4:
                say("asked", tag, socket.inet_ntoa(spa), text(sha))
                send(back, sha, m, 0x806, struct.pack("!HHBBH6s4s6s4s", 1, 0x800, 6, 4, 2, m, v4, sha, spa))
            elif op == 2: say("is-at", tag, socket.inet_ntoa(spa), text(sha))
        elif k == 0x800 and p[9] == 1:
            sip, dip, c = p[12:16], p[16:20], p[20:struct.unpack("!H", p[2:4])[0]]
            if c[0] == 0: say("reply", tag, socket.inet_ntoa(sip), text(src))
            elif dip == v4 and c[0] == 8:
                say("ping", tag, socket.inet_ntoa(sip), text(src), text(b[:6]))
                r = b"\0\0\0\0" + c[4:]
                send(back, src, m, 0x800, ipv4(1, v4, sip, r[:2] + total(r) + r[4:]))
        elif k == 0x86dd and p[6] == 58:
            sip, dip, c = p[8:24], p[24:40], p[40:40 + struct.unpack("!H", p[4:6])[0]]
            if c[0] == 135 and c[8:24] == v6:
                say("asked", tag, socket.inet_ntop(10, sip), text(src))
                send(back, src, m, 0x86dd, ipv6(v6, sip, struct.pack("!BBHI", 136, 0, 0, 0x60000000) + v6 + b"\2\1" + m))
            elif c[0] == 136: say("is-at", tag, socket.inet_ntop(10, c[8:24]), text(src))
            elif c[0] == 129: say("reply", tag, socket.inet_ntop(10, sip), text(src))
            elif c[0] == 128 and dip == v6:
                say("ping", tag, socket.inet_ntop(10, sip), text(src), text(b[:6]))
                send(back, src, m, 0x86dd, ipv6(v6, sip, b"\x81\0\0\0" + c[4:]))
"#;

/// What he hears, and his voice.
pub struct Speaker {
    said: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
    voice: std::process::ChildStdin,
}

impl Speaker {
    /// At the far end of the node's external device `phys0`.
    pub async fn provider(cloud: &mut Cloud, plane: &DataPlane, hosts: &[&str]) -> (Guest, Self) {
        let node = Guest::at(&plane.ns_path(Ns::Node).unwrap(), cloud);
        let wire = cloud.guest("wire");
        node.sh(&format!("ip link add phys0 type veth peer name eth0 netns {}", wire.ns.display()));
        wire.sh("ip link set eth0 up");
        node.sh("ip link set phys0 up");
        let provider = Self::start(cloud, &wire, hosts);
        (wire, provider)
    }

    /// Behind the guest's `eth0`.
    pub fn start(cloud: &mut Cloud, guest: &Guest, hosts: &[&str]) -> Self {
        let mut command = guest.command("python3", &["-c", SPEAKER, "eth0"]);
        let mut child =
            command.args(hosts).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let said = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let (heard, out) = (said.clone(), child.stdout.take().unwrap());
        std::thread::spawn(move || {
            use std::io::BufRead;
            for line in std::io::BufReader::new(out).lines().map_while(Result::ok) {
                heard.lock().unwrap().push(line);
            }
        });
        let speaker = Self { said, voice: child.stdin.take().unwrap() };
        cloud.background(child);
        assert!(soon(|| speaker.heard("ready")));
        speaker
    }

    pub fn heard(&self, what: &str) -> bool {
        self.said.lock().unwrap().iter().any(|line| line.starts_with(what))
    }

    pub fn all(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    /// Sends, and says whether `answer` comes.
    pub fn send(&mut self, command: &str, answer: &str) -> bool {
        use std::io::Write;
        self.said.lock().unwrap().clear();
        writeln!(self.voice, "{command}").unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(2);
        while std::time::Instant::now() < end && !self.heard(answer) {
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        }
        self.heard(answer)
    }
}

pub fn device(cloud: &mut Cloud) -> Config {
    let config = Config { external: External::Device("phys0".into()), ..cloud.config() };
    cloud.keep(config.clone());
    config
}

/// 203.0.113.0/24 and 2001:db8:e::/64 behind a tag.
pub fn wire(id: &str, vni: u32, vlan: u16) -> Network {
    let mut network = Network { id: id.into(), vni, vlan, ..external() };
    network.subnets[0].id = format!("{id}-sub");
    let six = Subnet {
        id: format!("{id}-six"),
        cidr: "2001:db8:e::/64".parse().unwrap(),
        gateway: Some("2001:db8:e::1".parse().unwrap()),
        ..network.subnets[0].clone()
    };
    network.subnets.push(six);
    network
}

const A: &str = "101,02:00:00:00:01:01,203.0.113.1,2001:db8:e::1";
const B: &str = "102,02:00:00:00:01:02,203.0.113.1,2001:db8:e::1";
const FLAT: &str = "0,02:00:00:00:01:00,203.0.113.1,2001:db8:e::1";
const MAC_A: &str = "02:00:00:00:01:01";
const MAC_B: &str = "02:00:00:00:01:02";

fn drops(plane: &DataPlane, reason: &str) -> u64 {
    plane.stats().unwrap().drops.get(reason).copied().unwrap_or(0)
}

pub fn both() -> Group {
    let mut all = open_group("g");
    all.rules.extend(open6("g").rules);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_on_tagged_wires_meet_their_own_neighbours_alone() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("vlan");
    let plane = DataPlane::open(device(&mut cloud)).await.unwrap();
    let (_, mut provider) = Speaker::provider(&mut cloud, &plane, &[A, B, FLAT]).await;
    // The same addresses and the same hardware address on three wires.
    let on = |id: &str, network: &str| {
        let mut port = port(id, network, 0x50, "203.0.113.50", &["g"]);
        port.fixed.push(Fixed { subnet: format!("{network}-six"), address: "2001:db8:e::50".parse().unwrap() });
        port
    };
    let wanted = Wanted {
        networks: vec![wire("va", 9001, 101), wire("vb", 9002, 102), wire("ext", 9000, 0)],
        ports: vec![on("a", "va"), on("b", "vb"), on("f", "ext")],
        groups: vec![both()],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let mut guests = Vec::new();
    for id in ["a", "b", "f"] {
        let guest = guest6(&mut cloud, &plane, id, Some("2001:db8:e::50")).await;
        guest.sh("ip addr add 203.0.113.50/24 dev eth0");
        guests.push(guest);
    }
    let neighbour = |g: &Guest| g.sh("ip neigh show dev eth0; ip -6 neigh show dev eth0");
    for (guest, (tag, mac)) in guests.iter().zip([(101, MAC_A), (102, MAC_B), (0, "02:00:00:00:01:00")]) {
        assert!(guest.pings("203.0.113.1"), "tag {tag}: {:?} {:?}", plane.stats(), provider.all());
        assert!(pings(guest, "2001:db8:e::1"), "tag {tag}: {:?} {:?}", plane.stats(), provider.all());
        let known = neighbour(guest);
        assert!(known.contains(&format!("203.0.113.1 lladdr {mac}")), "{known}");
        assert!(known.contains(&format!("2001:db8:e::1 lladdr {mac}")), "{known}");
        assert!(provider.heard(&format!("ping {tag} 203.0.113.50 fa:16:3e:00:00:50")), "{:?}", provider.all());
        assert!(provider.heard(&format!("ping {tag} 2001:db8:e::50 fa:16:3e:00:00:50")), "{:?}", provider.all());
    }
    // From outside: addresses are answered for on each wire, and guests answer there.
    let guest = "fa:16:3e:00:00:50";
    for tag in ["101", "102"] {
        let is_at = format!("is-at {tag}");
        assert!(provider.send(&format!("arp {tag} {tag} - 203.0.113.50"), &format!("{is_at} 203.0.113.50 {guest}")));
        assert!(provider.send(&format!("ns {tag} {tag} - 2001:db8:e::50"), &format!("{is_at} 2001:db8:e::50 {guest}")));
        assert!(provider.send(&format!("echo {tag} {tag} {guest} 203.0.113.50"), &format!("reply {tag} 203.0.113.50")));
        let six = format!("reply {tag} 2001:db8:e::50");
        assert!(provider.send(&format!("echo {tag} {tag} {guest} 2001:db8:e::50"), &six), "{:?}", plane.stats());
        assert!(!provider.send(&format!("arp {tag} {tag} - 203.0.113.51"), "is-at"), "nobody has that");
    }
    // A tag without a number is none, however urgent; other tags and other kinds of tags are nobody's.
    assert!(provider.send(&format!("echo 0x6000 0 {guest} 203.0.113.50"), "reply 0"), "{:?}", plane.stats());
    assert!(provider.send(&format!("echo 0x6065 101 {guest} 203.0.113.50"), "reply 101"), "the urgent ones too");
    for tags in ["103", "101+102", "101+101", "0+101", "0x88a80065", "0x88a80065+101"] {
        let before = drops(&plane, "family");
        assert!(!provider.send(&format!("echo {tags} 101 {guest} 203.0.113.50"), "reply"), "{tags}");
        assert!(drops(&plane, "family") > before, "{tags}: {:?}", plane.stats());
    }
    // Guests cannot send tags of their own.
    let before = drops(&plane, "family");
    let raw = "import socket\ns=socket.socket(17,3,0)\ns.bind((\"eth0\",0))\ns.send(bytes.fromhex(\"020000000101fa163e000050810000660800\")+bytes(46))";
    guests[0].sh(&format!("python3 -c '{raw}'"));
    assert!(drops(&plane, "family") > before);
    // On its own wire alone: another guest's network does not hear.
    provider.said.lock().unwrap().clear();
    assert!(guests[1].pings("203.0.113.1"));
    assert!(!provider.all().iter().any(|line| line.starts_with("ping 101") || line.starts_with("ping 0")));
}

/// A way out to 203.0.113.1 and 2001:db8:e::1 by a network.
pub fn way(id: &str, inside: Network, leg4: Interface, out: &str) -> (Router, Vec<Network>) {
    let six = Gateway6 { network: out.into(), mac: Mac([0xfa, 0x16, 0x3e, 2, 0, 10]), ..gateway6(0x10) };
    let leg6 = Interface { network: inside.id.clone(), ..leg6(&inside.id, 7, 7) };
    let way = Gateway { network: out.into(), ..gateway(10) };
    let router = Router { gateway6: Some(six), ..router(id, vec![leg4, leg6], Some(way)) };
    let mut inside = inside;
    inside.subnets.push(network6(&inside.id, 0, 7, None).subnets[0].clone());
    (router, vec![inside])
}

#[tokio::test(flavor = "multi_thread")]
async fn routers_lead_out_by_tagged_wires() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("vlangw");
    let plane = DataPlane::open(device(&mut cloud)).await.unwrap();
    let (_, mut provider) = Speaker::provider(&mut cloud, &plane, &[A, B]).await;
    let mut wanted = Wanted {
        networks: vec![wire("va", 9001, 101), wire("vb", 9002, 102)],
        ports: vec![port("a", "n0", 1, "10.0.0.11", &["g"]), port("b", "n1", 1, "10.0.0.11", &["g"])],
        groups: vec![both()],
        ..Wanted::default()
    };
    // Two tenants with the same addresses inside and the same ones outside: only the tags differ.
    for (id, inside, out) in [("r", "n0", "va"), ("s", "n1", "vb")] {
        let vni = if inside == "n0" { 100 } else { 101 };
        let (router, networks) = way(id, network(inside, vni, 0), leg(inside, 0, 1), out);
        wanted.routers.push(router);
        wanted.networks.extend(networks);
    }
    for port in &mut wanted.ports {
        port.fixed.push(Fixed { subnet: "six".into(), address: "fd00:7::11".parse().unwrap() });
    }
    apply(&plane, &wanted).await;
    for tag in [101, 102] {
        let said = format!("announce {tag} 203.0.113.10 fa:16:3e:02:00:0a");
        assert!(soon(|| provider.heard(&said)), "{:?}", provider.all());
        // Who is the next hop is asked before anybody needs it.
        assert!(soon(|| provider.heard(&format!("asked {tag} 203.0.113.10"))), "{:?}", provider.all());
        assert!(soon(|| provider.heard(&format!("asked {tag} 2001:db8:e::10"))), "{:?}", provider.all());
    }
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let b = guest(&mut cloud, &plane, "b", "10.0.0.11").await;
    for guest in [&a, &b] {
        guest.sh("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0; ip addr add fd00:7::11/64 dev eth0 nodad");
        guest.sh("ip -6 route add default via fd00:7::1");
    }
    let gateway = "fa:16:3e:02:00:0a";
    for (guest, tag, mac) in [(&a, 101, MAC_A), (&b, 102, MAC_B)] {
        // He hears in order: after this nothing of before is left.
        let echo = format!("echo {tag} {tag} {gateway} 203.0.113.10");
        assert!(provider.send(&echo, &format!("reply {tag} 203.0.113.10")), "{:?}", plane.stats());
        provider.said.lock().unwrap().clear();
        assert!(guest.sh("ping -n -c 3 -i 0.2 -W 2 203.0.113.1").contains(" 3 received"), "none is lost");
        let ping = format!("ping {tag} 203.0.113.10 fa:16:3e:02:00:0a {mac}");
        assert!(provider.heard(&ping), "{ping}: {:?} {:?}", provider.all(), plane.stats());
        assert!(soon(|| pings(guest, "2001:db8:e::1")), "{:?} {:?}", provider.all(), plane.stats());
        assert!(provider.heard(&format!("ping {tag} fd00:7::11 fa:16:3e:02:00:0a {mac}")), "{:?}", provider.all());
        assert!(!provider.heard(&format!("ping {} ", 203 - tag)), "on its own wire alone");
    }
    // The ways out answer, each on its wire; inside nobody is reached but by a floating address.
    for tag in ["101", "102"] {
        assert!(
            provider.send(&format!("arp {tag} {tag} - 203.0.113.10"), &format!("is-at {tag} 203.0.113.10 {gateway}"))
        );
        let six = format!("is-at {tag} 2001:db8:e::10 {gateway}");
        assert!(provider.send(&format!("ns {tag} {tag} - 2001:db8:e::10"), &six));
        assert!(
            provider.send(&format!("echo {tag} {tag} {gateway} 203.0.113.10"), &format!("reply {tag} 203.0.113.10"))
        );
        let six = format!("reply {tag} 2001:db8:e::10");
        assert!(provider.send(&format!("echo {tag} {tag} {gateway} 2001:db8:e::10"), &six), "{:?}", plane.stats());
        assert!(provider.send(&format!("echo {tag} {tag} {gateway} fd00:7::11"), &format!("reply {tag} fd00:7::11")));
    }
    assert!(!provider.send(&format!("echo - 101 {gateway} 203.0.113.10"), "reply"), "without a tag nobody is there");
    assert!(!provider.send("arp - 101 - 203.0.113.10", "is-at"));
    wanted.floating = vec![Floating { network: "va".into(), ..floating(60, "a", "10.0.0.11", "r") }];
    apply(&plane, &wanted).await;
    let floating = "fa:16:3e:03:00:3c";
    assert!(soon(|| provider.heard(&format!("announce 101 203.0.113.60 {floating}"))), "{:?}", provider.all());
    assert!(provider.send("arp 101 101 - 203.0.113.60", &format!("is-at 101 203.0.113.60 {floating}")));
    assert!(
        provider.send(&format!("echo 101 101 {floating} 203.0.113.60"), &format!("reply 101 203.0.113.60 {floating}"))
    );
    assert!(!provider.send(&format!("echo 102 102 {floating} 203.0.113.60"), "reply"), "of the other wire it is not");
    assert!(!provider.send("arp 102 102 - 203.0.113.60", "is-at"));
    provider.said.lock().unwrap().clear();
    assert!(
        a.pings("203.0.113.1") && provider.heard(&format!("ping 101 203.0.113.60 {floating}")),
        "out by it as well"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_that_moves_is_followed_and_one_that_is_gone_is_forgotten() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("vlannb");
    let plane = DataPlane::open(device(&mut cloud)).await.unwrap();
    let far = "101,02:00:00:00:01:77,203.0.113.77,2001:db8:e::77";
    let (_, provider) = Speaker::provider(&mut cloud, &plane, &[far]).await;
    let (router, networks) = way("r", network("n0", 100, 0), leg("n0", 0, 1), "va");
    let wanted = Wanted {
        networks: [vec![wire("va", 9001, 101)], networks].concat(),
        ports: vec![port("a", "n0", 1, "10.0.0.11", &["g"])],
        groups: vec![both()],
        routers: vec![router],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    // On the wire itself, not behind the next hop: the first packet asks.
    assert!(a.sh("ping -n -c 4 -i 0.3 -W 1 203.0.113.77 || true").contains(" 3 received"), "{:?}", plane.stats());
    assert_eq!(drops(&plane, "neighbour"), 1);
    // Nobody is there: asked a few times in all, whatever is sent.
    provider.said.lock().unwrap().clear();
    a.sh("ping -n -c 30 -i 0.05 -W 1 203.0.113.78 || true");
    assert!(drops(&plane, "neighbour") >= 30, "{:?}", plane.stats());
    // He says from another hardware address that he is there now (as routers that take over do).
    let takeover = "import socket,struct\ns=socket.socket(17,3,0)\ns.bind((\"eth0\",0))\nm=bytes.fromhex(\"020000000199\")\ni=socket.inet_aton(\"203.0.113.77\")\ns.send(b\"\\xff\"*6+m+bytes.fromhex(\"81000065080600010800060400 01\".replace(\" \",\"\"))+m+i+bytes(6)+i)";
    let wire = Guest::at(&ns_path(&format!("{}-wire", cloud.prefix)), &cloud);
    wire.sh(&format!("python3 -c '{takeover}'"));
    provider.said.lock().unwrap().clear();
    a.try_sh("ping -n -c 1 -W 1 203.0.113.77");
    assert!(
        soon(|| provider.heard("ping 101 203.0.113.10 fa:16:3e:02:00:0a 02:00:00:00:01:99")),
        "{:?} {:?}",
        provider.all(),
        plane.stats()
    );
}
