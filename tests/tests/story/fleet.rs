//! One scheduler, three simulated hosts and a real one: 100 servers are spread; a frozen host is marked down, its
//! servers say so, the others go on; thawed, it is back.
use crate::world;
use nix::sys::signal::Signal;
use pilvi_tests::{Api, Site, api::text, kernel, may_run, until};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const SIMULATED: &str = "runtimes = [\"fake\"]\nnetwork = \"none\"\nheartbeat_ms = 500\n\
    [capacity]\nvcpus = 64\nmemory_mib = 65536\ndisk_gib = 1000";
const REAL: &str = "runtimes = [\"qemu\"]\nheartbeat_ms = 500";

fn service_state(admin: &Api, host: &str) -> String {
    let all = admin.get(&format!("/compute/v2.1/os-services?binary=nova-compute&host={host}")).unwrap();
    text(&all["services"][0], "state")
}

fn many(admin: &Api, name: &str, count: u32, image: &str, network: &str) {
    let new = json!({"server": {"name": name, "imageRef": image, "flavorRef": "one", "min_count": count, "max_count": count,
        "networks": [{"uuid": network}]}});
    admin.post("/compute/v2.1/servers", &new).unwrap();
}

fn servers(admin: &Api, query: &str) -> Vec<Value> {
    admin.get(&format!("/compute/v2.1/servers/detail?{query}")).unwrap()["servers"].as_array().unwrap().clone()
}

fn all_active(admin: &Api, name: &str, count: usize) -> Vec<Value> {
    until(180, &format!("{count} servers {name} are ACTIVE"), || {
        let all = servers(admin, &format!("name={name}&limit=1000"));
        let broken = all.iter().find(|s| s["status"] == "ERROR");
        assert!(broken.is_none(), "{}", broken.unwrap()["fault"]);
        (all.len() == count && all.iter().all(|s| s["status"] == "ACTIVE")).then_some(all)
    })
}

fn by_host(servers: &[Value]) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for server in servers {
        *count.entry(text(server, "OS-EXT-SRV-ATTR:host")).or_default() += 1;
    }
    count
}

#[test]
fn a_hundred_servers_on_many_hosts_survive_a_frozen_one() {
    if !may_run("fleet") {
        return;
    }
    let mut site = Site::open("fleet").unwrap();
    site.configure("host_silence_s = 4\ncheap_passwords = true\n").unwrap();
    let scheduler = site.serve().unwrap();
    let admin = site.admin().unwrap();
    let hosts: Vec<_> = ["f1", "f2", "f3"].map(|n| site.host(n, SIMULATED).unwrap()).into();
    let real = site.host("real", REAL).unwrap();
    let agents: Vec<_> = hosts.iter().chain([&real]).map(|h| site.start_agent(h).unwrap()).collect();
    for host in hosts.iter().chain([&real]) {
        world::wait_host(&admin, &host.name);
    }
    world::no_quota(&admin, &admin.project_id);
    world::flavor(&admin, "one", 128);
    let (fake, starter) = (world::fake_image(&admin), world::starter_image(&admin, &site.starter()));
    let (network, _) = world::network(&admin, "fleet", "10.55.0.0/16");
    many(&admin, "crowd", 50, &fake, &network);
    many(&admin, "crowd", 50, &fake, &network);
    many(&admin, "true", 1, &starter, &network);
    let spread = by_host(&all_active(&admin, "crowd", 100));
    println!("100 servers: {spread:?}");
    assert!(hosts.iter().all(|h| (25..=45).contains(spread.get(&h.name).unwrap_or(&0))), "unevenly spread: {spread:?}");
    for host in &hosts {
        assert_eq!(kernel::guests(&host.agent()).len(), spread[&host.name], "processes on {}", host.name);
    }
    let one = all_active(&admin, "true", 1);
    assert_eq!(text(&one[0], "OS-EXT-SRV-ATTR:host"), "real", "only the real host has qemu");

    frozen(&admin, &agents[0], &fake, &network);
    let gone: Vec<String> = servers(&admin, "limit=1000").iter().map(|s| text(s, "id")).collect();
    for id in &gone {
        admin.delete(&format!("/compute/v2.1/servers/{id}")).unwrap();
    }
    until(120, "all servers are gone", || servers(&admin, "limit=1000").is_empty().then_some(()));
    until(60, "no guest is left", || {
        let all = hosts.iter().chain([&real]);
        all.map(|h| kernel::guests(&h.agent()).len()).sum::<usize>().eq(&0).then_some(())
    });
    assert_eq!(world::claims(&admin), 0);
    drop((agents, scheduler));
    site.finish().unwrap();
}

/// `f1` stops answering; the scheduler says so, places elsewhere, and has it back when it answers again.
fn frozen(admin: &Api, agent: &pilvi_tests::Program, image: &str, network: &str) {
    agent.signal(Signal::SIGSTOP).unwrap();
    until(60, "the frozen host is down", || (service_state(admin, "f1") == "down").then_some(()));
    let hypervisors = admin.get("/compute/v2.1/os-hypervisors/detail").unwrap();
    let row =
        hypervisors["hypervisors"].as_array().unwrap().iter().find(|h| h["service"]["host"] == "f1").unwrap().clone();
    assert_eq!(row["state"], "down", "{row}");
    let of = |host: &str| servers(admin, &format!("limit=1000&host={host}"));
    for server in of("f1") {
        let said = server["host_status"].as_str().unwrap();
        assert!(["UNKNOWN", "DOWN"].contains(&said), "{server}");
    }
    assert!(of("f2").iter().all(|s| s["host_status"] == "UP" && s["status"] == "ACTIVE"));
    many(admin, "after", 6, image, network);
    let placed = by_host(&all_active(admin, "after", 6));
    assert!(!placed.contains_key("f1"), "placed on a host that is down: {placed:?}");
    agent.signal(Signal::SIGCONT).unwrap();
    until(60, "the thawed host is up", || (service_state(admin, "f1") == "up").then_some(()));
    until(30, "its servers are well again", || of("f1").iter().all(|s| s["host_status"] == "UP").then_some(()));
}
