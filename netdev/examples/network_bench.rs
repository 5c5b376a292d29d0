//! What `tests/bench/network` measures with: probes that run in a namespace, and our packet path to point them at.
//!
//! ```text
//!   send NS ADDRESS PORT COUNT   processor time of one thread for each 64-byte packet, ns
//!   rtt NS ADDRESS PORT COUNT    round trips: median, 99 of 100, us
//!   sink NS ADDRESS PORT         takes what comes to PORT, answers what comes to PORT + 1, until its input ends
//!   plane PREFIX DIR here|far    our path with two guests, until its input ends
//!   rules PREFIX DIR PORTS       what a changed rule costs with so many ports on one host
//! ```
//! Delivery runs in the sender's own time on the way through veth devices, so that the sender's thread pays for all of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::sys::socket::{setsockopt, sockopt::RcvBuf};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;
use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

/// A frame of 64 bytes without its check sequence: Ethernet, IPv4 and UDP headers take 42.
const PAYLOAD: [u8; 22] = [0; 22];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["send", ns, to, port, count] => send(ns, to, port.parse().unwrap(), count.parse().unwrap()),
        ["rtt", ns, to, port, count] => rtt(ns, to, port.parse().unwrap(), count.parse().unwrap()),
        ["sink", ns, address, port] => sink(ns, address, port.parse().unwrap()),
        ["plane", prefix, dir, place] => wait_for(plane(prefix, dir, place == "far")),
        ["rules", prefix, dir, ports] => wait_for(rules(prefix, dir, ports.parse().unwrap())),
        _ => panic!("see the file's head"),
    }
}

fn wait_for(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(work);
}

fn enter(ns: &str) {
    setns(File::open(format!("/run/netns/{ns}")).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
    let mut cpu = CpuSet::new();
    let which = std::env::var("BENCH_CPU").ok().and_then(|c| c.parse().ok()).unwrap_or(0);
    cpu.set(which).unwrap();
    sched_setaffinity(Pid::from_raw(0), &cpu).unwrap();
}

fn spent() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

fn send(ns: &str, to: &str, port: u16, count: u32) {
    enter(ns);
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect((to, port)).unwrap();
    // The first packets find neighbours, routes and flows.
    for _ in 0..64 {
        let _ = socket.send(&PAYLOAD);
    }
    let before = spent();
    for _ in 0..count {
        let _ = socket.send(&PAYLOAD);
    }
    println!("{}", (spent() - before).as_nanos() / u128::from(count));
}

fn rtt(ns: &str, to: &str, port: u16, count: usize) {
    enter(ns);
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect((to, port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut buffer = [0; 64];
    let mut times: Vec<Duration> = Vec::new();
    let mut lost = 0;
    while times.len() < count {
        let start = Instant::now();
        socket.send(&PAYLOAD).unwrap();
        match socket.recv(&mut buffer) {
            Ok(_) => times.push(start.elapsed()),
            Err(_) => lost += 1,
        }
        assert!(lost < 5, "{lost} lost, {} came back", times.len());
    }
    times.sort_unstable();
    let at = |part: usize| times[times.len() * part / 100].as_nanos() as f64 / 1000.0;
    println!("{:.1} {:.1}", at(50), at(99));
}

fn sink(ns: &str, address: &str, port: u16) {
    enter(ns);
    let taker = UdpSocket::bind((address, port)).unwrap();
    setsockopt(&taker, RcvBuf, &1).unwrap();
    let echo = UdpSocket::bind((address, port + 1)).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((n, from)) = echo.recv_from(&mut buffer) {
            let _ = echo.send_to(&buffer[..n], from);
        }
    });
    until_told();
}

fn until_told() {
    println!("ready");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn network(mtu: u16) -> Network {
    let subnet = Subnet {
        id: "sub".into(),
        cidr: "10.0.0.0/16".parse().unwrap(),
        gateway: None,
        dhcp: true,
        dhcp_server: Some(Ipv4Addr::new(10, 0, 255, 254)),
        dns: vec![],
        routes: vec![],
        lease_seconds: 3600,
        ra: None,
    };
    Network {
        id: "net".into(),
        vni: 100,
        mtu,
        external: false,
        vlan: 0,
        service_tag: false,
        transparent: false,
        subnets: vec![subnet],
    }
}

fn mac(n: u32) -> Mac {
    let [_, a, b, c] = n.to_be_bytes();
    Mac([2, 0, 0, a, b, c])
}

fn address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 + n)
}

fn port(n: u32, group: &str) -> Port {
    Port {
        id: format!("port-{n}"),
        network: "net".into(),
        mac: mac(n),
        fixed: vec![Fixed { subnet: "sub".into(), address: address(n).into() }],
        groups: vec![group.into()],
        secured: true,
        up: true,
        allowed_pairs: vec![],
        hostname: format!("h{n}"),
        dhcp_options: vec![],
        metadata: true,
        parent: None,
        idle: false,
    }
}

fn remote(n: u32, host: u8, group: &str) -> Remote {
    Remote {
        port: format!("port-{n}"),
        network: "net".into(),
        mac: mac(n),
        addresses: vec![address(n).into()],
        vtep: Ipv4Addr::new(10, 255, 0, host),
        groups: vec![group.into()],
    }
}

fn rule(id: &str, direction: Direction, protocol: Option<u8>, ports: Ports, peer: Peer) -> Rule {
    Rule { id: id.into(), direction, family: Family::V4, protocol, ports, peer }
}

/// All out; in from members of the same group.
fn group(id: &str) -> Group {
    let rules = vec![
        rule("out", Direction::Egress, None, Ports::Any, Peer::Any),
        rule("in", Direction::Ingress, None, Ports::Any, Peer::Group(id.into())),
    ];
    Group { id: id.into(), stateful: true, rules }
}

async fn node(prefix: &str, dir: &str, n: u8, far: bool) -> DataPlane {
    let underlay = Underlay { device: "under0".into(), address: Ipv4Addr::new(10, 255, 0, n), encryption: None };
    let config = Config {
        prefix: format!("{prefix}-{n}"),
        state_dir: format!("{dir}/{n}").into(),
        underlay: far.then_some(underlay),
        external: External::None,
        join_edge: None,
        notes: NoteRate::default(),
    };
    DataPlane::open(config).await.unwrap()
}

async fn apply(plane: &DataPlane, wanted: &Wanted) {
    let applied = plane.apply(wanted).await.unwrap();
    assert!(applied.errors.is_empty() && applied.ports.iter().all(|p| p.wired), "{:?}", applied.errors);
}

/// Guests are the namespaces `PREFIX-g1` and `PREFIX-g2`; for `far` the namespaces `PREFIX-1` and `PREFIX-2` have `under0`.
async fn plane(prefix: &str, dir: &str, far: bool) {
    let base = Wanted { networks: vec![network(1450)], groups: vec![group("g")], ..Wanted::default() };
    let one = node(prefix, dir, 1, far).await;
    let two = if far { Some(node(prefix, dir, 2, far).await) } else { None };
    let mut here = Wanted { ports: vec![port(11, "g")], ..base.clone() };
    if let Some(two) = &two {
        here.remotes.push(remote(12, 2, "g"));
        let there = Wanted { ports: vec![port(12, "g")], remotes: vec![remote(11, 1, "g")], ..base };
        apply(two, &there).await;
    } else {
        here.ports.push(port(12, "g"));
    }
    apply(&one, &here).await;
    let guest = |n: u8| ns_path(&format!("{prefix}-g{n}"));
    one.open_veth("port-11", &guest(1), "eth0").await.unwrap();
    two.as_ref().unwrap_or(&one).open_veth("port-12", &guest(2), "eth0").await.unwrap();
    until_told();
    one.close().await.unwrap();
    if let Some(two) = two {
        two.close().await.unwrap();
    }
}

/// Every hundredth port has a device, the others share it by tags; each has a group of its own, so that nothing is saved
/// by what ports have in common. Guest and probe are namespaces `PREFIX-g1` and `PREFIX-g2`.
async fn rules(prefix: &str, dir: &str, ports: u32) {
    let name = |n: u32| format!("g{n}");
    let mut wanted = Wanted { networks: vec![network(1450)], ..Wanted::default() };
    for n in 0..ports {
        let mut port = port(n + 11, &name(n));
        let vlan = u16::try_from(n % 100).unwrap();
        port.parent = (vlan > 0).then(|| Parent { port: format!("port-{}", n + 11 - n % 100), vlan });
        wanted.ports.push(port);
        wanted.groups.push(group(&name(n)));
    }
    // The second device's port is the probe.
    let target = 100;
    let plane = node(prefix, dir, 1, false).await;
    let start = Instant::now();
    apply(&plane, &wanted).await;
    let first = start.elapsed();
    plane.open_veth("port-11", &ns_path(&format!("{prefix}-g1")), "eth0").await.unwrap();
    plane.open_veth(&format!("port-{}", target + 11), &ns_path(&format!("{prefix}-g2")), "eth0").await.unwrap();
    apply(&plane, &wanted).await;
    let (from, to) = (socket_in(prefix, 1, address(11)), socket_in(prefix, 2, address(target + 11)));
    let port = to.local_addr().unwrap().port();
    from.connect((address(target + 11), port)).unwrap();
    let mut whole = Vec::new();
    let mut change = Vec::new();
    for round in 0..60u32 {
        let fast = round >= 10;
        let mut group = group(&name(target));
        if round % 2 == 0 {
            group.rules.push(rule("one", Direction::Ingress, Some(17), Ports::Range(port, port), Peer::Any));
        }
        wanted.groups[target as usize] = group.clone();
        let start = Instant::now();
        if fast {
            plane.regroup(vec![group]).await.unwrap();
        } else {
            apply(&plane, &wanted).await;
        }
        from.send(&PAYLOAD).unwrap();
        // Closed again: nothing comes, which takes no time to see.
        let came = to.recv(&mut [0; 64]).is_ok();
        let took = start.elapsed();
        assert_eq!(came, round % 2 == 0, "the rule has taken effect");
        if came && round > 1 {
            if fast { &mut change } else { &mut whole }.push(took);
        }
    }
    let of = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        let ms = |d: Duration| d.as_secs_f64() * 1000.0;
        (ms(times[times.len() / 2]), ms(times[times.len() - 1]))
    };
    let ((whole, _), (median, most)) = (of(&mut whole), of(&mut change));
    println!("{:.0} {whole:.3} {median:.3} {most:.3}", first.as_secs_f64() * 1000.0);
    plane.close().await.unwrap();
}

fn socket_in(prefix: &str, n: u8, address: Ipv4Addr) -> UdpSocket {
    let ns = format!("{prefix}-g{n}");
    let open = move || {
        enter(&ns);
        let ip = |args: &str| {
            assert!(std::process::Command::new("ip").args(args.split(' ')).status().unwrap().success(), "ip {args}");
        };
        ip(&format!("addr add {address}/16 dev eth0"));
        let socket = UdpSocket::bind((address, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        socket
    };
    std::thread::spawn(open).join().unwrap()
}
