//! kill -9 at any moment: the next pass converges, and the end leaves nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;
use std::process::Command;
use std::time::Duration;

fn wanted(ports: u8) -> Wanted {
    let mut w = Wanted {
        networks: vec![network("n0", 100, 0), external()],
        groups: vec![open_group("g")],
        routers: vec![Router {
            id: "r".into(),
            interfaces: vec![leg("n0", 0, 1)],
            gateway: Some(gateway(10)),
            gateway6: None,
            routes: vec![],
        }],
        ..Wanted::default()
    };
    w.ports = (0..ports).map(|n| port(&format!("p{n}"), "n0", n, &format!("10.0.0.{}", 20 + n), &["g"])).collect();
    w
}

/// Not a test by itself: the process that is killed. It goes back and forth until then.
#[tokio::test(flavor = "multi_thread")]
async fn victim() {
    let Some(config) = crate::cloud::victim() else { return };
    let plane = DataPlane::open(config).await.unwrap();
    for round in 0u8..250 {
        let mut w = wanted(if round % 2 == 0 { 12 } else { 3 });
        w.groups[0].rules.truncate(usize::from(round % 3));
        let _ = plane.apply(&w).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_is_survived_at_any_moment() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("kill");
    let dir = cloud.dir.path().join("node").to_str().unwrap().to_owned();
    let config = victims_config(&cloud.prefix, &dir);
    cloud.keep(config.clone());
    for (i, ms) in [20u64, 60, 90, 130, 170, 230, 310, 420, 600, 900].into_iter().enumerate() {
        let mut child = start_victim(&cloud, "kill::victim", &dir);
        tokio::time::sleep(Duration::from_millis(ms)).await;
        let _ = child.kill();
        child.wait().unwrap();
        let plane = DataPlane::open(config.clone()).await.unwrap();
        let want = wanted(4);
        apply(&plane, &want).await;
        let node = Guest::at(&plane.ns_path(Ns::Node).unwrap(), &cloud);
        let links = node.sh("ip -d -o link show");
        let taps = links.lines().filter(|l| l.contains(": tap")).count();
        assert_eq!(taps, 4, "after {ms} ms: {links}");
        let pins = std::fs::read_dir(pinned_links(&config)).unwrap().count();
        assert_eq!(pins, 6 + 2 * 4, "after {ms} ms: agent, copies twice, overlay, edge twice, ports twice");
        let (a, b) = (cloud.guest(&format!("a{i}")), cloud.guest(&format!("b{i}")));
        plane.open_veth("p0", &a.ns, "eth0").await.unwrap();
        plane.open_veth("p1", &b.ns, "eth0").await.unwrap();
        a.address("10.0.0.20/24", Some("10.0.0.1"));
        b.address("10.0.0.21/24", Some("10.0.0.1"));
        assert!(a.pings("10.0.0.21") && a.pings("203.0.113.1"), "after {ms} ms: {:?}", plane.stats());
    }
    // Killed once more, and cleared by somebody who knows nothing but the configuration.
    clear(config.clone()).await.unwrap();
    assert!(!ns_path(&config.prefix).exists() && !config.state_dir.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_namespace_or_a_lost_bpffs_is_made_again() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("lost");
    let dir = cloud.dir.path().join("node").to_str().unwrap().to_owned();
    let config = victims_config(&cloud.prefix, &dir);
    cloud.keep(config.clone());
    let lose_namespace = format!("ip netns del {}", config.prefix);
    let lose_pins = format!("umount {dir}/bpf");
    // Whoever makes the node's namespace beforehand, as for a device of the underlay.
    let swap_namespace = format!("ip netns del {0} && ip netns add {0} && ip -n {0} link set lo up", config.prefix);
    for (i, lose) in [lose_namespace, swap_namespace, lose_pins].iter().enumerate() {
        let plane = DataPlane::open(config.clone()).await.unwrap();
        apply(&plane, &wanted(2)).await;
        drop(plane);
        run(Command::new("sh").args(["-c", lose]));
        let plane = DataPlane::open(config.clone()).await.unwrap();
        apply(&plane, &wanted(2)).await;
        let (a, b) = (cloud.guest(&format!("a{i}")), cloud.guest(&format!("b{i}")));
        plane.open_veth("p0", &a.ns, "eth0").await.unwrap();
        plane.open_veth("p1", &b.ns, "eth0").await.unwrap();
        a.address("10.0.0.20/24", Some("10.0.0.1"));
        b.address("10.0.0.21/24", Some("10.0.0.1"));
        assert!(a.pings("10.0.0.21") && a.pings("203.0.113.1"), "{lose}: {:?}", plane.stats());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_somebody_broke_are_repaired_after_a_restart() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("repair");
    let config = cloud.config();
    let plane = DataPlane::open(config.clone()).await.unwrap();
    let want = wanted(2);
    apply(&plane, &want).await;
    let (a, b) = (cloud.guest("a"), cloud.guest("b"));
    plane.open_veth("p0", &a.ns, "eth0").await.unwrap();
    plane.open_veth("p1", &b.ns, "eth0").await.unwrap();
    a.address("10.0.0.20/24", None);
    b.address("10.0.0.21/24", None);
    assert!(a.pings("10.0.0.21"));
    // Pins are unlinked behind the agent's back.
    let pins = pinned_links(&config);
    let mut links: Vec<_> = std::fs::read_dir(&pins).unwrap().map(|e| e.unwrap().path()).collect();
    links.sort();
    drop(plane);
    for pin in links.iter().filter(|p| p.to_str().unwrap().ends_with("from_guest")) {
        std::fs::remove_file(pin).unwrap();
    }
    assert!(soon(|| !a.pings("10.0.0.21")), "without its program a port forwards nothing");
    let plane = DataPlane::open(config).await.unwrap();
    apply(&plane, &want).await;
    assert!(a.pings("10.0.0.21"), "{:?}", plane.stats());
}
