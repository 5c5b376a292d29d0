//! Ports that share another's device: tagged frames, by what a raw socket in the guest sees.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;

/// Sends one tagged frame and prints what comes back: tag, kind, sender. The kernel tells the tag beside the frame.
const RAW: &str = r#"
import socket, struct, sys, time
what, vlan, smac, sip, dmac, dip = sys.argv[1:7]
mac = lambda t: bytes.fromhex(t.replace(":", ""))
ip = lambda t: socket.inet_aton(t)
def total(b):
    b += b"\0" * (len(b) % 2)
    s = sum(struct.unpack("!%dH" % (len(b) // 2), b))
    while s >> 16: s = (s & 0xffff) + (s >> 16)
    return ~s & 0xffff
def ipv4(proto, src, dst, body):
    h = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0, 64, proto, 0, ip(src), ip(dst))
    return h[:10] + struct.pack("!H", total(h)) + h[12:] + body
if what == "arp":
    kind, body, to = 0x806, struct.pack("!HHBBH6s4s6s4s", 1, 0x800, 6, 4, 1, mac(smac), ip(sip), b"\0" * 6, ip(dip)), b"\xff" * 6
elif what == "echo":
    b = struct.pack("!BBHHH", 8, 0, 0, 7, 1) + b"hello"
    kind, body, to = 0x800, ipv4(1, sip, dip, b[:2] + struct.pack("!H", total(b)) + b[4:]), mac(dmac)
else:
    b = struct.pack("!BBBBIHH4s4s4s4s16s", 1, 1, 6, 0, 9, 0, 0, b"", b"", b"", b"", mac(smac)) + b"\0" * 192 + bytes([99, 130, 83, 99, 53, 1, 1, 255])
    kind, body, to = 0x800, ipv4(17, "0.0.0.0", "255.255.255.255", struct.pack("!HHHH", 68, 67, 8 + len(b), 0) + b), b"\xff" * 6
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("eth0", 3)); s.setsockopt(263, 8, 1); s.settimeout(0.5)
tag = struct.pack("!HH", 0x8100, int(vlan)) if int(vlan) else b""
s.send(to + mac(smac) + tag + struct.pack("!H", kind) + body)
end = time.time() + 2
while time.time() < end:
    try: f, aux, _, a = s.recvmsg(2000, 200)
    except OSError: continue
    if a[2] == 4 or f[6:12] == mac(smac): continue
    tci = struct.unpack("IIIHHHH", aux[0][2][:20])[5] if aux else 0
    k = struct.unpack("!H", f[12:14])[0]
    if k == 0x806: print("arp", tci, f[22:28].hex(":")); break
    if k == 0x800 and f[23] == 1: print("echo", tci, f[34], socket.inet_ntoa(f[26:30])); break
    if k == 0x800 and f[23] == 17: print("dhcp", tci, socket.inet_ntoa(f[58:62])); break
else: print("nothing")
"#;

fn raw(guest: &Guest, what: &str, vlan: u16, from: (&str, &str), to: (&str, &str)) -> String {
    let args = ["-c", RAW, what, &vlan.to_string(), from.0, from.1, to.0, to.1];
    text(&run(&mut guest.command("python3", &args)).stdout).trim().to_owned()
}

fn sub(id: &str, network: &str, n: u8, address: &str, vlan: u16) -> Port {
    Port { parent: Some(Parent { port: "p".into(), vlan }), ..port(id, network, n, address, &["g"]) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_carries_several_ports() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("trunk");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = Wanted {
        networks: vec![network("n0", 100, 0), network("n1", 101, 1), network("n2", 102, 2)],
        ports: vec![
            port("p", "n0", 1, "10.0.0.11", &["g"]),
            sub("s1", "n1", 0x11, "10.0.1.11", 101),
            sub("s2", "n2", 0x21, "10.0.2.11", 102),
            port("a", "n0", 2, "10.0.0.12", &["open"]),
            port("b", "n1", 0x12, "10.0.1.12", &["open"]),
        ],
        groups: vec![out_only("g"), open_group("open")],
        routers: vec![router("r", vec![leg("n1", 1, 1), leg("n2", 2, 2)], None)],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let p = guest(&mut cloud, &plane, "p", "10.0.0.11").await;
    let _a = guest(&mut cloud, &plane, "a", "10.0.0.12").await;
    let b = guest(&mut cloud, &plane, "b", "10.0.1.12").await;
    let s1 = ("fa:16:3e:00:00:11", "10.0.1.11");
    let (mac_b, ip_b) = ("fa:16:3e:00:00:12", "10.0.1.12");
    assert_eq!(raw(&p, "arp", 101, s1, (mac_b, ip_b)), format!("arp 101 {mac_b}"));
    assert_eq!(raw(&p, "echo", 101, s1, (mac_b, ip_b)), format!("echo 101 0 {ip_b}"), "{:?}", plane.stats());
    assert_eq!(raw(&p, "dhcp", 101, s1, (mac_b, ip_b)), "dhcp 101 10.0.1.11");
    let s2 = ("fa:16:3e:00:00:21", "10.0.2.11");
    assert_eq!(raw(&p, "dhcp", 102, s2, (mac_b, ip_b)), "dhcp 102 10.0.2.11");
    assert_eq!(raw(&p, "echo", 102, s2, ("fa:16:3e:01:00:02", ip_b)), format!("echo 102 0 {ip_b}"), "by the router");
    assert_eq!(raw(&p, "echo", 102, s2, ("fa:16:3e:01:00:02", "10.0.2.1")), "echo 102 0 10.0.2.1", "the router itself");
    // Each tag is its own port's, and no other is anybody's.
    let drops = |id: &str, reason: &str| plane.stats().unwrap().ports[id].drops.get(reason).copied().unwrap_or(0);
    assert_eq!(raw(&p, "echo", 102, s1, (mac_b, ip_b)), "nothing");
    assert!(drops("s2", "spoofed-mac") > 0, "{:?}", plane.stats());
    assert_eq!(raw(&p, "echo", 0, s1, (mac_b, ip_b)), "nothing");
    assert!(drops("p", "spoofed-mac") > 0);
    assert_eq!(raw(&p, "echo", 103, s1, (mac_b, ip_b)), "nothing");
    assert!(drops("p", "family") > 0);
    // One tag: another one below it could name a port behind somebody else's device.
    let two = "import socket\ns=socket.socket(17,3,0)\ns.bind((\"eth0\",0))\ns.send(bytes.fromhex(\"fa163e000012fa163e00001181000065810000660800\")+bytes(60))";
    p.sh(&format!("python3 -c '{two}'"));
    assert!(drops("s1", "family") > 0, "{:?}", plane.stats());
    // Its groups judge what comes in: nobody may start.
    let before = drops("s1", "group-in");
    b.try_sh("ping -n -c2 -i 0.2 -W1 10.0.1.11");
    assert!(drops("s1", "group-in") > before);
    assert!(p.pings("10.0.0.12"), "what is not tagged is the parent's");
    wanted.ports.retain(|p| p.id != "s1");
    apply(&plane, &wanted).await;
    assert_eq!(raw(&p, "arp", 101, s1, (mac_b, ip_b)), "nothing");
}
