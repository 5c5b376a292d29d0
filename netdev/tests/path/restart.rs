//! Crash, restart and the end: what stays and what does not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;
use std::path::Path;
use std::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_drops_no_packet() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("crash");
    let config = cloud.config();
    let plane = DataPlane::open(config.clone()).await.unwrap();
    let wanted = two_guests();
    apply(&plane, &wanted).await;
    assert!(matches!(DataPlane::open(config.clone()).await, Err(Error::Locked(_))), "one process at a time");
    let (a, b) = (cloud.guest("a"), cloud.guest("b"));
    plane.open_veth("a", &a.ns, "eth0").await.unwrap();
    plane.open_veth("b", &b.ns, "eth0").await.unwrap();
    a.address("10.0.0.11/24", None);
    b.address("10.0.0.12/24", None);
    assert!(a.pings("10.0.0.12"));
    let ping = a.command("ping", &["-n", "-i", "0.02", "-c", "150", "-W", "1", "10.0.0.12"]);
    let mut ping = ping;
    let ping = ping.stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(plane);
    let plane = DataPlane::open(config.clone()).await.unwrap();
    apply(&plane, &wanted).await;
    apply(&plane, &wanted).await;
    drop(plane);
    let plane = DataPlane::open(config).await.unwrap();
    let said = text(&tokio::task::spawn_blocking(move || ping.wait_with_output()).await.unwrap().unwrap().stdout);
    assert!(said.contains("150 received"), "{said}");
    // What somebody broke is repaired: the tables are read back after a restart.
    apply(&plane, &wanted).await;
    assert!(a.dhcp().is_some(), "DHCP answers again");
    plane.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_go_one_by_one_and_then_nothing_is_left() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("clear");
    let config = cloud.config();
    clear(config.clone()).await.unwrap();
    let plane = DataPlane::open(config.clone()).await.unwrap();
    let mut wanted = two_guests();
    apply(&plane, &wanted).await;
    let node = Guest::at(&plane.ns_path(Ns::Node).unwrap(), &cloud);
    let taps = || node.sh("ip -o link show").lines().filter(|l| l.contains(": tap")).count();
    assert_eq!(taps(), 2);
    wanted.ports.remove(0);
    apply(&plane, &wanted).await;
    assert_eq!(taps(), 1);
    apply(&plane, &Wanted::default()).await;
    assert_eq!(taps(), 0);
    let pins = std::fs::read_dir(pinned_links(&config)).unwrap().count();
    assert_eq!(pins, 5, "agent0, the copy link's two and the edge link's two");
    assert_eq!(plane.stats().unwrap().ports.len(), 0);
    let (tap, early) = (plane.open_tap("early").await.unwrap(), tap_name("early"));
    assert_eq!(tap.len(), 1);
    apply(&plane, &Wanted::default()).await;
    assert!(node.sh("ip -o link show").contains(&early), "opened before it is wanted: kept for a while");
    drop(tap);
    plane.close().await.unwrap();
    assert!(!Path::new(NETNS_DIR).join(&config.prefix).exists());
    assert!(!Path::new(NETNS_DIR).join(edge_name(&config.prefix)).exists());
    assert!(!config.state_dir.exists());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&config.prefix) && !mounts.contains(config.state_dir.to_str().unwrap()), "{mounts}");
    let threads = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|t| std::fs::read_to_string(t.unwrap().path().join("comm")).ok());
    // Other tests of this binary may run their own: this one's names are gone with its namespace.
    assert!(threads.count() > 0);
    clear(config).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_port_does_not_stop_the_rest() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("bad");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = two_guests();
    wanted.ports[0].network = "nowhere".into();
    wanted.ports[1].groups.push("missing".into());
    wanted.ports.push(port("c", "net", 3, "10.0.0.12", &["g"]));
    let applied = plane.apply(&wanted).await.unwrap();
    let wired: Vec<bool> = applied.ports.iter().map(|p| p.wired).collect();
    assert_eq!(wired, [false, true, false], "{applied:?}");
    assert!(applied.ports[0].error.as_ref().unwrap().contains("nowhere"));
    assert!(applied.ports[1].error.as_ref().unwrap().contains("missing"), "wired, but something lacks");
    assert!(applied.ports[2].error.as_ref().unwrap().contains("10.0.0.12"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_own_namespace_is_not_touched() {
    if !root() {
        return;
    }
    let look = || {
        let show = |args: &[&str]| text(&run(Command::new("ip").args(args)).stdout);
        let stable = |s: String| s.lines().filter(|l| !l.contains("valid_lft")).collect::<Vec<_>>().join("\n");
        (stable(show(&["-d", "link", "show", "lo"])), show(&["rule"]), show(&["route", "show", "table", "local"]))
    };
    let before = look();
    let mut cloud = Cloud::new("host");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    apply(&plane, &two_guests()).await;
    assert_eq!(look(), before);
    let host = text(&run(Command::new("ip").args(["-o", "link"])).stdout);
    for device in ["agent0", "edge0", tap_name("a").as_str()] {
        assert!(!host.contains(device), "{device} in {host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_build_swaps_its_programs_in_without_a_lost_packet() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("swap");
    let config = cloud.config();
    let plane = DataPlane::open(config.clone()).await.unwrap();
    let wanted = two_guests();
    apply(&plane, &wanted).await;
    let (a, b) = (cloud.guest("a"), cloud.guest("b"));
    plane.open_veth("a", &a.ns, "eth0").await.unwrap();
    plane.open_veth("b", &b.ns, "eth0").await.unwrap();
    a.address("10.0.0.11/24", None);
    b.address("10.0.0.12/24", None);
    assert!(a.pings("10.0.0.12"));
    let programs = || {
        let pins = std::fs::read_dir(config.state_dir.join("bpf")).unwrap();
        pins.map(|e| e.unwrap().path()).find(|p| p.file_name().unwrap().to_str().unwrap().starts_with("p-")).unwrap()
    };
    let ours = programs();
    let mut ping = a.command("ping", &["-n", "-i", "0.02", "-c", "100", "-W", "1", "10.0.0.12"]);
    let ping = ping.stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(plane);
    // What an older build leaves: programs under another name, links that run them.
    std::fs::rename(&ours, config.state_dir.join("bpf/p-0123456789abcdef")).unwrap();
    let plane = DataPlane::open(config.clone()).await.unwrap();
    apply(&plane, &wanted).await;
    assert_eq!(programs(), ours, "the older build's pins are gone");
    let said = text(&tokio::task::spawn_blocking(move || ping.wait_with_output()).await.unwrap().unwrap().stdout);
    assert!(said.contains("100 received"), "{said}");
    // The links run the new programs: nothing else holds the old ones.
    drop(plane);
    let links = pinned_links(&config);
    assert_eq!(std::fs::read_dir(links).unwrap().count(), 5 + 4);
    assert!(a.pings("10.0.0.12"));
}
