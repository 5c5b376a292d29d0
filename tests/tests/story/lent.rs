//! A real delegating server (Kea) on the provider's wire lends the prefix of a subnet: the API shows it with the addresses of
//! servers, a killed agent and a dead server change nothing of that, and it is given back with the router's leg.
use crate::world;
use nix::sys::signal::Signal;
use pilvi_tests::{Api, Site, api::text, may_run, pause, until};
use serde_json::{Value, json};
use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

const KEA: &str = "/usr/sbin/kea-dhcp6";
const HOST: &str = "runtimes = [\"fake\"]\nheartbeat_ms = 500";

/// Ends with the story.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn inside(ns: &str, script: &str) -> bool {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", ns, "sh", "-c", script]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().success()
}

/// A server in the namespace of the provider that lends parts of `2001:db8:4000::/40` for an hour.
fn kea(ns: &str, dir: &Path) -> Server {
    let at = dir.display();
    let config = json!({"Dhcp6": {
        "interfaces-config": {"interfaces": ["ext0"]},
        "lease-database": {"type": "memfile", "persist": true, "name": format!("{at}/leases"), "lfc-interval": 0},
        "server-id": {"type": "LL", "persist": false},
        "preferred-lifetime": 1800, "valid-lifetime": 3600,
        "subnet6": [{"subnet": "2001:db8:e::/64", "interface": "ext0",
            "pd-pools": [{"prefix": "2001:db8:4000::", "prefix-len": 40, "delegated-len": 64}]}],
    }});
    let file = dir.join("kea.json");
    std::fs::write(&file, config.to_string()).unwrap();
    // Of one that was killed.
    let _ = std::fs::remove_file(dir.join("kea.kea-dhcp6.pid"));
    let mut command = Command::new("ip");
    command.args(["netns", "exec", ns, KEA, "-c"]).arg(&file);
    command.env("KEA_PIDFILE_DIR", dir).env("KEA_LOCKFILE_DIR", "none").env("KEA_DHCP_DATA_DIR", dir);
    Server(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// The last word of its file: a prefix and for how long it is lent.
fn last_lease(dir: &Path) -> Option<(String, String)> {
    let text = std::fs::read_to_string(dir.join("leases")).ok()?;
    let mut fields = text.lines().skip(1).last()?.split(',');
    Some((fields.next()?.to_owned(), fields.nth(1)?.to_owned()))
}

fn make(admin: &Api, path: &str, kind: &str, attrs: Value) -> Value {
    admin.post(&format!("/network/v2.0/{path}"), &json!({ kind: attrs })).unwrap()[kind].clone()
}

fn cidr(admin: &Api, subnet: &str) -> String {
    text(&admin.get(&format!("/network/v2.0/subnets/{subnet}")).unwrap()["subnet"], "cidr")
}

fn leg(admin: &Api, router: &str, verb: &str, subnet: &str) {
    let path = format!("/network/v2.0/routers/{router}/{verb}_router_interface");
    admin.put(&path, &json!({"subnet_id": subnet})).unwrap();
}

/// The only address of a server, as compute and the network show it.
fn address(admin: &Api, server: &str) -> String {
    let ports = admin.get(&format!("/network/v2.0/ports?device_id={server}")).unwrap();
    let port = text(&ports["ports"][0]["fixed_ips"][0], "ip_address");
    let shown = world::server(admin, server).unwrap();
    let all = shown["addresses"]["inside"].as_array().cloned().unwrap_or_default();
    assert_eq!(all.iter().map(|a| text(a, "addr")).collect::<Vec<_>>(), std::slice::from_ref(&port));
    port
}

#[test]
fn the_provider_lends_a_subnet_its_prefix() {
    if !may_run("lent") {
        return;
    }
    if !Path::new(KEA).exists() {
        println!("SKIPPED: needs kea-dhcp6-server");
        return;
    }
    let mut site = Site::open("lent").unwrap();
    site.configure("cheap_passwords = true\n[network]\nprefix_delegation = true\n").unwrap();
    let scheduler = site.serve().unwrap();
    let admin = site.admin().unwrap();
    let host = site.host("one", HOST).unwrap();
    let agent = site.start_agent(&host).unwrap();
    world::wait_host(&admin, "one");

    let public = json!({"name": "outside", "router:external": true, "provider:network_type": "flat",
        "provider:physical_network": "external"});
    let public = text(&make(&admin, "networks", "network", public), "id");
    make(&admin, "subnets", "subnet", json!({"network_id": public, "ip_version": 6, "cidr": "2001:db8:e::/64"}));
    let network = text(&make(&admin, "networks", "network", json!({"name": "inside"})), "id");
    // The default pool of IPv6 is the provider's.
    let new = json!({"network_id": network, "ip_version": 6, "use_default_subnetpool": true,
        "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"});
    let subnet = make(&admin, "subnets", "subnet", new);
    assert_eq!((&subnet["cidr"], &subnet["subnetpool_id"]), (&json!("::/64"), &json!("prefix_delegation")));
    let subnet = text(&subnet, "id");
    let way = json!({"name": "way", "external_gateway_info": {"network_id": public}});
    let router = text(&make(&admin, "routers", "router", way), "id");
    world::flavor(&admin, "one", 128);
    let image = world::fake_image(&admin);
    let new =
        json!({"server": {"name": "guest", "imageRef": image, "flavorRef": "one", "networks": [{"uuid": network}]}});
    let server = text(&admin.post("/compute/v2.1/servers", &new).unwrap()["server"], "id");
    world::wait_state(&admin, &server, "ACTIVE", 120);
    assert!(address(&admin, &server).starts_with("::f816:3eff:fe"));

    let (edge, dir) = (format!("{}-edge", host.prefix()), tempfile::tempdir().unwrap());
    assert!(inside(&edge, "sysctl -qw net.ipv6.conf.ext0.disable_ipv6=0; ip addr add 2001:db8:e::1/64 dev ext0 nodad"));
    let up = "ip -6 addr show dev ext0 scope link -tentative | grep -q fe80";
    until(20, "the provider's address", || inside(&edge, up).then_some(()));
    let kea_runs = kea(&edge, dir.path());
    leg(&admin, &router, "add", &subnet);
    let lent = |what: &str| until(60, what, || Some(cidr(&admin, &subnet)).filter(|c| c != "::/64"));
    let prefix = lent("the subnet has a prefix");
    assert_eq!(last_lease(dir.path()), Some((prefix.replace("/64", ""), "3600".into())));
    let own = address(&admin, &server);
    assert!(own.starts_with(prefix.trim_end_matches("::/64")), "{own} of {prefix}");

    // A killed agent, and nobody to ask: what was lent is known.
    drop(kea_runs);
    agent.signal(Signal::SIGKILL).unwrap();
    drop(agent);
    let agent = site.start_agent(&host).unwrap();
    pause(std::time::Duration::from_secs(6));
    assert_eq!((cidr(&admin, &subnet), address(&admin, &server)), (prefix, own));

    // Given back with the leg, and lent anew with the next one.
    let kea_runs = kea(&edge, dir.path());
    leg(&admin, &router, "remove", &subnet);
    assert_eq!(cidr(&admin, &subnet), "::/64");
    assert!(address(&admin, &server).starts_with("::f816:3eff:fe"));
    until(30, "it is given back", || last_lease(dir.path()).filter(|(_, life)| life == "0"));
    leg(&admin, &router, "add", &subnet);
    lent("a prefix once more");
    leg(&admin, &router, "remove", &subnet);
    admin.delete(&format!("/compute/v2.1/servers/{server}")).unwrap();
    world::wait_gone(&admin, &server, 60);
    drop((agent, scheduler, kea_runs));
    site.finish().unwrap();
}
