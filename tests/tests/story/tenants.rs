//! Two tenants use the same addresses on one host and cannot reach each other; a security group rule opens a
//! port of a running guest, and its removal closes it.
//!
//! ```text
//!  red:  10.77.0.0/24   a .11 (floating IP)   b .12 (group `door`: ssh and ping, then 8080)
//!  blue: 10.77.0.0/24   c .13 (floating IP)   d .12 (the same address as b)
//! ```
use crate::world;
use pilvi_tests::{Api, Site, api::text, may_run, until};
use serde_json::{Value, json};
use std::time::Duration;

const BOOT: Duration = Duration::from_secs(240);

struct Side {
    api: Api,
    network: String,
    subnet: String,
    image: String,
}

impl Side {
    fn new(site: &Site, admin: &Api, name: &str) -> Self {
        let api = world::tenant(site, admin, name);
        let (network, subnet) = world::network(&api, name, "10.77.0.0/24");
        let public = api.get("/network/v2.0/networks?name=public").unwrap();
        let router =
            json!({"router": {"name": name, "external_gateway_info": {"network_id": public["networks"][0]["id"]}}});
        let router = text(&api.post("/network/v2.0/routers", &router).unwrap()["router"], "id");
        let leg = json!({"subnet_id": subnet});
        api.put(&format!("/network/v2.0/routers/{router}/add_router_interface"), &leg).unwrap();
        let key = std::fs::read_to_string(site.state.join("demo-key.pub")).unwrap();
        let key = json!({"keypair": {"name": "key", "type": "ssh", "public_key": key.trim()}});
        api.post("/compute/v2.1/os-keypairs", &key).unwrap();
        let images = api.get("/image/v2/images?name=starter").unwrap();
        Side { api, network, subnet, image: text(&images["images"][0], "id") }
    }

    /// A group that lets ssh and ping in.
    fn group(&self, name: &str) -> String {
        let group = self.api.post("/network/v2.0/security-groups", &json!({"security_group": {"name": name}})).unwrap();
        let id = text(&group["security_group"], "id");
        self.rule(&id, "tcp", Some(22));
        self.rule(&id, "icmp", None);
        id
    }

    fn rule(&self, group: &str, protocol: &str, port: Option<u16>) -> String {
        let rule = json!({"security_group_rule": {"security_group_id": group, "direction": "ingress", "ethertype": "IPv4",
            "protocol": protocol, "port_range_min": port, "port_range_max": port}});
        text(&self.api.post("/network/v2.0/security-group-rules", &rule).unwrap()["security_group_rule"], "id")
    }

    /// A server with a port of this address: (server id, port id).
    fn server(&self, name: &str, address: &str, group: &str) -> (String, String) {
        let port = json!({"port": {"network_id": self.network, "security_groups": [group],
            "fixed_ips": [{"subnet_id": self.subnet, "ip_address": address}]}});
        let port = text(&self.api.post("/network/v2.0/ports", &port).unwrap()["port"], "id");
        let new = json!({"server": {"name": name, "imageRef": self.image, "flavorRef": "1", "key_name": "key",
            "networks": [{"port": port}]}});
        (text(&self.api.post("/compute/v2.1/servers", &new).unwrap()["server"], "id"), port)
    }

    fn floating(&self, port: &str) -> String {
        let public = self.api.get("/network/v2.0/networks?name=public").unwrap();
        let new = json!({"floatingip": {"floating_network_id": public["networks"][0]["id"], "port_id": port}});
        text(&self.api.post("/network/v2.0/floatingips", &new).unwrap()["floatingip"], "floating_ip_address")
    }
}

fn ok(site: &Site, from: &str, command: &str) -> bool {
    let tried = site.ssh_once(from, command).unwrap();
    assert_ne!(tried.status.code(), Some(255), "ssh itself: {}", String::from_utf8_lossy(&tried.stderr));
    tried.status.success()
}

#[test]
fn tenants_with_the_same_addresses_are_apart_and_groups_act_at_once() {
    if !may_run("tenants") {
        return;
    }
    let site = Site::open("tenants").unwrap();
    let mut up = site.up(&[]).unwrap();
    up.wait_line("answered ssh", BOOT).unwrap();
    let admin = site.admin().unwrap();
    let (red, blue) = (Side::new(&site, &admin, "red"), Side::new(&site, &admin, "blue"));
    let (red_open, door, blue_open) = (red.group("open"), red.group("door"), blue.group("open"));
    let a = red.server("a", "10.77.0.11", &red_open);
    let b = red.server("b", "10.77.0.12", &door);
    let c = blue.server("c", "10.77.0.13", &blue_open);
    let d = blue.server("d", "10.77.0.12", &blue_open);
    for (side, server) in [(&red, &a), (&red, &b), (&blue, &c), (&blue, &d)] {
        world::wait_state(&side.api, &server.0, "ACTIVE", 180);
    }
    let (at_a, at_b, at_c) = (red.floating(&a.1), red.floating(&b.1), blue.floating(&c.1));
    for (at, name) in [(&at_a, "a"), (&at_b, "b"), (&at_c, "c")] {
        assert_eq!(site.ssh(at, "hostname", BOOT).unwrap().trim(), name);
    }
    apart(&site, &at_a, &at_c);
    door_opens_and_closes(&site, &red, &door, (&at_a, &at_b));
    for (side, server) in [(&red, &a), (&red, &b), (&blue, &c), (&blue, &d)] {
        side.api.delete(&format!("/compute/v2.1/servers/{}", server.0)).unwrap();
        world::wait_gone(&side.api, &server.0, 60);
    }
    assert!(up.interrupt(Duration::from_secs(30)).unwrap().success());
    site.finish().unwrap();
}

fn apart(site: &Site, at_a: &str, at_c: &str) {
    until(60, "a reaches b within its network", || ok(site, at_a, "ping -c 1 -W 2 10.77.0.12").then_some(()));
    until(60, "c reaches d within its network", || ok(site, at_c, "ping -c 1 -W 2 10.77.0.12").then_some(()));
    assert!(!ok(site, at_a, "ping -c 3 -W 1 10.77.0.13"), "red reaches blue's c");
    assert!(!ok(site, at_c, "ping -c 3 -W 1 10.77.0.11"), "blue reaches red's a");
    // The shared address is answered by each tenant's own guest.
    let key = |from: &str| site.ssh(from, "nc -w 3 10.77.0.12 22 </dev/null | head -c 4", BOOT).unwrap();
    assert_eq!((key(at_a).as_str(), key(at_c).as_str()), ("SSH-", "SSH-"));
    let mac = |from: &str| {
        let text = site.ssh(from, "ip neigh show 10.77.0.12", BOOT).unwrap();
        text.split_whitespace().skip_while(|w| *w != "lladdr").nth(1).map(str::to_owned)
    };
    assert_ne!(mac(at_a), mac(at_c), "one guest answers both tenants");
}

fn door_opens_and_closes(site: &Site, red: &Side, door: &str, (at_a, at_b): (&str, &str)) {
    let serve = "setsid sh -c 'while :; do echo hello | nc -l -p 8080; done' >/dev/null 2>&1 </dev/null &";
    site.ssh(at_b, serve, BOOT).unwrap();
    until(30, "the guest listens", || ok(site, at_b, "netstat -tln | grep -q :8080").then_some(()));
    let reached = || {
        let tried = site.ssh_once(at_a, "nc -w 2 10.77.0.12 8080 </dev/null").unwrap();
        String::from_utf8_lossy(&tried.stdout).trim() == "hello"
    };
    assert!(!reached(), "the port is reached before the rule");
    let rule = red.rule(door, "tcp", Some(8080));
    until(10, "the rule opens the port", || reached().then_some(()));
    red.api.delete(&format!("/network/v2.0/security-group-rules/{rule}")).unwrap();
    until(10, "the rule's removal closes the port", || (!reached()).then_some(()));
    let still: Value = red.api.get(&format!("/network/v2.0/security-groups/{door}")).unwrap();
    let rules = still["security_group"]["security_group_rules"].as_array().unwrap();
    assert!(rules.iter().all(|r| r["port_range_min"] != 8080), "{still}");
}
