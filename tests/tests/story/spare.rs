//! A router's way out goes from a host that dies to the next one in order, and back when it is there again.
//!
//! ```text
//!   edge --ping--> the router's address outside = first candidate that lives: one, two or three
//! ```
//! Three hosts on an underlay of their own, and one more that has the edge and is sent away from the router. A host dies as
//! machines do: its agent is killed and its network is gone. The scheduler is killed as well, in the middle.
use crate::{follow::Switch, world};
use nix::sys::signal::Signal;
use pilvi_tests::{Api, Program, Site, api::text, may_run, site::Host, until};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

const PATIENCE: u64 = 300;

/// What operators see of one host and the router.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    host: String,
    agent: String,
    state: String,
    priority: u64,
}

fn rows(api: &Api, router: &str) -> Option<Vec<Row>> {
    let answer = api.get(&format!("/network/v2.0/routers/{router}/l3-agents")).ok()?;
    let row = |a: &Value| Row {
        host: text(a, "host"),
        agent: text(a, "id"),
        state: text(a, "ha_state"),
        priority: a["ha_chassis_priority"].as_u64().unwrap_or_default(),
    };
    answer["agents"].as_array().map(|all| all.iter().map(row).collect())
}

/// Waits until this host, and no other, holds the way out.
fn wait_active(api: &Api, router: &str, host: &str) {
    until(PATIENCE, &format!("{host} holds the way out"), || {
        let rows = rows(api, router)?;
        let active: Vec<&str> = rows.iter().filter(|r| r.state == "active").map(|r| r.host.as_str()).collect();
        (active == [host]).then_some(())
    });
}

/// Hosts whose ports say that they live.
fn living(api: &Api, router: &str) -> Option<Vec<String>> {
    let path = format!("/network/v2.0/ports?device_id={router}&device_owner=network:router_ha_interface&status=ACTIVE");
    let mut hosts: Vec<String> =
        api.get(&path).ok()?["ports"].as_array()?.iter().map(|p| text(p, "binding:host_id")).collect();
    hosts.sort();
    Some(hosts)
}

fn wait_living(api: &Api, router: &str, hosts: &[&str]) {
    let mut hosts: Vec<&str> = hosts.to_vec();
    hosts.sort_unstable();
    until(PATIENCE, &format!("ports of {hosts:?} are ACTIVE"), || (living(api, router)? == hosts).then_some(()));
}

/// Is there an answer from outside within a second?
fn answers(edge: &str, address: &str) -> bool {
    let mut ping = Command::new("ip");
    ping.args(["netns", "exec", edge, "ping", "-n", "-c", "1", "-W", "1", address]);
    ping.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

fn wait_answers(edge: &str, address: &str) {
    until(PATIENCE, "the router answers outside", || answers(edge, address).then_some(()));
}

/// A host that can die.
struct Machine {
    host: Host,
    number: usize,
    agent: Option<Program>,
}

impl Machine {
    fn live(&mut self, site: &Site, switch: &Switch) {
        switch.connect(&self.host.prefix(), self.number);
        self.agent = Some(site.start_agent(&self.host).unwrap());
    }

    fn die(&mut self) {
        let agent = self.agent.take().unwrap();
        agent.signal(Signal::SIGKILL).unwrap();
        drop(agent);
        let gone = Command::new("ip").args(["netns", "delete", &self.host.prefix()]).status().unwrap();
        assert!(gone.success(), "the namespace of {}", self.host.name);
    }
}

/// The agent of a host, below which its routers are.
fn agent_of(api: &Api, host: &str) -> String {
    let agents = api.get(&format!("/network/v2.0/agents?host={host}&agent_type=L3%20agent")).unwrap();
    format!("/network/v2.0/agents/{}/l3-routers", text(&agents["agents"][0], "id"))
}

/// A router that keeps spare ways, and its address outside. Another one has its way out by the host with the edge, which so
/// stands in for the provider all the while.
fn router(api: &Api) -> (String, String) {
    let public = json!({"network": {"name": "public", "router:external": true,
        "provider:network_type": "flat", "provider:physical_network": "external"}});
    let public = text(&api.post("/network/v2.0/networks", &public).unwrap()["network"], "id");
    let subnet = json!({"subnet": {"network_id": public, "ip_version": 4, "cidr": "203.0.113.0/24",
        "gateway_ip": "203.0.113.1", "enable_dhcp": false}});
    api.post("/network/v2.0/subnets", &subnet).unwrap();
    let other = json!({"router": {"name": "stays", "external_gateway_info": {"network_id": public}}});
    let other = text(&api.post("/network/v2.0/routers", &other).unwrap()["router"], "id");
    api.post(&agent_of(api, "edge"), &json!({"router_id": other})).unwrap();
    let (_, subnet) = world::network(api, "inside", "10.45.0.0/24");
    let router = json!({"router": {"name": "spare", "ha": true, "external_gateway_info": {"network_id": public}}});
    let router = api.post("/network/v2.0/routers", &router).unwrap()["router"].clone();
    let id = text(&router, "id");
    let leg = json!({"subnet_id": subnet});
    api.put(&format!("/network/v2.0/routers/{id}/add_router_interface"), &leg).unwrap();
    let address = text(&router["external_gateway_info"]["external_fixed_ips"][0], "ip_address");
    (id, address)
}

#[test]
fn the_way_out_goes_from_a_host_that_dies_to_the_next() {
    if !may_run("spare") {
        return;
    }
    let mut site = Site::open("spare").unwrap();
    site.configure("host_silence_s = 3\ncheap_passwords = true\n").unwrap();
    let mut scheduler = site.serve().unwrap();
    let switch = Switch::open(&site.prefix());
    let edge = format!("{}-edge", pilvi_tests::site::prefix(&site.state.with_file_name("edge")));
    let mut machines: Vec<Machine> = ["edge", "one", "two", "three"]
        .iter()
        .zip(1..)
        .map(|(name, number)| {
            let join = if number == 1 { String::new() } else { format!("join_edge = \"{edge}\"\n") };
            let settings = format!(
                "runtimes = [\"fake\"]\nheartbeat_ms = 300\n{join}[underlay]\ndevice = \"u0\"\naddress = \"10.255.7.{number}\""
            );
            Machine { host: site.host(name, &settings).unwrap(), number, agent: None }
        })
        .collect();
    let api = site.admin().unwrap();
    for machine in &mut machines {
        machine.live(&site, &switch);
        world::wait_host(&api, &machine.host.name);
    }
    let (id, address) = router(&api);
    let away = agent_of(&api, "edge");
    // It is sent away whether it was chosen or not: a host that is asked is a candidate first.
    until(PATIENCE, "three stand by", || rows(&api, &id).filter(|rows| rows.len() == 3));
    let _ = api.post(&away, &json!({"router_id": id}));
    api.delete(&format!("{away}/{id}")).unwrap();
    let order = until(PATIENCE, "the other three stand by", || {
        rows(&api, &id).filter(|rows| rows.len() == 3 && rows.iter().all(|r| r.host != "edge"))
    });
    let names: Vec<String> = order.iter().map(|r| r.host.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    println!("  the order: {names:?}");
    assert!(order.windows(2).all(|pair| pair[0].priority > pair[1].priority), "{order:?}");
    wait_living(&api, &id, &names);
    wait_active(&api, &id, names[0]);
    wait_answers(&edge, &address);
    let at = |name: &str| machines.iter().position(|m| m.host.name == name).unwrap();
    let places: Vec<usize> = names.iter().map(|name| at(name)).collect();

    machines[places[0]].die();
    wait_active(&api, &id, names[1]);
    wait_living(&api, &id, &names[1..]);
    wait_answers(&edge, &address);

    // The next one dies, and the scheduler with it.
    scheduler.signal(Signal::SIGKILL).unwrap();
    drop(scheduler);
    machines[places[1]].die();
    scheduler = site.serve().unwrap();
    wait_active(&api, &id, names[2]);
    wait_living(&api, &id, &names[2..]);
    wait_answers(&edge, &address);

    // Back, in any order: the first of those that live holds.
    machines[places[1]].live(&site, &switch);
    wait_active(&api, &id, names[1]);
    wait_answers(&edge, &address);
    machines[places[0]].live(&site, &switch);
    wait_active(&api, &id, names[0]);
    wait_living(&api, &id, &names);
    wait_answers(&edge, &address);

    // An operator has the last one hold it, without a host that dies.
    let last = format!("/network/v2.0/agents/{}/l3-routers/{id}", order[2].agent);
    api.put(&last, &json!({"ha_chassis_priority": 100})).unwrap();
    wait_active(&api, &id, names[2]);
    wait_answers(&edge, &address);
    drop((scheduler, machines, switch));
    site.finish().unwrap();
}
