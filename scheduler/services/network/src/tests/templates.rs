//! What operators prepare for others: rules of new groups, flavors, blocks of pools, quotas that hold.
use super::{Rig, id, ids};
use serde_json::{Value, json};

#[tokio::test]
async fn new_groups_begin_with_what_the_operator_says() {
    let rig = Rig::new().await;
    let path = "/v2.0/default-security-group-rules";
    let first = rig.get(&rig.alice, path).await["default_security_group_rules"].clone();
    assert_eq!(first.as_array().unwrap().len(), 4);
    assert!(first[0].get("project_id").is_none());
    let parent = first.as_array().unwrap().iter().filter(|r| r["remote_group_id"] == "PARENT");
    assert_eq!(parent.count(), 2);
    let ssh = json!({"direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22});
    rig.want(403, &rig.alice, "POST", path, json!({"default_security_group_rule": ssh})).await;
    let made = rig.make(&rig.admin, path, "default_security_group_rule", ssh.clone()).await;
    assert_eq!((&made["used_in_default_sg"], &made["used_in_non_default_sg"]), (&json!(false), &json!(true)));
    let twice = json!({"default_security_group_rule": ssh});
    assert_eq!(rig.refused(409, &rig.admin, "POST", path, twice).await, "DefaultSecurityGroupRuleExists");
    let wrong =
        json!({"default_security_group_rule": {"direction": "ingress", "port_range_min": 22, "port_range_max": 22}});
    let wrong = rig.refused(400, &rig.admin, "POST", path, wrong).await;
    assert_eq!(wrong, "SecurityGroupProtocolRequiredWithPorts");
    let begins_with = |name: &'static str| {
        let rig = &rig;
        async move {
            let group = json!({"name": name});
            let group = rig.make(&rig.alice, "/v2.0/security-groups", "security_group", group).await;
            group["security_group_rules"].as_array().unwrap().len()
        }
    };
    assert_eq!(begins_with("web").await, 3);
    rig.want(204, &rig.admin, "DELETE", &format!("{path}/{}", id(&made)), Value::Null).await;
    for rule in first.as_array().unwrap() {
        rig.want(204, &rig.admin, "DELETE", &format!("{path}/{}", id(rule)), Value::Null).await;
    }
    assert_eq!(begins_with("bare").await, 0);
    assert_eq!(rig.get(&rig.admin, path).await["default_security_group_rules"], json!([]), "and they stay away");
}

#[tokio::test]
async fn routers_are_made_by_flavor() {
    let rig = Rig::new().await;
    let flavor = json!({"name": "best", "service_type": "L3_ROUTER_NAT"});
    let flavor = id(&rig.make(&rig.admin, "/v2.0/flavors", "flavor", flavor).await);
    let path = format!("/v2.0/flavors/{flavor}");
    let strange = json!({"flavor": {"name": "x", "service_type": "COFFEE"}});
    assert_eq!(rig.refused(400, &rig.admin, "POST", "/v2.0/flavors", strange).await, "InvalidServiceType");
    let profiles = "/v2.0/service_profiles";
    let empty = rig.refused(400, &rig.admin, "POST", profiles, json!({"service_profile": {}})).await;
    assert_eq!(empty, "ServiceProfileEmpty");
    let unknown = json!({"service_profile": {"driver": "no.such.Driver"}});
    assert_eq!(rig.refused(404, &rig.admin, "POST", profiles, unknown).await, "ServiceProfileDriverNotFound");
    let driver = rig.get(&rig.alice, "/v2.0/service-providers").await["service_providers"][0]["name"].clone();
    let profile = id(&rig.make(&rig.admin, profiles, "service_profile", json!({"driver": driver})).await);
    let bind = json!({"service_profile": {"id": profile}});
    rig.want(201, &rig.admin, "POST", &format!("{path}/service_profiles"), bind.clone()).await;
    let twice = rig.refused(409, &rig.admin, "POST", &format!("{path}/service_profiles"), bind).await;
    assert_eq!(twice, "FlavorServiceProfileBindingExists");
    assert_eq!(rig.get(&rig.alice, &path).await["flavor"]["service_profiles"], json!([profile]));
    let held = rig.refused(409, &rig.admin, "DELETE", &format!("{profiles}/{profile}"), Value::Null).await;
    assert_eq!(held, "ServiceProfileInUse");
    let router = rig.make(&rig.alice, "/v2.0/routers", "router", json!({"flavor_id": flavor})).await;
    assert_eq!(router["flavor_id"], json!(flavor));
    let both = json!({"router": {"flavor_id": flavor, "distributed": true}});
    rig.want(400, &rig.admin, "POST", "/v2.0/routers", both).await;
    assert_eq!(rig.refused(409, &rig.admin, "DELETE", &path, Value::Null).await, "FlavorInUse");
    rig.want(204, &rig.alice, "DELETE", &format!("/v2.0/routers/{}", id(&router)), Value::Null).await;
    rig.want(204, &rig.admin, "DELETE", &format!("{path}/service_profiles/{profile}"), Value::Null).await;
    rig.want(404, &rig.admin, "DELETE", &format!("{path}/service_profiles/{profile}"), Value::Null).await;
    rig.want(200, &rig.admin, "PUT", &path, json!({"flavor": {"enabled": false}})).await;
    let off = json!({"router": {"flavor_id": flavor}});
    assert_eq!(rig.refused(400, &rig.alice, "POST", "/v2.0/routers", off).await, "FlavorDisabled");
    rig.want(204, &rig.admin, "DELETE", &path, Value::Null).await;
    rig.want(204, &rig.admin, "DELETE", &format!("{profiles}/{profile}"), Value::Null).await;
    rig.want(404, &rig.alice, "GET", &format!("{profiles}/{profile}"), Value::Null).await;
}

#[tokio::test]
async fn routers_of_a_flavor_are_of_the_kind_that_its_driver_stands_for() {
    let rig = Rig::new().await;
    let (profiles, routers) = ("/v2.0/service_profiles", "/v2.0/routers");
    let providers = rig.get(&rig.alice, "/v2.0/service-providers").await["service_providers"].clone();
    let usual = providers.as_array().unwrap().iter().filter(|p| p["default"] == json!(true)).count();
    assert_eq!((usual, providers.as_array().unwrap().len()), (1, 5));
    for (driver, distributed, ha) in [
        ("single_node.SingleNodeDriver", false, false),
        ("dvr.DvrDriver", true, false),
        ("ha.HaDriver", false, true),
        ("dvrha.DvrHaDriver", true, true),
    ] {
        let driver = format!("neutron.services.l3_router.service_providers.{driver}");
        let profile = id(&rig.make(&rig.admin, profiles, "service_profile", json!({"driver": driver})).await);
        let flavor = json!({"name": driver, "service_type": "L3_ROUTER_NAT", "service_profiles": [profile]});
        let flavor = id(&rig.make(&rig.admin, "/v2.0/flavors", "flavor", flavor).await);
        let router = id(&rig.make(&rig.alice, routers, "router", json!({"flavor_id": flavor})).await);
        let path = format!("{routers}/{router}");
        let shown = rig.get(&rig.admin, &path).await["router"].clone();
        assert_eq!((&shown["distributed"], &shown["ha"]), (&json!(distributed), &json!(ha)), "{driver}");
        // It stays of its kind, also while it is down; saying what it is changes nothing.
        rig.want(200, &rig.admin, "PUT", &path, json!({"router": {"admin_state_up": false}})).await;
        let other = json!({"router": {"distributed": !distributed}});
        assert_eq!(rig.refused(400, &rig.admin, "PUT", &path, other).await, "InvalidInput");
        rig.want(200, &rig.admin, "PUT", &path, json!({"router": {"distributed": distributed}})).await;
        rig.want(204, &rig.alice, "DELETE", &path, Value::Null).await;
        // A profile that is off gives no routers (it is not changed while a flavor has it).
        rig.want(204, &rig.admin, "DELETE", &format!("/v2.0/flavors/{flavor}"), Value::Null).await;
        rig.want(
            200,
            &rig.admin,
            "PUT",
            &format!("{profiles}/{profile}"),
            json!({"service_profile": {"enabled": false}}),
        )
        .await;
        let flavor = json!({"name": "off", "service_type": "L3_ROUTER_NAT", "service_profiles": [profile]});
        let flavor = id(&rig.make(&rig.admin, "/v2.0/flavors", "flavor", flavor).await);
        let off = json!({"router": {"flavor_id": flavor}});
        assert_eq!(rig.refused(400, &rig.alice, "POST", routers, off).await, "ServiceProfileDisabled");
    }
}

#[tokio::test]
async fn blocks_of_a_pool_come_and_go_and_subnets_join_it() {
    let rig = Rig::new().await;
    let pool = json!({"name": "p", "prefixes": ["10.0.0.7/16"]});
    let pool = id(&rig.make(&rig.alice, "/v2.0/subnetpools", "subnetpool", pool).await);
    let path = format!("/v2.0/subnetpools/{pool}");
    let more = json!({"prefixes": ["10.1.0.0/16", "192.168.0.0/24"]});
    let grown = rig.want(200, &rig.alice, "PUT", &format!("{path}/add_prefixes"), more).await;
    assert_eq!(grown, json!({"prefixes": ["10.0.0.0/15", "192.168.0.0/24"]}));
    let less = json!({"prefixes": ["10.0.0.0/16"]});
    let shrunk = rig.want(200, &rig.alice, "PUT", &format!("{path}/remove_prefixes"), less).await;
    assert_eq!(shrunk, json!({"prefixes": ["10.1.0.0/16", "192.168.0.0/24"]}));
    let network = rig.network(&rig.alice, "n").await;
    let subnet = rig.subnet(&rig.alice, &network, "172.16.0.0/24").await;
    let wish = json!({"network_id": network});
    let joined = rig.want(200, &rig.alice, "PUT", &format!("{path}/onboard_network_subnets"), wish).await;
    assert_eq!(ids(&joined), vec![subnet.clone()]);
    assert_eq!(rig.get(&rig.alice, &format!("/v2.0/subnets/{subnet}")).await["subnet"]["subnetpool_id"], json!(pool));
    let shown = rig.get(&rig.alice, &path).await["subnetpool"]["prefixes"].clone();
    assert_eq!(shown, json!(["10.1.0.0/16", "172.16.0.0/24", "192.168.0.0/24"]));
    let held = json!({"prefixes": ["172.16.0.0/12"]});
    let held = rig.refused(400, &rig.alice, "PUT", &format!("{path}/remove_prefixes"), held).await;
    assert_eq!(held, "IllegalSubnetPoolPrefixUpdate");
    let foreign = json!({"network_id": rig.network(&rig.bob, "n").await});
    rig.want(404, &rig.alice, "PUT", &format!("{path}/onboard_network_subnets"), foreign).await;
}

#[tokio::test]
async fn a_quota_below_what_is_used_needs_force() {
    let rig = Rig::new().await;
    rig.network(&rig.alice, "n").await;
    let low = json!({"quota": {"network": 0}});
    assert_eq!(rig.refused(400, &rig.admin, "PUT", "/v2.0/quotas/alice", low).await, "QuotaLimitTooLow");
    let forced = json!({"quota": {"network": 0, "force": true}});
    assert_eq!(rig.want(200, &rig.admin, "PUT", "/v2.0/quotas/alice", forced).await["quota"]["network"], 0);
}

#[tokio::test]
async fn floating_ips_come_from_pools_and_trust_is_the_operators() {
    let rig = Rig::new().await;
    let external = rig.external().await;
    let pools = rig.get(&rig.bob, "/v2.0/floatingip_pools").await["floatingip_pools"].clone();
    assert_eq!(rig.get(&rig.bob, "/v2.0/floatingip-pools").await["floatingip_pools"], pools);
    assert_eq!((&pools[0]["network_id"], &pools[0]["cidr"]), (&json!(external), &json!("172.24.4.0/24")));
    let network = rig.network(&rig.alice, "n").await;
    let trusted = json!({"port": {"network_id": network, "trusted": true}});
    rig.want(403, &rig.alice, "POST", "/v2.0/ports", trusted.clone()).await;
    let port = rig.want(201, &rig.admin, "POST", "/v2.0/ports", trusted).await["port"].clone();
    assert_eq!((&port["trusted"], &port["binding:profile"]["trusted"]), (&json!(true), &json!(true)));
    let path = format!("/v2.0/ports/{}", id(&port));
    let less = rig.want(200, &rig.admin, "PUT", &path, json!({"port": {"trusted": false}})).await["port"].clone();
    assert_eq!(less["binding:profile"], json!({"trusted": false}));
    assert!(rig.port(&rig.alice, &network).await.get("trusted").is_none(), "owners are not told");
}

#[tokio::test]
async fn networks_get_numbers_that_were_set_aside_for_their_project() {
    let rig = Rig::new().await;
    let path = "/v2.0/network_segment_ranges";
    let range = json!({"name": "r", "network_type": "vxlan", "project_id": "alice", "minimum": 1100, "maximum": 1101});
    rig.want(403, &rig.alice, "POST", path, json!({"network_segment_range": range})).await;
    let made = rig.make(&rig.admin, path, "network_segment_range", range.clone()).await;
    let one = format!("{path}/{}", id(&made));
    rig.want(404, &rig.alice, "PUT", &format!("{one}/tags/mine"), Value::Null).await;
    rig.want(201, &rig.admin, "PUT", &format!("{one}/tags/set-aside"), Value::Null).await;
    assert_eq!(rig.get(&rig.admin, &one).await["network_segment_range"]["tags"], json!(["set-aside"]));
    assert_eq!(
        (&made["default"], &made["shared"], &made["available"]),
        (&json!(false), &json!(false), &json!([1100, 1101]))
    );
    let overlap =
        json!({"network_segment_range": {"network_type": "vxlan", "project_id": "bob", "minimum": 1, "maximum": 1100}});
    assert_eq!(rig.refused(409, &rig.admin, "POST", path, overlap).await, "NetworkSegmentRangeOverlaps");
    let number = |network: String| {
        let rig = &rig;
        async move {
            let shown = rig.get(&rig.admin, &format!("/v2.0/networks/{network}")).await;
            shown["network"]["provider:segmentation_id"].as_u64().unwrap()
        }
    };
    let one = number(rig.network(&rig.alice, "1").await).await;
    let two = number(rig.network(&rig.alice, "2").await).await;
    assert_eq!(one + two, 2201, "both numbers of the range");
    let three = number(rig.network(&rig.alice, "3").await).await;
    assert!(!(1100..=1101).contains(&three), "then any other");
    let own = format!("{path}/{}", id(&made));
    assert_eq!(
        rig.get(&rig.admin, &own).await["network_segment_range"]["used"],
        json!({"1100": "alice", "1101": "alice"})
    );
    let less = json!({"network_segment_range": {"minimum": 1101}});
    assert_eq!(rig.refused(409, &rig.admin, "PUT", &own, less).await, "NetworkSegmentRangeReferencedByProject");
    rig.want(200, &rig.admin, "PUT", &own, json!({"network_segment_range": {"maximum": 1200}})).await;
    let held = rig.refused(409, &rig.admin, "DELETE", &own, Value::Null).await;
    assert_eq!(held, "NetworkSegmentRangeReferencedByProject");
    let all = rig.get(&rig.admin, path).await["network_segment_ranges"].clone();
    let default = all.as_array().unwrap().iter().find(|r| r["default"] == true).unwrap();
    rig.want(400, &rig.admin, "DELETE", &format!("{path}/{}", id(default)), Value::Null).await;
    assert_eq!(rig.get(&rig.alice, path).await["network_segment_ranges"], json!([]));
}
