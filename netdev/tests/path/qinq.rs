//! Networks of a wire whose guests send tags of their own within the network's: a service tag (802.1ad) outside, or a customer's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::six::*;
use crate::cloud::*;
use crate::transparent::{both, meets, speaker, tagging};
use crate::vlan::{Speaker, device, way, wire};
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;

const SERVICE: &str = "0x88a80065";
const PROVIDER: &str = "02:00:00:00:01:01";

/// Tag 101 on the wire: a service tag, within which tags pass.
fn service(id: &str, vni: u32) -> Network {
    Network { service_tag: true, transparent: true, ..wire(id, vni, 101) }
}

/// A guest of such a network; 203.0.113.N is what it is without tags.
fn member(id: &str, network: &str, n: u8, groups: &[&str]) -> Port {
    let mut port = Port { network: network.into(), ..tagging(id, n, groups) };
    let fixed = |subnet: &str, address: String| Fixed {
        subnet: format!("{network}-{subnet}"),
        address: address.parse().unwrap(),
    };
    port.fixed = vec![fixed("sub", format!("203.0.113.{n}")), fixed("six", format!("2001:db8:e::{n}"))];
    port
}

fn drops(plane: &DataPlane, reason: &str) -> u64 {
    plane.stats().unwrap().drops.get(reason).copied().unwrap_or(0)
}

/// What the provider is: without tags of guests on each of his wires, and within some.
fn provider() -> Vec<String> {
    let outside = [SERVICE, "101", "102"].map(|tags| format!("{tags},{PROVIDER},203.0.113.1,2001:db8:e::1"));
    let inside =
        ["0x88a80065+100", "0x88a80065+0x88a80064", "0x88a80065+100+200", "0x88a80065+0x88a80064+200", "102+100"];
    let inside = inside.map(|tags| format!("{tags},{PROVIDER},192.168.100.1,fd00:64::1"));
    outside.into_iter().chain(inside).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_tags_pass_a_wire_within_its_own() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("qinq");
    let plane = DataPlane::open(device(&mut cloud)).await.unwrap();
    let hosts = provider();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let (_, mut provider) = Speaker::provider(&mut cloud, &plane, &hosts).await;
    // A customer's tag of the same number is another wire.
    let mut wanted = Wanted {
        networks: vec![service("s", 9001), wire("c", 9002, 101), Network { transparent: true, ..wire("t", 9003, 102) }],
        ports: vec![
            member("a", "s", 11, &["g"]),
            member("b", "s", 12, &["g"]),
            member("shut", "s", 13, &["out"]),
            member("plain", "c", 14, &["g"]),
            member("thru", "t", 15, &["g"]),
        ],
        groups: vec![both("g"), out_only("out")],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let mut guests = Vec::new();
    for (id, n) in [("a", 11), ("b", 12), ("shut", 13), ("plain", 14), ("thru", 15)] {
        let (guest, voice) = speaker(&mut cloud, &plane, id, n).await;
        guest.sh(&format!(
            "ip addr add 203.0.113.{n}/24 dev eth0; sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0; ip addr add 2001:db8:e::{n}/64 dev eth0 nodad"
        ));
        guests.push((guest, voice));
    }
    let mut guests = guests.into_iter();
    let [(guest_a, mut a), (_, mut b), (_, shut), (guest_plain, mut plain), (guest_thru, mut thru)] =
        std::array::from_fn(|_| guests.next().unwrap());
    // Without tags of guests each wire is as ever.
    for (guest, tag, n) in [(&guest_a, SERVICE, 11), (&guest_plain, "101", 14), (&guest_thru, "102", 15)] {
        assert!(guest.pings("203.0.113.1"), "{tag}: {:?} {:?}", plane.stats(), provider.all());
        assert!(pings(guest, "2001:db8:e::1"), "{tag}: {:?} {:?}", plane.stats(), provider.all());
        assert!(provider.heard(&format!("ping {tag} 203.0.113.{n}")), "{tag}: {:?}", provider.all());
        let mac = format!("fa:16:3e:00:00:{n:02x}");
        let echo = format!("echo {tag} {tag} {mac} 203.0.113.{n}");
        assert!(provider.send(&echo, &format!("reply {tag} 203.0.113.{n} {mac}")), "{tag}: {:?}", plane.stats());
    }
    // Within them: among guests, to the provider, and from him; those for many as well.
    for tags in ["100", "0x88a80064", "100+200", "0x88a80064+200"] {
        meets(&mut a, tags, 12);
        let (four, six) = ("192.168.100.1", "fd00:64::1");
        for (command, answer) in [
            (format!("arp {tags} {tags} - {four}"), format!("is-at {tags} {four} {PROVIDER}")),
            (format!("ns {tags} {tags} - {six}"), format!("is-at {tags} {six} {PROVIDER}")),
            (format!("echo {tags} {tags} {PROVIDER} {four}"), format!("reply {tags} {four} {PROVIDER}")),
            (format!("echo {tags} {tags} {PROVIDER} {six}"), format!("reply {tags} {six} {PROVIDER}")),
        ] {
            assert!(a.send(&command, &answer), "{command}: {:?} {:?} {:?}", a.all(), plane.stats(), provider.all());
        }
        meets(&mut provider, &format!("{SERVICE}+{tags}"), 12);
    }
    let asked = "is-at 100 192.168.100.1 02:00:00:00:01:01";
    assert!(thru.send("arp 100 100 - 192.168.100.1", asked), "{:?} {:?}", plane.stats(), provider.all());
    meets(&mut provider, "102+100", 15);
    // As large as the network allows, and a tag.
    let big = format!("big 100 100 {PROVIDER} 192.168.100.1");
    assert!(a.send(&big, "reply 100 192.168.100.1"), "{:?}", plane.stats());
    // Each guest is at home in its own network, and groups judge what is inside.
    assert!(!provider.send("arp 102+100 102+100 - 192.168.100.12", "is-at"), "{:?}", provider.all());
    for tags in ["0x88a80065+100", "0x88a80065+100+200"] {
        let before = plane.stats().unwrap().ports["shut"].drops.get("group-in").copied().unwrap_or(0);
        assert!(!provider.send(&format!("echo {tags} {tags} fa:16:3e:00:00:0d 192.168.100.13"), "reply"));
        let after = plane.stats().unwrap().ports["shut"].drops["group-in"];
        assert!(after > before && !shut.heard("ping"), "{tags}: {:?}", plane.stats());
    }
    // Nobody sends by another's address, within however many tags.
    for tags in ["101", "100+201"] {
        assert!(!a.send(&format!("echo {tags} {tags} {PROVIDER} 192.168.100.1"), "reply"));
        assert!(!a.send(&format!("arp 100 {tags} - 192.168.100.1"), "is-at"));
    }
    let counted = plane.stats().unwrap().ports["a"].drops.clone();
    assert!(counted["spoofed-ip"] == 2 && counted["spoofed-arp"] == 2, "{counted:?}");
    assert!(!provider.heard("ping 0x88a80065+101") && !provider.heard("ping 0x88a80065+100+201"));
    // Foreign tags, and such as no guest may get, or would take for none.
    let none = "0x88a80066+100 0x88a80065+0 0x88a80065+0x6000 101+100 101+0x88a80064 0+100 103+100";
    for tags in none.split(' ') {
        let before = drops(&plane, "family");
        for (mac, ip) in [("fa:16:3e:00:00:0c", "192.168.100.12"), ("fa:16:3e:00:00:0e", "192.168.100.14")] {
            assert!(!provider.send(&format!("echo {tags} 0x88a80065+100 {mac} {ip}"), "reply"), "{tags}");
        }
        assert!(drops(&plane, "family") >= before + 2, "{tags}: {:?}", plane.stats());
    }
    let mac = "fa:16:3e:00:00:0c";
    assert!(!provider.send(&format!("echo 0x88a80065+100+200+300 0x88a80065+100 {mac} 192.168.100.12"), "reply"));
    assert!(plane.stats().unwrap().ports["b"].drops["family"] > 0, "{:?}", plane.stats());
    let before = plane.stats().unwrap().ports["plain"].drops.get("family").copied().unwrap_or(0);
    assert!(!plain.send(&format!("echo 100 100 {PROVIDER} 192.168.100.1"), "reply"), "in its network nobody may");
    assert!(plane.stats().unwrap().ports["plain"].drops["family"] > before);
    // The network changes its mind: nothing of guests' own tags is let out, or in.
    wanted.networks[0].transparent = false;
    apply(&plane, &wanted).await;
    assert!(!b.send(&format!("echo 100 100 {PROVIDER} 192.168.100.1"), "reply"));
    assert!(!provider.send(&format!("echo 0x88a80065+100 0x88a80065+100 {mac} 192.168.100.12"), "reply"));
    assert!(guest_a.pings("203.0.113.1"), "without tags as ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn routers_lead_out_by_a_service_tag() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("qinqgw");
    let plane = DataPlane::open(device(&mut cloud)).await.unwrap();
    let host = format!("{SERVICE},{PROVIDER},203.0.113.1,2001:db8:e::1");
    let (_, mut provider) = Speaker::provider(&mut cloud, &plane, &[&host]).await;
    let (router, networks) = way("r", network("n0", 100, 0), leg("n0", 0, 1), "s");
    let mut wanted = Wanted {
        networks: [vec![service("s", 9001)], networks].concat(),
        ports: vec![port("a", "n0", 1, "10.0.0.11", &["g"])],
        groups: vec![both("g")],
        routers: vec![router],
        ..Wanted::default()
    };
    wanted.ports[0].fixed.push(Fixed { subnet: "six".into(), address: "fd00:7::11".parse().unwrap() });
    apply(&plane, &wanted).await;
    // Who asks for next hops, and what is answered, has the tag of the wire.
    let gateway = "fa:16:3e:02:00:0a";
    assert!(soon(|| provider.heard(&format!("announce {SERVICE} 203.0.113.10 {gateway}"))), "{:?}", provider.all());
    assert!(soon(|| provider.heard(&format!("asked {SERVICE} 203.0.113.10"))), "{:?}", provider.all());
    assert!(soon(|| provider.heard(&format!("asked {SERVICE} 2001:db8:e::10"))), "{:?}", provider.all());
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    a.sh("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0; ip addr add fd00:7::11/64 dev eth0 nodad");
    a.sh("ip -6 route add default via fd00:7::1");
    assert!(a.pings("203.0.113.1") && provider.heard(&format!("ping {SERVICE} 203.0.113.10")), "{:?}", plane.stats());
    assert!(soon(|| pings(&a, "2001:db8:e::1")), "{:?} {:?}", provider.all(), plane.stats());
    let is_at = format!("is-at {SERVICE} 203.0.113.10 {gateway}");
    assert!(provider.send(&format!("arp {SERVICE} {SERVICE} - 203.0.113.10"), &is_at));
    let reply = format!("reply {SERVICE} 203.0.113.10");
    assert!(provider.send(&format!("echo {SERVICE} {SERVICE} {gateway} 203.0.113.10"), &reply));
    assert!(!provider.send(&format!("echo 101 {SERVICE} {gateway} 203.0.113.10"), "reply"), "a customer's tag is none");
    // Guests' tags lead to no router.
    assert!(!provider.send(&format!("echo {SERVICE}+100 {SERVICE} {gateway} 203.0.113.10"), "reply"));
    assert!(drops(&plane, "edge") > 0, "{:?}", plane.stats());
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_of_two_hosts_meet_over_a_wire_with_tags() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("qinqfar");
    let on_wire = |config: Config| Config { external: External::Device("phys0".into()), ..config };
    let (first, second) = (on_wire(cloud.node(1)), on_wire(cloud.node(2)));
    cloud.keep(first.clone());
    cloud.keep(second.clone());
    let one = DataPlane::open(first).await.unwrap();
    let two = DataPlane::open(second).await.unwrap();
    let (here, there) = (one.ns_path(Ns::Node).unwrap(), two.ns_path(Ns::Node).unwrap());
    let (node_one, node_two) = (Guest::at(&here, &cloud), Guest::at(&there, &cloud));
    node_one
        .sh(&format!("ip link add phys0 type veth peer name phys0 netns {}; ip link set phys0 up", there.display()));
    node_two.sh("ip link set phys0 up");
    for (plane, id, n) in [(&one, "a", 11), (&two, "c", 13)] {
        let wanted = Wanted {
            networks: vec![service("s", 9001)],
            ports: vec![member(id, "s", n, &["g"])],
            groups: vec![both("g")],
            ..Wanted::default()
        };
        apply(plane, &wanted).await;
    }
    let (guest_a, mut a) = speaker(&mut cloud, &one, "a", 11).await;
    let (guest_c, mut c) = speaker(&mut cloud, &two, "c", 13).await;
    guest_a.sh("ip addr add 203.0.113.11/24 dev eth0");
    guest_c.sh("ip addr add 203.0.113.13/24 dev eth0");
    for tags in crate::transparent::STACKS {
        meets(&mut a, tags, 13);
        meets(&mut c, tags, 11);
    }
    assert!(guest_a.pings("203.0.113.13"), "{:?} {:?}", one.stats(), two.stats());
    assert!(a.send("big 100 100 fa:16:3e:00:00:0d 192.168.100.13", "reply 100"), "{:?} {:?}", one.stats(), two.stats());
}
