//! A routed network on real wires: each host is in a rack with a segment of its own, and the provider's router, which no part of
//! the cloud is, joins the racks.
//!
//! ```text
//!   h1 --ext0-- rack1 10.61.1.1 )               ( 10.61.2.1 rack2 --ext0-- h2      one namespace: two bridges and a kernel
//!    '- asker 10.61.1.x         ) forwarding of (        echo 10.61.2.y -'        that forwards
//!                               ) the provider  (
//! ```
//! Nothing else connects the hosts: there is no underlay. The servers name the network alone; where they come to be decides
//! their subnets.
use crate::{kvm, world};
use nix::sched::{CloneFlags, setns};
use pilvi_tests::{Api, Program, Site, api::text, may_run, site::Host, until};
use serde_json::{Value, json};
use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::Duration;

const PATIENCE: u64 = 120;
/// A guest asks another one for whoever asks here.
const RELAY_PORT: u16 = 4243;

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The provider: a namespace that goes with this value.
struct Provider(String);

impl Provider {
    fn open(prefix: &str) -> Self {
        let provider = Provider(format!("{prefix}-pr"));
        ip(&["netns", "add", &provider.0]);
        for rack in [1, 2] {
            let (bridge, address) = (format!("rack{rack}"), format!("10.61.{rack}.1/24"));
            ip(&["-n", &provider.0, "link", "add", &bridge, "type", "bridge"]);
            ip(&["-n", &provider.0, "link", "set", &bridge, "up"]);
            ip(&["-n", &provider.0, "addr", "add", &address, "dev", &bridge]);
        }
        provider.forward(true);
        provider
    }

    fn forward(&self, on: bool) {
        let word = format!("echo {} > /proc/sys/net/ipv4/ip_forward", u8::from(on));
        ip(&["netns", "exec", &self.0, "sh", "-c", &word]);
    }

    /// The device to the outside in the namespace of a host, which its agent finds there.
    fn connect(&self, host: &str, rack: usize) {
        let port = format!("h{rack}");
        ip(&["netns", "add", host]);
        ip(&["-n", host, "link", "add", "out0", "type", "veth", "peer", "name", &port, "netns", &self.0]);
        ip(&["-n", host, "link", "set", "out0", "up"]);
        ip(&["-n", &self.0, "link", "set", &port, "master", &format!("rack{rack}"), "up"]);
    }

    /// Has one guest ask another; whether the answer comes.
    fn hears(&self, asker: Ipv4Addr, target: Ipv4Addr, word: &str) -> bool {
        let (path, word) = (format!("/run/netns/{}", self.0), word.as_bytes().to_vec());
        let ask = std::thread::spawn(move || {
            // A thread of its own, which ends there.
            setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            let question = [&target.octets()[..], &word].concat();
            let mut buffer = [0; 64];
            // An answer to an earlier question is none to this one.
            socket.send_to(&question, (asker, RELAY_PORT)).is_ok()
                && std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|n| buffer[..n] == word)).any(|same| same)
        });
        ask.join().unwrap()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

fn make(api: &Api, path: &str, kind: &str, attrs: Value) -> Value {
    api.post(&format!("/network/v2.0/{path}"), &json!({ kind: attrs })).unwrap()[kind].clone()
}

/// The network with a segment and a subnet in each rack.
fn routed(api: &Api) -> String {
    let first = json!({"name": "routed", "provider:network_type": "flat", "provider:physical_network": "rack1"});
    let network = text(&make(api, "networks", "network", first), "id");
    let found = api.get(&format!("/network/v2.0/segments?network_id={network}")).unwrap();
    let second = json!({"network_id": network, "network_type": "flat", "physical_network": "rack2"});
    let second = text(&make(api, "segments", "segment", second), "id");
    for (rack, segment) in [(1, text(&found["segments"][0], "id")), (2, second)] {
        let subnet = json!({"network_id": network, "ip_version": 4, "segment_id": segment, "cidr": format!("10.61.{rack}.0/24"),
            "gateway_ip": format!("10.61.{rack}.1")});
        make(api, "subnets", "subnet", subnet);
    }
    network
}

/// A server on this host, on the network alone: its id and the address that it got with the host.
fn server(api: &Api, host: &str, image: &str, network: &str, group: &str) -> (String, Ipv4Addr) {
    let new = json!({"server": {"name": host, "imageRef": image, "flavorRef": "kvm-64",
        "availability_zone": format!("nova:{host}"), "networks": [{"uuid": network}],
        "security_groups": [{"name": group}]}});
    let id = text(&api.post("/compute/v2.1/servers", &new).unwrap()["server"], "id");
    let server = world::wait_state(api, &id, "ACTIVE", PATIENCE);
    assert_eq!(text(&server, "OS-EXT-SRV-ATTR:host"), host);
    let ports = api.get(&format!("/network/v2.0/ports?device_id={id}")).unwrap();
    (id, text(&ports["ports"][0]["fixed_ips"][0], "ip_address").parse().unwrap())
}

#[test]
fn guests_of_two_segments_meet_by_the_providers_router() {
    if !may_run("segments") || !kvm::kvm_is_here("segments") {
        return;
    }
    let mut site = Site::open("segments").unwrap();
    site.configure("cheap_passwords = true\n").unwrap();
    let scheduler = site.serve().unwrap();
    let provider = Provider::open(&site.prefix());
    let api = site.admin().unwrap();
    let mut agents: Vec<Program> = Vec::new();
    for rack in [1, 2] {
        let settings = format!(
            "runtimes = [\"kvm\"]\nheartbeat_ms = 300\nphysical_networks = [\"rack{rack}\"]\n[external]\ndevice = \"out0\""
        );
        let host: Host = site.host(&format!("h{rack}"), &settings).unwrap();
        provider.connect(&host.prefix(), rack);
        agents.push(site.start_agent(&host).unwrap());
        world::wait_host(&api, &host.name);
    }
    if !kvm::traits(&api).iter().any(|t| t == "CUSTOM_PILVI_RUNTIME_KVM") {
        println!("segments: skipped: this host's KVM cannot run guests");
        drop((scheduler, agents, provider));
        return site.finish().unwrap();
    }
    world::flavor(&api, "kvm-64", 64);
    let kernel = world::image(&api, "guest-kernel", "aki", kvm::freestanding(), &json!({}));
    let with = json!({"kernel_id": kernel, "hw_pilvi_runtime": "kvm", "os_command_line": "net"});
    let image = world::image(&api, "guest", "raw", vec![0; 1 << 20], &with);
    let network = routed(&api);
    let group = text(&make(&api, "security-groups", "security_group", json!({"name": "open"})), "id");
    let rule = json!({"security_group_id": group, "direction": "ingress", "ethertype": "IPv4", "protocol": "udp"});
    make(&api, "security-group-rules", "security_group_rule", rule);

    let (first, one) = server(&api, "h1", &image, &network, "open");
    let (second, two) = server(&api, "h2", &image, &network, "open");
    assert_eq!([one.octets()[2], two.octets()[2]], [1, 2], "each got an address of its host's segment");
    let hears = |asker, target, word: &str| provider.hears(asker, target, word);
    until(PATIENCE, "they have their addresses by DHCP, and the way to each other", || {
        hears(one, two, "up").then_some(())
    });
    until(PATIENCE, "and back", || hears(two, one, "back").then_some(()));

    // It is the provider who joins them: while he forwards nothing they do not meet.
    provider.forward(false);
    assert!(!hears(one, two, "apart") && !hears(two, one, "apart as well"), "something else joined them");
    provider.forward(true);
    until(PATIENCE, "they meet again", || hears(one, two, "again").then_some(()));

    // A server that names an address goes where its segment is.
    let port = json!({"network_id": network, "fixed_ips": [{"ip_address": "10.61.2.77"}], "security_groups": [group]});
    let port = text(&make(&api, "ports", "port", port), "id");
    let new =
        json!({"server": {"name": "third", "imageRef": image, "flavorRef": "kvm-64", "networks": [{"port": port}]}});
    let third = text(&api.post("/compute/v2.1/servers", &new).unwrap()["server"], "id");
    let placed = world::wait_state(&api, &third, "ACTIVE", PATIENCE);
    assert_eq!(text(&placed, "OS-EXT-SRV-ATTR:host"), "h2");
    let third_at = Ipv4Addr::new(10, 61, 2, 77);
    until(PATIENCE, "it meets who is in its own rack, and who is in the other", || {
        (hears(third_at, two, "near") && hears(one, third_at, "far")).then_some(())
    });

    for id in [first, second, third] {
        api.delete(&format!("/compute/v2.1/servers/{id}")).unwrap();
        world::wait_gone(&api, &id, PATIENCE);
    }
    drop((scheduler, agents, provider));
    site.finish().unwrap();
}
