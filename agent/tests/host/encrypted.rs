//! A host that encrypts what goes to others: its key is told, others' keys reach the device, and what cannot be is said.
use crate::life::Agent;
use crate::scheduler::Scheduler;
use pilvi_agent::config::{Encrypt, Overlay, Underlay};
use pilvi_agent::{Config, NetworkMode};
use pilvi_agent_api::v1::*;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PROGRAM: &str = "/usr/bin/wireguard-go";

fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: network namespaces need root");
    }
    root
}

fn config(scheduler: &Scheduler, dir: &Path, prefix: &str, program: Option<PathBuf>) -> Config {
    Config {
        network: NetworkMode::Real,
        prefix: prefix.to_owned(),
        underlay: Some(Underlay { device: "under0".into(), address: Ipv4Addr::new(10, 255, 0, 1) }),
        overlay: Overlay { encrypt: Some(Encrypt::Wireguard), port: 51_821, wireguard: program },
        ..scheduler.config(dir)
    }
}

fn inside(prefix: &str, script: &str) -> String {
    let ns = format!("{prefix}-wire");
    let output = Command::new("ip").args(["netns", "exec", &ns, "sh", "-c", script]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What the device says of itself and its peers.
fn device(prefix: &str) -> String {
    inside(prefix, "wg show $(ip -o link show | grep -o 'wg[0-9a-f]*' | head -n 1) dump")
}

async fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..300 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_tells_its_key_and_knows_those_that_it_is_told() {
    if !root() {
        return;
    }
    if !Path::new(PROGRAM).exists() {
        eprintln!("skipped: needs wireguard-go and wireguard-tools");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let scheduler = Scheduler::start().await;
    let prefix = format!("pilvi-wg{}", std::process::id());
    let config = config(&scheduler, dir.path(), &prefix, Some(PROGRAM.into()));
    let file = config.state_dir.join("wireguard.key");
    let mut agent = Agent::start(config);
    let inventory = scheduler.hello().await.inventory.unwrap();
    assert_eq!((inventory.vtep.as_str(), inventory.overlay_error.as_str()), ("10.255.0.1", ""));
    let told = inventory.wireguard.unwrap();
    assert_eq!((told.public_key.len(), told.port), (32, 51_821));
    let peer =
        Tunnel { vtep: "10.255.0.2".into(), wireguard: Some(Wireguard { public_key: vec![0x5a; 32], port: 4500 }) };
    let short = Tunnel { vtep: "10.255.0.3".into(), wireguard: Some(Wireguard { public_key: vec![1; 31], port: 1 }) };
    scheduler.want(|wanted| {
        wanted.network = Some(HostNetwork { tunnels: vec![peer, short], ..HostNetwork::default() });
    });
    until("a peer", || device(&prefix).contains("10.255.0.2/32")).await;
    let said = device(&prefix);
    assert!(said.contains("10.255.0.2:4500") && said.lines().count() == 2, "a key of 31 bytes is none: {said}");
    let private = std::fs::read_to_string(&file).unwrap();
    assert!(said.starts_with(private.trim()), "the device has the key of the file");

    // The operator takes the key away: the next start makes another one, tells it and gives it to the device.
    agent.stop().await;
    std::fs::remove_file(&file).unwrap();
    agent.again();
    until("another key", || file.exists()).await;
    let mut new = told.clone();
    for _ in 0..100 {
        new = scheduler.hello().await.inventory.unwrap().wireguard.unwrap();
        if new != told {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_ne!(new, told);
    until("the new key in the device", || device(&prefix).starts_with(std::fs::read_to_string(&file).unwrap().trim()))
        .await;
    assert!(device(&prefix).contains("10.255.0.2/32"));
    agent.end().await;
    assert!(!Path::new("/run/netns").join(format!("{prefix}-wire")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_cannot_encrypt_says_why() {
    if !root() {
        return;
    }
    let probe = format!("wgp{}", std::process::id());
    let has = Command::new("ip").args(["link", "add", &probe, "type", "wireguard"]).output().unwrap().status.success();
    if has {
        drop(Command::new("ip").args(["link", "del", &probe]).output());
        eprintln!("skipped: this kernel has WireGuard, so nothing refuses");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let scheduler = Scheduler::start().await;
    let prefix = format!("pilvi-wn{}", std::process::id());
    let agent = Agent::start(config(&scheduler, dir.path(), &prefix, None));
    let inventory = scheduler.hello().await.inventory.unwrap();
    assert!(inventory.overlay_error.contains("this kernel has no WireGuard"), "{}", inventory.overlay_error);
    scheduler.want(|wanted| wanted.network = Some(HostNetwork::default()));
    scheduler.until("said", |seen| seen.network_error.contains("this kernel has no WireGuard")).await;
    agent.end().await;
}
