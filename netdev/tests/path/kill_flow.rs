//! Agents that are killed at random while guests talk, by IPv4 and IPv6, on one host and through a router: nothing is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
use crate::cloud::six::*;
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Two ports that talk and `others` that come and go; each has both families.
fn wanted(others: u8) -> Wanted {
    let net = |id: &str, vni, third| {
        let mut n = network(id, vni, third);
        n.subnets.extend(network6(id, vni, third, None).subnets.into_iter().map(|s| Subnet { id: "six".into(), ..s }));
        n
    };
    let make = |id: &str, net: &str, n: u8, third: u8| {
        let mut p = port(id, net, n, &format!("10.0.{third}.{}", 10 + n), &["g"]);
        p.fixed.push(Fixed { subnet: "six".into(), address: format!("fd00:{third}::{:x}", 16 + n).parse().unwrap() });
        p
    };
    let mut group = open_group("g");
    group.rules.extend(open6("g").rules);
    let legs = vec![leg("n0", 0, 1), leg("n1", 1, 2), leg6("n0", 0, 1), leg6("n1", 1, 2)];
    let mut ports = vec![make("a", "n0", 1, 0), make("b", "n1", 2, 1), make("c", "n0", 3, 0)];
    ports.extend((0..others).map(|n| make(&format!("o{n}"), "n0", 20 + n, 0)));
    Wanted {
        networks: vec![net("n0", 100, 0), net("n1", 101, 1)],
        ports,
        groups: vec![group],
        routers: vec![router("r", legs, None)],
        ..Wanted::default()
    }
}

/// Not a test by itself: the process that is killed.
#[tokio::test(flavor = "multi_thread")]
async fn victim() {
    let Some(config) = crate::cloud::victim() else { return };
    let plane = DataPlane::open(config).await.unwrap();
    for round in 0u8..250 {
        let _ = plane.apply(&wanted(round % 4)).await;
    }
}

async fn talker(cloud: &mut Cloud, plane: &DataPlane, id: &str, third: u8, n: u8) -> Guest {
    let guest = guest6(cloud, plane, id, Some(&format!("fd00:{third}::{:x}", 16 + n))).await;
    guest.address(&format!("10.0.{third}.{}/24", 10 + n), Some(&format!("10.0.{third}.1")));
    guest.sh(&format!("ip -6 route add default via fd00:{third}::1"));
    guest
}

#[tokio::test(flavor = "multi_thread")]
async fn no_packet_is_lost_while_agents_are_killed() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("killflow");
    let dir = cloud.dir.path().join("node").to_str().unwrap().to_owned();
    let config = victims_config(&cloud.prefix, &dir);
    cloud.keep(config.clone());
    let plane = DataPlane::open(config.clone()).await.unwrap();
    apply(&plane, &wanted(0)).await;
    let a = talker(&mut cloud, &plane, "a", 0, 1).await;
    let b = talker(&mut cloud, &plane, "b", 1, 2).await;
    let c = talker(&mut cloud, &plane, "c", 0, 3).await;
    let all = ["10.0.0.13", "10.0.1.12", "fd00:0::13", "fd00:1::12"];
    assert!(all.iter().all(|to| soon(|| a.pings(to))), "{:?}", plane.stats());
    // What makes the packet path work beside the pings, where it is installed.
    for (guest, to) in [(&c, "10.0.0.13"), (&b, "fd00:1::12")] {
        cloud.background(guest.spawn("iperf3 -s -p 5201"));
        let client = format!("sh -c 'sleep 0.3; exec iperf3 -c {to} -p 5201 -t 60 -b 200M'");
        cloud.background(a.spawn(&client));
    }
    let ask = |to: &str| {
        let mut ping = a.command("ping", &["-n", "-i", "0.01", "-c", "700", "-W", "5", to]);
        ping.stdout(Stdio::piped()).spawn().unwrap()
    };
    let asking: Vec<_> = all.iter().map(|to| ask(to)).collect();
    let before = plane.stats().unwrap().drops;
    drop(plane);
    let mut dice = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    eprintln!("kills from {dice}");
    for _ in 0..12 {
        let mut child = start_victim(&cloud, "kill_flow::victim", &dir);
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        tokio::time::sleep(Duration::from_millis(u64::from(dice >> 16) % 700)).await;
        let _ = child.kill();
        child.wait().unwrap();
    }
    for (ping, to) in asking.into_iter().zip(all) {
        let said = tokio::task::spawn_blocking(move || ping.wait_with_output()).await.unwrap().unwrap();
        let said = text(&said.stdout);
        assert!(said.contains("700 received"), "{to}: {said}");
    }
    let plane = DataPlane::open(config).await.unwrap();
    let mut after = plane.stats().unwrap().drops;
    // What guests say to everybody is always dropped; what comes for a port that goes has nowhere to go.
    for usual in ["multicast", "arp-unknown", "dhcp", "no-port", "stack", "family", "spoofed-arp"] {
        after.remove(usual);
    }
    let lost: Vec<_> = after.iter().filter(|(why, n)| before.get(*why) != Some(*n)).collect();
    assert!(lost.is_empty(), "{lost:?}, before {before:?}");
    apply(&plane, &wanted(2)).await;
    assert!(all.iter().all(|to| a.pings(to)), "{:?}", plane.stats());
}
