//! Next hops that are watched, by a real BIRD behind each of them: which way packets take while one is dead, and when it is back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
use crate::cloud::six::*;
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

const BIRD: &str = "/usr/sbin/bird";

/// Whether this can run; says so when not.
fn able() -> bool {
    let able = Path::new(BIRD).exists();
    if !able {
        eprintln!("SKIPPED: needs bird2");
    }
    root() && able
}

/// Answers everybody with its name and who he seems to be, for both families.
const TELLER: &str = r#"
import select, socket, sys
four = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); four.bind(("192.0.2.99", 7000))
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); six.bind(("2001:db8:ffff::1", 7000))
print("ready", flush=True)
while True:
    for s in select.select([four, six], [], [])[0]:
        d, a = s.recvfrom(9)
        s.sendto((sys.argv[1] + "/" + a[0]).encode(), a)
"#;

/// One of the provider's routers, on the wire of the edge namespace, with what is further away behind it.
struct Hop {
    guest: Guest,
    bird: Option<Child>,
    dir: std::path::PathBuf,
    last: u8,
}

impl Hop {
    /// At 203.0.113.`last` and 2001:db8:e::`last`; the router of ours that it leads to is at `ours` there.
    fn new(cloud: &mut Cloud, edge: &Guest, last: u8, ours: u8) -> Self {
        let guest = cloud.guest(&format!("hop{last}"));
        edge.sh(&format!("ip link add hop{last} type veth peer name eth0 netns {}", guest.ns.display()));
        edge.sh(&format!("ip link set hop{last} master ext0 up"));
        guest.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.eth0.disable_ipv6=0 net.ipv6.conf.lo.disable_ipv6=0");
        let hop = Self::on(cloud, guest, last);
        hop.connect(ours);
        hop
    }

    /// With an `eth0` that is there.
    fn on(cloud: &mut Cloud, guest: Guest, last: u8) -> Self {
        guest.sh("ip addr add 192.0.2.99/32 dev lo; ip addr add 2001:db8:ffff::1/128 dev lo nodad; ip link set lo up");
        let mut teller = guest.command("python3", &["-c", TELLER, &format!("hop{last}")]);
        let mut teller = teller.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = [0u8; 6];
        std::io::Read::read_exact(teller.stdout.as_mut().unwrap(), &mut line).unwrap();
        cloud.background(teller);
        let dir = cloud.dir.path().join(format!("hop{last}"));
        std::fs::create_dir(&dir).unwrap();
        Self { guest, bird: None, dir, last }
    }

    /// The link, with addresses and the way back to what is behind our router.
    fn connect(&self, ours: u8) {
        let last = self.last;
        self.guest.sh(&format!(
            "ip link set eth0 up; ip addr replace 203.0.113.{last}/24 dev eth0; ip addr replace 2001:db8:e::{last}/64 dev eth0 nodad; \
             ip -6 route replace fd00:5::/64 via 2001:db8:e::{ours:x}"
        ));
    }

    fn cut(&self) {
        self.guest.sh("ip link set eth0 down");
    }

    /// Starts BIRD with sessions to some of our addresses.
    fn speak(&mut self, with: &[&str]) {
        let neighbours: String = with.iter().map(|ip| format!("  neighbor {ip} dev \"eth0\";\n")).collect();
        let config = format!(
            "router id 10.9.9.{};\nprotocol device {{ scan time 1; }}\nprotocol bfd {{\n  interface \"eth0\" {{ min rx interval 100 ms; min tx interval 100 ms; multiplier 3; }};\n{neighbours}}}\n",
            self.last
        );
        let file = self.dir.join("bird.conf");
        std::fs::write(&file, config).unwrap();
        let mut command = self.guest.command(BIRD, &["-f", "-c", &file.display().to_string()]);
        command.arg("-s").arg(self.dir.join("ctl")).stdout(Stdio::null()).stderr(Stdio::null());
        self.bird = Some(command.spawn().unwrap());
    }

    fn hush(&mut self) {
        if let Some(mut bird) = self.bird.take() {
            bird.kill().unwrap();
            bird.wait().unwrap();
        }
    }

    /// What BIRD thinks of its sessions: address and state.
    fn sessions(&self) -> BTreeSet<(String, String)> {
        let ctl = self.dir.join("ctl");
        let said = self.guest.try_sh(&format!("birdc -s {} show bfd sessions", ctl.display())).stdout_text();
        let row = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let address: IpAddr = words.first()?.parse().ok()?;
            Some((address.to_string(), (*words.get(2)?).to_owned()))
        };
        said.lines().filter_map(row).collect()
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        if let Some(bird) = &mut self.bird {
            let _ = bird.kill();
            let _ = bird.wait();
        }
    }
}

fn via4(last: u8, hop: u8) -> Gateway {
    Gateway { next_hop: Some([203, 0, 113, hop].into()), ..gateway(last) }
}

fn via6(last: u8, hop: u16) -> Gateway6 {
    let hop = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0xe, 0, 0, 0, 0, hop);
    let mac = Mac([0xfa, 0x16, 0x3e, 2, 6, last]);
    Gateway6 { next_hop: Some(hop), mac, ..gateway6(last) }
}

/// A guest of each family behind a router with two ways out, by .2 and .3.
fn two_ways(balanced: bool) -> Wanted {
    let way = |out| Way { router: "r".into(), out, balanced };
    let mut group = open_group("g");
    group.rules.extend(open6("six").rules);
    Wanted {
        networks: vec![network("n0", 100, 0), network6("m0", 110, 5, None), external()],
        ports: vec![port("a", "n0", 1, "10.0.0.11", &["g"]), port("d", "m0", 4, "fd00:5::11", &["g"])],
        groups: vec![group],
        routers: vec![Router {
            gateway6: Some(via6(0x10, 2)),
            ..router("r", vec![leg("n0", 0, 1), leg6("m0", 5, 3)], Some(via4(10, 2)))
        }],
        ways: vec![way(Out::V4(via4(20, 3))), way(Out::V6(via6(0x20, 3)))],
        bfd: vec!["r".into()],
        ..Wanted::default()
    }
}

struct Guests {
    four: Guest,
    six: Guest,
}

impl Guests {
    async fn new(cloud: &mut Cloud, plane: &DataPlane) -> Self {
        let four = cloud.guest("a");
        plane.open_veth("a", &four.ns, "eth0").await.unwrap();
        four.sh("ip link set eth0 mtu 1450 up");
        four.address("10.0.0.11/24", Some("10.0.0.1"));
        let six = guest6(cloud, plane, "d", Some("fd00:5::11")).await;
        six.sh("ip -6 route add default via fd00:5::1");
        Self { four, six }
    }

    /// Which next hops answer some new flows of each family; "-": none.
    fn see(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let ask = |guest: &Guest, family: u8, to: &str| -> BTreeSet<String> {
            let ask = format!(
                "import socket\nfor n in range(24):\n s=socket.socket({family},2);s.settimeout(0.3);s.connect(('{to}',7000))\n s.send(b'x')\n try: print(s.recv(99).decode().split('/')[0])\n except OSError: print('-')"
            );
            let said = text(&guest.command("python3", &["-c", &ask]).output().unwrap().stdout);
            said.split_whitespace().map(str::to_owned).collect()
        };
        (ask(&self.four, 2, "192.0.2.99"), ask(&self.six, 10, "2001:db8:ffff::1"))
    }

    /// Both families see just these within a while.
    fn come_to(&self, hops: &[&str]) -> bool {
        let all: BTreeSet<String> = hops.iter().map(|h| (*h).to_owned()).collect();
        soon(|| self.see() == (all.clone(), all.clone()))
    }
}

/// Waits until the sessions to next hops whose address ends so are in a state, and routes lead there or not.
async fn until(plane: &DataPlane, end: &str, state: &str, taken: bool, seconds: u64) {
    let mut known = plane.watched_hops();
    let so = |all: &Vec<WatchedHop>| {
        let mut of = all.iter().filter(|w| w.next_hop.to_string().ends_with(end)).peekable();
        of.peek().is_some() && of.all(|w| w.state == state && w.taken == taken)
    };
    let waited = tokio::time::timeout(Duration::from_secs(seconds), known.wait_for(so)).await.is_ok();
    assert!(waited, "{end} {state}: {:?} {:?}", known.borrow(), plane.stats().map(|s| s.drops));
}

const FIRST: [&str; 2] = ["203.0.113.10", "2001:db8:e::10"];
const SECOND: [&str; 2] = ["203.0.113.20", "2001:db8:e::20"];

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_next_hop_is_left_out_and_comes_back() {
    if !able() {
        return;
    }
    let mut cloud = Cloud::new("bfd");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let edge = Guest::at(&plane.ns_path(Ns::Edge).unwrap(), &cloud);
    apply(&plane, &Wanted { bfd: vec![], ..two_ways(true) }).await;
    let mut one = Hop::new(&mut cloud, &edge, 2, 0x10);
    let mut two = Hop::new(&mut cloud, &edge, 3, 0x20);
    let guests = Guests::new(&mut cloud, &plane).await;
    assert!(guests.come_to(&["hop2", "hop3"]), "{:?} {:?}", guests.see(), plane.stats());
    assert!(plane.watched_hops().borrow().is_empty(), "nobody has asked for it");

    one.speak(&FIRST);
    two.speak(&SECOND);
    apply(&plane, &two_ways(true)).await;
    until(&plane, ".2", "up", true, 20).await;
    until(&plane, "::3", "up", true, 20).await;
    let up = |ends: [&str; 2]| ends.map(|ip| (ip.to_owned(), "Up".to_owned())).into_iter().collect::<BTreeSet<_>>();
    assert!(soon(|| (one.sessions(), two.sessions()) == (up(FIRST), up(SECOND))), "{:?}", one.sessions());
    assert!(guests.come_to(&["hop2", "hop3"]), "{:?} {:?}", guests.see(), plane.stats());

    // The first is dead; then BIRD alone is, of the second; then the first is back.
    one.cut();
    until(&plane, ".2", "down", false, 10).await;
    until(&plane, "::2", "down", false, 10).await;
    assert!(guests.come_to(&["hop3"]), "{:?} {:?}", guests.see(), plane.stats());
    two.hush();
    until(&plane, ".3", "down", false, 10).await;
    until(&plane, "::3", "down", false, 10).await;
    assert!(guests.come_to(&["-"]), "no way is left: {:?}", guests.see());
    one.connect(0x10);
    until(&plane, ".2", "up", true, 20).await;
    until(&plane, "::2", "up", true, 20).await;
    assert!(guests.come_to(&["hop2"]), "{:?} {:?}", guests.see(), plane.stats());

    // Without spreading the second stands by.
    two.speak(&SECOND);
    apply(&plane, &two_ways(false)).await;
    until(&plane, ".3", "up", true, 20).await;
    until(&plane, "::3", "up", true, 20).await;
    assert!(guests.come_to(&["hop2"]), "{:?}", guests.see());
    one.cut();
    assert!(guests.come_to(&["hop3"]), "{:?} {:?}", guests.see(), plane.stats());

    // Watched no more: the other side is told so, and routes lead where they led.
    apply(&plane, &Wanted { bfd: vec![], ..two_ways(false) }).await;
    assert!(plane.watched_hops().wait_for(Vec::is_empty).await.is_ok());
    assert!(soon(|| two.sessions().iter().all(|(_, state)| state == "Down")), "{:?}", two.sessions());
    one.connect(0x10);
    assert!(guests.come_to(&["hop2"]), "{:?} {:?}", guests.see(), plane.stats());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_session_is_given_time_and_a_restart_loses_nothing() {
    if !able() {
        return;
    }
    let mut cloud = Cloud::new("bfdnew");
    let config = cloud.config();
    let plane = DataPlane::open(config.clone()).await.unwrap();
    let edge = Guest::at(&plane.ns_path(Ns::Edge).unwrap(), &cloud);
    let wanted = Wanted { ways: vec![], ..two_ways(false) };
    apply(&plane, &wanted).await;
    let mut hop = Hop::new(&mut cloud, &edge, 2, 0x10);
    let guests = Guests::new(&mut cloud, &plane).await;
    // It does not speak: as if it were dead, but not at once.
    until(&plane, ".2", "down", false, 20).await;
    until(&plane, "::2", "down", false, 20).await;
    assert!(guests.come_to(&["-"]), "{:?}", guests.see());
    assert!(edge.pings("203.0.113.10"), "only the default route is gone");
    hop.speak(&FIRST);
    until(&plane, ".2", "up", true, 20).await;
    until(&plane, "::2", "up", true, 20).await;
    assert!(guests.come_to(&["hop2"]), "{:?} {:?}", guests.see(), plane.stats());
    // Another process takes over: packets go on all the while.
    let ping = guests.four.command("ping", &["-n", "-q", "-i", "0.1", "-c", "60", "-W", "2", "192.0.2.99"]);
    let mut ping = { ping }.stdout(Stdio::piped()).spawn().unwrap();
    drop(plane);
    let plane = DataPlane::open(config).await.unwrap();
    apply(&plane, &wanted).await;
    until(&plane, ".2", "up", true, 20).await;
    until(&plane, "::2", "up", true, 20).await;
    let mut said = String::new();
    std::io::Read::read_to_string(ping.stdout.as_mut().unwrap(), &mut said).unwrap();
    ping.wait().unwrap();
    assert!(said.contains(" 0% packet loss"), "{said}");
}

/// Says that it is up, or nonsense, as loudly as it can: to an address of ours, from one of its own, with a hop limit, to a port.
const SHOUTER: &str = r#"
import os, socket, struct, sys
to, own, ttl, n = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
s.bind((own, 0))
good = struct.pack("!BBBBIIIII", 0x20, 0xc0, 3, 24, 5, 6, 1, 1, 0)
for i in range(n):
    s.sendto([good, os.urandom(24), good[:9], b"\x20\x40\x03\x18" + os.urandom(4) + bytes(16)][i % 4], (to, 3784))
"#;

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_not_heard_and_noise_of_one_next_hop_harms_no_other() {
    if !able() {
        return;
    }
    let mut cloud = Cloud::new("bfdnoise");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let edge = Guest::at(&plane.ns_path(Ns::Edge).unwrap(), &cloud);
    apply(&plane, &two_ways(true)).await;
    let mut one = Hop::new(&mut cloud, &edge, 2, 0x10);
    let mut two = Hop::new(&mut cloud, &edge, 3, 0x20);
    one.speak(&FIRST);
    two.speak(&SECOND);
    until(&plane, ".2", "up", true, 20).await;
    until(&plane, ".3", "up", true, 20).await;
    let drops = |reason: &str| plane.stats().unwrap().drops.get(reason).copied().unwrap_or(0);
    let shout = |who: &Guest, to: &str, own: &str, ttl: u8| {
        run(&mut who.command("python3", &["-c", SHOUTER, to, own, &ttl.to_string(), "400"]));
    };
    // A third on the wire, and the other one's next hop: nobody asked them. From afar it is not one either.
    edge.sh("ip addr add 203.0.113.99/24 dev ext0");
    for (who, to, own, ttl) in [
        (&edge, "203.0.113.10", "203.0.113.99", 255),
        (&two.guest, "203.0.113.10", "203.0.113.3", 255),
        (&one.guest, "203.0.113.10", "203.0.113.2", 254),
    ] {
        let (rate, nat) = (drops("rate"), drops("nat"));
        shout(who, to, own, ttl);
        assert!(drops("nat") >= nat + 400 && drops("rate") == rate, "{own} {ttl}: {:?}", plane.stats());
    }
    until(&plane, ".2", "up", true, 20).await;
    // The next hop itself may say anything, but not too much; the others are not concerned.
    let before = drops("rate");
    let args = ["-c", SHOUTER, "203.0.113.10", "203.0.113.2", "255", "100000000"];
    let mut noise = one.guest.command("python3", &args).spawn().unwrap();
    assert!(soon(|| drops("rate") > before + 1000), "{:?}", plane.stats());
    until(&plane, ".3", "up", true, 20).await;
    until(&plane, "::3", "up", true, 20).await;
    assert!(noise.try_wait().unwrap().is_none(), "all the while");
    noise.kill().unwrap();
    noise.wait().unwrap();
    until(&plane, ".2", "up", true, 20).await;
    until(&plane, "::2", "up", true, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_of_another_host_go_by_the_way_that_is_left() {
    if !able() {
        return;
    }
    let mut cloud = Cloud::new("bfdfar");
    let one = DataPlane::open(cloud.node(1)).await.unwrap();
    let two = DataPlane::open(cloud.node(2)).await.unwrap();
    let edge = Guest::at(&one.ns_path(Ns::Edge).unwrap(), &cloud);
    let mut base = two_ways(true);
    let at = Some(vtep(1));
    base.routers[0].gateway.as_mut().unwrap().vtep = at;
    base.routers[0].gateway6.as_mut().unwrap().vtep = at;
    for way in &mut base.ways {
        match &mut way.out {
            Out::V4(gateway) => gateway.vtep = at,
            Out::V6(gateway) => gateway.vtep = at,
        }
    }
    let remote = |port: &Port| Remote {
        port: port.id.clone(),
        network: port.network.clone(),
        mac: port.mac,
        addresses: port.fixed.iter().map(|f| f.address).collect(),
        vtep: vtep(2),
        groups: port.groups.clone(),
    };
    let remotes = base.ports.iter().map(remote).collect();
    apply(&one, &Wanted { ports: vec![], remotes, ..base.clone() }).await;
    apply(&two, &base).await;
    let mut hops = [Hop::new(&mut cloud, &edge, 2, 0x10), Hop::new(&mut cloud, &edge, 3, 0x20)];
    hops[0].speak(&FIRST);
    hops[1].speak(&SECOND);
    let guests = Guests::new(&mut cloud, &two).await;
    until(&one, ".2", "up", true, 20).await;
    until(&one, "::3", "up", true, 20).await;
    assert!(two.watched_hops().borrow().is_empty(), "only who holds the way speaks");
    assert!(guests.come_to(&["hop2", "hop3"]), "{:?} {:?} {:?}", guests.see(), one.stats(), two.stats());
    hops[0].cut();
    assert!(guests.come_to(&["hop3"]), "{:?} {:?} {:?}", guests.see(), one.stats(), two.stats());
}

/// Carries frames between the wire, where they have tags, and devices that know none: `tag,device`...
const PATCH: &str = r#"
import select, socket, struct, sys
def door(dev):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.bind((dev, 3)); s.setsockopt(263, 8, 1)
    return s
wire = door("eth0")
doors = {int(t): door(d) for t, d in (one.split(",") for one in sys.argv[1:])}
print("ready", flush=True)
while True:
    for s in select.select([wire, *doors.values()], [], [])[0]:
        b, aux, _, a = s.recvmsg(2000, 200)
        if a[2] == 4: continue
        st, _, _, _, _, tci, _ = struct.unpack("IIIHHHH", aux[0][2][:20])
        if s is wire:
            if st & 16 and tci & 0xfff in doors: doors[tci & 0xfff].send(b)
        else:
            tag = next(t for t, d in doors.items() if d is s)
            wire.send(b[:12] + struct.pack("!HH", 0x8100, tag) + b[12:])
"#;

#[tokio::test(flavor = "multi_thread")]
async fn next_hops_on_tagged_wires_are_told_apart() {
    if !able() {
        return;
    }
    let mut cloud = Cloud::new("bfdvlan");
    let config = Config { external: External::Device("phys0".into()), ..cloud.config() };
    cloud.keep(config.clone());
    let plane = DataPlane::open(config).await.unwrap();
    let node = Guest::at(&plane.ns_path(Ns::Node).unwrap(), &cloud);
    let wire = cloud.guest("wire");
    node.sh(&format!("ip link add phys0 type veth peer name eth0 netns {}", wire.ns.display()));
    wire.sh("ip link set eth0 up");
    node.sh("ip link set phys0 up");
    // The same addresses on two tags, those of ours and those of the next hops.
    let mut hops = Vec::new();
    for tag in [101, 102] {
        let guest = cloud.guest(&format!("hop{tag}"));
        wire.sh(&format!(
            "ip link add t{tag} type veth peer name eth0 netns {}; ip link set t{tag} up",
            guest.ns.display()
        ));
        guest.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.eth0.disable_ipv6=0 net.ipv6.conf.lo.disable_ipv6=0");
        guest.sh("ip addr add 192.0.2.99/32 dev lo; ip addr add 2001:db8:ffff::1/128 dev lo nodad; ip link set lo up");
        let dir = cloud.dir.path().join(format!("hop{tag}"));
        std::fs::create_dir(&dir).unwrap();
        let hop = Hop { guest, bird: None, dir, last: 2 };
        hop.connect(0x10);
        hops.push(hop);
    }
    let mut patch =
        wire.command("python3", &["-c", PATCH, "101,t101", "102,t102"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = [0u8; 6];
    std::io::Read::read_exact(patch.stdout.as_mut().unwrap(), &mut line).unwrap();
    cloud.background(patch);

    let tagged = |id: &str, vni: u32, vlan: u16| Network { id: id.into(), vni, vlan, ..external() };
    let mut wanted = two_ways(false);
    wanted.networks.truncate(2);
    wanted.networks.extend([tagged("ext", 9001, 101), tagged("other", 9002, 102)]);
    let other4 = Gateway { network: "other".into(), mac: Mac([0xfa, 0x16, 0x3e, 2, 1, 1]), ..via4(10, 2) };
    let other6 = Gateway6 { network: "other".into(), mac: Mac([0xfa, 0x16, 0x3e, 2, 1, 2]), ..via6(0x10, 2) };
    wanted.ways[0].out = Out::V4(other4);
    wanted.ways[1].out = Out::V6(other6);
    apply(&plane, &wanted).await;
    let guests = Guests::new(&mut cloud, &plane).await;
    hops[0].speak(&FIRST);
    let states = |up: usize| {
        let known = plane.watched_hops();
        soon(move || known.borrow().iter().filter(|w| w.state == "up").count() == up)
    };
    assert!(states(2), "one tag's alone: {:?} {:?}", plane.watched_hops().borrow(), plane.stats());
    hops[1].speak(&FIRST);
    assert!(states(4), "{:?} {:?}", plane.watched_hops().borrow(), plane.stats());
    let both = || guests.four.pings("192.0.2.99") && pings(&guests.six, "2001:db8:ffff::1");
    assert!(soon(both), "{:?}", plane.stats());
    hops[0].cut();
    assert!(states(2));
    assert!(soon(both), "by the other tag: {:?}", plane.stats());
    hops[1].cut();
    assert!(states(0));
    assert!(!guests.four.pings("192.0.2.99") && !pings(&guests.six, "2001:db8:ffff::1"));
}
