//! The small promises of extensions that no larger story keeps on its way.
use super::{Rig, id, ids};
use crate::host::HostInfo;
use serde_json::{Value, json};

fn count(list: &Value, of: &str) -> usize {
    list[of].as_array().unwrap().len()
}

#[tokio::test]
async fn agents_say_whether_placement_knows_what_their_host_has() {
    let rig = Rig::new().await;
    let hosts = [HostInfo { name: "h1".into(), up: true, ..HostInfo::default() }];
    rig.svc.remember(&hosts);
    let whole = rig.get(&rig.admin, "/v2.0/agents?host=h1&agent_type=Pilvi%20agent").await["agents"].clone();
    assert_eq!(whole[0]["resources_synced"], json!(true), "{whole}");
    let others = rig.get(&rig.admin, "/v2.0/agents?host=h1").await["agents"].clone();
    for agent in others.as_array().unwrap().iter().filter(|a| a["agent_type"] != whole[0]["agent_type"]) {
        assert_eq!(agent["resources_synced"], Value::Null, "only one tells placement: {agent}");
    }
}

#[tokio::test]
async fn ports_are_found_by_their_groups_and_by_what_they_lack() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    let group = id(&rig.make(&rig.alice, "/v2.0/security-groups", "security_group", json!({"name": "g"})).await);
    let attrs = json!({"network_id": network, "security_groups": [group], "device_id": "somewhere"});
    let inside = id(&rig.make(&rig.alice, "/v2.0/ports", "port", attrs).await);
    let outside = id(&rig.port(&rig.alice, &network).await);
    let found = |query: String| {
        let rig = &rig;
        async move { ids(&rig.get(&rig.alice, &format!("/v2.0/ports?{query}")).await["ports"]) }
    };
    assert_eq!(found(format!("security_groups={group}")).await, std::slice::from_ref(&inside));
    let both = found(format!("security_groups={group}&security_groups={}", pilvi_kit::id::new())).await;
    assert_eq!(both, std::slice::from_ref(&inside), "any of those named");
    assert_eq!(found("device_id=".to_owned()).await, [outside], "an empty text is a value");
}

#[tokio::test]
async fn a_quota_is_compared_with_what_is_used_only_if_somebody_asks() {
    let rig = Rig::new().await;
    rig.network(&rig.alice, "n").await;
    let path = "/v2.0/quotas/alice";
    let low = |more: Value| {
        let mut quota = json!({"network": 0});
        quota.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "quota": quota })
    };
    let asked = low(json!({"check_limit": true}));
    assert_eq!(rig.refused(400, &rig.admin, "PUT", path, asked).await, "QuotaLimitTooLow");
    rig.want(200, &rig.admin, "PUT", path, low(json!({"force": true}))).await;
    let wrong = low(json!({"check_limit": "perhaps"}));
    rig.want(400, &rig.admin, "PUT", path, wrong).await;
}

#[tokio::test]
async fn rules_say_whether_they_are_of_a_default_group() {
    let rig = Rig::new().await;
    let other = id(&rig.make(&rig.alice, "/v2.0/security-groups", "security_group", json!({"name": "g"})).await);
    let rules = rig.get(&rig.alice, "/v2.0/security-group-rules").await["security_group_rules"].clone();
    for rule in rules.as_array().unwrap() {
        assert_eq!(rule["belongs_to_default_sg"], json!(rule["security_group_id"] != json!(other)), "{rule}");
    }
    let (yes, no) = ("belongs_to_default_sg=true", "belongs_to_default_sg=false");
    let path = |filter: &str| format!("/v2.0/security-group-rules?{filter}");
    assert_eq!(count(&rig.get(&rig.alice, &path(yes)).await, "security_group_rules"), 4);
    assert_eq!(count(&rig.get(&rig.alice, &path(no)).await, "security_group_rules"), 2);
}

#[tokio::test]
async fn a_port_follows_its_uplink_unless_told_otherwise() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    let port = rig.port(&rig.alice, &network).await;
    assert_eq!(port["propagate_uplink_status"], json!(true));
    let attrs = json!({"network_id": network, "propagate_uplink_status": false});
    let other = rig.make(&rig.alice, "/v2.0/ports", "port", attrs).await;
    assert_eq!(other["propagate_uplink_status"], json!(false));
    let path = format!("/v2.0/ports/{}", id(&other));
    let set = |to: Value| json!({"port": {"propagate_uplink_status": to}});
    let said = rig.want(200, &rig.alice, "PUT", &path, set(json!(true))).await;
    assert_eq!(said["port"]["propagate_uplink_status"], json!(true));
    rig.want(400, &rig.alice, "PUT", &path, set(json!("sometimes"))).await;
}

#[tokio::test]
async fn networks_and_routers_are_asked_into_zones_that_there_are() {
    let rig = Rig::new().await;
    let host =
        |name: &str, zone: &str, up| HostInfo { name: name.into(), zone: zone.into(), up, ..HostInfo::default() };
    let hosts = [host("h1", "", true), host("h2", "west", false)];
    rig.svc.learn_zones(&hosts).await.unwrap();
    rig.svc.remember(&hosts);
    for (path, kind) in [("/v2.0/networks", "network"), ("/v2.0/routers", "router")] {
        let made = rig.make(&rig.alice, path, kind, json!({"availability_zone_hints": ["west"]})).await;
        assert_eq!(made["availability_zone_hints"], json!(["west"]), "{kind}");
        assert_eq!(made["availability_zones"], json!(["west"]), "{kind}");
        let anywhere = rig.make(&rig.alice, path, kind, json!({})).await;
        assert_eq!(anywhere["availability_zones"], json!(["nova", "west"]), "{kind}");
        let nowhere = json!({ kind: {"availability_zone_hints": ["nowhere"]} });
        assert_eq!(rig.refused(404, &rig.alice, "POST", path, nowhere).await, "AvailabilityZoneNotFound", "{kind}");
    }
    let zones = |query: &str| format!("/v2.0/availability_zones?{query}");
    let found = rig.get(&rig.alice, &zones("name=nova&state=available&resource=network")).await;
    assert_eq!(count(&found, "availability_zones"), 1);
    let lost = rig.get(&rig.alice, &zones("state=unavailable&resource=router")).await["availability_zones"].clone();
    assert_eq!(lost, json!([{"name": "west", "resource": "router", "state": "unavailable"}]));
    let agents =
        rig.get(&rig.admin, "/v2.0/agents?availability_zone=west&agent_type=L3%20agent").await["agents"].clone();
    assert_eq!((count(&json!({"a": agents}), "a"), &agents[0]["host"]), (1, &json!("h2")));
    // A zone goes with its last host.
    rig.svc.learn_zones(&hosts[..1]).await.unwrap();
    rig.svc.remember(&hosts[..1]);
    let gone = json!({"network": {"availability_zone_hints": ["west"]}});
    rig.refused(404, &rig.alice, "POST", "/v2.0/networks", gone).await;
}

#[tokio::test]
async fn a_forwarding_has_a_description_that_can_be_changed() {
    let rig = Rig::new().await;
    let external = rig.external().await;
    let network = rig.network(&rig.alice, "n").await;
    let subnet = rig.subnet(&rig.alice, &network, "10.0.0.0/24").await;
    let port = rig.port(&rig.alice, &network).await;
    let router = json!({"external_gateway_info": {"network_id": external}});
    let router = id(&rig.make(&rig.alice, "/v2.0/routers", "router", router).await);
    let join = json!({"subnet_id": subnet});
    rig.want(200, &rig.alice, "PUT", &format!("/v2.0/routers/{router}/add_router_interface"), join).await;
    let floating = json!({"floating_network_id": external});
    let floating = id(&rig.make(&rig.alice, "/v2.0/floatingips", "floatingip", floating).await);
    let path = format!("/v2.0/floatingips/{floating}/port_forwardings");
    let new = json!({"internal_port_id": id(&port), "internal_ip_address": port["fixed_ips"][0]["ip_address"],
        "internal_port": 22, "external_port": 2222, "protocol": "tcp", "description": "a way in"});
    let made = rig.make(&rig.alice, &path, "port_forwarding", new).await;
    assert_eq!(made["description"], "a way in");
    let one = format!("{path}/{}", id(&made));
    let other = json!({"port_forwarding": {"description": "another word"}});
    assert_eq!(rig.want(200, &rig.alice, "PUT", &one, other).await["port_forwarding"]["description"], "another word");
    assert_eq!(rig.get(&rig.alice, &one).await["port_forwarding"]["description"], "another word");
}

#[tokio::test]
async fn groups_are_found_by_whether_others_use_them() {
    let rig = Rig::new().await;
    let make = |name: &'static str| {
        let rig = &rig;
        async move { id(&rig.make(&rig.alice, "/v2.0/security-groups", "security_group", json!({"name": name})).await) }
    };
    let (open, own) = (make("open").await, make("own").await);
    let policy = json!({"object_type": "security_group", "object_id": open, "target_tenant": "bob", "action": "access_as_shared"});
    rig.make(&rig.alice, "/v2.0/rbac-policies", "rbac_policy", policy).await;
    let found = ids(&rig.get(&rig.bob, "/v2.0/security-groups?shared=true").await["security_groups"]);
    assert_eq!(found, [open]);
    let found = ids(&rig.get(&rig.alice, "/v2.0/security-groups?shared=false").await["security_groups"]);
    assert!(found.contains(&own));
}

#[tokio::test]
async fn several_tags_are_added_to_those_that_are_there() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    let tags = format!("/v2.0/networks/{network}/tags");
    rig.want(201, &rig.alice, "PUT", &format!("{tags}/red"), Value::Null).await;
    rig.want(201, &rig.alice, "POST", &tags, json!({"tags": ["blue", "red"]})).await;
    assert_eq!(rig.get(&rig.alice, &tags).await["tags"], json!(["red", "blue"]));
}

#[tokio::test]
async fn subnets_of_networks_outside_are_found_by_that() {
    let rig = Rig::new().await;
    rig.external().await;
    let network = rig.network(&rig.admin, "n").await;
    let inside = rig.subnet(&rig.admin, &network, "10.0.0.0/24").await;
    let outside = rig.get(&rig.admin, "/v2.0/subnets?router:external=true").await["subnets"].clone();
    assert_eq!(outside[0]["cidr"], "172.24.4.0/24");
    assert_eq!(ids(&rig.get(&rig.admin, "/v2.0/subnets?router:external=false").await["subnets"]), [inside]);
}

#[tokio::test]
async fn firewalls_have_what_all_resources_have() {
    let rig = Rig::new().await;
    for kind in ["firewall_rule", "firewall_policy", "firewall_group"] {
        let made = rig.make(&rig.alice, &format!("/v2.0/fwaas/{kind}s").replace("ys", "ies"), kind, json!({})).await;
        for attribute in ["created_at", "updated_at", "description", "revision_number"] {
            assert!(made.get(attribute).is_some_and(|v| !v.is_null()), "{kind} has no {attribute}");
        }
    }
}

#[tokio::test]
async fn a_router_has_several_ways_to_one_place() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    let subnet = rig.subnet(&rig.alice, &network, "10.0.0.0/24").await;
    let router = id(&rig.make(&rig.alice, "/v2.0/routers", "router", json!({})).await);
    let path = format!("/v2.0/routers/{router}");
    rig.want(200, &rig.alice, "PUT", &format!("{path}/add_router_interface"), json!({"subnet_id": subnet})).await;
    let routes = json!([{"destination": "192.0.2.0/24", "nexthop": "10.0.0.8"}, {"destination": "192.0.2.0/24", "nexthop": "10.0.0.9"}]);
    let said = rig.want(200, &rig.alice, "PUT", &path, json!({"router": {"routes": routes}})).await;
    assert_eq!(said["router"]["routes"], routes);
    let twice = json!([routes[0], routes[0]]);
    rig.want(400, &rig.alice, "PUT", &path, json!({"router": {"routes": twice}})).await;
}
