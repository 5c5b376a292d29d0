//! A guest as a virtual machine sees its port: frames on a descriptor, behind a virtio-net header.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const HEADER: usize = 10;

pub struct Nic {
    tap: File,
    mac: [u8; 6],
}

impl Nic {
    pub async fn open(plane: &DataPlane, id: &str, mac: Mac) -> Self {
        let mut fds = plane.open_tap(id).await.unwrap();
        assert_eq!(fds.len(), 1);
        // The kernel lets frames out a moment after somebody has the descriptor (linkwatch, up to a second).
        let node = plane.ns_path(Ns::Node).unwrap();
        let show = || {
            let args = [&format!("--net={}", node.display()), "ip", "-o", "link", "show", &tap_name(id)];
            text(&run(std::process::Command::new("nsenter").args(args)).stdout)
        };
        assert!(soon(|| show().contains("state UP")), "{}", show());
        Self { tap: File::from(fds.remove(0)), mac: mac.0 }
    }

    pub fn send(&mut self, frame: &[u8]) {
        self.send_with([0; HEADER], frame);
    }

    fn send_with(&mut self, header: [u8; HEADER], frame: &[u8]) {
        let _ = self.tap.write(&[&header[..], frame].concat());
    }

    /// The next frame that `is`, within two seconds.
    pub fn receive(&mut self, is: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let end = Instant::now() + Duration::from_secs(2);
        let mut buffer = vec![0u8; 70_000];
        while Instant::now() < end {
            let mut wait = [nix::poll::PollFd::new(self.tap.as_fd(), nix::poll::PollFlags::POLLIN)];
            if nix::poll::poll(&mut wait, 100u16).unwrap() == 0 {
                continue;
            }
            let n = self.tap.read(&mut buffer).unwrap();
            let frame = &buffer[HEADER..n];
            if is(frame) {
                return Some(frame.to_vec());
            }
        }
        None
    }

    /// Takes one frame if there is one.
    fn receive_now(&mut self) -> bool {
        let mut wait = [nix::poll::PollFd::new(self.tap.as_fd(), nix::poll::PollFlags::POLLIN)];
        let ready = nix::poll::poll(&mut wait, 0u16).unwrap() > 0;
        ready && self.tap.read(&mut [0u8; 2048]).is_ok()
    }

    fn arp(&self, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        [&[0xff; 6][..], &self.mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &self.mac, &sender, &[0; 6], &target].concat()
    }

    pub fn udp(&self, to: [u8; 6], from: [u8; 4], dst: [u8; 4], ports: (u16, u16), body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len() + 8).unwrap();
        let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0];
        ip[2..4].copy_from_slice(&(length + 20).to_be_bytes());
        ip.extend(from);
        ip.extend(dst);
        let sum = ip.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum::<u32>();
        let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let udp = [&ports.0.to_be_bytes()[..], &ports.1.to_be_bytes(), &length.to_be_bytes(), &[0, 0], body].concat();
        [&to[..], &self.mac, &[8, 0], &ip, &udp].concat()
    }
}

const A: [u8; 4] = [10, 0, 0, 11];
const B: [u8; 4] = [10, 0, 0, 12];

#[tokio::test(flavor = "multi_thread")]
async fn frames_pass_between_descriptors() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("tap");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    // Before any pass knows the port, as a VMM may be faster.
    let early = plane.open_tap("a").await.unwrap();
    assert!(plane.open_tap("a").await.is_err(), "one guest at a time");
    drop(early);
    let wanted = two_guests();
    apply(&plane, &wanted).await;
    let mut a = Nic::open(&plane, "a", mac(1)).await;
    let mut b = Nic::open(&plane, "b", mac(2)).await;

    a.send(&a.arp(A, B));
    let answer = a.receive(|f| f[12..14] == [8, 6]).expect("ARP is answered by the host");
    assert_eq!((&answer[6..12], &answer[21..22], &answer[28..32]), (&mac(2).0[..], &[2][..], &B[..]));
    assert!(b.receive(|f| f[12..14] == [8, 6]).is_none(), "and b never saw the question");

    let hello = a.udp(mac(2).0, A, B, (4000, 5000), b"hello");
    a.send(&hello);
    assert_eq!(b.receive(|f| f.ends_with(b"hello")).unwrap(), hello);
    let back = b.udp(mac(1).0, B, A, (5000, 4000), b"back");
    b.send(&back);
    assert!(a.receive(|f| f.ends_with(b"back")).is_some());

    // Veth and back: the port's device is what was opened last.
    let inside = cloud.guest("c");
    plane.open_veth("b", &inside.ns, "eth0").await.unwrap();
    inside.address("10.0.0.12/24", None);
    drop(b);
    let mut b = Nic::open(&plane, "b", mac(2)).await;
    a.send(&hello);
    assert!(b.receive(|f| f.ends_with(b"hello")).is_some());

    // A large segment that the guest leaves to the host to cut, checksum to be filled in.
    let body = vec![7u8; 4000];
    let mut large = a.udp(mac(2).0, A, B, (4000, 5000), &body);
    large[23] = 6;
    let header = [1, 1, 54, 0, 0x78, 5, 34, 0, 16, 0];
    let tcp = [&4000u16.to_be_bytes()[..], &5001u16.to_be_bytes(), &[0; 8], &[0x50, 0x18, 1, 0, 0, 0, 0, 0]].concat();
    let mut segment = large[..34].to_vec();
    let length = u16::try_from(20 + 20 + 4000).unwrap();
    segment[16..18].copy_from_slice(&length.to_be_bytes());
    segment[24..26].copy_from_slice(&[0, 0]);
    segment.extend(tcp);
    segment.extend(&body);
    a.send_with(header, &segment);
    let got = b.receive(|f| f.len() > 1000 && f[23] == 6).expect("the segment arrives, whole or cut");
    assert_eq!(got[36..38], 5001u16.to_be_bytes());

    // A guest that left: frames to it go nowhere and harm nobody; it can come back.
    drop(b);
    a.send(&hello);
    let mut b = Nic::open(&plane, "b", mac(2)).await;
    a.send(&hello);
    assert!(b.receive(|f| f.ends_with(b"hello")).is_some());
}

/// IPv6 that no guest has a right to send, each with the reason that it is dropped for.
fn hostile6() -> Vec<(Vec<u8>, &'static str)> {
    let own = "fe80::f816:3eff:fe00:1";
    let frame = |from: &str, to: &str, next: u8, body: &[u8]| {
        let address = |a: &str| a.parse::<std::net::Ipv6Addr>().unwrap().octets();
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        let head = [&[0x60, 0, 0, 0][..], &length, &[next, 255], &address(from), &address(to)].concat();
        [&mac(2).0[..], &mac(1).0, &[0x86, 0xdd], &head, body].concat()
    };
    let neighbour = |kind: u8| [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &[0; 16]].concat();
    let endless = [[60u8, 0, 1, 4, 0, 0, 0, 0].repeat(8), vec![0; 8]].concat();
    vec![
        (frame(own, "fe80::2", 17, &[0, 1, 0, 2, 0, 8, 0, 0]), "group-out"),
        (frame("fe80::9", "fe80::2", 17, &[0, 1, 0, 2, 0, 8, 0, 0]), "spoofed-ip"),
        (frame("::", "fe80::2", 17, &[0, 1, 0, 2, 0, 8, 0, 0]), "spoofed-ip"),
        (frame("ff02::1", "fe80::2", 17, &[0, 1, 0, 2, 0, 8, 0, 0]), "malformed"),
        (frame(own, "fe80::2", 17, &[0, 1]), "malformed"),
        (frame(own, "fe80::2", 43, &[17, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 8, 0, 0]), "malformed"),
        (frame(own, "fe80::2", 60, &endless), "malformed"),
        (frame(own, "fe80::2", 44, &[17, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0]), "fragment"),
        (frame(own, "ff02::1", 58, &neighbour(136)), "arp-unknown"), // has an address, he says
        (frame(own, "ff02::1", 58, &neighbour(134)), "spoofed-arp"), // a router, he says
        (frame(own, "ff02::1", 58, &neighbour(137)), "spoofed-arp"), // a better way, he says
        (frame(own, "fe80::2", 58, &[135, 0, 0, 0]), "malformed"),
        (frame(own, "fe80::2", 17, &[2, 35, 2, 34, 0, 8, 0, 0]), "dhcp"), // plays DHCPv6 server
        (frame(own, "ff02::1:2", 17, &[2, 34, 2, 35, 0, 8, 0, 0]), "dhcp"), // nobody answers it here
        (frame(own, "ff02::fb", 17, &[20, 233, 20, 233, 0, 8, 0, 0]), "multicast"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_frames_are_dropped() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("hostile");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = two_guests();
    let six = Subnet {
        id: "six".into(),
        cidr: "fd00::/64".parse().unwrap(),
        dhcp: false,
        ..wanted.networks[0].subnets[0].clone()
    };
    wanted.networks[0].subnets.push(six);
    apply(&plane, &wanted).await;
    let mut a = Nic::open(&plane, "a", mac(1)).await;
    let mut b = Nic::open(&plane, "b", mac(2)).await;
    let good = a.udp(mac(2).0, A, B, (1, 2), b"good");
    let drops = |reason: &str| plane.stats().unwrap().ports["a"].drops.get(reason).copied().unwrap_or(0);
    let edit = |at: usize, bytes: &[u8]| {
        let mut f = good.clone();
        f[at..at + bytes.len()].copy_from_slice(bytes);
        f
    };
    for (frame, reason) in [
        (edit(14, &[0x41]), "malformed"),       // header shorter than a header
        (edit(14, &[0x4f]), "malformed"),       // header longer than the packet
        (edit(14, &[0x65]), "malformed"),       // version 6 in an IPv4 frame
        (edit(16, &[0xff, 0xff]), "malformed"), // longer than the frame
        (edit(16, &[0, 21]), "malformed"),      // no room for UDP
        (edit(20, &[0, 1]), "fragment"),        // overlaps the first fragment's header
        (edit(20, &[0, 9]), "fragment"),        // nobody saw its first
        (edit(6, &mac(9).0), "spoofed-mac"),
        (edit(6, &[0; 6]), "spoofed-mac"), // zeroes are nobody's address
        (edit(26, &[10, 0, 0, 99]), "spoofed-ip"),
        (edit(26, &[0, 0, 0, 0]), "spoofed-ip"),
        (edit(0, &[0xff; 6]), "multicast"),
        (edit(0, &mac(1).0), "unknown-station"), // to itself
        (edit(12, &[0x86, 0xdd]), "malformed"),  // version 4 in an IPv6 frame
        (edit(12, &[0x88, 0xcc]), "family"),
        ([&good[..12], &[0x81, 0, 0, 5], &good[12..]].concat(), "family"), // VLAN tag around a good packet
        (edit(34, &[0, 67, 0, 68]), "dhcp"),                               // a guest that plays DHCP server
        (edit(30, &[169, 254, 169, 254]), "metadata"),
    ] {
        let before = drops(reason);
        a.send(&frame);
        assert!(soon(|| drops(reason) == before + 1), "{reason}: {frame:02x?}: {:?}", plane.stats());
    }
    for cut in 0..good.len() {
        a.send(&good[..cut]);
    }
    for (frame, reason) in hostile6() {
        let before = drops(reason);
        a.send(&frame);
        assert!(soon(|| drops(reason) == before + 1), "{reason}: {frame:02x?}: {:?}", plane.stats());
        for cut in 0..frame.len() {
            a.send(&frame[..cut]);
        }
    }
    assert!(b.receive(|_| true).is_none(), "nothing of that arrived");
    a.send(&good);
    assert!(b.receive(|f| f.ends_with(b"good")).is_some(), "and the port still works");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dhcp_flood_is_limited_and_others_are_served() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("flood");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    apply(&plane, &two_guests()).await;
    let mut a = Nic::open(&plane, "a", mac(1)).await;
    let mut b = Nic::open(&plane, "b", mac(2)).await;
    let discover = |nic: &Nic| {
        let mut m = vec![0u8; 240];
        m[..3].copy_from_slice(&[1, 1, 6]);
        m[28..34].copy_from_slice(&nic.mac);
        m[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
        m.extend([53, 1, 1, 255]);
        nic.udp([0xff; 6], [0; 4], [255; 4], (68, 67), &m)
    };
    let flood = discover(&a);
    for _ in 0..2000 {
        a.send(&flood);
    }
    assert!(plane.stats().unwrap().ports["a"].drops["dhcp"] > 1900);
    b.send(&discover(&b));
    let offer = b.receive(|f| f.len() > 282 && f[34..38] == [0, 67, 0, 68]).expect("b has its own allowance");
    assert_eq!(offer[58..62], B);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_opens_too_many_flows_hurts_only_itself() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("cap");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = two_guests();
    wanted.ports.push(port("c", "net", 3, "10.0.0.13", &["g"]));
    apply(&plane, &wanted).await;
    let mut a = Nic::open(&plane, "a", mac(1)).await;
    let mut b = Nic::open(&plane, "b", mac(2)).await;
    let mut c = Nic::open(&plane, "c", mac(3)).await;
    let first = a.udp(mac(2).0, A, B, (1, 1), b"first");
    a.send(&first);
    assert!(b.receive(|f| f.ends_with(b"first")).is_some());
    for n in 0..40_000u32 {
        let to = (1000 + n / 20_000) as u16;
        let frame = a.udp(mac(2).0, A, B, (2 + (n % 20_000) as u16, to), b"x");
        a.send(&frame);
        if n % 100 == 0 {
            while b.receive_now() {}
        }
    }
    let stats = plane.stats().unwrap();
    assert!(stats.ports["a"].drops["flow-cap"] > 7_000, "{stats:?}");
    while b.receive_now() {}
    a.send(&first);
    assert!(b.receive(|f| f.ends_with(b"first")).is_some(), "a flow that is known goes on");
    let other = c.udp(mac(1).0, [10, 0, 0, 13], A, (7, 7), b"other");
    c.send(&other);
    let stats = plane.stats().unwrap();
    assert!(!stats.ports["c"].drops.contains_key("flow-cap"), "{stats:?}");
    assert!(stats.ports["c"].flows > 0);
}
