//! Encryption between hosts, on the wire: the kernel's WireGuard where there is one, else `wireguard-go`.
//!
//! ```text
//!   guest a - node 1 --\                       /-- node 2 - guest b
//!                       under0 (looked at, and written to) -- node 3
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PROGRAM: &str = "/usr/bin/wireguard-go";
const PORT: u16 = 51820;
/// What fits a VXLAN packet that is encrypted and leaves in one of 1500.
const MTU: u16 = 1500 - ENCRYPTION_OVERHEAD as u16 - 50;

/// A packet of VXLAN from node 2 to node 1 with a question of guest b to guest a in it, as anybody on the underlay can make it.
const FORGE: &str = r#"
import socket, struct
def ip(proto, src, dst, body):
    head = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(body), 1, 0, 64, proto, 0, socket.inet_aton(src), socket.inet_aton(dst))
    total = sum(struct.unpack('!10H', head)); total = (total & 0xffff) + (total >> 16); total += total >> 16
    return head[:10] + struct.pack('!H', ~total & 0xffff) + head[12:] + body
text = b'forged-by-a-stranger'
inner = bytes.fromhex('fa163e000001fa163e0000020800') + ip(17, '10.0.0.12', '10.0.0.11', struct.pack('!HHHH', 7, 7777, 8 + len(text), 0) + text)
vxlan = struct.pack('!II', 0x08000000, 100 << 8) + inner
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for _ in range(5):
    s.sendto(ip(17, '10.255.0.2', '10.255.0.1', struct.pack('!HHHH', 12345, 4789, 8 + len(vxlan), 0) + vxlan), ('10.255.0.1', 0))
"#;

fn kernel_has_it(cloud: &mut Cloud) -> bool {
    cloud.guest("probe").try_sh("ip link add w0 type wireguard").status.success()
}

/// Whether anything here encrypts; says so when not.
fn able(cloud: &mut Cloud) -> bool {
    let able = Path::new(PROGRAM).exists() || kernel_has_it(cloud);
    if !able {
        eprintln!("SKIPPED: this kernel has no WireGuard, and there is no wireguard-go");
    }
    able
}

fn key(n: u8) -> PrivateKey {
    PrivateKey::new([n; 32])
}

fn encrypting(mut config: Config, key: PrivateKey) -> Config {
    let encryption = Encryption { key, port: PORT, program: Some(PROGRAM.into()) };
    config.underlay.as_mut().unwrap().encryption = Some(encryption);
    config
}

fn tunnel(node: u8, of: u8) -> Tunnel {
    Tunnel { vtep: vtep(node), key: key(of).public(), port: PORT }
}

fn remote(id: &str, n: u8, node: u8) -> Remote {
    Remote {
        port: id.into(),
        network: "n0".into(),
        mac: mac(n),
        addresses: vec![format!("10.0.0.1{n}").parse().unwrap()],
        vtep: vtep(node),
        groups: vec!["g".into()],
    }
}

/// What a node with the guest `n` is told: of two others on other nodes, and of these nodes' keys.
fn told(n: u8, others: &[u8]) -> Wanted {
    let name = |n: u8| char::from(b'a' + n - 1).to_string();
    Wanted {
        networks: vec![Network { mtu: MTU, ..network("n0", 100, 0) }],
        groups: vec![open_group("g")],
        ports: vec![port(&name(n), "n0", n, &format!("10.0.0.1{n}"), &["g"])],
        remotes: others.iter().map(|n| remote(&name(*n), *n, *n)).collect(),
        tunnels: others.iter().map(|n| tunnel(*n, *n)).collect(),
        ..Wanted::default()
    }
}

/// The namespace that an encrypting node's packets to others pass through.
fn wire(cloud: &Cloud, config: &Config) -> Guest {
    Guest::at(&ns_path(&format!("{}-wire", config.prefix)), cloud)
}

fn device(wire: &Guest) -> String {
    wire.sh("ip -o link show | grep -o 'wg[0-9a-f]*' | head -n 1").trim().to_owned()
}

fn peers(wire: &Guest) -> usize {
    wire.sh(&format!("wg show {} peers", device(wire))).lines().count()
}

/// What passes the underlay's switch.
struct Look {
    tcpdump: std::process::Child,
    said: std::io::BufReader<std::process::ChildStderr>,
    file: PathBuf,
}

impl Look {
    fn at(edge: &Guest, cloud: &Cloud) -> Self {
        let file = cloud.dir.path().join("seen.pcap");
        let file_name = file.to_str().unwrap().to_owned();
        let mut tcpdump =
            edge.command("tcpdump", &["-i", "under0", "-Z", "root", "-B", "32768", "-U", "-w", &file_name]);
        let mut tcpdump = tcpdump.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = std::io::BufReader::new(tcpdump.stderr.take().unwrap());
        let mut look = Self { tcpdump, said, file };
        look.hear("listening on");
        look
    }

    fn hear(&mut self, words: &str) -> String {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut self.said, &mut line).unwrap() > 0, "tcpdump ended");
        }
        line
    }

    /// Ends it, and gives what there was.
    fn seen(mut self) -> Seen {
        std::thread::park_timeout(std::time::Duration::from_millis(500));
        run(Command::new("kill").args(["-INT", &self.tcpdump.id().to_string()]));
        let lost = self.hear("dropped by kernel");
        assert!(lost.starts_with("0 "), "{lost}");
        self.tcpdump.wait().unwrap();
        Seen(self.file)
    }
}

struct Seen(PathBuf);

impl Seen {
    fn packets(&self, which: &str) -> Vec<String> {
        let said = run(Command::new("tcpdump").args(["-n", "-q", "-r"]).arg(&self.0).arg(which));
        text(&said.stdout).lines().map(str::to_owned).collect()
    }

    fn holds(&self, words: &[u8]) -> bool {
        std::fs::read(&self.0).unwrap().windows(words.len()).any(|bytes| bytes == words)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_speak_in_cipher_alone() {
    let mut cloud = Cloud::new("cipher");
    if !root() || !able(&mut cloud) {
        return;
    }
    let configs = [1, 2, 3].map(|n| encrypting(cloud.node(n), key(n)));
    let mut planes = Vec::new();
    for config in &configs {
        planes.push(DataPlane::open(config.clone()).await.unwrap());
    }
    let mut wanted = [told(1, &[2, 3]), told(2, &[1, 3]), told(3, &[1, 2])];
    let mut guests = Vec::new();
    for (n, plane) in planes.iter().enumerate() {
        assert_eq!(plane.overlay_error(), None);
        apply(plane, &wanted[n]).await;
        let id = wanted[n].ports[0].id.clone();
        guests.push(guest(&mut cloud, plane, &id, &format!("10.0.0.1{}", n + 1)).await);
    }
    let [a, b, c] = &guests[..] else { unreachable!() };
    guests.iter().for_each(|g| drop(g.sh(&format!("ip link set eth0 mtu {MTU}"))));
    let edge = Guest::at(&planes[0].ns_path(Ns::Edge).unwrap(), &cloud);

    // Words that whoever looks would know, large packets in one piece, and a stream.
    let look = Look::at(&edge, &cloud);
    assert!(soon(|| a.pings("10.0.0.12")), "one: {:?}\ntwo: {:?}", planes[0].stats(), planes[1].stats());
    assert!(b.pings("10.0.0.13") && c.pings("10.0.0.11"));
    a.sh("ping -n -c 3 -i 0.2 -W 2 -p 706c61696e74657874 10.0.0.12");
    a.sh(&format!("ping -n -c 3 -i 0.2 -W 2 -M do -s {} 10.0.0.12", MTU - 28));
    cloud.background(b.spawn("iperf3 -s -1"));
    let stream = || text(&a.try_sh("iperf3 -c 10.0.0.12 -n 4M --connect-timeout 500 -J").stdout);
    let mut said = String::new();
    assert!(
        soon(|| {
            said = stream();
            said.contains("\"sum_received\"")
        }),
        "{said}"
    );
    let seen = look.seen();
    let others = seen.packets(&format!("ip and not udp port {PORT}"));
    assert_eq!(others, [] as [String; 0]);
    assert!(seen.packets(&format!("udp port {PORT}")).len() > 2900, "4 MiB in packets of 1440 at most");
    assert!(!seen.holds(b"plaintext") && !seen.holds(b"congestion"));
    assert_eq!(seen.packets("ip[6:2] & 0x3fff != 0"), [] as [String; 0], "nothing is cut in two");

    // Networks that were made before encryption are told more than fits: then it is cut, and arrives.
    for g in [a, b] {
        g.sh("ip link set eth0 mtu 1450");
    }
    a.sh("ping -n -c 3 -i 0.2 -W 2 -M do -s 1422 10.0.0.12");

    // What somebody does to the device is undone, and what it is not told stays unknown.
    let inside = wire(&cloud, &configs[0]);
    assert_eq!(peers(&inside), 2);
    let public = key(2).public();
    inside.sh(&format!("wg set {} peer {public} remove", device(&inside)));
    assert!(soon(|| peers(&inside) == 2), "put again by the next look");
    assert!(soon(|| a.pings("10.0.0.12")));

    // A node that leaves is no peer any more.
    wanted[0] = told(1, &[2]);
    apply(&planes[0], &wanted[0]).await;
    assert_eq!(peers(&inside), 1);
    assert!(!a.pings("10.0.0.13") && a.pings("10.0.0.12"));

    // Nothing is left.
    let socket = format!("/var/run/wireguard/{}.sock", device(&inside));
    for plane in planes {
        plane.close().await.unwrap();
    }
    assert!(!inside.ns.exists() && soon(|| !Path::new(&socket).exists()), "{socket}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_count_and_change() {
    let mut cloud = Cloud::new("keys");
    if !root() || !able(&mut cloud) {
        return;
    }
    let configs = [1, 2].map(|n| encrypting(cloud.node(n), key(n)));
    let one = DataPlane::open(configs[0].clone()).await.unwrap();
    let two = DataPlane::open(configs[1].clone()).await.unwrap();
    let (mut w1, w2) = (told(1, &[2]), told(2, &[1]));
    // Somebody else's key for node two: it is not believed to be node two.
    w1.tunnels = vec![tunnel(2, 99)];
    apply(&one, &w1).await;
    apply(&two, &w2).await;
    let a = guest(&mut cloud, &one, "a", "10.0.0.11").await;
    let b = guest(&mut cloud, &two, "b", "10.0.0.12").await;
    assert!(!a.pings("10.0.0.12") && !b.pings("10.0.0.11"));
    w1.tunnels = vec![tunnel(2, 2)];
    apply(&one, &w1).await;
    assert!(soon(|| a.pings("10.0.0.12") && b.pings("10.0.0.11")), "one: {:?}\ntwo: {:?}", one.stats(), two.stats());

    // Node two has a new key: with the old one it is not known, and is again once node one is told.
    drop(two);
    let two = DataPlane::open(encrypting(configs[1].clone(), key(22))).await.unwrap();
    apply(&two, &w2).await;
    assert!(!a.pings("10.0.0.12"), "node one knows the former key");
    w1.tunnels = vec![tunnel(2, 22)];
    apply(&one, &w1).await;
    assert!(soon(|| a.pings("10.0.0.12")) && b.pings("10.0.0.11"));

    // A node that is told of no key sends nothing there: it does not fall back.
    w1.tunnels.clear();
    let edge = Guest::at(&one.ns_path(Ns::Edge).unwrap(), &cloud);
    apply(&one, &w1).await;
    let look = Look::at(&edge, &cloud);
    assert!(!a.pings("10.0.0.12"));
    assert_eq!(look.seen().packets("ip src 10.255.0.1"), [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_leaves_the_encrypted_way_alone() {
    let mut cloud = Cloud::new("cstay");
    if !root() || !able(&mut cloud) {
        return;
    }
    let configs = [1, 2].map(|n| encrypting(cloud.node(n), key(n)));
    let one = DataPlane::open(configs[0].clone()).await.unwrap();
    let two = DataPlane::open(configs[1].clone()).await.unwrap();
    let (w1, w2) = (told(1, &[2]), told(2, &[1]));
    apply(&one, &w1).await;
    apply(&two, &w2).await;
    let a = guest(&mut cloud, &one, "a", "10.0.0.11").await;
    let _b = guest(&mut cloud, &two, "b", "10.0.0.12").await;
    assert!(soon(|| a.pings("10.0.0.12")));
    let inside = wire(&cloud, &configs[0]);
    let index = |g: &Guest| g.sh("ip -o link show | grep wg");
    let before = index(&inside);
    let mut ping = a.command("ping", &["-n", "-i", "0.02", "-c", "200", "-W", "1", "10.0.0.12"]);
    let ping = ping.stdout(Stdio::piped()).spawn().unwrap();
    drop(one);
    let one = DataPlane::open(configs[0].clone()).await.unwrap();
    apply(&one, &w1).await;
    drop(one);
    let one = DataPlane::open(configs[0].clone()).await.unwrap();
    apply(&one, &w1).await;
    let said = text(&tokio::task::spawn_blocking(move || ping.wait_with_output()).await.unwrap().unwrap().stdout);
    assert!(said.contains("200 received"), "{said}");
    assert_eq!(index(&inside), before, "the device is the same");

    // The device is gone, or the namespace of the node: both are made again.
    inside.sh(&format!("ip link del {}", device(&inside)));
    assert!(!a.pings("10.0.0.12"));
    assert!(soon(|| a.pings("10.0.0.12")), "{:?}", one.stats());
    drop(one);
    run(Command::new("ip").args(["netns", "del", &configs[0].prefix]));
    let one = DataPlane::open(configs[0].clone()).await.unwrap();
    apply(&one, &w1).await;
    let again = cloud.guest("again");
    one.open_veth("a", &again.ns, "eth0").await.unwrap();
    again.address("10.0.0.11/24", None);
    assert!(soon(|| again.pings("10.0.0.12")), "{:?}", one.stats());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_in_plain_is_taken_by_those_alone_who_do_not_encrypt() {
    let mut cloud = Cloud::new("forge");
    if !root() || !able(&mut cloud) {
        return;
    }
    let config = cloud.node(1);
    let wanted = told(1, &[2]);
    let file = cloud.dir.path().join("forge.py");
    std::fs::write(&file, FORGE).unwrap();
    // Without encryption the forged packet arrives; with it the same node takes nothing; and without it, it does again.
    let mut plane = DataPlane::open(config.clone()).await.unwrap();
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let edge = Guest::at(&plane.ns_path(Ns::Edge).unwrap(), &cloud);
    edge.sh("ip addr add 10.255.99.99/16 dev under0");
    let arrives = |cloud: &Cloud| {
        let got = cloud.dir.path().join("got");
        let listen = format!("timeout 3 nc -u -l -p 7777 > {}", got.display());
        let mut listener = a.command("sh", &["-c", &listen]).stdin(Stdio::null()).spawn().unwrap();
        let listening = || a.sh("ss -Hlun").contains(":7777");
        assert!(soon(listening));
        edge.sh(&format!("python3 {}", file.display()));
        listener.wait().unwrap();
        std::fs::read_to_string(&got).unwrap().contains("forged-by-a-stranger")
    };
    let look = Look::at(&edge, &cloud);
    assert!(arrives(&cloud), "who does not encrypt believes the address");
    assert!(look.seen().holds(b"forged-by-a-stranger"), "such words are found where they are not hidden");
    drop(plane);
    plane = DataPlane::open(encrypting(config.clone(), key(1))).await.unwrap();
    apply(&plane, &wanted).await;
    assert!(!arrives(&cloud));
    drop(plane);
    plane = DataPlane::open(config.clone()).await.unwrap();
    apply(&plane, &wanted).await;
    assert!(arrives(&cloud));
    assert!(!ns_path(&format!("{}-wire", config.prefix)).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_cannot_be_nothing_leaves() {
    let mut cloud = Cloud::new("refuse");
    if !root() {
        return;
    }
    if kernel_has_it(&mut cloud) {
        eprintln!("SKIPPED: this kernel has WireGuard, so nothing refuses");
        return;
    }
    // The node has been one that does not encrypt.
    let plain = cloud.node(1);
    let wanted = Wanted {
        ports: vec![port("a", "n0", 1, "10.0.0.11", &["g"]), port("d", "n0", 4, "10.0.0.14", &["g"])],
        ..told(1, &[2])
    };
    let plane = DataPlane::open(plain.clone()).await.unwrap();
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let _d = guest(&mut cloud, &plane, "d", "10.0.0.14").await;
    let edge = Guest::at(&plane.ns_path(Ns::Edge).unwrap(), &cloud);
    let node = Guest::at(&plane.ns_path(Ns::Node).unwrap(), &cloud);
    drop(plane);
    for (program, why) in
        [(None, "no WireGuard"), (Some("/bin/false"), "ended at once"), (Some("/no/such/program"), "start /no")]
    {
        let mut config = encrypting(plain.clone(), key(1));
        config.underlay.as_mut().unwrap().encryption.as_mut().unwrap().program = program.map(Into::into);
        let plane = DataPlane::open(config).await.unwrap();
        assert!(plane.overlay_error().unwrap().contains(why), "{:?}", plane.overlay_error());
        let applied = plane.apply(&wanted).await.unwrap();
        assert!(applied.overlay.unwrap().contains(why) && applied.ports.iter().all(|p| p.wired));
        assert!(!node.try_sh("ip link show overlay0").status.success());
        let look = Look::at(&edge, &cloud);
        assert!(a.pings("10.0.0.14"), "on the host itself all goes on");
        assert!(!a.pings("10.0.0.12"));
        assert_eq!(look.seen().packets("ip src 10.255.0.1"), [] as [String; 0]);
        assert!(plane.stats().unwrap().drops["overlay"] > 0 || plane.stats().unwrap().ports["a"].drops["overlay"] > 0);
    }
}
