//! The packet path against a second, simple account of what it should do: the same random groups and packets, the same
//! verdicts, packet by packet, over flows, fragments, errors and rules that change in between.
//!
//! A failure prints the seed of its case; `ORACLE_SEED` runs it again, `ORACLE_CASES` says how many cases.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, unsafe_code)]
pub(crate) mod kernel;
mod model;
mod wire;
use crate::cloud::{Cloud, apply, mac, network, port, root, vtep};
use kernel::Kernel;
use model::{Model, link_local};
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;
use std::net::IpAddr;
use wire::{ACK, Body, FIN, Packet, Part, RST, SYN, icmp};

const GROUPS: [&str; 4] = ["ga", "gb", "gc", "gd"];
const PACKETS: usize = 400;

pub(crate) struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.roll() % n as u64).unwrap()
    }
    pub fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
    pub fn chance(&mut self, percent: u64) -> bool {
        self.roll() % 100 < percent
    }
}

fn some_groups(dice: &mut Dice) -> Vec<String> {
    GROUPS.iter().filter(|_| dice.chance(45)).map(|g| (*g).to_owned()).collect()
}

fn some_rule(dice: &mut Dice) -> Rule {
    let v6 = dice.chance(50);
    let protocol = dice.one(&[None, Some(6), Some(6), Some(17), Some(17), Some(icmp(v6)), Some(1), Some(47)]);
    let ports = match protocol {
        Some(6 | 17) => dice.one(&[Ports::Any, Ports::Range(80, 80), Ports::Range(22, 90), Ports::Range(1000, 5000)]),
        Some(1 | 58) if dice.chance(70) => {
            let kind = if v6 { dice.one(&[128, 129, 1, 2, 140]) } else { dice.one(&[8, 0, 3, 11, 13]) };
            Ports::Icmp(kind, dice.one(&[None, Some(0), Some(1)]))
        }
        _ => Ports::Any,
    };
    let cidr = if v6 {
        ["::/0", "fd00::/64", "fd00::a/128", "fd00::14/126", "2001:db8::/32"]
    } else {
        ["0.0.0.0/0", "10.0.0.0/24", "10.0.0.10/32", "10.0.0.20/31", "192.0.2.0/24"]
    };
    let peer = match dice.below(4) {
        0 => Peer::Any,
        1 => Peer::Cidr(dice.one(&cidr).parse().unwrap()),
        _ => Peer::Group(dice.one(&GROUPS).into()),
    };
    let direction = if dice.chance(50) { Direction::Ingress } else { Direction::Egress };
    let family = if v6 { Family::V6 } else { Family::V4 };
    Rule { id: String::new(), direction, family, protocol, ports, peer }
}

fn some_rules(dice: &mut Dice) -> Vec<Rule> {
    let mut rules: Vec<Rule> = (0..dice.below(7)).map(|_| some_rule(dice)).collect();
    if dice.chance(15) {
        // More than one chunk holds, before and after what matters.
        let filler = |n: u16| Rule {
            id: String::new(),
            direction: Direction::Ingress,
            family: if n.is_multiple_of(2) { Family::V4 } else { Family::V6 },
            protocol: Some(6),
            ports: Ports::Range(20_000 + n, 20_000 + n),
            peer: Peer::Any,
        };
        let at = dice.below(rules.len() + 1);
        rules.splice(at..at, (0..80).map(filler));
    }
    rules
}

/// Two networks with the same addresses; on the first a port with pairs, a plain one and one without security.
fn some_cloud(dice: &mut Dice) -> Wanted {
    let net = |id: &str, vni| {
        let mut n = network(id, vni, 0);
        let six = Subnet { id: "six".into(), cidr: "fd00::/64".parse().unwrap(), dhcp: false, ..n.subnets[0].clone() };
        n.subnets.push(six);
        n
    };
    let make = |dice: &mut Dice, id: &str, net: &str, n: u8, last: u8| {
        let mut p = port(id, net, n, &format!("10.0.0.{last}"), &[]);
        p.fixed.push(Fixed { subnet: "six".into(), address: format!("fd00::{last:x}").parse().unwrap() });
        p.groups = some_groups(dice);
        p
    };
    let mut a = make(dice, "a", "net1", 1, 10);
    a.allowed_pairs = vec![
        AddressPair { mac: None, cidr: "10.0.0.64/26".parse().unwrap() },
        AddressPair { mac: Some(mac(77)), cidr: "10.0.0.77/32".parse().unwrap() },
        AddressPair { mac: Some(mac(77)), cidr: "fd00::40/122".parse().unwrap() },
        AddressPair { mac: None, cidr: "fd00::45/128".parse().unwrap() },
    ];
    let mut c = make(dice, "c", "net1", 3, 12);
    c.secured = false;
    let ports = vec![a, make(dice, "b", "net1", 2, 11), c, make(dice, "d", "net2", 4, 10)];
    let remote = |dice: &mut Dice, net: &str, n: u8, last: u8| Remote {
        port: format!("r{n}"),
        network: net.into(),
        mac: mac(n),
        addresses: vec![format!("10.0.0.{last}").parse().unwrap(), format!("fd00::{last:x}").parse().unwrap()],
        vtep: vtep(9),
        groups: some_groups(dice),
    };
    let remotes = vec![remote(dice, "net1", 20, 20), remote(dice, "net1", 21, 21), remote(dice, "net2", 20, 20)];
    let groups =
        GROUPS.iter().map(|id| Group { id: (*id).into(), stateful: !dice.chance(20), rules: some_rules(dice) });
    let groups: Vec<Group> = groups.collect();
    Wanted { networks: vec![net("net1", 100), net("net2", 200)], ports, remotes, groups, ..Wanted::default() }
}

fn change(dice: &mut Dice, wanted: &mut Wanted) {
    match dice.below(6) {
        0 => {
            let n = dice.below(4);
            wanted.ports[n].groups = some_groups(dice);
        }
        1 => {
            let n = dice.below(3);
            wanted.remotes[n].groups = some_groups(dice);
        }
        2 => {
            let n = dice.below(4);
            wanted.groups[n].rules.clear();
        }
        _ => {
            let n = dice.below(4);
            let at = dice.below(wanted.groups[n].rules.len() + 1);
            if dice.chance(50) && at < wanted.groups[n].rules.len() {
                wanted.groups[n].rules.remove(at);
            } else {
                let rule = some_rule(dice);
                wanted.groups[n].rules.insert(at, rule);
            }
        }
    }
}

fn some_body(dice: &mut Dice, v6: bool, old: &[Packet]) -> Body {
    let (from, to) = (dice.one(&[22, 80, 1000, 5000, 5001]), dice.one(&[22, 80, 80, 1000, 5000, 20_002]));
    match dice.below(10) {
        0..4 => Body::Tcp { from, to, flags: dice.one(&[SYN, SYN, SYN | ACK, ACK, ACK, FIN | ACK, RST, RST | ACK]) },
        4..6 => Body::Udp { from, to },
        6..8 => {
            let kind = if v6 { dice.one(&[128, 128, 129, 140, 1]) } else { dice.one(&[8, 8, 0, 13, 3]) };
            Body::Icmp { kind, code: dice.one(&[0, 0, 0, 1]), id: dice.one(&[0, 1, 2]) }
        }
        8 if old.iter().any(|p| p.v6() == v6) => {
            let of: Vec<&Packet> = old.iter().filter(|p| p.v6() == v6).collect();
            let about = Box::new(dice.one(&of).clone());
            let kind = if v6 { dice.one(&[1, 2, 3, 4]) } else { dice.one(&[3, 11, 12]) };
            Body::Error { kind, code: dice.one(&[0, 1]), about }
        }
        _ => Body::Other(dice.one(&[47, 132])),
    }
}

fn some_address(dice: &mut Dice, v6: bool) -> IpAddr {
    if v6 {
        let all = ["fd00::a", "fd00::b", "fd00::c", "fd00::14", "fd00::15", "fd00::45", "2001:db8::1", "2001:db9::1"];
        return dice.one(&all).parse().unwrap();
    }
    let all = [
        "10.0.0.10",
        "10.0.0.11",
        "10.0.0.12",
        "10.0.0.20",
        "10.0.0.21",
        "10.0.0.70",
        "10.0.0.77",
        "192.0.2.1",
        "198.51.100.1",
    ];
    dice.one(&all).parse().unwrap()
}

fn some_packet(dice: &mut Dice, old: &[Packet]) -> Packet {
    if !old.is_empty() && dice.chance(45) {
        let mut p = dice.one(&old[old.len().saturating_sub(12)..]);
        match dice.below(10) {
            0..6 => p = p.answer(),
            6 => p.part = Part::Later(dice.one(&[1, 2])),
            7 => {
                let about = Box::new(Packet { part: Part::Whole, ..p.clone() });
                let kind = if p.v6() { 1 } else { 3 };
                p = Packet { body: Body::Error { kind, code: 1, about }, part: Part::Whole, ..p.answer() };
            }
            _ => {}
        }
        if let Body::Tcp { flags, .. } = &mut p.body {
            *flags = dice.one(&[*flags, SYN, ACK, ACK, FIN | ACK, RST]);
        }
        return p;
    }
    let v6 = dice.chance(50);
    let part = match dice.below(12) {
        0 => Part::First(dice.one(&[1, 2])),
        1 => Part::Later(dice.one(&[1, 2])),
        _ => Part::Whole,
    };
    let body = some_body(dice, v6, old);
    let short = dice.chance(2) && part == Part::Whole && !matches!(body, Body::Other(_));
    let extended = v6 && dice.chance(10);
    Packet { source: some_address(dice, v6), destination: some_address(dice, v6), body, part, short, extended }
}

struct Rig {
    kernel: Kernel,
    devices: Vec<u32>,
    passed: usize,
    packets: usize,
    spoilt: usize,
    spoilt_passed: usize,
}

/// What may have led to a verdict.
fn story(wanted: &Wanted, port: &Port, old: &[Packet], p: &Packet) -> String {
    use std::fmt::Write;
    let mut out = format!("groups {:?}\n", port.groups);
    for group in wanted.groups.iter().filter(|g| port.groups.contains(&g.id)) {
        writeln!(out, "{} stateful {}", group.id, group.stateful).unwrap();
        for r in &group.rules {
            writeln!(out, "  {:?} {:?} {:?} {:?} {:?}", r.direction, r.family, r.protocol, r.ports, r.peer).unwrap();
        }
    }
    for before in old.iter().filter(|o| [o.source, o.destination].contains(&p.source)) {
        writeln!(out, "{before:?}").unwrap();
    }
    out
}

/// One packet: from a guest to a guest or another host, or from another host to a guest.
fn step(dice: &mut Dice, rig: &mut Rig, model: &mut Model, wanted: &Wanted, old: &mut Vec<Packet>, seed: u64) {
    let version = rig.kernel.version();
    let mut p = some_packet(dice, old);
    let net1 = dice.chance(80);
    let places: &[usize] = if net1 { &[0, 1, 2] } else { &[3] };
    let here = |ip: IpAddr| places.iter().copied().find(|i| wanted.ports[*i].fixed.iter().any(|f| f.address == ip));
    let sender = here(p.source).or_else(|| dice.chance(30).then(|| dice.one(places)));
    let far = if net1 { [20, 21][dice.below(2)] } else { 20 };
    let mut goes_on = true;
    rig.packets += 1;
    if let Some(i) = sender {
        let from = &wanted.ports[i];
        if dice.chance(3) {
            p.source = if p.v6() { link_local(from.mac.0) } else { "10.0.0.77".parse().unwrap() };
        }
        let own = if dice.chance(4) { mac(77).0 } else { from.mac.0 };
        let to = here(p.destination).filter(|j| *j != i).map_or(mac(far).0, |j| wanted.ports[j].mac.0);
        let frame = p.frame(own, to);
        let (is, should) = (rig.kernel.sends(rig.devices[i], &frame), model.sends(wanted, from, own, &p, version));
        assert_eq!(is, should, "seed {seed}: {} sends {p:?}\n{}", from.id, story(wanted, from, old, &p));
        goes_on = is;
    }
    if let Some(j) = here(p.destination).filter(|j| goes_on && Some(*j) != sender) {
        let to = &wanted.ports[j];
        let frame = p.frame(mac(far).0, to.mac.0);
        let (is, should) = (rig.kernel.gets(rig.devices[j], &frame), model.gets(wanted, to, &p, version));
        assert_eq!(is, should, "seed {seed}: {} gets {p:?}\n{}", to.id, story(wanted, to, old, &p));
        rig.passed += usize::from(is);
    }
    old.push(p);
    if old.len() > 60 {
        old.remove(0);
    }
}

/// Frames with some bytes spoilt: whatever passes says of itself what its port may say.
fn spoil(dice: &mut Dice, rig: &mut Rig, wanted: &Wanted, old: &[Packet], seed: u64) {
    for _ in 0..100 {
        let i = dice.one(&[0, 1, 3]);
        let (port, mut p) = (&wanted.ports[i], dice.one(old));
        let own = port.fixed.iter().map(|f| f.address).find(|ip| ip.is_ipv6() == p.v6()).unwrap();
        (p.source, p.short) = (own, false);
        let mut frame = p.frame(port.mac.0, mac(20).0);
        for _ in 0..=dice.below(4) {
            let at = dice.below(frame.len());
            let any = u8::try_from(dice.roll() & 0xff).unwrap();
            frame[at] = dice.one(&[0, 1, 6, 17, 44, 58, 0x45, 0x60, 0xff, any]);
        }
        if dice.chance(10) {
            // A shorter one the kernel itself does not run a program on.
            frame.truncate(34.max(dice.below(frame.len())));
        }
        rig.spoilt += 1;
        // Too short for its family is refused before the program sees it.
        if frame[12..14] == [0x86, 0xdd] && frame.len() < 54 {
            continue;
        }
        if !rig.kernel.sends(rig.devices[i], &frame) {
            continue;
        }
        rig.spoilt_passed += 1;
        let source: IpAddr = match frame[12..14] {
            [0x08, 0x00] => <[u8; 4]>::try_from(&frame[26..30]).unwrap().into(),
            [0x86, 0xdd] => <[u8; 16]>::try_from(&frame[22..38]).unwrap().into(),
            ref other => panic!("seed {seed}: {} sent {other:x?}: {frame:x?}", port.id),
        };
        let sender = <[u8; 6]>::try_from(&frame[6..12]).unwrap();
        assert!(model::owns(wanted, port, source, sender), "seed {seed}: {} sent as {source}: {frame:x?}", port.id);
    }
}

#[test]
fn verdicts_are_those_of_a_simple_account() {
    if !root() {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let (first, cases) = match number("ORACLE_SEED") {
        Some(seed) => (seed, number("ORACLE_CASES").unwrap_or(1)),
        None => (u64::from(std::process::id()) << 32 | 1, number("ORACLE_CASES").unwrap_or(40)),
    };
    let mut cloud = Cloud::new("oracle");
    let config = cloud.node(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let plane = runtime.block_on(DataPlane::open(config.clone())).unwrap();
    let base = some_cloud(&mut Dice(first | 1));
    runtime.block_on(apply(&plane, &base));
    // The programs are run where the devices are.
    nix::sched::setns(std::fs::File::open(ns_path(&config.prefix)).unwrap(), nix::sched::CloneFlags::CLONE_NEWNET)
        .unwrap();
    let index = |p: &Port| nix::net::if_::if_nametoindex(tap_name(&p.id).as_str()).unwrap();
    let devices = base.ports.iter().map(index).collect();
    let mut rig = Rig {
        kernel: Kernel::open(&config.state_dir.join("bpf")),
        devices,
        passed: 0,
        packets: 0,
        spoilt: 0,
        spoilt_passed: 0,
    };
    for seed in first..first + cases {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut wanted = some_cloud(&mut dice);
        runtime.block_on(apply(&plane, &wanted));
        rig.kernel.forget(&rig.devices);
        let (mut model, mut old) = (Model::default(), Vec::new());
        for n in 1..=PACKETS {
            step(&mut dice, &mut rig, &mut model, &wanted, &mut old, seed);
            if n % 80 == 0 {
                change(&mut dice, &mut wanted);
                runtime.block_on(apply(&plane, &wanted));
            }
        }
        spoil(&mut dice, &mut rig, &wanted, &old, seed);
    }
    assert!(rig.spoilt_passed * 100 > rig.spoilt, "{} of {} spoilt frames passed", rig.spoilt_passed, rig.spoilt);
    eprintln!("seeds from {first}: {} packets, {} delivered", rig.packets, rig.passed);
    assert!(rig.passed * 50 > rig.packets, "hardly anything is let through: nothing is said by that");
    runtime.block_on(plane.close()).unwrap();
}
