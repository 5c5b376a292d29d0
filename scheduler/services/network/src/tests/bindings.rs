//! Where ports are wired, as whoever moves guests says it; and small promises of the list of extensions.
use super::{Rig, id};
use crate::{host::HostInfo, port::model::Port};
use serde_json::{Value, json};

fn host(n: u8) -> HostInfo {
    HostInfo { name: format!("h{n}"), vtep: format!("10.255.0.{n}"), up: true, ..HostInfo::default() }
}

/// A guest's port on h1, in a cloud of three hosts.
async fn guests_port(rig: &Rig) -> String {
    rig.svc.remember(&[host(1), host(2), host(3)]);
    let network = rig.network(&rig.alice, "n").await;
    rig.subnet(&rig.alice, &network, "10.0.0.0/24").await;
    let attrs = json!({"network_id": network, "project_id": "alice", "device_owner": "compute:nova",
        "device_id": "d", "binding:host_id": "h1", "binding:profile": {"a": 1}});
    id(&rig.make(&rig.admin, "/v2.0/ports", "port", attrs).await)
}

fn shown(list: &Value) -> Vec<(String, String)> {
    let text = |b: &Value, key: &str| b[key].as_str().unwrap_or_default().to_owned();
    list["bindings"].as_array().unwrap().iter().map(|b| (text(b, "host"), text(b, "status"))).collect()
}

#[tokio::test]
async fn a_port_is_prepared_on_another_host_and_follows_its_guest() {
    let rig = Rig::new().await;
    let port = guests_port(&rig).await;
    let path = format!("/v2.0/ports/{port}/bindings");
    let pair = |a: &str, b: &str| vec![(a.to_owned(), "ACTIVE".to_owned()), (b.to_owned(), "INACTIVE".to_owned())];
    let body = |host: &str| json!({"binding": {"host": host, "profile": {"migrating_to": host}}});
    let first = rig.get(&rig.admin, &path).await;
    assert_eq!(shown(&first), [("h1".to_owned(), "ACTIVE".to_owned())]);
    assert_eq!(first["bindings"][0]["profile"], json!({"a": 1}));
    let made = rig.want(201, &rig.admin, "POST", &path, body("h2")).await["binding"].clone();
    assert_eq!((made["status"].as_str(), made["vif_type"].as_str()), (Some("INACTIVE"), Some("tap")));
    assert_eq!(shown(&rig.get(&rig.admin, &path).await), pair("h1", "h2"));
    // Both hosts are told of the port; the one that waits keeps it idle.
    let hosts = rig.svc.hosts();
    // Each knows where the other is, and so do the rest before the guest speaks from there.
    for (name, idle, other) in [("h1", false, "10.255.0.2"), ("h2", true, "10.255.0.1")] {
        let told = rig.svc.host_network(name, &hosts).await.unwrap();
        let ports = told.ports.iter().map(|p| (p.id.as_str(), p.idle, p.other_vtep.as_str()));
        assert_eq!(ports.collect::<Vec<_>>(), [(port.as_str(), idle, other)]);
    }
    let network = rig.get(&rig.admin, &format!("/v2.0/ports/{port}")).await["port"]["network_id"].clone();
    let room = rig.svc.neighbours(network.as_str().unwrap(), None).await.unwrap().unwrap();
    let told = room.changed.iter().map(|r| (r.vtep.as_str(), r.other_vtep.as_str()));
    assert_eq!(told.collect::<Vec<_>>(), [("10.255.0.1", "10.255.0.2")]);
    assert_eq!(rig.refused(409, &rig.admin, "POST", &path, body("h2")).await, "PortBindingAlreadyExists");
    assert_eq!(
        rig.refused(409, &rig.admin, "POST", &path, body("h3")).await,
        "PortBindingError",
        "one place at a time"
    );
    assert_eq!(rig.refused(409, &rig.admin, "POST", &path, body("nowhere")).await, "PortBindingError");
    let activate = |host: &str| format!("{path}/{host}/activate");
    assert_eq!(rig.refused(409, &rig.admin, "PUT", &activate("h1"), Value::Null).await, "PortBindingAlreadyActive");
    assert_eq!(rig.refused(404, &rig.admin, "PUT", &activate("h3"), Value::Null).await, "PortBindingNotFound");
    let now = rig.want(200, &rig.admin, "PUT", &activate("h2"), Value::Null).await;
    assert_eq!((now["host"].as_str(), now["status"].as_str()), (Some("h2"), Some("ACTIVE")));
    assert_eq!(now["profile"], json!({"migrating_to": "h2"}));
    assert_eq!(shown(&rig.get(&rig.admin, &path).await), pair("h2", "h1"));
    let seen = rig.get(&rig.admin, &format!("/v2.0/ports/{port}")).await["port"].clone();
    assert_eq!((seen["binding:host_id"].as_str(), seen["status"].as_str()), (Some("h2"), Some("DOWN")));
    assert_eq!(shown(&rig.get(&rig.admin, &format!("{path}?status=INACTIVE")).await)[0].0, "h1");
    let changed = json!({"binding": {"profile": {"b": 2}}});
    let changed = rig.want(200, &rig.admin, "PUT", &format!("{path}/h1"), changed).await;
    assert_eq!(changed["binding"]["profile"], json!({"b": 2}));
    rig.want(204, &rig.admin, "DELETE", &format!("{path}/h1"), Value::Null).await;
    assert_eq!(rig.refused(404, &rig.admin, "GET", &format!("{path}/h1"), Value::Null).await, "PortBindingNotFound");
    rig.want(204, &rig.admin, "DELETE", &format!("{path}/h2"), Value::Null).await;
    assert!(shown(&rig.get(&rig.admin, &path).await).is_empty());
    let record = rig.svc.store.get::<Port>(&port).await.unwrap().unwrap();
    assert!(record.host_id.is_empty() && record.also_on.is_empty() && record.also_profile.is_null());
    // Unbound, the next binding is the active one again.
    rig.want(201, &rig.admin, "POST", &path, body("h3")).await;
    assert_eq!(shown(&rig.get(&rig.admin, &path).await), [("h3".to_owned(), "ACTIVE".to_owned())]);
}

#[tokio::test]
async fn bindings_are_for_those_who_move_guests() {
    let rig = Rig::new().await;
    let port = guests_port(&rig).await;
    let path = format!("/v2.0/ports/{port}/bindings");
    rig.refused(403, &rig.alice, "GET", &path, Value::Null).await;
    rig.refused(404, &rig.bob, "GET", &path, Value::Null).await;
    let free = rig.network(&rig.alice, "m").await;
    let free = id(&rig.port(&rig.alice, &free).await);
    let no = rig.refused(400, &rig.admin, "GET", &format!("/v2.0/ports/{free}/bindings"), Value::Null).await;
    assert_eq!(no, "BadRequest", "no guest has it");
}

#[tokio::test]
async fn new_groups_are_as_the_project_or_the_cloud_says() {
    let rig = Rig::new().await;
    let path = "/v2.0/security-groups-default-statefulness";
    let kind = "security_groups_default_statefulness";
    let group = |attrs: Value| rig.make(&rig.alice, "/v2.0/security-groups", "security_group", attrs);
    assert_eq!(group(json!({"name": "a"})).await["stateful"], json!(true));
    let cloud = rig.make(&rig.admin, path, kind, json!({"stateful": false})).await;
    assert_eq!(cloud["project_id"], Value::Null);
    assert_eq!(group(json!({"name": "b"})).await["stateful"], json!(false));
    assert_eq!(group(json!({"name": "c", "stateful": true})).await["stateful"], json!(true));
    let own = rig.make(&rig.manager, path, kind, json!({"project_id": "alice", "stateful": true})).await;
    assert_eq!(group(json!({"name": "d"})).await["stateful"], json!(true));
    let again = json!({ kind: {"project_id": "alice"} });
    let no = rig.refused(409, &rig.manager, "POST", path, again).await;
    assert_eq!(no, "SecurityGroupDefaultStatefulnessAlreadyExists");
    rig.refused(403, &rig.manager, "POST", path, json!({ kind: {"stateful": true} })).await;
    assert_eq!(rig.get(&rig.alice, path).await[kind].as_array().unwrap().len(), 1, "its own alone");
    let at = format!("{path}/{}", id(&own));
    let off = rig.want(200, &rig.manager, "PUT", &at, json!({ kind: {"stateful": false} })).await;
    assert_eq!(off[kind]["stateful"], json!(false));
    rig.want(204, &rig.manager, "DELETE", &at, Value::Null).await;
    rig.want(404, &rig.bob, "GET", &format!("{path}/{}", id(&cloud)), Value::Null).await;
}

#[tokio::test]
async fn small_promises_are_kept() {
    let rig = Rig::new().await;
    rig.svc.remember(&[host(2), host(1)]);
    let network = rig.network(&rig.alice, "n").await;
    let subnet = json!({"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/24",
        "allocation_pools": [{"start": "10.0.0.100", "end": "10.0.0.109"}]});
    rig.make(&rig.alice, "/v2.0/subnets", "subnet", subnet).await;
    let port = id(&rig.port(&rig.alice, &network).await);
    let own = json!({"network_id": network, "fixed_ips": [{"ip_address": "10.0.0.5"}]});
    rig.make(&rig.alice, "/v2.0/ports", "port", own).await;
    let used = rig.get(&rig.admin, &format!("/v2.0/network-ip-availabilities/{network}")).await;
    let used = &used["network_ip_availability"];
    let details = json!({"total_ips_in_subnet": 254, "total_ips_in_allocation_pool": 10,
        "used_ips_in_subnet": 2, "used_ips_in_allocation_pool": 1});
    assert_eq!(used["ip_availability_details"], details);
    assert_eq!(used["subnet_ip_availability"][0]["ip_availability_details"], details);
    let path = format!("/v2.0/ports/{port}");
    let pairs = json!({"port": {"allowed_address_pairs": [{"ip_address": "224.0.0.9"}]}});
    rig.want(400, &rig.admin, "PUT", &path, pairs).await;
    let pairs = json!([{"ip_address": "192.0.2.10/24", "mac_address": "fa:16:3e:00:00:01"}]);
    let set = json!({"port": {"allowed_address_pairs": pairs}});
    let said = rig.want(200, &rig.admin, "PUT", &path, set).await;
    assert_eq!(said["port"]["allowed_address_pairs"], pairs, "as it was written");
    let status = json!({"port": {"data_plane_status": "DOWN"}});
    rig.refused(403, &rig.alice, "PUT", &path, status.clone()).await;
    let said = rig.want(200, &rig.admin, "PUT", &path, status).await;
    assert_eq!(said["port"]["data_plane_status"], json!("DOWN"));
    rig.want(400, &rig.admin, "PUT", &path, json!({"port": {"data_plane_status": "ODD"}})).await;
    let numa = json!({"port": {"numa_affinity_policy": "socket"}});
    let said = rig.want(200, &rig.admin, "PUT", &path, numa).await;
    assert_eq!(said["port"]["numa_affinity_policy"], json!("socket"));
    assert!(rig.get(&rig.alice, &path).await["port"].get("numa_affinity_policy").is_none());
    let agents = rig.get(&rig.admin, "/v2.0/agents?sort_key=host&sort_dir=desc&binary=pilvi-agent&limit=1").await;
    assert_eq!(agents["agents"][0]["host"], json!("h2"));
    let zones = rig.get(&rig.alice, "/v2.0/availability_zones?resource=router").await;
    assert_eq!(zones["availability_zones"], json!([{"name": "nova", "resource": "router", "state": "available"}]));
    let name = json!({"security_group": {"name": " x"}});
    rig.want(400, &rig.alice, "POST", "/v2.0/security-groups", name).await;
    rig.want(400, &rig.alice, "GET", "/v2.0/networks?sort_key=nothing", Value::Null).await;
    let router = rig.make(&rig.alice, "/v2.0/routers", "router", json!({})).await;
    assert_eq!(router["enable_snat"], json!(true));
}

#[tokio::test]
async fn no_host_binds_a_port_that_asks_for_hardware_offload() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.admin, "n").await;
    rig.subnet(&rig.admin, &network, "10.0.0.0/24").await;
    let strange = json!({"port": {"network_id": network, "hardware_offload_type": "magic"}});
    rig.want(400, &rig.admin, "POST", "/v2.0/ports", strange).await;
    let plain = rig.port(&rig.alice, &rig.network(&rig.alice, "m").await).await;
    assert_eq!(plain["hardware_offload_type"], Value::Null);
    for (profile, capabilities) in [
        (json!({}), json!(["switchdev"])),
        (json!({"capabilities": ["switchdev", "x"]}), json!(["switchdev", "x"])),
        (json!({"capabilities": ["x"]}), json!(["x", "switchdev"])),
    ] {
        let attrs = json!({"network_id": network, "binding:vnic_type": "direct", "hardware_offload_type": "switchdev",
                           "binding:profile": profile, "binding:host_id": "h1", "device_owner": "compute:nova"});
        let port = rig.make(&rig.admin, "/v2.0/ports", "port", attrs).await;
        assert_eq!(port["hardware_offload_type"], json!("switchdev"));
        assert_eq!(port["binding:profile"]["capabilities"], capabilities);
        assert_eq!((&port["binding:vif_type"], &port["status"]), (&json!("binding_failed"), &json!("DOWN")));
        let later = json!({"port": {"hardware_offload_type": null}});
        let path = format!("/v2.0/ports/{}", id(&port));
        rig.want(400, &rig.admin, "PUT", &path, later).await;
        let shown = rig.get(&rig.admin, &format!("{path}/bindings")).await["bindings"][0].clone();
        assert_eq!(shown["vif_type"], json!("binding_failed"));
        let body = json!({"binding": {"host": "h2"}});
        assert_eq!(rig.refused(409, &rig.admin, "POST", &format!("{path}/bindings"), body).await, "PortBindingError");
    }
    assert!(rig.svc.host_network("h1", &[host(1)]).await.unwrap().ports.is_empty(), "the host hears of none");
}
