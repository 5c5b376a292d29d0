//! Prefix delegation with a real delegating server (Kea) on the provider's link, and with one that nobody should believe.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
use crate::cloud::six::*;
use crate::cloud::*;
use ipnet::Ipv6Net;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;
use std::net::Ipv6Addr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime};

const ID: &str = "r/s";
const KEA: &str = "/usr/sbin/kea-dhcp6";

/// Whether this can run; says so when not.
fn able() -> bool {
    let able = Path::new(KEA).exists();
    if !able {
        eprintln!("SKIPPED: needs kea-dhcp6-server");
    }
    root() && able
}

fn asked(had: Option<(Ipv6Net, u64)>) -> Vec<Delegation> {
    vec![Delegation { id: ID.into(), ask: Some(Ask { mac: gateway6(0x10).mac, had }) }]
}

/// One guest on a network that has no prefix yet.
fn bare() -> Wanted {
    let mut inside = network6("n", 100, 0, None);
    inside.subnets.clear();
    Wanted {
        networks: vec![inside, external()],
        ports: vec![Port { fixed: vec![], ..port("a", "n", 1, "fd00::11", &["g"]) }],
        groups: vec![open6("g")],
        routers: vec![Router { gateway6: Some(gateway6(0x10)), ..router("r", vec![], None) }],
        delegations: asked(None),
        ..Wanted::default()
    }
}

fn guests(prefix: Ipv6Net) -> String {
    let own = u128::from(prefix.addr()) | 0xf816_3eff_fe00_0001;
    Ipv6Addr::from(own).to_string()
}

/// The same with the prefix.
fn with(prefix: Ipv6Net, until: u64) -> Wanted {
    let mut wanted = bare();
    let first = Ipv6Addr::from(u128::from(prefix.addr()) | 1);
    let mut inside = network6("n", 100, 0, Some(Ra::Slaac));
    inside.subnets[0].cidr = prefix.into();
    inside.subnets[0].gateway = Some(first.into());
    wanted.networks[0] = inside;
    wanted.ports = vec![port("a", "n", 1, &guests(prefix), &["g"])];
    wanted.ports[0].fixed[0].subnet = "n-sub".into();
    wanted.routers[0].interfaces = vec![Interface { address: first.into(), ..leg6("n", 0, 1) }];
    wanted.lent = vec![LentSubnet { subnet: "n-sub".into(), until }];
    wanted
}

/// The provider: an address, somebody further away, and (told by hand) the way to what it lends.
fn provider(cloud: &Cloud, plane: &DataPlane) -> Guest {
    let edge = Guest::at(&plane.ns_path(Ns::Edge).unwrap(), cloud);
    edge.sh(
        "sysctl -qw net.ipv6.conf.ext0.disable_ipv6=0 net.ipv6.conf.lo.disable_ipv6=0 net.ipv6.conf.all.forwarding=1",
    );
    edge.sh(
        "ip addr add 2001:db8:e::1/64 dev ext0 nodad; ip addr add 2001:db8:ffff::1/128 dev lo nodad; ip link set lo up",
    );
    assert!(soon(|| edge.sh("ip -6 addr show dev ext0 scope link -tentative").contains("fe80::")));
    edge
}

/// Kea lends from `2001:db8:4000::/40` for `valid` seconds; renewed after a fifth of that.
fn kea(edge: &Guest, dir: &Path, valid: u32) -> Child {
    let config = format!(
        r#"{{"Dhcp6": {{
            "interfaces-config": {{"interfaces": ["ext0"]}},
            "lease-database": {{"type": "memfile", "persist": true, "name": "{dir}/leases", "lfc-interval": 0}},
            "server-id": {{"type": "LL", "persist": false}},
            "preferred-lifetime": {half}, "valid-lifetime": {valid}, "renew-timer": {fifth}, "rebind-timer": {half},
            "subnet6": [{{"subnet": "2001:db8:e::/64", "interface": "ext0",
                "pd-pools": [{{"prefix": "2001:db8:4000::", "prefix-len": 40, "delegated-len": 64}}]}}],
            "loggers": [{{"name": "kea-dhcp6", "severity": "INFO", "output_options": [{{"output": "{dir}/log"}}]}}]
        }}}}"#,
        dir = dir.display(),
        half = valid / 2,
        fifth = valid / 5,
    );
    let file = dir.join("kea.json");
    std::fs::write(&file, config).unwrap();
    // Of one that was killed.
    let _ = std::fs::remove_file(dir.join("kea.kea-dhcp6.pid"));
    let mut command = edge.command(KEA, &["-c", &file.display().to_string()]);
    command.env("KEA_PIDFILE_DIR", dir).env("KEA_LOCKFILE_DIR", "none").env("KEA_DHCP_DATA_DIR", dir);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The last word of Kea's file about each lease: address and lifetime.
fn leases(dir: &Path) -> Vec<(String, u32)> {
    let text = std::fs::read_to_string(dir.join("leases")).unwrap_or_default();
    let mut out: Vec<(String, u32)> = Vec::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let lease = (fields[0].to_owned(), fields[2].parse().unwrap());
        out.retain(|l| l.0 != lease.0);
        out.push(lease);
    }
    out
}

fn the_one(plane: &DataPlane) -> Option<Delegated> {
    plane.delegations().borrow().told.first().cloned()
}

async fn until<T>(what: &str, seconds: u64, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn lent(plane: &DataPlane) -> (Ipv6Net, u64) {
    until("a prefix", 70, || the_one(plane).and_then(|d| Some((d.prefix?, d.until)))).await
}

fn route(edge: &Guest, prefix: Ipv6Net) {
    edge.sh(&format!("ip -6 route replace {prefix} via fe80::f816:3eff:fe02:10 dev ext0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lent_prefix_reaches_guests_and_is_kept_renewed_and_given_back() {
    if !able() {
        return;
    }
    let mut cloud = Cloud::new("pd");
    let config = cloud.config();
    let plane = DataPlane::open(config.clone()).await.unwrap();
    let edge = provider(&cloud, &plane);
    let dir = tempfile::tempdir().unwrap();
    cloud.background(kea(&edge, dir.path(), 40));
    apply(&plane, &bare()).await;
    let (prefix, end) = lent(&plane).await;
    assert!("2001:db8:4000::/40".parse::<Ipv6Net>().unwrap().contains(&prefix), "{prefix}");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert!((now + 35..=now + 41).contains(&end), "{now} {end}");

    apply(&plane, &with(prefix, end)).await;
    route(&edge, prefix);
    let a = guest6(&mut cloud, &plane, "a", None).await;
    let has = || a.sh("ip -6 addr show dev eth0 scope global");
    assert!(soon(|| has().contains(&guests(prefix))), "{}", has());
    let valid: u32 = has().split("valid_lft ").nth(1).unwrap().split("sec").next().unwrap().parse().unwrap();
    assert!(valid <= 40, "no longer than it is lent: {valid}");
    assert!(soon(|| pings(&a, "2001:db8:ffff::1")), "{:?}", plane.stats());
    assert!(pings(&edge, &guests(prefix)), "nothing is translated: {:?}", plane.stats());
    assert!(edge.sh("ip -6 neigh show dev ext0").contains("fe80::f816:3eff:fe02:10 lladdr fa:16:3e:02:00:10"));

    // Renewed long before its end, by the same name.
    let later = until("a renewal", 20, || the_one(&plane).map(|d| d.until).filter(|u| *u > end + 5)).await;
    assert_eq!(leases(dir.path()).len(), 1);
    // A new process goes on with what the old one had written down, and asks for nothing before it is time.
    let kept = plane.delegations().borrow().kept.clone();
    assert_eq!(kept.len(), 1);
    drop(plane);
    let requests = || std::fs::read_to_string(dir.path().join("log")).unwrap().matches("LEASE_ALLOC").count();
    let before = requests();
    let plane = DataPlane::open(config).await.unwrap();
    plane.keep_delegations(kept);
    apply(&plane, &with(prefix, later)).await;
    let still = until("what was kept", 3, || the_one(&plane)).await;
    assert_eq!((still.prefix, requests()), (Some(prefix), before));
    assert!(pings(&a, "2001:db8:ffff::1"));

    // Given back: the server knows, and guests hear that it is over.
    let mut end = bare();
    end.delegations[0].ask = None;
    apply(&plane, &end).await;
    let done = until("it is given back", 10, || the_one(&plane).filter(|d| d.released)).await;
    assert_eq!(done.prefix, None);
    assert_eq!(leases(dir.path()), [(prefix.addr().to_string(), 0)], "a lease of no time");
    assert!(soon(|| has().is_empty() || has().contains("deprecated")), "{}", has());
    apply(&plane, &Wanted { delegations: vec![], ..end }).await;
    until("nothing is wanted", 3, || plane.delegations().borrow().told.is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_takes_a_prefix_over_and_the_first_gives_nothing_back() {
    if !able() {
        return;
    }
    let mut cloud = Cloud::new("pdmove");
    let one = DataPlane::open(cloud.node(1)).await.unwrap();
    let two = DataPlane::open(cloud.node(2)).await.unwrap();
    let edge = provider(&cloud, &one);
    let dir = tempfile::tempdir().unwrap();
    cloud.background(kea(&edge, dir.path(), 120));
    apply(&one, &bare()).await;
    let (prefix, end) = lent(&one).await;
    // The way out moves: the first host is told of nothing any more, the other of what there was.
    let mut away = bare();
    away.delegations.clear();
    away.routers[0].gateway6 = Some(Gateway6 { vtep: Some(vtep(2)), ..gateway6(0x10) });
    apply(&one, &away).await;
    apply(&two, &Wanted { delegations: asked(Some((prefix, end))), ..bare() }).await;
    let got = lent(&two).await;
    assert_eq!(got.0, prefix);
    assert!(one.delegations().borrow().kept.is_empty());
    assert_eq!(leases(dir.path()), [(prefix.addr().to_string(), 120)], "the same lease of the same client");
    // What nobody has lent is not taken for a prefix.
    let other = "2001:db8:9999::/64".parse().unwrap();
    apply(&two, &Wanted { delegations: vec![], ..bare() }).await;
    let mut wrong = asked(Some((other, end)));
    wrong[0].id = "r/t".into();
    apply(&two, &Wanted { delegations: wrong, ..bare() }).await;
    let (new, _) = lent(&two).await;
    assert!(new != other && new != prefix, "{new}");
}

/// Answers everything in ways that no client should believe: broken, of others, too much, and prefixes that are none.
const LIAR: &str = r#"import socket, struct, os
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
i = socket.if_nametoindex('ext0')
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(socket.AF_INET6, 'ff02::1:2') + struct.pack('@I', i))
s.bind(('::', 547))
o = lambda c, v: struct.pack('!HH', c, len(v)) + v
def ia(n, p, t1=0, t2=0): return o(25, n + struct.pack('!II', t1, t2) + p)
def pre(a, l=64, pref=100, val=200): return o(26, struct.pack('!IIB', pref, val, l) + socket.inet_pton(socket.AF_INET6, a))
print('up', flush=True)
while True:
    m, a = s.recvfrom(2000)
    x, c, n, at = m[1:4], b'', b'', 4
    while at + 4 <= len(m):
        code, ln = struct.unpack('!HH', m[at:at+4])
        v = m[at+4:at+4+ln]
        if code == 1: c = v
        if code == 25: n = v[:4]
        at += 4 + ln
    me = o(1, c) + o(2, b'\0\3\0\1liar!!') + o(7, b'\xff')
    for t in (2, 7):
        h = bytes([t]) + x + me
        for body in (os.urandom(60), b'\0\x19\xff\xff', ia(n, b'\0\x1a\0\1\0'), ia(n, pre('fe80::')), ia(n, pre('ff02::')), ia(n, pre('::')),
                     ia(n, pre('2001:db8::', 65)), ia(n, pre('2001:db8::', 64, 300)), ia(n, pre('2001:db8::', 64, 1, 2)),
                     ia(n, pre('2001:db8::'), 90, 80), ia(b'nope', pre('2001:db8:bad::'))):
            s.sendto(h + body, a)
        s.sendto(bytes([t]) + b'\0\0\0' + me + ia(n, pre('2001:db8:bad::')), a)
        s.sendto(bytes([t]) + x + o(1, b'somebody') + o(2, b'\0\3\0\1liar!!') + ia(n, pre('2001:db8:bad::')), a)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn silence_and_lies_end_in_no_prefix_and_a_server_that_comes_later_is_found() {
    if !able() {
        return;
    }
    let mut cloud = Cloud::new("pdlies");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let edge = provider(&cloud, &plane);
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("liar.py");
    std::fs::write(&script, LIAR).unwrap();
    let mut liar = edge.spawn(&format!("python3 -u {}", script.display()));
    let mut line = [0u8; 3];
    std::io::Read::read_exact(liar.stdout.as_mut().unwrap(), &mut line).unwrap();
    apply(&plane, &bare()).await;
    let punted = || plane.stats().unwrap().drops.get("dhcp").copied().unwrap_or(0);
    until("more than it may say", 20, || (punted() > 0).then_some(())).await;
    assert_eq!(the_one(&plane).map(|d| d.prefix), Some(None), "nothing of that is a prefix");
    liar.kill().unwrap();
    liar.wait().unwrap();

    let mut server = kea(&edge, dir.path(), 15);
    let (prefix, end) = lent(&plane).await;
    apply(&plane, &with(prefix, end)).await;
    route(&edge, prefix);
    let a = guest6(&mut cloud, &plane, "a", None).await;
    let has = || a.sh("ip -6 addr show dev eth0 scope global");
    assert!(soon(|| has().contains(&guests(prefix))), "{}", has());
    assert!(soon(|| pings(&a, "2001:db8:ffff::1")), "{:?}", plane.stats());
    // The server dies: the prefix lasts as long as it was lent, and no longer.
    server.kill().unwrap();
    server.wait().unwrap();
    let died = Instant::now();
    until("its end", 40, || the_one(&plane).filter(|d| d.prefix.is_none())).await;
    assert!(died.elapsed() > Duration::from_secs(8), "{:?}", died.elapsed());
    apply(&plane, &bare()).await;
    assert!(soon(|| has().is_empty() || has().contains("deprecated")), "{}", has());
    assert!(!pings(&a, "2001:db8:ffff::1"));
    // And its successor is found.
    cloud.background(kea(&edge, dir.path(), 60));
    assert!(lent(&plane).await.1 > end);
}
