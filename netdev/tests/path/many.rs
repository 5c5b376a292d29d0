//! What guests send to many: whom it reaches, who judges it, and how much of it may be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::six::open6;
use crate::cloud::*;
use crate::tap::Nic;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;

const A: [u8; 4] = [10, 0, 0, 11];
const GROUP: [u8; 4] = [225, 0, 0, 120];
const GROUP_MAC: [u8; 6] = [1, 0, 0x5e, 0, 0, 120];

fn open_to_all(id: &str) -> Group {
    let mut group = open_group(id);
    group.rules.extend(open6(id).rules);
    group
}

fn remote(id: &str, n: u8, address: &str, node: u8) -> Remote {
    Remote {
        port: id.into(),
        network: "net".into(),
        mac: mac(n),
        addresses: vec![address.parse().unwrap()],
        vtep: vtep(node),
        groups: vec!["open".into()],
    }
}

fn drops(plane: &DataPlane, id: &str, reason: &str) -> u64 {
    plane.stats().unwrap().ports[id].drops.get(reason).copied().unwrap_or(0)
}

/// The link-local address that follows from guest `n`'s hardware address.
fn link_local(n: u8) -> [u8; 16] {
    let m = mac(n).0;
    let mut out = [0; 16];
    out[..2].copy_from_slice(&[0xfe, 0x80]);
    out[8..].copy_from_slice(&[m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]]);
    out
}

/// UDP from guest `n` to a group of IPv6.
fn udp6(n: u8, group: [u8; 16], body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len() + 8).unwrap().to_be_bytes();
    let udp = [&5353u16.to_be_bytes()[..], &5353u16.to_be_bytes(), &length, &[0, 1], body].concat();
    let to = [&[0x33, 0x33][..], &group[12..]].concat();
    [&to[..], &mac(n).0, &[0x86, 0xdd, 0x60, 0, 0, 0], &length, &[17, 255], &link_local(n), &group, &udp].concat()
}

fn mdns() -> [u8; 16] {
    let mut group = [0; 16];
    (group[0], group[1], group[15]) = (0xff, 2, 0xfb);
    group
}

fn six(network: &mut Network) {
    let first = network.subnets[0].clone();
    network.subnets.push(Subnet { id: "six".into(), cidr: "fd00::/64".parse().unwrap(), dhcp: false, ..first });
}

/// What two hosts of one network are told.
fn both_hosts() -> (Wanted, Wanted) {
    let mut net = network("net", 100, 0);
    six(&mut net);
    let other = network("other", 101, 1);
    let here = Wanted {
        networks: vec![net.clone(), other],
        ports: vec![
            port("a", "net", 1, "10.0.0.11", &["open"]),
            port("b", "net", 2, "10.0.0.12", &["open"]),
            port("shut", "net", 3, "10.0.0.13", &["out"]),
            port("trunk", "other", 4, "10.0.1.14", &["open"]),
            Port {
                parent: Some(Parent { port: "trunk".into(), vlan: 7 }),
                ..port("sub", "net", 5, "10.0.0.15", &["open"])
            },
            port("mute", "net", 6, "10.0.0.16", &["nothing"]),
        ],
        groups: vec![open_to_all("open"), out_only("out"), group("nothing", vec![])],
        remotes: vec![remote("far", 9, "10.0.0.19", 2)],
        ..Wanted::default()
    };
    let there = Wanted {
        networks: vec![net],
        ports: vec![port("far", "net", 9, "10.0.0.19", &["open"])],
        groups: vec![open_to_all("open")],
        remotes: vec![remote("a", 1, "10.0.0.11", 1), remote("b", 2, "10.0.0.12", 1)],
        ..Wanted::default()
    };
    (here, there)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_many_reaches_everybody_whose_groups_let_it_in() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("many");
    let (one, two) = (DataPlane::open(cloud.node(1)).await.unwrap(), DataPlane::open(cloud.node(2)).await.unwrap());
    let (here, there) = both_hosts();
    apply(&one, &here).await;
    apply(&two, &there).await;
    let (mut a, mut b) = (Nic::open(&one, "a", mac(1)).await, Nic::open(&one, "b", mac(2)).await);
    let (mut shut, mut trunk) = (Nic::open(&one, "shut", mac(3)).await, Nic::open(&one, "trunk", mac(4)).await);
    let (mut mute, mut far) = (Nic::open(&one, "mute", mac(6)).await, Nic::open(&two, "far", mac(9)).await);

    for (to, address, body) in [
        (GROUP_MAC, GROUP, &b"group"[..]),
        ([0xff; 6], [255; 4], b"everybody"),
        ([0xff; 6], [10, 0, 0, 255], b"subnet"),
    ] {
        let frame = a.udp(to, A, address, (4000, 5007), body);
        a.send(&frame);
        assert_eq!(b.receive(|f| f.ends_with(body)).unwrap(), frame, "{:?}", one.stats());
        assert_eq!(far.receive(|f| f.ends_with(body)).unwrap(), frame, "{:?} {:?}", one.stats(), two.stats());
        let tagged = trunk.receive(|f| f.ends_with(body)).expect("the subport has it by its tag");
        assert_eq!(tagged[12..16], [0x81, 0, 0, 7]);
        assert!(a.receive(|f| f.ends_with(body)).is_none(), "whoever sends does not hear himself");
    }
    let frame = udp6(1, mdns(), b"names");
    a.send(&frame);
    assert_eq!(b.receive(|f| f.ends_with(b"names")).unwrap(), frame, "{:?}", one.stats());
    assert_eq!(far.receive(|f| f.ends_with(b"names")).unwrap(), frame, "{:?}", two.stats());
    // And back, from the other host to each here once.
    let frame = far.udp(GROUP_MAC, [10, 0, 0, 19], GROUP, (4000, 5007), b"back");
    far.send(&frame);
    assert_eq!(a.receive(|f| f.ends_with(b"back")).unwrap(), frame, "{:?}", one.stats());
    assert!(a.receive(|f| f.ends_with(b"back")).is_none(), "once");
    assert!(far.receive(|f| f.ends_with(b"back")).is_none(), "it does not come back");
    // Both ends' groups judge.
    assert!(drops(&one, "shut", "group-in") >= 4 && shut.receive(|_| true).is_none(), "{:?}", one.stats());
    let before = drops(&one, "mute", "group-out");
    mute.send(&mute.udp(GROUP_MAC, [10, 0, 0, 16], GROUP, (4000, 5007), b"mute"));
    assert!(soon(|| drops(&one, "mute", "group-out") > before), "{:?}", one.stats());
    // Nobody by another's address, and no copies of what is for one.
    for (from, to) in [([10, 0, 0, 12], GROUP), (A, [10, 0, 0, 12])] {
        a.send(&a.udp([0xff; 6], from, to, (4000, 5007), b"lie"));
    }
    assert!(soon(|| drops(&one, "a", "spoofed-ip") == 1 && drops(&one, "a", "multicast") == 1), "{:?}", one.stats());
    assert!(b.receive(|f| f.ends_with(b"lie")).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_too_much_to_many_is_slowed_down() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("much");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    apply(&plane, &two_guests()).await;
    let (mut a, _b) = (Nic::open(&plane, "a", mac(1)).await, Nic::open(&plane, "b", mac(2)).await);
    let frame = a.udp(GROUP_MAC, A, GROUP, (4000, 5007), b"again");
    for _ in 0..3000 {
        a.send(&frame);
    }
    assert!(soon(|| drops(&plane, "a", "rate") > 0), "{:?}", plane.stats());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_more_copies_a_frame_makes_the_fewer_of_them_may_be_sent() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("copies");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = two_guests();
    wanted.remotes.extend((1..=120).map(|n| remote(&format!("r{n}"), n, &format!("10.0.0.{}", 100 + n), n)));
    apply(&plane, &wanted).await;
    let (mut a, _b) = (Nic::open(&plane, "a", mac(1)).await, Nic::open(&plane, "b", mac(2)).await);
    let frame = a.udp(GROUP_MAC, A, GROUP, (4000, 5007), b"again");
    for _ in 0..120 {
        a.send(&frame);
    }
    assert!(soon(|| drops(&plane, "a", "rate") > 0), "a hundred to two would have passed: {:?}", plane.stats());
}
