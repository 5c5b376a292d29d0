//! A small cloud for tests: one or more nodes with their own namespaces, and guests that are network
//! namespaces with real tools in them. Everything goes away with the value, also when a test fails.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
pub mod six;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Whether these tests can run; says so when not.
pub fn root() -> bool {
    let root = nix_euid() == 0;
    if !root {
        eprintln!("SKIPPED: needs root (network namespaces, eBPF)");
    }
    root
}

fn nix_euid() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let uid = status.lines().find_map(|l| l.strip_prefix("Uid:")).unwrap();
    uid.split_whitespace().nth(1).unwrap().parse().unwrap()
}

pub struct Cloud {
    pub dir: tempfile::TempDir,
    pub prefix: String,
    guests: Vec<String>,
    configs: Vec<Config>,
    children: Vec<Child>,
}

impl Cloud {
    pub fn new(name: &str) -> Self {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("nd-{name}-{}-{n}", std::process::id());
        Self { dir: tempfile::tempdir().unwrap(), prefix, guests: vec![], configs: vec![], children: vec![] }
    }

    /// Configuration of the only node, with an edge of its own.
    pub fn config(&mut self) -> Config {
        let config = Config {
            prefix: self.prefix.clone(),
            state_dir: self.dir.path().join("node"),
            underlay: None,
            external: External::Edge,
            join_edge: None,
            notes: NoteRate::default(),
        };
        self.configs.push(config.clone());
        config
    }

    /// Configuration of node `n` of several; all share the first one's edge.
    pub fn node(&mut self, n: u8) -> Config {
        let config = Config {
            prefix: format!("{}-{n}", self.prefix),
            state_dir: self.dir.path().join(format!("node{n}")),
            underlay: Some(Underlay { device: "under0".into(), address: vtep(n), encryption: None }),
            external: External::Edge,
            join_edge: (n > 1).then(|| edge_name(&format!("{}-1", self.prefix))),
            notes: NoteRate::default(),
        };
        self.configs.push(config.clone());
        config
    }

    /// Clears what `config` names at the end.
    pub fn keep(&mut self, config: Config) {
        self.configs.push(config);
    }

    /// A namespace for a guest.
    pub fn guest(&mut self, name: &str) -> Guest {
        let ns = format!("{}-{name}", self.prefix);
        run(Command::new("ip").args(["netns", "add", &ns]));
        self.guests.push(ns.clone());
        let guest = Guest { ns: ns_path(&ns), dir: self.dir.path().to_owned(), name: name.to_owned() };
        guest.sh("sysctl -qw net.ipv6.conf.default.disable_ipv6=1; ip link set lo up");
        guest
    }

    /// Something that ends with the test.
    pub fn background(&mut self, child: Child) {
        self.children.push(child);
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for ns in &self.guests {
            let _ = Command::new("ip").args(["netns", "del", ns]).output();
        }
        let configs = std::mem::take(&mut self.configs);
        let clear_all = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for config in configs.into_iter().rev() {
                if let Err(e) = runtime.block_on(clear(config)) {
                    eprintln!("clear: {e}");
                }
            }
        };
        let _ = std::thread::spawn(clear_all).join();
    }
}

/// The process that is killed: this program, running the one test of that name. It finds who it is by [`victim`].
/// Where a node's links are pinned.
pub fn pinned_links(config: &Config) -> PathBuf {
    let pins = std::fs::read_dir(config.state_dir.join("bpf")).unwrap().map(|e| e.unwrap().path());
    pins.into_iter().find(|p| p.file_name().unwrap().to_str().unwrap().starts_with("links-")).unwrap()
}

pub fn start_victim(cloud: &Cloud, test: &str, dir: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact"])
        .env("VICTIM_PREFIX", &cloud.prefix)
        .env("VICTIM_DIR", dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The configuration of whoever was started to be killed; `None` in any other process.
pub fn victim() -> Option<Config> {
    Some(victims_config(&std::env::var("VICTIM_PREFIX").ok()?, &std::env::var("VICTIM_DIR").ok()?))
}

/// What the victim and those who come after it are configured with.
pub fn victims_config(prefix: &str, dir: &str) -> Config {
    Config {
        prefix: prefix.into(),
        state_dir: dir.into(),
        underlay: Some(Underlay { device: "under0".into(), address: vtep(1), encryption: None }),
        external: External::Edge,
        join_edge: None,
        notes: NoteRate::default(),
    }
}

pub fn vtep(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 255, 0, n)
}

pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    output
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A guest: a network namespace whose `eth0` is the port.
#[derive(Clone)]
pub struct Guest {
    pub ns: PathBuf,
    dir: PathBuf,
    name: String,
}

impl Guest {
    /// The namespace at `path` as if it were a guest (the edge, say).
    pub fn at(path: &Path, cloud: &Cloud) -> Self {
        Self { ns: path.to_owned(), dir: cloud.dir.path().to_owned(), name: "edge".into() }
    }

    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.ns.display())).arg(program).args(args);
        command
    }

    pub fn try_sh(&self, script: &str) -> Output {
        self.command("sh", &["-c", script]).output().unwrap()
    }

    pub fn sh(&self, script: &str) -> String {
        text(&run(&mut self.command("sh", &["-c", script])).stdout)
    }

    pub fn spawn(&self, script: &str) -> Child {
        let mut command = self.command("sh", &["-c", &format!("exec {script}")]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Static address and default route.
    pub fn address(&self, address: &str, via: Option<&str>) {
        self.sh(&format!("ip addr add {address} dev eth0"));
        if let Some(via) = via {
            self.sh(&format!("ip route add default via {via}"));
        }
    }

    pub fn pings(&self, to: &str) -> bool {
        self.try_sh(&format!("ping -n -c 2 -i 0.2 -W 2 {to}")).status.success()
    }

    /// Whether a TCP connection to a listener comes about and carries bytes.
    pub fn connects(&self, to: &str, port: u16) -> bool {
        self.try_sh(&format!("echo hello | timeout 3 nc -N -w 2 {to} {port}")).status.success()
    }

    /// Runs dhclient once; returns what the server said, as the client's script sees it.
    pub fn dhcp(&self) -> Option<String> {
        let base = self.dir.join(format!("dh-{}", self.name));
        let (script, said) = (base.with_extension("sh"), base.with_extension("env"));
        let body = format!(
            "#!/bin/sh\n[ -n \"$new_ip_address\" ] || exit 0\nenv | grep ^new_ > {said}\n\
             ip addr replace $new_ip_address/$new_subnet_mask dev $interface\n\
             [ -z \"$new_interface_mtu\" ] || ip link set $interface mtu $new_interface_mtu\n\
             [ -z \"$new_routers\" ] || ip route replace default via $new_routers\n",
            said = said.display()
        );
        let mut file = std::fs::File::create(&script).unwrap();
        file.write_all(body.as_bytes()).unwrap();
        drop(file);
        run(Command::new("chmod").arg("+x").arg(&script));
        let conf = base.with_extension("conf");
        let ask = "option rfc3442 code 121 = array of unsigned integer 8;\nrequest subnet-mask, routers, \
                   domain-name-servers, host-name, interface-mtu, rfc3442;\ntimeout 8;\n";
        std::fs::write(&conf, ask).unwrap();
        let flags = format!(
            "-4 -1 -v -cf {} -sf {} -lf {} -pf {} eth0",
            conf.display(),
            script.display(),
            base.with_extension("leases").display(),
            base.with_extension("pid").display()
        );
        let output = self.try_sh(&format!("timeout 12 dhclient {flags}"));
        if let Ok(pid) = std::fs::read_to_string(base.with_extension("pid")) {
            let _ = Command::new("kill").arg(pid.trim()).output();
        }
        if !output.status.success() {
            eprintln!("dhclient: {}", text(&output.stderr));
            return None;
        }
        std::fs::read_to_string(said).ok()
    }
}

impl Guest {
    /// Runs dhclient for IPv6 once; what the server said, as the client's script sees it.
    pub fn dhcp6(&self) -> Option<String> {
        let base = self.dir.join(format!("dh6-{}", self.name));
        let (script, said) = (base.with_extension("sh"), base.with_extension("env"));
        let body = format!("#!/bin/sh\n[ -n \"$new_ip6_address\" ] || exit 0\nenv | grep ^new_ > {}\n", said.display());
        std::fs::write(&script, body).unwrap();
        run(Command::new("chmod").arg("+x").arg(&script));
        let (leases, pid) = (base.with_extension("leases"), base.with_extension("pid"));
        let flags = format!(
            "-6 -1 -v -cf /dev/null -sf {} -lf {} -pf {} eth0",
            script.display(),
            leases.display(),
            pid.display()
        );
        let output = self.try_sh(&format!("timeout 12 dhclient {flags}"));
        if let Ok(pid) = std::fs::read_to_string(pid) {
            let _ = Command::new("kill").arg(pid.trim()).output();
        }
        if !output.status.success() {
            eprintln!("dhclient: {}", text(&output.stderr));
        }
        std::fs::read_to_string(said).ok()
    }
}

pub trait Said {
    fn stdout_text(&self) -> String;
}

impl Said for Output {
    fn stdout_text(&self) -> String {
        text(&self.stdout)
    }
}

/// Waits until it is so, up to ten seconds.
pub fn soon(mut so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if so() {
            return true;
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    so()
}

pub fn mac(n: u8) -> Mac {
    Mac([0xfa, 0x16, 0x3e, 0, 0, n])
}

/// Network `id` with one subnet `10.0.<third>.0/24`, gateway .1, DHCP server .2.
pub fn network(id: &str, vni: u32, third: u8) -> Network {
    Network {
        id: id.into(),
        vni,
        mtu: 1450,
        external: false,
        vlan: 0,
        service_tag: false,
        transparent: false,
        subnets: vec![Subnet {
            id: format!("{id}-sub"),
            cidr: format!("10.0.{third}.0/24").parse().unwrap(),
            gateway: Some(format!("10.0.{third}.1").parse().unwrap()),
            dhcp: true,
            dhcp_server: Some(Ipv4Addr::new(10, 0, third, 2)),
            dns: vec!["192.0.2.53".parse().unwrap()],
            routes: vec![],
            lease_seconds: 3600,
            ra: None,
        }],
    }
}

/// The provider's network: 203.0.113.0/24, gateway .1.
pub fn external() -> Network {
    Network {
        id: "ext".into(),
        vni: 9000,
        mtu: 1500,
        external: true,
        vlan: 0,
        service_tag: false,
        transparent: false,
        subnets: vec![Subnet {
            id: "ext-sub".into(),
            cidr: "203.0.113.0/24".parse().unwrap(),
            gateway: Some("203.0.113.1".parse().unwrap()),
            dhcp: false,
            dhcp_server: None,
            dns: vec![],
            routes: vec![],
            lease_seconds: 3600,
            ra: None,
        }],
    }
}

pub fn port(id: &str, network: &str, n: u8, address: &str, groups: &[&str]) -> Port {
    Port {
        id: id.into(),
        network: network.into(),
        mac: mac(n),
        fixed: vec![Fixed { subnet: format!("{network}-sub"), address: address.parse().unwrap() }],
        groups: groups.iter().map(|g| (*g).into()).collect(),
        secured: true,
        up: true,
        allowed_pairs: vec![],
        hostname: id.into(),
        dhcp_options: vec![],
        metadata: true,
        parent: None,
        idle: false,
    }
}

pub fn rule(id: &str, direction: Direction, protocol: Option<u8>, ports: Ports, peer: Peer) -> Rule {
    Rule { id: id.into(), direction, family: Family::V4, protocol, ports, peer }
}

pub fn group(id: &str, rules: Vec<Rule>) -> Group {
    Group { id: id.into(), stateful: true, rules }
}

/// Guests a and b on one network, in a group that lets everything pass.
pub fn two_guests() -> Wanted {
    Wanted {
        networks: vec![network("net", 100, 0)],
        ports: vec![port("a", "net", 1, "10.0.0.11", &["g"]), port("b", "net", 2, "10.0.0.12", &["g"])],
        groups: vec![open_group("g")],
        ..Wanted::default()
    }
}

/// All out, nothing in: what a fresh group allows.
pub fn out_only(id: &str) -> Group {
    group(id, vec![rule("out", Direction::Egress, None, Ports::Any, Peer::Any)])
}

/// Everything.
pub fn open_group(id: &str) -> Group {
    let mut g = out_only(id);
    g.rules.push(rule("in", Direction::Ingress, None, Ports::Any, Peer::Any));
    g
}

pub fn leg(network: &str, third: u8, n: u8) -> Interface {
    Interface {
        network: network.into(),
        address: format!("10.0.{third}.1").parse().unwrap(),
        prefix: 24,
        mac: Mac([0xfa, 0x16, 0x3e, 1, 0, n]),
        leaked: false,
    }
}

pub fn gateway(last: u8) -> Gateway {
    Gateway {
        network: "ext".into(),
        address: Ipv4Addr::new(203, 0, 113, last),
        prefix: 24,
        next_hop: Some(Ipv4Addr::new(203, 0, 113, 1)),
        mac: Mac([0xfa, 0x16, 0x3e, 2, 0, last]),
        snat: true,
        vtep: None,
    }
}

/// Applies and insists that everything is wired. Gives the rows that were written for it.
pub async fn apply(plane: &DataPlane, wanted: &Wanted) -> usize {
    let applied = plane.apply(wanted).await.unwrap();
    assert!(applied.errors.is_empty() && applied.ports.iter().all(|p| p.wired), "{applied:?}");
    applied.rows
}

/// Networks `n0` and `n1` that a router without a way out joins, and a group that lets everything pass.
pub fn joined() -> Wanted {
    Wanted {
        networks: vec![network("n0", 100, 0), network("n1", 101, 1)],
        groups: vec![open_group("g")],
        routers: vec![router("r", vec![leg("n0", 0, 1), leg("n1", 1, 2)], None)],
        ..Wanted::default()
    }
}

/// A guest's port in each of [`joined`].
pub fn one_in_each() -> Vec<Port> {
    vec![port("a", "n0", 1, "10.0.0.11", &["g"]), port("b", "n1", 2, "10.0.1.12", &["g"])]
}

pub fn router(id: &str, legs: Vec<Interface>, gateway: Option<Gateway>) -> Router {
    Router { id: id.into(), interfaces: legs, gateway, gateway6: None, routes: vec![] }
}

/// 203.0.113.<last> for `fixed` of a port.
pub fn floating(last: u8, port: &str, fixed: &str, router: &str) -> Floating {
    Floating {
        id: format!("fip-{last}"),
        network: "ext".into(),
        address: Ipv4Addr::new(203, 0, 113, last),
        mac: Mac([0xfa, 0x16, 0x3e, 3, 0, last]),
        port: port.into(),
        fixed: fixed.parse().unwrap(),
        router: router.into(),
    }
}

/// A guest on the port `id` with a default route to `.1` of its network.
pub async fn guest(cloud: &mut Cloud, plane: &DataPlane, id: &str, address: &str) -> Guest {
    let guest = cloud.guest(id);
    plane.open_veth(id, &guest.ns, "eth0").await.unwrap();
    let via = format!("{}.1", address.rsplit_once('.').unwrap().0);
    guest.address(&format!("{address}/24"), Some(&via));
    guest
}
