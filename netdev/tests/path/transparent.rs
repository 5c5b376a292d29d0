//! Guests that send frames with tags of their own to each other, where their network lets them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::six::*;
use crate::cloud::*;
use crate::vlan::Speaker;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;

/// Tags of guests' own: one, or two of which the outer may be a service tag.
pub const STACKS: [&str; 4] = ["100", "0x88a80064", "100+200", "0x88a80064+200"];

/// What guests are within those, and one address that is not theirs within others.
pub fn within(n: u8) -> Vec<String> {
    let mac = format!("fa:16:3e:00:00:{n:02x}");
    let own = STACKS.iter().map(|tags| format!("{tags},{mac},192.168.100.{n},fd00:64::{n}"));
    let others = ["101", "100+201"].iter().map(|tags| format!("{tags},{mac},192.168.100.99,fd00:64::99"));
    own.chain(others).collect()
}

/// A port that may use the addresses of its guest within the tag.
pub fn tagging(id: &str, n: u8, groups: &[&str]) -> Port {
    let pair = |cidr: &str| AddressPair { mac: None, cidr: cidr.parse().unwrap() };
    let mut port = port(id, "net", n, &format!("10.0.0.{n}"), groups);
    port.allowed_pairs = vec![pair(&format!("192.168.100.{n}/32")), pair(&format!("fd00:64::{n}/128"))];
    port
}

fn network_of_tags() -> Network {
    Network { transparent: true, ..network("net", 100, 0) }
}

pub async fn speaker(cloud: &mut Cloud, plane: &DataPlane, id: &str, n: u8) -> (Guest, Speaker) {
    let guest = guest(cloud, plane, id, &format!("10.0.0.{n}")).await;
    let own = within(n);
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let speaker = Speaker::start(cloud, &guest, &own);
    (guest, speaker)
}

pub fn both(id: &str) -> Group {
    let mut all = open_group(id);
    all.rules.extend(open6(id).rules);
    all
}

pub fn drops(plane: &DataPlane, id: &str, reason: &str) -> u64 {
    plane.stats().unwrap().ports[id].drops.get(reason).copied().unwrap_or(0)
}

/// Everything that `one` has with guest `n` within some tags.
pub fn meets(one: &mut Speaker, tags: &str, n: u8) {
    let mac = format!("fa:16:3e:00:00:{n:02x}");
    let (four, six) = (format!("192.168.100.{n}"), format!("fd00:64::{n}"));
    for (command, answer) in [
        (format!("arp {tags} {tags} - {four}"), format!("is-at {tags} {four} {mac}")),
        (format!("ns {tags} {tags} - {six}"), format!("is-at {tags} {six} {mac}")),
        (format!("echo {tags} {tags} {mac} {four}"), format!("reply {tags} {four} {mac}")),
        (format!("echo {tags} {tags} {mac} {six}"), format!("reply {tags} {six} {mac}")),
    ] {
        assert!(one.send(&command, &answer), "{command}: {:?}", one.all());
    }
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
    for tags in STACKS {
        meets(&mut a, tags, 12);
    }
    meets(&mut b, "100", 11);
    meets(&mut free, "0x88a80064+200", 12);
    assert!(guest_a.pings("10.0.0.12"), "without tags as ever");
    // Groups judge what is inside.
    let mac = "fa:16:3e:00:00:0d";
    for tags in ["100", "100+200", "0x88a80064+200"] {
        let before = drops(&plane, "shut", "group-in");
        let is_at = format!("is-at {tags} 192.168.100.13 {mac}");
        assert!(a.send(&format!("arp {tags} {tags} - 192.168.100.13"), &is_at));
        assert!(!a.send(&format!("echo {tags} {tags} {mac} 192.168.100.13"), "reply"));
        assert!(!a.send(&format!("echo {tags} {tags} {mac} fd00:64::13"), "reply"));
        assert!(drops(&plane, "shut", "group-in") > before + 1 && !shut.heard("ping"), "{tags}: {:?}", plane.stats());
    }
    // Nobody speaks by another's address, nor by another's hardware address.
    let mac = "fa:16:3e:00:00:0c";
    for tags in ["101", "100+201"] {
        let counted = |reason: &str| drops(&plane, "a", reason);
        let (ip, arp) = (counted("spoofed-ip"), counted("spoofed-arp"));
        for command in [
            format!("echo {tags} {tags} {mac} 192.168.100.12"),
            format!("echo {tags} {tags} {mac} fd00:64::12"),
            format!("ns 100+200 {tags} - fd00:64::12"),
            format!("arp 100+200 {tags} - 192.168.100.12"),
        ] {
            assert!(!a.send(&command, "reply") && !a.heard("is-at"), "{command}");
            assert!(!b.heard("ping 101") && !b.heard("ping 100+201") && !b.heard("asked 101"), "{:?}", b.all());
        }
        let counted = (counted("spoofed-ip") - ip, counted("spoofed-arp") - arp);
        assert!(counted == (3, 1), "{tags}: {counted:?} {:?}", plane.stats());
    }
    // Two tags at most, the inner one a customer's with a number; who may send anything sends no others either.
    for (id, voice) in [("a", &mut a), ("free", &mut free)] {
        for tags in ["100+101+102", "0x88a80064+101+102", "100+0x88a80065", "100+0", "100+0x6000"] {
            let before = drops(&plane, id, "family");
            assert!(!voice.send(&format!("echo {tags} 100 {mac} 192.168.100.12"), "reply"), "{id} {tags}");
            assert!(drops(&plane, id, "family") > before, "{id} {tags}: {:?}", plane.stats());
        }
    }
    // A tag that is a port's behind the trunk's device is that port's alone.
    assert!(!a.send("arp 100 100 - 192.168.100.15", "is-at 10"));
    for tags in ["100", "100+200", "0x88a80064+200"] {
        assert!(!a.send(&format!("echo {tags} {tags} fa:16:3e:00:00:0f 192.168.100.15"), "reply 10"), "{tags}");
    }
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
    for tags in STACKS {
        meets(&mut a, tags, 13);
    }
    meets(&mut c, "100", 12);
    meets(&mut c, "100+200", 12);
    meets(&mut b, "100", 11);
    assert!(guest_a.pings("10.0.0.13"));
    // As large as the guest's device lets through with its tags: with one the underlay has no room for that in one packet.
    for tags in STACKS {
        let big = format!("big {tags} {tags} fa:16:3e:00:00:0d 192.168.100.13");
        assert!(a.send(&big, &format!("reply {tags} 192.168.100.13")), "{tags}: {:?} {:?}", one.stats(), two.stats());
    }
    // A host that does not know the network as one of tags takes none.
    let plain = Wanted { networks: vec![network("net", 100, 0)], ..there };
    apply(&two, &plain).await;
    for tags in ["100", "100+200"] {
        let echo = format!("echo {tags} {tags} fa:16:3e:00:00:0d 192.168.100.13");
        assert!(!a.send(&echo, "reply 10"), "{:?}", two.stats());
    }
    assert!(!a.send("arp 100 100 - 192.168.100.13", "is-at 10"));
    assert!(two.stats().unwrap().drops["family"] > 0);
    assert!(guest_a.pings("10.0.0.13"));
}
