//! Packets follow a guest that moves, though nobody has told those who send them.
//!
//! ```text
//!   edge --floating IP--> asker on c --"ask 10.44.0.x"--> nomad on a =====> nomad on b
//!                              agent of c stands still        '- a leads there -'
//! ```
//! Three hosts on an underlay of their own. While nomad moves from a to b the agent of c is frozen: its packet path goes on
//! sending to a, as it would for the moment in which news are under way. Then a must lead what comes, and c must take what b says.
use crate::{kvm, world};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use pilvi_tests::{Api, Program, Site, api::text, may_run, pause, site::Host, until};
use serde_json::{Value, json};
use std::fs::File;
use std::net::UdpSocket;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PATIENCE: u64 = 120;
const EVERY: Duration = Duration::from_millis(10);
/// Longest wait for one answer.
const LATE: Duration = Duration::from_millis(400);
const RELAY_PORT: u16 = 4243;

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The switch between the hosts: a namespace that goes with this value.
pub(crate) struct Switch(String);

impl Switch {
    pub(crate) fn open(prefix: &str) -> Self {
        let switch = Switch(format!("{prefix}-sw"));
        ip(&["netns", "add", &switch.0]);
        ip(&["-n", &switch.0, "link", "add", "switch0", "type", "bridge"]);
        ip(&["-n", &switch.0, "link", "set", "switch0", "up"]);
        switch
    }

    /// Connects the namespace of a host, which its agent finds there, as `u0`.
    pub(crate) fn connect(&self, host: &str, number: usize) {
        let port = format!("h{number}");
        ip(&["netns", "add", host]);
        ip(&["-n", host, "link", "add", "u0", "type", "veth", "peer", "name", &port, "netns", &self.0]);
        ip(&["-n", host, "addr", "add", &format!("10.255.7.{number}/24"), "dev", "u0"]);
        ip(&["-n", host, "link", "set", "u0", "mtu", "1600", "up"]);
        ip(&["-n", &self.0, "link", "set", &port, "mtu", "1600", "master", "switch0", "up"]);
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

/// Asks again and again, from the edge, and keeps when each answer came.
struct Caller {
    stop: Arc<AtomicBool>,
    log: Arc<Mutex<Vec<(Instant, bool)>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Caller {
    fn begin(namespace: &str, relay: &str, target: &str) -> Self {
        let (stop, log) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<_>>>::default());
        let (path, relay) = (format!("/run/netns/{namespace}"), format!("{relay}:{RELAY_PORT}"));
        let target: std::net::Ipv4Addr = target.parse().unwrap();
        let thread = std::thread::spawn({
            let (stop, log) = (stop.clone(), log.clone());
            move || {
                // A thread of its own, which ends there.
                setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.set_read_timeout(Some(LATE)).unwrap();
                let mut count = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    count += 1;
                    let question = [&target.octets()[..], &count.to_be_bytes()].concat();
                    let begin = Instant::now();
                    let sent = socket.send_to(&question, &relay).is_ok();
                    let answered = sent && answered(&socket, count);
                    log.lock().unwrap().push((begin, answered));
                    pause(EVERY);
                }
            }
        });
        Caller { stop, log, thread: Some(thread) }
    }

    /// How many of those since then were asked, and answered.
    fn since(&self, begin: Instant) -> (usize, usize) {
        let log = self.log.lock().unwrap();
        let asked: Vec<_> = log.iter().filter(|(at, _)| *at >= begin).collect();
        (asked.len(), asked.iter().filter(|(_, answered)| *answered).count())
    }

    /// Waits until so many more are asked, and gives how many of them were answered.
    fn next(&self, count: usize) -> usize {
        let begin = Instant::now();
        until(PATIENCE, "questions are asked", || (self.since(begin).0 >= count).then_some(()));
        let log = self.log.lock().unwrap();
        log.iter().filter(|(at, _)| *at >= begin).take(count).filter(|(_, answered)| *answered).count()
    }

    /// The longest time without an answer.
    fn silence(&self, begin: Instant) -> Duration {
        let log = self.log.lock().unwrap();
        let answered: Vec<Instant> = log.iter().filter(|(at, ok)| *ok && *at >= begin).map(|(at, _)| *at).collect();
        answered.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits for the answer to this question; later answers to former ones are passed over.
fn answered(socket: &UdpSocket, count: u64) -> bool {
    let begin = Instant::now();
    let mut buffer = [0; 64];
    while begin.elapsed() < LATE {
        match socket.recv(&mut buffer) {
            Ok(8) if buffer[..8] == count.to_be_bytes() => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}

/// A server on this host with a port in a group that lets the story's packets in: its id, address and port.
fn server(api: &Api, name: &str, host: &str, image: &str, network: &str, group: &str) -> (String, String, String) {
    let port = json!({"port": {"network_id": network, "security_groups": [group]}});
    let port = api.post("/network/v2.0/ports", &port).unwrap()["port"].clone();
    let new = json!({"server": {"name": name, "imageRef": image, "flavorRef": "kvm-64",
        "availability_zone": format!("nova:{host}"), "networks": [{"port": port["id"]}]}});
    let id = text(&api.post("/compute/v2.1/servers", &new).unwrap()["server"], "id");
    let server = world::wait_state(api, &id, "ACTIVE", PATIENCE);
    assert_eq!(text(&server, "OS-EXT-SRV-ATTR:host"), host);
    (id, text(&port["fixed_ips"][0], "ip_address"), text(&port, "id"))
}

/// Networks, and a group for them: the inner network, the outer one, the group.
fn wires(api: &Api) -> (String, String, String) {
    let public = json!({"network": {"name": "public", "router:external": true,
        "provider:network_type": "flat", "provider:physical_network": "external"}});
    let public = text(&api.post("/network/v2.0/networks", &public).unwrap()["network"], "id");
    let subnet = json!({"subnet": {"network_id": public, "ip_version": 4, "cidr": "203.0.113.0/24",
        "gateway_ip": "203.0.113.1", "enable_dhcp": false}});
    api.post("/network/v2.0/subnets", &subnet).unwrap();
    let (network, subnet) = world::network(api, "follow", "10.44.0.0/24");
    let router = json!({"router": {"name": "follow", "external_gateway_info": {"network_id": public}}});
    let router = text(&api.post("/network/v2.0/routers", &router).unwrap()["router"], "id");
    let leg = json!({"subnet_id": subnet});
    api.put(&format!("/network/v2.0/routers/{router}/add_router_interface"), &leg).unwrap();
    let group = json!({"security_group": {"name": "follow"}});
    let group = text(&api.post("/network/v2.0/security-groups", &group).unwrap()["security_group"], "id");
    let rule = json!({"security_group_rule": {"security_group_id": group, "direction": "ingress", "ethertype": "IPv4",
        "protocol": "udp"}});
    api.post("/network/v2.0/security-group-rules", &rule).unwrap();
    (network, public, group)
}

#[test]
fn packets_follow_a_guest_that_moves() {
    if !may_run("follow") || !kvm::kvm_is_here("follow") {
        return;
    }
    let mut site = Site::open("follow").unwrap();
    site.configure("host_silence_s = 60\ncheap_passwords = true\n").unwrap();
    let scheduler = site.serve().unwrap();
    let switch = Switch::open(&site.prefix());
    let edge = format!("{}-edge", pilvi_tests::site::prefix(&site.state.with_file_name("c")));
    // c keeps the stand-in for the provider, as it has a floating IP to answer for all the while.
    let mut number = 0;
    let hosts: [Host; 3] = ["c", "a", "b"].map(|name| {
        number += 1;
        let join = if number == 1 { String::new() } else { format!("join_edge = \"{edge}\"\n") };
        let settings = format!(
            "runtimes = [\"kvm\"]\nheartbeat_ms = 300\n{join}[underlay]\ndevice = \"u0\"\naddress = \"10.255.7.{number}\""
        );
        let host = site.host(name, &settings).unwrap();
        switch.connect(&host.prefix(), number);
        host
    });
    let api = site.admin().unwrap();
    let agents: Vec<Program> = hosts
        .iter()
        .map(|host| {
            let agent = site.start_agent(host).unwrap();
            world::wait_host(&api, &host.name);
            agent
        })
        .collect();
    if !kvm::traits(&api).iter().any(|t| t == "CUSTOM_PILVI_RUNTIME_KVM") {
        println!("follow: skipped: this host's KVM cannot run guests");
        drop((scheduler, agents, switch));
        return site.finish().unwrap();
    }
    world::flavor(&api, "kvm-64", 64);
    let kernel = world::image(&api, "guest-kernel", "aki", kvm::freestanding(), &json!({}));
    let with = json!({"kernel_id": kernel, "hw_pilvi_runtime": "kvm", "os_command_line": "net"});
    let image = world::image(&api, "guest", "raw", vec![0; 1 << 20], &with);
    let (network, public, group) = wires(&api);
    let (nomad, address, _) = server(&api, "nomad", "a", &image, &network, &group);
    let (asker, _, port) = server(&api, "asker", "c", &image, &network, &group);
    let floating = json!({"floatingip": {"floating_network_id": public, "port_id": port}});
    let floating =
        text(&api.post("/network/v2.0/floatingips", &floating).unwrap()["floatingip"], "floating_ip_address");

    let caller = Caller::begin(&edge, &floating, &address);
    until(PATIENCE, "nomad answers", || (caller.next(20) == 20).then_some(()));
    let begin = Instant::now();
    let body = json!({"os-migrateLive": {"host": "b", "block_migration": "auto"}});
    api.post(&format!("/compute/v2.1/servers/{nomad}/action"), &body).unwrap();
    until(PATIENCE, "it is on its way", || {
        let path = format!("/compute/v2.1/os-migrations?instance_uuid={nomad}&limit=1");
        let newest: Value = api.get(&path).ok()?;
        (newest["migrations"][0]["status"] == "running").then_some(())
    });
    // The host of the asker hears nothing from here on.
    pause(Duration::from_millis(500));
    agents[0].signal(Signal::SIGSTOP).unwrap();
    let server = until(PATIENCE, "it has arrived", || {
        let server = api.get(&format!("/compute/v2.1/servers/{nomad}")).ok()?["server"].clone();
        assert_ne!(server["status"], "ERROR", "{server}");
        (server["status"] == "ACTIVE" && server["OS-EXT-STS:task_state"].is_null()).then_some(server)
    });
    assert_eq!(text(&server, "OS-EXT-SRV-ATTR:host"), "b");
    let led = caller.next(100);
    println!("  led by the host that it left: {led} of 100 answered");
    if led < 99 {
        pause(Duration::from_secs(60));
    }
    assert!(led >= 99, "what was sent to the host that it left came {led} times of 100");
    agents[0].signal(Signal::SIGCONT).unwrap();
    let told = caller.next(100);
    println!("  told: {told} of 100 answered");
    assert!(told >= 99, "{told} of 100");
    let (asked, answered) = caller.since(begin);
    let silence = caller.silence(begin);
    println!(
        "  from the request on: {answered} of {asked} answered, at most {} ms without an answer",
        silence.as_millis()
    );
    drop(caller);
    for id in [nomad, asker] {
        api.delete(&format!("/compute/v2.1/servers/{id}")).unwrap();
        world::wait_gone(&api, &id, PATIENCE);
    }
    drop((scheduler, agents, switch));
    site.finish().unwrap();
}
