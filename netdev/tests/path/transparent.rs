//! Guests that send frames with tags of their own to each other, where their network lets them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::six::*;
use crate::cloud::*;
use crate::vlan::Speaker;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;

/// What guests are within tag 100, and one address that is not theirs within tag 101.
fn within(n: u8) -> [String; 2] {
    let mac = format!("fa:16:3e:00:00:{n:02x}");
    [format!("100,{mac},192.168.100.{n},fd00:64::{n}"), format!("101,{mac},192.168.100.99,fd00:64::99")]
}

/// A port that may use the addresses of its guest within the tag.
fn tagging(id: &str, n: u8, groups: &[&str]) -> Port {
    let pair = |cidr: &str| AddressPair { mac: None, cidr: cidr.parse().unwrap() };
    let mut port = port(id, "net", n, &format!("10.0.0.{n}"), groups);
    port.allowed_pairs = vec![pair(&format!("192.168.100.{n}/32")), pair(&format!("fd00:64::{n}/128"))];
    port
}

fn network_of_tags() -> Network {
    Network { transparent: true, ..network("net", 100, 0) }
}

async fn speaker(cloud: &mut Cloud, plane: &DataPlane, id: &str, n: u8) -> (Guest, Speaker) {
    let guest = guest(cloud, plane, id, &format!("10.0.0.{n}")).await;
    let own = within(n);
    let speaker = Speaker::start(cloud, &guest, &[&own[0], &own[1]]);
    (guest, speaker)
}

fn both(id: &str) -> Group {
    let mut all = open_group(id);
    all.rules.extend(open6(id).rules);
    all
}

fn drops(plane: &DataPlane, id: &str, reason: &str) -> u64 {
    plane.stats().unwrap().ports[id].drops.get(reason).copied().unwrap_or(0)
}

/// Everything that `one` has with guest `n` within tag 100.
fn meets(one: &mut Speaker, n: u8) {
    let mac = format!("fa:16:3e:00:00:{n:02x}");
    let (four, six) = (format!("192.168.100.{n}"), format!("fd00:64::{n}"));
    assert!(one.send(&format!("arp 100 100 - {four}"), &format!("is-at 100 {four} {mac}")), "{:?}", one.all());
    assert!(one.send(&format!("ns 100 100 - {six}"), &format!("is-at 100 {six} {mac}")), "{:?}", one.all());
    assert!(one.send(&format!("echo 100 100 {mac} {four}"), &format!("reply 100 {four} {mac}")), "{:?}", one.all());
    assert!(one.send(&format!("echo 100 100 {mac} {six}"), &format!("reply 100 {six} {mac}")), "{:?}", one.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_of_one_host_meet_within_a_tag() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("tags");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = Wanted {
        networks: vec![network_of_tags(), network("plain", 101, 1), network("sub", 102, 2)],
        ports: vec![
            tagging("a", 11, &["g"]),
            tagging("b", 12, &["g"]),
            tagging("shut", 13, &["out"]),
            Port { secured: false, groups: vec![], allowed_pairs: vec![], ..tagging("free", 14, &[]) },
            tagging("trunk", 15, &["g"]),
            Port {
                parent: Some(Parent { port: "trunk".into(), vlan: 100 }),
                ..port("child", "sub", 0x20, "10.0.2.20", &["g"])
            },
            Port { network: "plain".into(), ..port("p", "plain", 16, "10.0.1.16", &["g"]) },
            port("q", "plain", 17, "10.0.1.17", &["g"]),
        ],
        groups: vec![both("g"), out_only("out")],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let (guest_a, mut a) = speaker(&mut cloud, &plane, "a", 11).await;
    let (_, mut b) = speaker(&mut cloud, &plane, "b", 12).await;
    let (_, shut) = speaker(&mut cloud, &plane, "shut", 13).await;
    let (_, mut free) = speaker(&mut cloud, &plane, "free", 14).await;
    let (_, trunk) = speaker(&mut cloud, &plane, "trunk", 15).await;
    meets(&mut a, 12);
    meets(&mut b, 11);
    meets(&mut free, 12);
    assert!(guest_a.pings("10.0.0.12"), "without tags as ever");
    // Groups judge what is inside.
    let mac = "fa:16:3e:00:00:0d";
    assert!(a.send("arp 100 100 - 192.168.100.13", &format!("is-at 100 192.168.100.13 {mac}")));
    assert!(!a.send(&format!("echo 100 100 {mac} 192.168.100.13"), "reply 10"));
    assert!(drops(&plane, "shut", "group-in") > 0 && !shut.heard("ping 10"), "{:?}", plane.stats());
    // Nobody speaks by another's address, nor by another's hardware address.
    let mac = "fa:16:3e:00:00:0c";
    assert!(!a.send(&format!("echo 101 101 {mac} 192.168.100.12"), "reply 10") && drops(&plane, "a", "spoofed-ip") > 0);
    assert!(!a.send("arp 101 101 - 192.168.100.12", "is-at 10") && drops(&plane, "a", "spoofed-arp") > 0);
    let before = drops(&plane, "a", "spoofed-arp");
    assert!(!a.send("ns 100 101 - fd00:64::12", "is-at 10"));
    assert!(drops(&plane, "a", "spoofed-ip") > 1 || drops(&plane, "a", "spoofed-arp") > before, "{:?}", plane.stats());
    // One tag, of one kind.
    for tags in ["100+101", "0x88a80064"] {
        let before = drops(&plane, "a", "family");
        assert!(!a.send(&format!("echo {tags} 100 {mac} 192.168.100.12"), "reply 10"), "{tags}");
        assert!(drops(&plane, "a", "family") > before, "{tags}: {:?}", plane.stats());
    }
    // A tag that is a port's behind the trunk's device is that port's alone.
    assert!(!a.send("arp 100 100 - 192.168.100.15", "is-at 10"));
    assert!(!a.send("echo 100 100 fa:16:3e:00:00:0f 192.168.100.15", "reply 10"));
    assert!(!trunk.heard("asked 10") && !trunk.heard("ping 10"), "{:?}", trunk.all());
    assert!(plane.stats().unwrap().drops["family"] > 0);
    // Elsewhere nobody may, and none is answered by the cloud itself.
    let p = guest(&mut cloud, &plane, "p", "10.0.1.16").await;
    let q = guest(&mut cloud, &plane, "q", "10.0.1.17").await;
    let mut p = Speaker::start(&mut cloud, &p, &["100,fa:16:3e:00:00:10,10.0.1.16,fd00:64::16"]);
    let q = Speaker::start(&mut cloud, &q, &["100,fa:16:3e:00:00:11,10.0.1.17,fd00:64::17"]);
    assert!(
        !p.send("arp 100 100 - 10.0.1.17", "is-at 10")
            && !p.send("echo 100 100 fa:16:3e:00:00:11 10.0.1.17", "reply 10")
    );
    assert!(drops(&plane, "p", "family") >= 2 && !q.heard("asked 10") && !q.heard("ping 10"));
    assert!(!a.send("arp 100 100 - 10.0.0.1", "is-at 10"), "no router is there");
    // The network changes its mind.
    wanted.networks[0].transparent = false;
    apply(&plane, &wanted).await;
    assert!(!a.send(&format!("echo 100 100 {mac} 192.168.100.12"), "reply 10"));
    assert!(guest_a.pings("10.0.0.12"));
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_of_two_hosts_meet_within_a_tag() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("tagfar");
    let one = DataPlane::open(cloud.node(1)).await.unwrap();
    let two = DataPlane::open(cloud.node(2)).await.unwrap();
    let far = |id: &str, n: u8, at: u8| Remote {
        port: id.into(),
        network: "net".into(),
        mac: mac(n),
        addresses: vec![format!("10.0.0.{n}").parse().unwrap()],
        vtep: vtep(at),
        groups: vec!["g".into()],
    };
    let base = Wanted { networks: vec![network_of_tags()], groups: vec![both("g")], ..Wanted::default() };
    let here = Wanted {
        ports: vec![tagging("a", 11, &["g"]), tagging("b", 12, &["g"])],
        remotes: vec![far("c", 13, 2)],
        ..base.clone()
    };
    let there =
        Wanted { ports: vec![tagging("c", 13, &["g"])], remotes: vec![far("a", 11, 1), far("b", 12, 1)], ..base };
    apply(&one, &here).await;
    apply(&two, &there).await;
    let (guest_a, mut a) = speaker(&mut cloud, &one, "a", 11).await;
    let (_, mut b) = speaker(&mut cloud, &one, "b", 12).await;
    let (_, mut c) = speaker(&mut cloud, &two, "c", 13).await;
    meets(&mut a, 13);
    meets(&mut c, 12);
    meets(&mut b, 11);
    assert!(guest_a.pings("10.0.0.13"));
    // As large as the network allows, and a tag: the underlay has no room for that in one packet.
    let big = "big 100 100 fa:16:3e:00:00:0d 192.168.100.13";
    assert!(a.send(big, "reply 100 192.168.100.13"), "{:?} {:?}", one.stats(), two.stats());
    // A host that does not know the network as one of tags takes none.
    let plain = Wanted { networks: vec![network("net", 100, 0)], ..there };
    apply(&two, &plain).await;
    assert!(!a.send("echo 100 100 fa:16:3e:00:00:0d 192.168.100.13", "reply 10"), "{:?}", two.stats());
    assert!(!a.send("arp 100 100 - 192.168.100.13", "is-at 10"));
    assert!(two.stats().unwrap().drops["family"] > 0);
    assert!(guest_a.pings("10.0.0.13"));
}
