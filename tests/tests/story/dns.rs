//! The operator's name server (a real BIND) knows what ports and floating IPs are called: they come, are renamed and go with
//! the cloud's own, whether scheduler or server was away meanwhile, and with the right key only.
//!
//! ```text
//!  pilvi serve --signed updates, 127.0.0.1--> BIND: example.org, 10.10.10.in-addr.arpa <-- dig
//! ```
use pilvi_dns_update::testing::{Named, SECRET, named_is_here, until};
use pilvi_tests::{Api, Site, api::text, may_run};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;

fn make(admin: &Api, path: &str, kind: &str, attrs: Value) -> Value {
    admin.post(&format!("/network/v2.0/{path}"), &json!({ kind: attrs })).unwrap()[kind].clone()
}

fn set(admin: &Api, path: &str, body: &Value) {
    admin.put(&format!("/network/v2.0/{path}"), body).unwrap();
}

fn remove(admin: &Api, path: &str) {
    admin.delete(&format!("/network/v2.0/{path}")).unwrap();
}

/// An inside network whose addresses are published, and a way out.
struct Cloud {
    admin: Api,
    inside: String,
    public: String,
}

impl Cloud {
    fn new(admin: Api) -> Self {
        let external = json!({"name": "outside", "router:external": true});
        let public = text(&make(&admin, "networks", "network", external), "id");
        let subnet = json!({"network_id": public, "ip_version": 4, "cidr": "198.51.100.0/24"});
        make(&admin, "subnets", "subnet", subnet);
        let inside = json!({"name": "inside", "dns_domain": "<project_name>.example.org."});
        let inside = text(&make(&admin, "networks", "network", inside), "id");
        let subnet =
            json!({"network_id": inside, "ip_version": 4, "cidr": "10.10.10.0/24", "dns_publish_fixed_ip": true});
        let subnet = text(&make(&admin, "subnets", "subnet", subnet), "id");
        let router = json!({"name": "way", "external_gateway_info": {"network_id": public}});
        let router = text(&make(&admin, "routers", "router", router), "id");
        set(&admin, &format!("routers/{router}/add_router_interface"), &json!({"subnet_id": subnet}));
        Cloud { admin, inside, public }
    }

    fn port(&self, name: &str, address: &str) -> String {
        let new = json!({"network_id": self.inside, "dns_name": name, "fixed_ips": [{"ip_address": address}]});
        text(&make(&self.admin, "ports", "port", new), "id")
    }

    fn rename(&self, port: &str, name: &str) {
        set(&self.admin, &format!("ports/{port}"), &json!({"port": {"dns_name": name}}));
    }
}

#[test]
fn the_providers_name_server_knows_what_ports_are_called() {
    if !may_run("dns") || !named_is_here() {
        return;
    }
    let mut named = Named::start(&["example.org", "10.10.10.in-addr.arpa"], "");
    let site = Site::open("dns").unwrap();
    std::fs::set_permissions(named.key_file(), std::fs::Permissions::from_mode(0o600)).unwrap();
    let (server, key) = (named.address(), named.key_file());
    let settings = format!(
        "cheap_passwords = true\n[network.dns]\nserver = \"{server}\"\nkey_file = \"{}\"\nzones = [\"example.org\"]\nreverse = true\n",
        key.display()
    );
    site.configure(&settings).unwrap();
    let scheduler = site.serve().unwrap();
    let cloud = Cloud::new(site.admin().unwrap());
    let web = cloud.port("web", "10.10.10.11");
    named.wait("web.admin.example.org", "A", &["10.10.10.11"]);
    named.wait("11.10.10.10.in-addr.arpa", "PTR", &["web.admin.example.org."]);
    cloud.rename(&web, "shop");
    named.wait("shop.admin.example.org", "A", &["10.10.10.11"]);
    named.wait("web.admin.example.org", "A", &[]);

    // A floating IP is called as its port, while it leads there.
    let floating =
        make(&cloud.admin, "floatingips", "floatingip", json!({"floating_network_id": cloud.public, "port_id": web}));
    let (path, address) = (format!("floatingips/{}", text(&floating, "id")), text(&floating, "floating_ip_address"));
    named.wait("shop.admin.example.org", "A", &["10.10.10.11", &address]);
    set(&cloud.admin, &path, &json!({"floatingip": {"port_id": null}}));
    named.wait("shop.admin.example.org", "A", &["10.10.10.11"]);
    set(&cloud.admin, &path, &json!({"floatingip": {"port_id": web}}));
    named.wait("shop.admin.example.org", "A", &["10.10.10.11", &address]);

    // Server and scheduler go, one after the other; what was acknowledged is told when both are back.
    named.kill();
    cloud.rename(&web, "late");
    let gone = cloud.port("gone", "10.10.10.12");
    scheduler.kill().unwrap();
    let scheduler = site.serve().unwrap();
    remove(&cloud.admin, &format!("ports/{gone}"));
    named.again();
    named.wait("late.admin.example.org", "A", &["10.10.10.11", &address]);
    named.wait("shop.admin.example.org", "A", &[]);
    named.wait("gone.admin.example.org", "A", &[]);
    // Killed in the middle of many, none is lost and none is left.
    let many: Vec<String> = (0..40).map(|n| cloud.port(&format!("m{n}"), &format!("10.10.10.{}", 100 + n))).collect();
    scheduler.kill().unwrap();
    let scheduler = site.serve().unwrap();
    for n in 0..40 {
        named.wait(&format!("m{n}.admin.example.org"), "A", &[&format!("10.10.10.{}", 100 + n)]);
    }
    many.iter().for_each(|port| remove(&cloud.admin, &format!("ports/{port}")));
    scheduler.kill().unwrap();
    let scheduler = site.serve().unwrap();
    for n in 0..40 {
        named.wait(&format!("m{n}.admin.example.org"), "A", &[]);
    }

    // With another key nothing is taken; the log says so, and it goes on with the right one.
    named.set_secret("YW5vdGhlci1rZXk=");
    cloud.rename(&web, "signed");
    until("the log names the key", || site.logs().contains("do not agree about the key").then_some(()));
    assert!(named.ask("signed.admin.example.org", "A").is_empty());
    named.set_secret(SECRET);
    named.wait("signed.admin.example.org", "A", &["10.10.10.11", &address]);
    remove(&cloud.admin, &path);
    remove(&cloud.admin, &format!("ports/{web}"));
    named.wait("signed.admin.example.org", "A", &[]);
    named.wait("11.10.10.10.in-addr.arpa", "PTR", &[]);
    for secret in [SECRET, "YW5vdGhlci1rZXk="] {
        assert!(!site.logs().contains(secret), "a key is in a log");
    }
    drop((scheduler, named));
    site.finish().unwrap();
}
