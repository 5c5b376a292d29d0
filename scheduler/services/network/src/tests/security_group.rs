//! Security groups: the default one, rules and their duplicates, use by ports.
use super::{Rig, id};
use serde_json::{Value, json};

#[tokio::test]
async fn every_project_has_a_default_group_with_four_rules() {
    let rig = Rig::new().await;
    let found = rig.get(&rig.alice, "/v2.0/security-groups").await;
    let groups = found["security_groups"].as_array().unwrap();
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0]["name"], "default");
    assert_eq!(groups[0]["security_group_rules"].as_array().unwrap().len(), 4);
    let path = format!("/v2.0/security-groups/{}", id(&groups[0]));
    assert_eq!(rig.refused(409, &rig.alice, "DELETE", &path, Value::Null).await, "SecurityGroupCannotRemoveDefault");
    assert_eq!(
        rig.refused(409, &rig.alice, "PUT", &path, json!({"security_group": {"name": "x"}})).await,
        "SecurityGroupCannotUpdateDefault"
    );
    rig.want(404, &rig.bob, "GET", &path, Value::Null).await;
    let again = json!({"security_group": {"name": "default"}});
    assert_eq!(
        rig.refused(409, &rig.alice, "POST", "/v2.0/security-groups", again).await,
        "SecurityGroupDefaultAlreadyExists"
    );
    let port = {
        let network = rig.network(&rig.alice, "n").await;
        rig.port(&rig.alice, &network).await
    };
    assert_eq!(port["security_groups"], json!([id(&groups[0])]));
}

#[tokio::test]
async fn rules_are_checked_and_kept_once() {
    let rig = Rig::new().await;
    let group = rig.make(&rig.alice, "/v2.0/security-groups", "security_group", json!({"name": "web"})).await;
    assert_eq!(group["security_group_rules"].as_array().unwrap().len(), 2, "all may go out");
    let rule = |extra: Value| {
        let mut attrs = json!({"security_group_id": group["id"], "direction": "ingress"});
        for (k, v) in extra.as_object().unwrap() {
            attrs[k.as_str()] = v.clone();
        }
        json!({"security_group_rule": attrs})
    };
    let http = json!({"protocol": "tcp", "port_range_min": 80, "port_range_max": 80, "remote_ip_prefix": "10.0.0.7/8"});
    let made = rig.want(201, &rig.alice, "POST", "/v2.0/security-group-rules", rule(http.clone())).await;
    assert_eq!(made["security_group_rule"]["ethertype"], "IPv4");
    assert_eq!(made["security_group_rule"]["normalized_cidr"], "10.0.0.0/8");
    assert_eq!(
        rig.refused(409, &rig.alice, "POST", "/v2.0/security-group-rules", rule(http)).await,
        "SecurityGroupRuleExists"
    );
    let by_number =
        json!({"protocol": 6, "port_range_min": "80", "port_range_max": "80", "remote_ip_prefix": "10.0.0.0/8"});
    assert_eq!(
        rig.refused(409, &rig.alice, "POST", "/v2.0/security-group-rules", rule(by_number)).await,
        "SecurityGroupRuleExists"
    );
    for bad in [
        json!({"protocol": "bad"}),
        json!({"ethertype": "bad"}),
        json!({"direction": "up"}),
        json!({"remote_ip_prefix": "192.168.1."}),
        json!({"protocol": "tcp", "port_range_min": -16384, "port_range_max": 80}),
        json!({"protocol": "tcp", "port_range_min": 80, "port_range_max": 65536}),
    ] {
        rig.want(400, &rig.alice, "POST", "/v2.0/security-group-rules", rule(bad)).await;
    }
    for (protocol, min, max, says) in [
        ("tcp", json!(-16), 80, "Invalid value for port -16"),
        ("tcp", json!(80), 79, "port_range_min must be <= port_range_max"),
        ("tcp", json!(80), 65536, "Invalid value for port 65536"),
        ("tcp", Value::Null, 6, "port_range_min must be <= port_range_max"),
        ("tcp", json!(-16), 65536, "Invalid value for port"),
        ("icmp", json!(1), 256, "Invalid value for ICMP code"),
        ("icmp", json!(-1), 25, "Invalid value"),
        ("icmp", Value::Null, 6, "ICMP type (port-range-min) is missing"),
        ("icmp", json!(300), 1, "Invalid value for ICMP type"),
    ] {
        let bad = rule(json!({"protocol": protocol, "port_range_min": min, "port_range_max": max}));
        let answer = rig.want(400, &rig.alice, "POST", "/v2.0/security-group-rules", bad).await;
        assert!(answer["NeutronError"]["message"].as_str().unwrap().contains(says), "{says}: {answer}");
    }
    for member in ["remote_group_id", "security_group_id"] {
        let body = rule(json!({"protocol": "tcp", member: "bad_group_id"}));
        let kind = rig.refused(404, &rig.alice, "POST", "/v2.0/security-group-rules", body).await;
        assert_eq!(kind, "SecurityGroupNotFound", "{member}");
    }
    let missing = json!({"remote_group_id": pilvi_kit::id::new()});
    assert_eq!(
        rig.refused(404, &rig.alice, "POST", "/v2.0/security-group-rules", rule(missing)).await,
        "SecurityGroupNotFound"
    );
    assert_eq!(
        rig.refused(404, &rig.bob, "POST", "/v2.0/security-group-rules", rule(json!({}))).await,
        "SecurityGroupNotFound"
    );
    let path = format!("/v2.0/security-group-rules/{}", id(&made["security_group_rule"]));
    rig.want(404, &rig.bob, "DELETE", &path, Value::Null).await;
    rig.want(204, &rig.alice, "DELETE", &path, Value::Null).await;
    rig.want(404, &rig.alice, "GET", &path, Value::Null).await;
}

#[tokio::test]
async fn a_group_in_use_stays() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    let group = id(&rig.make(&rig.alice, "/v2.0/security-groups", "security_group", json!({"name": "web"})).await);
    let port =
        rig.make(&rig.alice, "/v2.0/ports", "port", json!({"network_id": network, "security_groups": [group]})).await;
    let path = format!("/v2.0/security-groups/{group}");
    assert_eq!(rig.refused(409, &rig.alice, "DELETE", &path, Value::Null).await, "SecurityGroupInUse");
    let cleared = rig
        .want(200, &rig.alice, "PUT", &format!("/v2.0/ports/{}", id(&port)), json!({"port": {"security_groups": []}}))
        .await;
    assert_eq!(cleared["port"]["security_groups"], json!([]));
    rig.want(204, &rig.alice, "DELETE", &path, Value::Null).await;
}
