//! Versions, extensions, tags, agents, address usage, automatic topology.
use super::{Rig, id};
use crate::host::HostInfo;
use serde_json::{Value, json};

#[tokio::test]
async fn clients_find_versions_without_a_token() {
    let rig = Rig::new().await;
    let root = rig.app.call("GET", "/", None, None).await;
    assert_eq!((root.status, &root.body["versions"][0]["id"]), (200, &json!("v2.0")));
    let v2 = rig.app.call("GET", "/v2.0/", None, None).await;
    let names: Vec<&Value> = v2.body["resources"].as_array().unwrap().iter().map(|r| &r["name"]).collect();
    assert!(names.contains(&&json!("port")));
    let listed = rig.get(&rig.alice, "/v2.0/extensions").await;
    for one in listed["extensions"].as_array().unwrap() {
        let shown = rig.get(&rig.alice, &format!("/v2.0/extensions/{}", one["alias"].as_str().unwrap())).await;
        assert_eq!(shown["extension"], *one);
    }
    rig.want(404, &rig.alice, "GET", "/v2.0/extensions/none", Value::Null).await;
    assert_eq!(rig.app.call("GET", "/v2.0/networks", None, None).await.status, 401);
}

#[tokio::test]
async fn tags_come_and_go() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    let tags = format!("/v2.0/networks/{network}/tags");
    rig.want(201, &rig.alice, "PUT", &format!("{tags}/red"), Value::Null).await;
    rig.want(204, &rig.alice, "GET", &format!("{tags}/red"), Value::Null).await;
    assert_eq!(rig.refused(404, &rig.alice, "GET", &format!("{tags}/blue"), Value::Null).await, "TagNotFound");
    let all = rig.want(200, &rig.alice, "PUT", &tags, json!({"tags": ["a", "b", "a"]})).await;
    assert_eq!(all["tags"], json!(["a", "b"]));
    assert_eq!(rig.get(&rig.alice, "/v2.0/networks?tags=a,b").await["networks"].as_array().unwrap().len(), 1);
    assert_eq!(rig.get(&rig.alice, "/v2.0/networks?tags=a,c").await["networks"].as_array().unwrap().len(), 0);
    rig.want(400, &rig.alice, "PUT", &tags, json!({"tags": [7]})).await;
    rig.want(400, &rig.alice, "PUT", &tags, json!({"tags": "x"})).await;
    rig.want(404, &rig.bob, "GET", &tags, Value::Null).await;
    rig.want(403, &rig.reader, "PUT", &format!("{tags}/red"), Value::Null).await;
    rig.want(204, &rig.alice, "DELETE", &format!("{tags}/a"), Value::Null).await;
    rig.want(204, &rig.alice, "DELETE", &tags, Value::Null).await;
    assert_eq!(rig.get(&rig.alice, &tags).await["tags"], json!([]));
}

#[tokio::test]
async fn operators_see_hosts_and_address_usage() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    rig.subnet(&rig.alice, &network, "10.0.0.0/24").await;
    rig.port(&rig.alice, &network).await;
    let hosts = [HostInfo { name: "h1".into(), up: true, ..HostInfo::default() }];
    rig.svc.host_network("h1", &hosts).await.unwrap();
    let agents = rig.get(&rig.admin, "/v2.0/agents").await["agents"].clone();
    assert_eq!((&agents[0]["host"], &agents[0]["alive"]), (&json!("h1"), &json!(true)));
    rig.get(&rig.admin, &format!("/v2.0/agents/{}", id(&agents[0]))).await;
    assert_eq!(rig.get(&rig.alice, "/v2.0/agents").await["agents"], json!([]));
    let used =
        rig.get(&rig.admin, &format!("/v2.0/network-ip-availabilities/{network}")).await["network_ip_availability"]
            .clone();
    assert_eq!((&used["total_ips"], &used["used_ips"]), (&json!(253), &json!(1)));
    rig.want(403, &rig.alice, "GET", "/v2.0/network-ip-availabilities", Value::Null).await;
}

#[tokio::test]
async fn one_call_makes_a_topology_and_another_removes_it() {
    let rig = Rig::new().await;
    let path = "/v2.0/auto-allocated-topology/alice";
    assert_eq!(rig.refused(400, &rig.alice, "GET", path, Value::Null).await, "AutoAllocationFailure");
    let external = rig.external().await;
    rig.want(200, &rig.admin, "PUT", &format!("/v2.0/networks/{external}"), json!({"network": {"is_default": true}}))
        .await;
    rig.make(
        &rig.admin,
        "/v2.0/subnetpools",
        "subnetpool",
        json!({"name": "p", "prefixes": ["10.20.0.0/16"], "min_prefixlen": 24, "is_default": true, "shared": true}),
    )
    .await;
    assert_eq!(
        rig.get(&rig.alice, &format!("{path}?fields=dry-run")).await["auto_allocated_topology"]["id"],
        "dry-run=pass"
    );
    let made = id(&rig.get(&rig.alice, path).await["auto_allocated_topology"]);
    assert_eq!(id(&rig.get(&rig.alice, path).await["auto_allocated_topology"]), made);
    assert_eq!(rig.get(&rig.alice, "/v2.0/routers").await["routers"].as_array().unwrap().len(), 1);
    rig.want(403, &rig.bob, "GET", path, Value::Null).await;
    rig.want(204, &rig.alice, "DELETE", path, Value::Null).await;
    assert_eq!(rig.get(&rig.alice, "/v2.0/routers").await["routers"], json!([]));
    rig.want(404, &rig.alice, "GET", &format!("/v2.0/networks/{made}"), Value::Null).await;
    // With a default pool of each family there is a subnet of each.
    let pool =
        json!({"name": "p6", "prefixes": ["fd00:1::/48"], "default_prefixlen": 64, "is_default": true, "shared": true});
    rig.make(&rig.admin, "/v2.0/subnetpools", "subnetpool", pool).await;
    rig.get(&rig.alice, path).await;
    let subnets = rig.get(&rig.alice, "/v2.0/subnets?project_id=alice&sort_key=name").await["subnets"].clone();
    let names: Vec<&Value> = subnets.as_array().unwrap().iter().map(|s| &s["name"]).collect();
    assert_eq!(names, ["auto_allocated_subnet_v4", "auto_allocated_subnet_v6"]);
    let legs = rig.get(&rig.alice, "/v2.0/ports?device_owner=network:router_interface").await["ports"].clone();
    assert_eq!(legs.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_port_says_which_accelerator_it_asks_for() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    assert_eq!(rig.port(&rig.alice, &network).await["device_profile"], Value::Null);
    let body = json!({"network_id": network, "device_profile": "smart-nic"});
    let port = rig.make(&rig.alice, "/v2.0/ports", "port", body).await;
    assert_eq!(port["device_profile"], json!("smart-nic"));
    let path = format!("/v2.0/ports/{}", id(&port));
    rig.want(400, &rig.alice, "PUT", &path, json!({"port": {"device_profile": "other"}})).await;
    let listed = rig.get(&rig.alice, "/v2.0/ports?device_profile=smart-nic").await;
    assert_eq!(listed["ports"].as_array().unwrap().len(), 1);
    for wrong in [json!("x".repeat(256)), json!(1), json!([])] {
        let body = json!({"port": {"network_id": network, "device_profile": wrong}});
        rig.want(400, &rig.alice, "POST", "/v2.0/ports", body).await;
    }
}
