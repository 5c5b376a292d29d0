//! Ports and their addresses: no address twice, none lost, also when many ask at once.
use super::{Rig, id};
use crate::host::HostInfo;
use serde_json::{Value, json};
use std::collections::HashSet;

fn addresses(port: &Value) -> Vec<String> {
    port["fixed_ips"].as_array().unwrap().iter().map(|f| f["ip_address"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_small_subnet_gives_each_address_once_and_then_none() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    let subnet = rig.subnet(&rig.alice, &network, "10.0.0.0/28").await;
    let mut seen = HashSet::new();
    let mut last = Value::Null;
    for _ in 0..13 {
        last = rig.port(&rig.alice, &network).await;
        assert!(seen.insert(addresses(&last)[0].clone()));
    }
    assert!(!seen.contains("10.0.0.1") && !seen.contains("10.0.0.0") && !seen.contains("10.0.0.15"));
    let body = json!({"port": {"network_id": network}});
    assert_eq!(rig.refused(409, &rig.alice, "POST", "/v2.0/ports", body.clone()).await, "IpAddressGenerationFailure");
    assert_eq!(
        rig.refused(409, &rig.alice, "DELETE", &format!("/v2.0/subnets/{subnet}"), Value::Null).await,
        "SubnetInUse"
    );
    assert_eq!(
        rig.refused(409, &rig.alice, "DELETE", &format!("/v2.0/networks/{network}"), Value::Null).await,
        "NetworkInUse"
    );
    rig.want(204, &rig.alice, "DELETE", &format!("/v2.0/ports/{}", id(&last)), Value::Null).await;
    let again = rig.want(201, &rig.alice, "POST", "/v2.0/ports", body).await;
    assert_eq!(addresses(&again["port"]), addresses(&last), "the freed address is the only one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_creates_never_share_an_address() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    rig.subnet(&rig.alice, &network, "10.0.0.0/26").await;
    let body = json!({"port": {"network_id": network}});
    let calls = (0..80).map(|_| rig.app.call("POST", "/v2.0/ports", Some(&rig.alice), Some(body.clone())));
    let answers = futures::future::join_all(calls).await;
    let made: Vec<String> =
        answers.iter().filter(|a| a.status == 201).flat_map(|a| addresses(&a.body["port"])).collect();
    assert_eq!(made.len(), 61, "every address of the pool, and no more");
    assert_eq!(made.iter().collect::<HashSet<_>>().len(), 61);
    assert!(answers.iter().all(|a| a.status == 201 || a.status == 409));
    let wish = json!({"port": {"network_id": network, "fixed_ips": [{"ip_address": made[0]}]}});
    assert_eq!(rig.refused(409, &rig.alice, "POST", "/v2.0/ports", wish).await, "IpAddressInUse");
}

#[tokio::test]
async fn wishes_are_granted_or_refused_by_name() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    let subnet = rig.subnet(&rig.alice, &network, "10.0.0.0/24").await;
    let other = rig.network(&rig.alice, "m").await;
    let elsewhere = rig.subnet(&rig.alice, &other, "10.1.0.0/24").await;
    let port = |extra: Value| {
        let mut attrs = json!({"network_id": network});
        for (k, v) in extra.as_object().unwrap() {
            attrs[k.as_str()] = v.clone();
        }
        json!({"port": attrs})
    };
    let made = rig
        .want(
            201,
            &rig.alice,
            "POST",
            "/v2.0/ports",
            port(json!({"fixed_ips": [{"ip_address": "10.0.0.77"}], "mac_address": "FA:16:3E:00:00:07"})),
        )
        .await;
    assert_eq!(made["port"]["fixed_ips"], json!([{"subnet_id": subnet, "ip_address": "10.0.0.77"}]));
    assert_eq!(made["port"]["mac_address"], "fa:16:3e:00:00:07");
    let cases = [
        (409, "IpAddressInUse", json!({"fixed_ips": [{"ip_address": "10.0.0.77"}]})),
        (409, "MacAddressInUse", json!({"mac_address": "fa:16:3e:00:00:07"})),
        (400, "InvalidIpForNetwork", json!({"fixed_ips": [{"ip_address": "10.1.0.77"}]})),
        (400, "InvalidIpForNetwork", json!({"fixed_ips": [{"ip_address": "10.0.0.255"}]})),
        (400, "InvalidIpForSubnet", json!({"fixed_ips": [{"subnet_id": subnet, "ip_address": "10.1.0.77"}]})),
        (400, "InvalidInput", json!({"fixed_ips": [{"subnet_id": elsewhere}]})),
        (400, "HTTPBadRequest", json!({"fixed_ips": [{"ip_address": "banana"}]})),
        (400, "HTTPBadRequest", json!({"fixed_ips": "banana"})),
        (400, "HTTPBadRequest", json!({"mac_address": "01:00:5e:00:00:01"})),
        (404, "SecurityGroupNotFound", json!({"security_groups": [pilvi_kit::id::new()]})),
    ];
    for (status, kind, extra) in cases {
        let found = rig.refused(status, &rig.alice, "POST", "/v2.0/ports", port(extra.clone())).await;
        assert_eq!(found, kind, "{extra}");
    }
    let none = rig.want(201, &rig.alice, "POST", "/v2.0/ports", port(json!({"fixed_ips": []}))).await;
    assert_eq!(none["port"]["fixed_ips"], json!([]));
    let path = format!("/v2.0/ports/{}", id(&made["port"]));
    let moved = rig
        .want(
            200,
            &rig.alice,
            "PUT",
            &path,
            json!({"port": {"fixed_ips": [{"subnet_id": subnet}, {"subnet_id": subnet, "ip_address": "10.0.0.78"}]}}),
        )
        .await;
    let now: HashSet<String> = addresses(&moved["port"]).into_iter().collect();
    assert!(now.contains("10.0.0.77") && now.contains("10.0.0.78"), "{now:?}");
    rig.want(403, &rig.alice, "PUT", &path, json!({"port": {"binding:host_id": "h"}})).await;
    let bound = rig.want(200, &rig.admin, "PUT", &path, json!({"port": {"binding:host_id": "h"}})).await;
    assert_eq!(bound["port"]["binding:vif_type"], "tap");
    let found = rig.get(&rig.alice, "/v2.0/ports?fixed_ips=ip_address=10.0.0.78").await;
    assert_eq!(found["ports"].as_array().unwrap().len(), 1);
    let part = rig.get(&rig.alice, "/v2.0/ports?fixed_ips=ip_address_substr=0.0.7").await;
    assert_eq!(part["ports"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn ipv6_hosts_make_their_own_addresses() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    let before = rig
        .make(&rig.alice, "/v2.0/ports", "port", json!({"network_id": network, "mac_address": "fa:16:3e:00:00:01"}))
        .await;
    let slaac = rig
        .make(
            &rig.alice,
            "/v2.0/subnets",
            "subnet",
            json!({"network_id": network, "ip_version": 6, "cidr": "fd00::/64",
        "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}),
        )
        .await;
    let joined = rig.get(&rig.alice, &format!("/v2.0/ports/{}", id(&before))).await;
    assert_eq!(addresses(&joined["port"]), ["fd00::f816:3eff:fe00:1"]);
    let after = rig.port(&rig.alice, &network).await;
    assert!(addresses(&after)[0].starts_with("fd00::f816:3eff:"));
    let fixed =
        json!({"port": {"network_id": network, "fixed_ips": [{"subnet_id": slaac["id"], "ip_address": "fd00::9"}]}});
    assert_eq!(rig.refused(400, &rig.alice, "POST", "/v2.0/ports", fixed).await, "AllocationOnAutoAddressSubnet");
    rig.want(204, &rig.alice, "DELETE", &format!("/v2.0/subnets/{}", id(&slaac)), Value::Null).await;
    let left = rig.get(&rig.alice, &format!("/v2.0/ports/{}", id(&before))).await;
    assert_eq!(left["port"]["fixed_ips"], json!([]));
}

#[tokio::test]
async fn hosts_are_told_the_scope_of_each_network() {
    let rig = Rig::new().await;
    let scope = json!({"name": "s", "ip_version": 4});
    let scope = id(&rig.make(&rig.alice, "/v2.0/address-scopes", "address_scope", scope).await);
    let pool = json!({"name": "p", "prefixes": ["10.0.0.0/16"], "default_prefixlen": 24, "address_scope_id": scope});
    let pool = id(&rig.make(&rig.alice, "/v2.0/subnetpools", "subnetpool", pool).await);
    let network = rig.network(&rig.alice, "n").await;
    let subnet = json!({"network_id": network, "ip_version": 4, "subnetpool_id": pool});
    rig.make(&rig.alice, "/v2.0/subnets", "subnet", subnet).await;
    let port =
        json!({"network_id": network, "project_id": "alice", "binding:host_id": "h1", "device_owner": "compute:nova"});
    rig.make(&rig.admin, "/v2.0/ports", "port", port).await;
    let hosts = [HostInfo { name: "h1".into(), up: true, ..HostInfo::default() }];
    let told = || async {
        let networks = rig.svc.host_network("h1", &hosts).await.unwrap().networks;
        networks.into_iter().map(|n| (n.scope4, n.scope6)).collect::<Vec<_>>()
    };
    assert_eq!(told().await, [(scope, String::new())]);
    let out = json!({"subnetpool": {"address_scope_id": null}});
    rig.want(200, &rig.alice, "PUT", &format!("/v2.0/subnetpools/{pool}"), out).await;
    assert_eq!(told().await, [(String::new(), String::new())]);
}
