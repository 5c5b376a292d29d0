//! What a story puts into a cloud through the API: images, flavors, tenants, networks, servers.
use pilvi_tests::{Api, Site, api::text, until};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;

/// Uploads `bytes` as a public image and gives its id.
pub fn image(admin: &Api, name: &str, format: &str, bytes: Vec<u8>, properties: &Value) -> String {
    let container = if format == "raw" { "bare" } else { format };
    let mut new = json!({"name": name, "visibility": "public", "disk_format": format, "container_format": container});
    for (key, value) in properties.as_object().into_iter().flatten() {
        new[key] = value.clone();
    }
    let id = text(&admin.post("/image/v2/images", &new).unwrap(), "id");
    let path = format!("/image/v2/images/{id}/file");
    let answer = admin.send(Method::PUT, &path, "application/octet-stream", bytes).unwrap();
    assert_eq!(answer.status, 204, "{}", answer.text);
    id
}

/// An image whose guests are sleeping processes.
pub fn fake_image(admin: &Api) -> String {
    image(admin, "fake", "raw", vec![0; 1 << 20], &json!({"hw_pilvi_runtime": "fake"}))
}

/// The starter image from the cache, for `qemu`.
pub fn starter_image(admin: &Api, starter: &Path) -> String {
    let manifest = pilvi_tests::kernel::files(starter);
    let find = |word: &str| manifest.iter().find(|p| p.to_string_lossy().contains(word)).unwrap().clone();
    let kernel = image(admin, "kernel", "aki", std::fs::read(find("vmlinuz")).unwrap(), &json!({}));
    let ramdisk = image(admin, "ramdisk", "ari", std::fs::read(find("initrd")).unwrap(), &json!({}));
    let line = "root=LABEL=pilvi-root console=ttyS0,115200 quiet loglevel=4 panic=10 no_timer_check";
    let properties =
        json!({"kernel_id": kernel, "ramdisk_id": ramdisk, "os_command_line": line, "hw_pilvi_runtime": "qemu"});
    image(admin, "starter-qemu", "raw", std::fs::read(find("starter.img")).unwrap(), &properties)
}

/// A small flavor; its id is its name.
pub fn flavor(admin: &Api, name: &str, ram: u32) {
    let new = json!({"flavor": {"id": name, "name": name, "ram": ram, "vcpus": 1, "disk": 1}});
    admin.post("/compute/v2.1/flavors", &new).unwrap();
}

/// No limit on servers, processors and memory of the caller's project.
pub fn no_quota(admin: &Api, project: &str) {
    let all = json!({"quota_set": {"instances": -1, "cores": -1, "ram": -1}});
    admin.put(&format!("/compute/v2.1/os-quota-sets/{project}"), &all).unwrap();
    let all = json!({"quota": {"port": -1}});
    admin.put(&format!("/network/v2.0/quotas/{project}"), &all).unwrap();
}

/// A project with one user, logged in.
pub fn tenant(site: &Site, admin: &Api, name: &str) -> Api {
    let project = admin.post("/identity/v3/projects", &json!({"project": {"name": name, "domain_id": "default"}}));
    let project = text(&project.unwrap()["project"], "id");
    let user = json!({"user": {"name": name, "domain_id": "default", "password": "story-of-a-tenant"}});
    let user = text(&admin.post("/identity/v3/users", &user).unwrap()["user"], "id");
    let roles = admin.get("/identity/v3/roles?name=member").unwrap();
    let role = text(&roles["roles"][0], "id");
    admin.put(&format!("/identity/v3/projects/{project}/users/{user}/roles/{role}"), &Value::Null).unwrap();
    site.api().unwrap().login(name, "story-of-a-tenant", name).unwrap()
}

/// A network with one subnet: (network id, subnet id).
pub fn network(api: &Api, name: &str, cidr: &str) -> (String, String) {
    let network = api.post("/network/v2.0/networks", &json!({"network": {"name": name}})).unwrap();
    let network = text(&network["network"], "id");
    let new = json!({"subnet": {"network_id": network, "ip_version": 4, "cidr": cidr}});
    let subnet = api.post("/network/v2.0/subnets", &new).unwrap();
    (network, text(&subnet["subnet"], "id"))
}

pub fn server(api: &Api, id: &str) -> Option<Value> {
    let answer = api.call(Method::GET, &format!("/compute/v2.1/servers/{id}"), &Value::Null).ok()?;
    (answer.status == 200).then(|| answer.json["server"].clone())
}

/// Waits for a state; ERROR is reported with its fault.
pub fn wait_state(api: &Api, id: &str, state: &str, seconds: u64) -> Value {
    until(seconds, &format!("server {id} is {state}"), || {
        let now = server(api, id)?;
        assert!(now["status"] != "ERROR" || state == "ERROR", "server {id}: {}", now["fault"]);
        (now["status"] == state && now["OS-EXT-STS:task_state"].is_null()).then_some(now)
    })
}

/// Waits until a server is gone.
pub fn wait_gone(api: &Api, id: &str, seconds: u64) {
    until(seconds, &format!("server {id} is gone"), || {
        let answer = api.call(Method::GET, &format!("/compute/v2.1/servers/{id}"), &Value::Null).ok()?;
        (answer.status == 404).then_some(())
    });
}

/// Uses of all providers added up: nothing is claimed when it is 0.
pub fn claims(admin: &Api) -> u64 {
    let providers = admin.get("/placement/resource_providers").unwrap();
    let mut sum = 0;
    for provider in providers["resource_providers"].as_array().unwrap() {
        let id = text(provider, "uuid");
        let usages = admin.get(&format!("/placement/resource_providers/{id}/usages")).unwrap();
        sum += usages["usages"].as_object().unwrap().values().filter_map(Value::as_u64).sum::<u64>();
    }
    sum
}

/// Waits until a host takes servers.
pub fn wait_host(admin: &Api, host: &str) {
    until(60, &format!("{host} is up"), || {
        let all = admin.get("/compute/v2.1/os-services?binary=nova-compute").ok()?;
        let rows = all["services"].as_array()?;
        rows.iter().any(|s| s["host"] == host && s["state"] == "up").then_some(())
    });
}

/// A number from the environment.
pub fn number(name: &str, or: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(or)
}
