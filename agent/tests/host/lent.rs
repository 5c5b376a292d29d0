//! A lent prefix (DHCPv6) on the real packet path, by a real delegating server: said, kept over an agent's restart, given back.
use crate::life::Agent;
use crate::scheduler::Scheduler;
use pilvi_agent::runtime::Kind;
use pilvi_agent::{Config, NetworkMode};
use pilvi_agent_api::v1::*;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const KEA: &str = "/usr/sbin/kea-dhcp6";

/// A router with a way out whose network `n` has a lent subnet, which has no prefix yet.
fn asking(had: &str, until: u64) -> HostNetwork {
    let outside = Subnet { id: "e6".into(), cidr: "2001:db8:e::/64".into(), ..Subnet::default() };
    let gateway6 = RouterGateway {
        network_id: "ext".into(),
        address: "2001:db8:e::10".into(),
        prefix: 64,
        next_hop: "2001:db8:e::1".into(),
        mac: "fa:16:3e:02:00:10".into(),
        ..RouterGateway::default()
    };
    let delegation = Delegation { subnet_id: "s".into(), had: had.into(), until };
    HostNetwork {
        networks: vec![L2 {
            id: "ext".into(),
            vni: 9000,
            mtu: 1500,
            external: true,
            subnets: vec![outside],
            ..L2::default()
        }],
        routers: vec![Router {
            id: "r".into(),
            gateway6: Some(gateway6),
            delegations: vec![delegation],
            ..Router::default()
        }],
        ..HostNetwork::default()
    }
}

fn inside(ns: &str, script: &str) -> bool {
    let net = format!("--net=/run/netns/{ns}");
    Command::new("nsenter").args([&net, "sh", "-c", script]).stderr(Stdio::null()).status().unwrap().success()
}

async fn soon(what: &str, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !check() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn kea(ns: &str, dir: &Path) -> Child {
    let config = format!(
        r#"{{"Dhcp6": {{"interfaces-config": {{"interfaces": ["ext0"]}},
            "lease-database": {{"type": "memfile", "persist": true, "name": "{dir}/leases", "lfc-interval": 0}},
            "server-id": {{"type": "LL", "persist": false}}, "preferred-lifetime": 1800, "valid-lifetime": 3600,
            "subnet6": [{{"subnet": "2001:db8:e::/64", "interface": "ext0",
                "pd-pools": [{{"prefix": "2001:db8:4000::", "prefix-len": 40, "delegated-len": 64}}]}}],
            "loggers": [{{"name": "kea-dhcp6", "severity": "INFO",
                "output_options": [{{"output": "{dir}/log"}}]}}]}}}}"#,
        dir = dir.display()
    );
    let file = dir.join("kea.json");
    std::fs::write(&file, config).unwrap();
    // Of one that was killed.
    let _ = std::fs::remove_file(dir.join("kea.kea-dhcp6.pid"));
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{ns}")).arg(KEA).arg("-c").arg(&file);
    command.env("KEA_PIDFILE_DIR", dir).env("KEA_LOCKFILE_DIR", "none").env("KEA_DHCP_DATA_DIR", dir);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn prefix(seen: &Observed) -> Option<String> {
    seen.delegations.first().map(|d| d.prefix.clone()).filter(|p| !p.is_empty())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lent_prefix_outlives_the_agent_and_goes_when_it_is_to() {
    if !nix::unistd::geteuid().is_root() || !Path::new(KEA).exists() {
        eprintln!("skipped: needs root and kea-dhcp6-server");
        return;
    }
    let (dir, lease_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let scheduler = Scheduler::start().await;
    let name = format!("pilvi-l{}", std::process::id());
    let edge = format!("{name}-edge");
    let mut agent = Agent::start(Config {
        runtimes: vec![Kind::Fake],
        network: NetworkMode::Real,
        prefix: name.clone(),
        ..scheduler.config(dir.path())
    });
    scheduler.want(|wanted| wanted.network = Some(asking("", 0)));
    soon("the provider's link", || {
        inside(&edge, "sysctl -qw net.ipv6.conf.ext0.disable_ipv6=0 && ip link show ext0 >/dev/null")
    })
    .await;
    inside(&edge, "ip addr add 2001:db8:e::1/64 dev ext0 nodad");
    soon("its address", || inside(&edge, "ip -6 addr show dev ext0 scope link -tentative | grep -q fe80")).await;
    let server = Server(kea(&edge, lease_dir.path()));
    let seen = scheduler.until("a prefix", |seen| prefix(seen).is_some()).await;
    let (lent, until) = (prefix(&seen).unwrap(), seen.delegations[0].until);
    assert!(lent.starts_with("2001:db8:40") && seen.delegations[0].router_id == "r", "{seen:?}");

    // Nobody is there to ask, and the next agent knows it all the same.
    drop(server);
    agent.stop().await;
    scheduler.want(|wanted| wanted.network = Some(asking(&lent, until)));
    let generation = scheduler.wanted().generation;
    agent.again();
    let again =
        scheduler.until("the same prefix", |seen| seen.generation >= generation && prefix(seen).is_some()).await;
    assert_eq!((prefix(&again).unwrap(), again.delegations[0].until), (lent, until));

    let _server = Server(kea(&edge, lease_dir.path()));
    scheduler.want(|wanted| {
        let mut network = asking("", 0);
        network.routers[0].delegations.clear();
        network.releases = vec![Release { router_id: "r".into(), subnet_id: "s".into() }];
        wanted.network = Some(network);
    });
    scheduler.until("it is given back", |seen| seen.delegations.iter().any(|d| d.released)).await;
    let leases = std::fs::read_to_string(lease_dir.path().join("leases")).unwrap();
    let last = leases.lines().last().unwrap().split(',').nth(2);
    let log = || std::fs::read_to_string(lease_dir.path().join("log")).unwrap_or_default();
    assert_eq!(last, Some("0"), "{leases}{}", log());
    scheduler.want(|wanted| {
        let mut network = asking("", 0);
        network.routers.clear();
        wanted.network = Some(network);
    });
    scheduler.until("nothing of it is left", |seen| seen.delegations.is_empty()).await;
    assert!(!dir.path().join("delegations").exists());
    agent.end().await;
}
