//! A cloud of two hosts that a judge from outside is run against, as `pair` is for two schedulers: guests on both, networks
//! between them, cold and live migration.
//!
//! ```text
//!  pilvi serve <--- agent h1 (has the stand-in for the provider) --.
//!       ^ ^-------- agent h2 (joins it) ---------------------------+-- underlay, external network
//!       '--- the same address in the stand-in's namespace, where floating IPs answer
//! ```
//! `PILVI_HOSTS_COMMAND` is a shell's command (`--ignored a_command`) that finds in its environment the cloud's address
//! (`PILVI_HOSTS_URL`), authority (`PILVI_HOSTS_CA`), the namespace (`PILVI_HOSTS_NETNS`) and the administrator's password
//! (`OS_PASSWORD`). The file `PILVI_HOSTS_SETTINGS` is put to the scheduler's settings.
use crate::world;
use pilvi_tests::{Balancer, Program, Site, api::text, site::Host};
use serde_json::json;

#[test]
#[ignore = "runs PILVI_HOSTS_COMMAND"]
fn a_command_runs_at_a_cloud_of_two_hosts() {
    let command = std::env::var("PILVI_HOSTS_COMMAND").expect("PILVI_HOSTS_COMMAND");
    let more = std::env::var("PILVI_HOSTS_SETTINGS").map(|path| std::fs::read_to_string(path).unwrap());
    let mut site = Site::open("hosts").unwrap();
    site.configure(&format!("cheap_passwords = true\n{}", more.unwrap_or_default())).unwrap();
    let scheduler = site.serve().unwrap();
    let api = site.admin().unwrap();
    let edge = format!("{}-edge", pilvi_tests::site::prefix(&site.state.with_file_name("h1")));
    let mut agents: Vec<Program> = Vec::new();
    for (name, join) in [("h1", String::new()), ("h2", format!("join_edge = \"{edge}\"\n"))] {
        let number = agents.len() + 1;
        let settings =
            format!("runtimes = [\"qemu\"]\n{join}[underlay]\ndevice = \"u0\"\naddress = \"10.255.9.{number}\"");
        let host: Host = site.host(name, &settings).unwrap();
        agents.push(site.start_agent(&host).unwrap());
        world::wait_host(&api, &host.name);
    }
    world::starter_image(&api, &site.starter());
    let public = json!({"network": {"name": "public", "router:external": true, "provider:network_type": "flat",
        "provider:physical_network": "external"}});
    let public = text(&api.post("/network/v2.0/networks", &public).unwrap()["network"], "id");
    let subnet = json!({"subnet": {"network_id": public, "ip_version": 4, "cidr": "203.0.113.0/24",
        "gateway_ip": "203.0.113.1", "enable_dhcp": false}});
    api.post("/network/v2.0/subnets", &subnet).unwrap();
    // The stand-in has the provider's addresses as long as its own host knows the network, guests there or not.
    let stays = json!({"router": {"name": "stays", "external_gateway_info": {"network_id": public}}});
    let stays = text(&api.post("/network/v2.0/routers", &stays).unwrap()["router"], "id");
    let holder = api.get("/network/v2.0/agents?host=h1&agent_type=L3%20agent").unwrap();
    let holder = text(&holder["agents"][0], "id");
    api.post(&format!("/network/v2.0/agents/{holder}/l3-routers"), &json!({"router_id": stays})).unwrap();
    let inside = Balancer::inside(&edge, site.port).unwrap();
    let status = std::process::Command::new("/bin/sh")
        .args(["-c", &command])
        .env("PILVI_HOSTS_URL", site.url())
        .env("PILVI_HOSTS_CA", site.state.join("pki/ca.pem"))
        .env("PILVI_HOSTS_NETNS", &edge)
        .env("OS_PASSWORD", std::fs::read_to_string(site.state.join("admin-password")).unwrap().trim())
        .status()
        .unwrap();
    println!("hosts: the command ended ({status})");
    drop((inside, scheduler, agents));
    site.finish().unwrap();
}
