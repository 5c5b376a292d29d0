//! The speaker against a real BIRD, on loopback: routes of both families come, move, go and come back.
#![allow(clippy::unwrap_used)] // as in any test
use pilvi_bgp::{
    Family, Key, Peering, Routes, Shown, Speakers, State,
    testing::{Bird, bird_is_here, free_port, until},
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::runtime::Runtime;

const SPEAKER: &str = "s";

fn routes(all: &[(&str, &str)]) -> Arc<Routes> {
    Arc::new(all.iter().map(|(net, hop)| (net.parse().unwrap(), hop.parse().unwrap())).collect())
}

fn peering(family: Family, port: u16) -> Peering {
    Peering {
        local_as: 4_200_000_001,
        identifier: [10, 255, 0, 2].into(),
        family,
        peer: [127, 0, 0, 2].into(),
        port,
        source: Some([127, 0, 0, 1].into()),
        remote_as: 65010,
        key: None,
        hold: 30,
        restart: 0,
    }
}

/// A peering as BIRD has it: its address, ours, and what else stands there.
fn protocol(name: &str, at: &str, port: u16, us: &str, more: &str) -> String {
    format!(
        "protocol bgp {name} {{ local {at} port {port} as 65010; neighbor {us} as 4200000001; multihop; passive;
           error wait time 1, 2; connect delay time 1; {more} }}\n"
    )
}

struct Rig {
    runtime: Runtime,
    speakers: Arc<Speakers>,
}

impl Rig {
    fn new() -> Self {
        Rig { runtime: Runtime::new().unwrap(), speakers: Arc::new(Speakers::new(Some(pilvi_netdev::sign_tcp))) }
    }

    fn set(&self, peerings: &[(&str, Peering)], routes: &Arc<Routes>) {
        let _guard = self.runtime.enter();
        let peerings: BTreeMap<String, Peering> = peerings.iter().map(|(n, p)| ((*n).to_owned(), p.clone())).collect();
        self.speakers.set(SPEAKER, peerings, routes);
    }

    fn wait(&self, peer: &str, what: &str, is: impl Fn(&Shown) -> bool) -> Shown {
        until(what, || self.speakers.shown(SPEAKER).remove(peer).filter(|shown| is(shown)))
    }
}

/// How many announcements BIRD has read.
fn updates(bird: &Bird) -> u32 {
    let all = bird.ask("show protocols all four");
    let line = all.lines().find(|line| line.trim_start().starts_with("Import updates:")).unwrap();
    line.split_whitespace().nth(2).unwrap().parse().unwrap()
}

#[test]
fn routes_are_told_moved_taken_back_and_told_again() {
    if !bird_is_here() {
        return;
    }
    let port = free_port("127.0.0.2");
    let four = protocol("four", "127.0.0.2", port, "127.0.0.1", "ipv4 { import all; export none; };");
    let six = protocol("six", "::1", port, "::1", "ipv6 { import all; export none; };");
    let mut bird = Bird::start(&format!("{four}{six}"));
    let rig = Rig::new();
    let peer6 =
        Peering { peer: "::1".parse().unwrap(), source: Some("::1".parse().unwrap()), ..peering(Family::V6, port) };
    let both = [("four", peering(Family::V4, port)), ("six", peer6)];
    let all = routes(&[
        ("203.0.113.20/32", "203.0.113.5"),
        ("10.10.0.0/24", "203.0.113.6"),
        ("2001:db8:1::/64", "2001:db8::5"),
    ]);
    let of = |routes: &Routes, four: bool| -> Routes {
        routes.iter().filter(|(net, _)| net.addr().is_ipv4() == four).map(|(n, h)| (*n, *h)).collect()
    };
    rig.set(&both, &all);
    for (table, four) in [("master4", true), ("master6", false)] {
        bird.wait_routes(table, &of(&all, four));
    }
    assert!(bird.ask("show route all").contains("BGP.as_path: 4200000001"));
    let shown = rig.wait("four", "the session is shown", |s| s.state == State::Established);
    assert_eq!((shown.routes, shown.trouble.as_str()), (2, ""));

    let moved = routes(&[("203.0.113.20/32", "203.0.113.6"), ("2001:db8:2::/64", "2001:db8::5")]);
    rig.set(&both, &moved);
    for (table, four) in [("master4", true), ("master6", false)] {
        bird.wait_routes(table, &of(&moved, four));
    }
    // BIRD asks for everything once more, and has it.
    let before = updates(&bird);
    let _ = bird.ask("reload in four");
    until("the refresh is answered", || (updates(&bird) > before).then_some(()));
    assert_eq!(bird.routes("master4"), of(&moved, true));

    bird.again();
    for (table, four) in [("master4", true), ("master6", false)] {
        bird.wait_routes(table, &of(&moved, four));
    }
    // A peering that is gone takes its routes with it; the other stays.
    rig.set(&both[..1], &moved);
    bird.wait_routes("master6", &Routes::new());
    assert_eq!(bird.routes("master4"), of(&moved, true));
    assert!(bird.log().contains("de-configured"), "{}", bird.log());
    rig.runtime.block_on(rig.speakers.leave());
    assert!(rig.speakers.names().is_empty());
}

#[test]
fn a_table_of_many_routes_arrives_whole() {
    if !bird_is_here() {
        return;
    }
    let port = free_port("127.0.0.2");
    let bird = Bird::start(&protocol("four", "127.0.0.2", port, "127.0.0.1", "ipv4 { import all; export none; };"));
    let rig = Rig::new();
    let many = |hop: &str| -> Arc<Routes> {
        let hop = hop.parse().unwrap();
        let net = |n: u32| ipnet::IpNet::new((n + 0x0a00_0000).to_be_bytes().into(), 32).unwrap();
        Arc::new((0..20_000).map(|n| (net(n), hop)).collect())
    };
    let peers = [("four", peering(Family::V4, port))];
    for hop in ["192.0.2.1", "192.0.2.2"] {
        rig.set(&peers, &many(hop));
        bird.wait_routes("master4", &many(hop));
    }
    rig.set(&peers, &routes(&[]));
    bird.wait_routes("master4", &Routes::new());
}

#[test]
fn routes_outlive_a_speaker_that_comes_back() {
    if !bird_is_here() {
        return;
    }
    let port = free_port("127.0.0.2");
    let bird = Bird::start(&protocol("four", "127.0.0.2", port, "127.0.0.1", "ipv4 { import all; export none; };"));
    let wanted = routes(&[("10.10.0.0/24", "203.0.113.6"), ("10.11.0.0/24", "203.0.113.6")]);
    let peers = [("four", Peering { restart: 120, ..peering(Family::V4, port) })];
    let first = Rig::new();
    first.set(&peers, &wanted);
    bird.wait_routes("master4", &wanted);
    first.runtime.block_on(first.speakers.leave());
    until("BIRD has noticed", || (!bird.ask("show protocols four").contains("Established")).then_some(()));
    assert_eq!(bird.routes("master4"), *wanted, "the routes are kept");
    // What is wanted no more when it comes back goes with the end of the table.
    let less = routes(&[("10.10.0.0/24", "203.0.113.6")]);
    let second = Rig::new();
    second.set(&peers, &less);
    bird.wait_routes("master4", &less);
    // Whoever says goodbye takes the routes along, each time.
    for _ in 0..6 {
        second.set(&[], &less);
        bird.wait_routes("master4", &Routes::new());
        second.set(&peers, &less);
        bird.wait_routes("master4", &less);
    }
}

#[test]
fn keys_and_names_must_fit() {
    if !bird_is_here() {
        return;
    }
    let port = free_port("127.0.0.2");
    let more = "password \"a secret\"; ipv4 { import all; export none; };";
    let bird = Bird::start(&protocol("four", "127.0.0.2", port, "127.0.0.1", more));
    let rig = Rig::new();
    let wanted = routes(&[("10.10.0.0/24", "203.0.113.6")]);
    let with = |key: &str| Peering { key: Some(Key(key.to_owned())), ..peering(Family::V4, port) };
    let key = "a secret";
    rig.set(&[("four", Peering { remote_as: 65011, ..with(key) })], &wanted);
    let refused = rig.wait("four", "another AS is refused", |s| s.trouble.contains("we say"));
    assert!(refused.trouble.contains("bad peer AS"), "{}", refused.trouble);
    rig.set(&[("four", Peering { local_as: 65002, ..with(key) })], &wanted);
    let refused = rig.wait("four", "BIRD refuses our AS", |s| s.trouble.contains("the peer says"));
    assert!(refused.trouble.contains("bad peer AS"), "{}", refused.trouble);
    rig.set(&[("four", Peering { family: Family::V6, ..with(key) })], &wanted);
    let refused = rig.wait("four", "the family is needed", |s| s.trouble.contains("capability"));
    assert!(refused.trouble.contains("2/7"), "{}", refused.trouble);
    assert!(bird.routes("master4").is_empty());
    rig.set(&[("four", with(key))], &wanted);
    bird.wait_routes("master4", &wanted);
    // With another key nothing answers, and BIRD lets the routes go when its patience ends; with none neither.
    rig.set(&[("four", with("another"))], &wanted);
    bird.wait_routes("master4", &Routes::new());
    rig.set(&[("four", with(key))], &wanted);
    bird.wait_routes("master4", &wanted);
}
