//! A QEMU guest on the real packet path: its tap, its port, and nothing left afterwards.
use crate::guest;
use crate::life::{Agent, ONE, instance};
use crate::scheduler::Scheduler;
use pilvi_agent::runtime::Kind;
use pilvi_agent::{Config, NetworkMode};
use pilvi_agent_api::v1::*;
use std::path::Path;

fn network() -> HostNetwork {
    let subnet = Subnet {
        id: "s1".into(),
        cidr: "10.9.0.0/24".into(),
        gateway: "10.9.0.1".into(),
        dhcp: true,
        dhcp_server: "10.9.0.2".into(),
        lease_seconds: 3600,
        ..Subnet::default()
    };
    HostNetwork {
        networks: vec![L2 { id: "n1".into(), vni: 77, mtu: 1450, subnets: vec![subnet], ..L2::default() }],
        ports: vec![Port {
            id: "p1".into(),
            network_id: "n1".into(),
            mac: "fa:16:3e:00:00:05".into(),
            fixed_ips: vec![FixedIp { subnet_id: "s1".into(), address: "10.9.0.5".into() }],
            port_security: true,
            up: true,
            instance_id: ONE.into(),
            ..Port::default()
        }],
        ..HostNetwork::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_with_a_tap_survives_the_agent() {
    if !guest::qemu() {
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: network namespaces need root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let scheduler = Scheduler::start().await;
    let prefix = format!("pilvi-t{}", std::process::id());
    let mut agent = Agent::start(Config {
        runtimes: vec![Kind::Qemu],
        network: NetworkMode::Real,
        prefix: prefix.clone(),
        ..scheduler.config(dir.path())
    });
    let mut sector = guest::boot_sector(0);
    sector.resize(1 << 20, 0);
    let image = scheduler.image("boot", sector);
    scheduler.want(|wanted| {
        let disk = Disk { id: "root".into(), image: Some(image), ..Disk::default() };
        let nic = Nic { port_id: "p1".into(), mac: "fa:16:3e:00:00:05".into(), mtu: 1450 };
        wanted.instances = vec![Instance { disks: vec![disk], nics: vec![nic], ..instance(ONE) }];
        wanted.network = Some(network());
    });
    let first = scheduler.until_settled(ONE, Power::Running).await;
    let seen = scheduler.until("wired", |seen| seen.ports.iter().any(|port| port.wired)).await;
    assert!(seen.network_error.is_empty() && !seen.ports[0].device.is_empty(), "{seen:?}");
    agent.stop().await;
    agent.again();
    scheduler.hello().await;
    scheduler.change(ONE, |instance| instance.hard_reboots += 1);
    let again = scheduler.until_settled(ONE, Power::Running).await;
    assert_ne!(again.pid, first.pid);
    scheduler.want(|wanted| *wanted = Wanted { generation: wanted.generation, ..Wanted::default() });
    scheduler.until_gone(ONE).await;
    scheduler.until("no port", |seen| seen.ports.is_empty()).await;
    agent.end().await;
    for name in [prefix.clone(), format!("{prefix}-edge")] {
        assert!(!Path::new("/run/netns").join(&name).exists(), "{name} is left");
    }
}
