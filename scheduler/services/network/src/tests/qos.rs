//! Quality of service: who may, what conflicts, what holds for what, what hosts are told.
use super::{Rig, id, outside::topology};
use crate::host::HostInfo;
use serde_json::{Value, json};

const POLICIES: &str = "/v2.0/qos/policies";

impl Rig {
    async fn policy(&self, more: Value) -> String {
        id(&self.make(&self.manager, POLICIES, "policy", more).await)
    }
    async fn rule(&self, policy: &str, kind: &str, attrs: Value) -> Value {
        let path = format!("{POLICIES}/{policy}/{kind}s");
        self.make(&self.admin, &path, kind, attrs).await
    }
}

#[tokio::test]
async fn policies_and_rules_are_the_managers() {
    let rig = Rig::new().await;
    let policy = rig.policy(json!({"name": "gold", "description": "d"})).await;
    let path = format!("{POLICIES}/{policy}");
    rig.want(403, &rig.alice, "POST", POLICIES, json!({"policy": {"name": "x"}})).await;
    let rules = format!("{path}/bandwidth_limit_rules");
    let body = json!({"bandwidth_limit_rule": {"max_kbps": 1000}});
    rig.want(403, &rig.alice, "POST", &rules, body.clone()).await;
    let made = rig.want(201, &rig.manager, "POST", &rules, body.clone()).await["bandwidth_limit_rule"].clone();
    let want = json!({"id": made["id"], "max_kbps": 1000, "max_burst_kbps": 0, "direction": "egress"});
    assert_eq!(made, want);
    assert_eq!(rig.refused(409, &rig.manager, "POST", &rules, body).await, "QoSRulesConflict");
    rig.rule(&policy, "bandwidth_limit_rule", json!({"max_kbps": 5, "direction": "ingress"})).await;
    rig.rule(&policy, "packet_rate_limit_rule", json!({"max_kpps": 2, "max_burst_kpps": 1})).await;
    let mark = rig.rule(&policy, "dscp_marking_rule", json!({"dscp_mark": 46})).await;
    for (kind, attrs) in [
        ("dscp_marking_rule", json!({"dscp_mark": 45})),
        ("bandwidth_limit_rule", json!({"max_kbps": -1})),
        ("bandwidth_limit_rule", json!({})),
        ("packet_rate_limit_rule", json!({"max_kpps": 1, "direction": "any"})),
    ] {
        rig.want(400, &rig.manager, "POST", &format!("{path}/{kind}s"), json!({ kind: attrs })).await;
    }
    let shown = rig.get(&rig.reader, &path).await["policy"].clone();
    let types: Vec<&Value> = shown["rules"].as_array().unwrap().iter().map(|r| &r["type"]).collect();
    assert_eq!(types.len(), 4, "{types:?}");
    assert!(shown["rules"].as_array().unwrap().iter().all(|r| r["qos_policy_id"] == json!(policy)));
    assert_eq!(
        (&shown["shared"], &shown["is_default"], &shown["project_id"]),
        (&json!(false), &json!(false), &json!("alice"))
    );
    let one = format!("{rules}/{}", id(&made));
    let moved = rig.want(200, &rig.manager, "PUT", &one, json!({"bandwidth_limit_rule": {"max_kbps": 7}})).await;
    assert_eq!(moved["bandwidth_limit_rule"]["max_kbps"], 7);
    let turned = json!({"bandwidth_limit_rule": {"direction": "ingress"}});
    assert_eq!(rig.refused(409, &rig.manager, "PUT", &one, turned).await, "QoSRulesConflict");
    assert_eq!(
        rig.get(&rig.reader, &format!("{rules}?direction=ingress")).await["bandwidth_limit_rules"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    // The same rules by their own id.
    let alias = format!("/v2.0/qos/alias_dscp_marking_rules/{}", id(&mark));
    let set = json!({"alias_dscp_marking_rule": {"dscp_mark": 8}});
    assert_eq!(rig.want(200, &rig.manager, "PUT", &alias, set).await["alias_dscp_marking_rule"]["dscp_mark"], 8);
    assert_eq!(rig.get(&rig.reader, &alias).await["alias_dscp_marking_rule"]["id"], mark["id"]);
    rig.want(404, &rig.bob, "GET", &alias, Value::Null).await;
    rig.want(204, &rig.manager, "DELETE", &alias, Value::Null).await;
    rig.want(404, &rig.manager, "GET", &alias, Value::Null).await;
    let types = rig.get(&rig.reader, "/v2.0/qos/rule-types").await["rule_types"].clone();
    assert_eq!(
        types,
        json!([{"type": "bandwidth_limit"}, {"type": "packet_rate_limit"}, {"type": "dscp_marking"},
            {"type": "minimum_bandwidth"}, {"type": "minimum_packet_rate"}])
    );
    rig.want(403, &rig.manager, "GET", "/v2.0/qos/rule-types/bandwidth_limit", Value::Null).await;
    let detail = rig.get(&rig.admin, "/v2.0/qos/rule-types/bandwidth_limit").await["rule_type"].clone();
    assert_eq!(detail["drivers"][0]["supported_parameters"][0]["parameter_name"], "max_kbps");
    assert_eq!(rig.refused(404, &rig.bob, "GET", &path, Value::Null).await, "QosPolicyNotFound");
    assert_eq!(rig.get(&rig.bob, &rules).await["bandwidth_limit_rules"], json!([]));
    rig.want(403, &rig.bob, "POST", &rules, json!({"bandwidth_limit_rule": {"max_kbps": 1}})).await;
    rig.want(204, &rig.manager, "DELETE", &path, Value::Null).await;
    rig.want(404, &rig.manager, "GET", &one, Value::Null).await;
}

#[tokio::test]
async fn what_has_a_policy_keeps_it() {
    let rig = Rig::new().await;
    let own = rig.policy(json!({"name": "own", "is_default": true})).await;
    assert_eq!(
        rig.refused(409, &rig.manager, "POST", POLICIES, json!({"policy": {"is_default": true}})).await,
        "QoSPolicyDefaultAlreadyExists"
    );
    let network = rig.make(&rig.alice, "/v2.0/networks", "network", json!({})).await;
    assert_eq!(network["qos_policy_id"], json!(own), "the project's default");
    let other = rig.make(&rig.bob, "/v2.0/networks", "network", json!({})).await;
    assert_eq!(other["qos_policy_id"], Value::Null);
    let taken = json!({"network": {"qos_policy_id": own}});
    let path = format!("/v2.0/networks/{}", id(&other));
    assert_eq!(rig.refused(404, &rig.bob, "PUT", &path, taken.clone()).await, "QosPolicyNotFound");
    rig.want(200, &rig.admin, "PUT", &path, taken).await;
    let none = json!({"network": {"qos_policy_id": null}});
    assert_eq!(rig.refused(403, &rig.bob, "PUT", &path, none.clone()).await, "PolicyRemoveAuthorizationError");
    rig.subnet(&rig.alice, &id(&network), "10.0.0.0/24").await;
    let port = rig.port(&rig.alice, &id(&network)).await;
    assert_eq!((&port["qos_policy_id"], &port["qos_network_policy_id"]), (&Value::Null, &json!(own)));
    let policy = format!("{POLICIES}/{own}");
    assert_eq!(rig.refused(409, &rig.manager, "DELETE", &policy, Value::Null).await, "QosPolicyInUse");
    // Opened to bob, he may set it and take it away; while he has it, it stays open.
    let rbac =
        json!({"object_type": "qos_policy", "object_id": own, "target_tenant": "bob", "action": "access_as_shared"});
    let rbac = id(&rig.make(&rig.alice, "/v2.0/rbac-policies", "rbac_policy", rbac).await);
    assert_eq!(rig.get(&rig.bob, &policy).await["policy"]["shared"], json!(true));
    let rbac = format!("/v2.0/rbac-policies/{rbac}");
    assert_eq!(rig.refused(409, &rig.alice, "DELETE", &rbac, Value::Null).await, "RbacPolicyInUse");
    rig.want(200, &rig.bob, "PUT", &path, none.clone()).await;
    rig.want(204, &rig.alice, "DELETE", &rbac, Value::Null).await;
    rig.want(200, &rig.alice, "PUT", &format!("/v2.0/networks/{}", id(&network)), none).await;
    rig.want(204, &rig.manager, "DELETE", &policy, Value::Null).await;
}

#[tokio::test]
async fn hosts_are_told_what_holds_for_what() {
    let rig = Rig::new().await;
    let (router, network, _, external) = topology(&rig).await;
    let port = |more: Value| {
        let mut attrs = json!({"project_id": "alice", "network_id": network, "binding:host_id": "h1"});
        attrs.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        attrs
    };
    let (slow, fast) = (rig.policy(json!({"shared": false})).await, rig.policy(json!({})).await);
    rig.rule(&slow, "bandwidth_limit_rule", json!({"max_kbps": 1000})).await;
    rig.rule(&slow, "dscp_marking_rule", json!({"dscp_mark": 10})).await;
    rig.rule(&fast, "bandwidth_limit_rule", json!({"max_kbps": 9000, "max_burst_kbps": 100, "direction": "ingress"}))
        .await;
    rig.rule(&fast, "packet_rate_limit_rule", json!({"max_kpps": 3})).await;
    rig.want(200, &rig.alice, "PUT", &format!("/v2.0/networks/{network}"), json!({"network": {"qos_policy_id": slow}}))
        .await;
    let plain = id(&rig.make(&rig.admin, "/v2.0/ports", "port", port(json!({}))).await);
    let own = id(&rig.make(&rig.admin, "/v2.0/ports", "port", port(json!({"qos_policy_id": fast}))).await);
    let floating = json!({"floating_network_id": external, "port_id": plain, "qos_policy_id": fast});
    let floating = rig.make(&rig.alice, "/v2.0/floatingips", "floatingip", floating).await;
    assert_eq!((&floating["qos_policy_id"], &floating["qos_network_policy_id"]), (&json!(fast), &Value::Null));
    let gateway = json!({"router": {"external_gateway_info": {"network_id": external, "qos_policy_id": slow}}});
    let path = format!("/v2.0/routers/{router}");
    let shown = rig.want(200, &rig.alice, "PUT", &path, gateway).await["router"]["external_gateway_info"].clone();
    assert_eq!(shown["qos_policy_id"], json!(slow));
    let hosts = [HostInfo { name: "h1".into(), up: true, ..HostInfo::default() }];
    let told = || async { rig.svc.host_network("h1", &hosts).await.unwrap().qualities };
    let all = told().await;
    let of = |port: &str, address: &str| {
        all.iter().find(|q| q.port_id == port && q.address == address).unwrap_or_else(|| panic!("{all:?}"))
    };
    let first = of(&plain, "");
    let egress = first.egress.as_ref().unwrap();
    assert_eq!((egress.kbps, egress.burst_kbit, egress.packets, first.dscp), (1000, 800, 0, Some(10)));
    assert!(first.ingress.is_none());
    let second = of(&own, "");
    let (out, into) = (second.egress.as_ref().unwrap(), second.ingress.as_ref().unwrap());
    assert_eq!((out.kbps, out.packets, out.burst_packets), (0, 3000, 2400));
    assert_eq!((into.kbps, into.burst_kbit, second.dscp), (9000, 100, None));
    assert_eq!(of("", floating["floating_ip_address"].as_str().unwrap()).ingress.as_ref().unwrap().kbps, 9000);
    let way = shown["external_fixed_ips"][0]["ip_address"].as_str().unwrap();
    assert_eq!(of("", way).egress.as_ref().unwrap().kbps, 1000);
    // A gateway that stays keeps its policy unless told otherwise.
    let same = json!({"router": {"external_gateway_info": {"network_id": external}}});
    assert_eq!(
        rig.want(200, &rig.alice, "PUT", &path, same).await["router"]["external_gateway_info"]["qos_policy_id"],
        json!(slow)
    );
    let none = json!({"router": {"external_gateway_info": {"network_id": external, "qos_policy_id": null}}});
    rig.want(200, &rig.alice, "PUT", &path, none).await;
    assert!(told().await.iter().all(|q| q.address != way));
}

#[tokio::test]
async fn minima_become_requests_to_placement() {
    let rig = Rig::new().await;
    let policy = rig.policy(json!({"name": "least", "shared": true})).await;
    let path = format!("{POLICIES}/{policy}");
    rig.rule(&policy, "minimum_bandwidth_rule", json!({"min_kbps": 700})).await;
    rig.rule(&policy, "minimum_bandwidth_rule", json!({"min_kbps": 300, "direction": "ingress"})).await;
    let both = rig.rule(&policy, "minimum_packet_rate_rule", json!({"min_kpps": 4, "direction": "any"})).await;
    let rules = format!("{path}/minimum_packet_rate_rules");
    let one_way = json!({"minimum_packet_rate_rule": {"min_kpps": 4, "direction": "egress"}});
    assert_eq!(rig.refused(409, &rig.manager, "POST", &rules, one_way).await, "QoSRulesConflict");
    rig.want(400, &rig.manager, "POST", &rules, json!({"minimum_packet_rate_rule": {"min_kpps": 4}})).await;
    let alias = format!("/v2.0/qos/alias_minimum_packet_rate_rules/{}", id(&both));
    assert_eq!(rig.get(&rig.reader, &alias).await["alias_minimum_packet_rate_rule"]["min_kpps"], 4);
    let network = rig.network(&rig.alice, "n").await;
    let port = rig.make(&rig.alice, "/v2.0/ports", "port", json!({"network_id": network})).await;
    let port = format!("/v2.0/ports/{}", id(&port));
    assert!(rig.get(&rig.alice, &port).await["port"].get("resource_request").is_none(), "the operator's business");
    assert_eq!(rig.get(&rig.admin, &port).await["port"]["resource_request"], Value::Null);
    // Its network's policy holds for a port that has none.
    let set = json!({"network": {"qos_policy_id": policy}});
    rig.want(200, &rig.alice, "PUT", &format!("/v2.0/networks/{network}"), set).await;
    let request = rig.get(&rig.admin, &port).await["port"]["resource_request"].clone();
    let groups = request["request_groups"].as_array().unwrap();
    assert_eq!(groups.len(), 2);
    let resources = json!({"NET_BW_EGR_KILOBIT_PER_SEC": 700, "NET_BW_IGR_KILOBIT_PER_SEC": 300});
    assert_eq!(groups[0]["resources"], resources);
    assert_eq!(groups[0]["required"], json!(["CUSTOM_PHYSNET_RP_TUNNELLED", "CUSTOM_VNIC_TYPE_NORMAL"]));
    assert_eq!(groups[1]["resources"], json!({"NET_PACKET_RATE_KILOPACKET_PER_SEC": 4}));
    assert_eq!(request["same_subtree"], json!([groups[0]["id"], groups[1]["id"]]));
    let again = rig.get(&rig.admin, &port).await["port"]["resource_request"].clone();
    assert_eq!(again, request, "the same port asks under the same ids");
    // While a server has the port, none of it changes.
    let bound = json!({"port": {"device_id": "s", "device_owner": "compute:nova", "binding:host_id": "h1"}});
    rig.want(200, &rig.admin, "PUT", &port, bound).await;
    let less = json!({"minimum_packet_rate_rule": {"min_kpps": 1}});
    let rule = format!("{rules}/{}", id(&both));
    assert_eq!(rig.refused(409, &rig.manager, "PUT", &rule, less).await, "QosResourceRequestInUse");
    assert_eq!(rig.refused(409, &rig.manager, "DELETE", &rule, Value::Null).await, "QosResourceRequestInUse");
    let none = json!({"network": {"qos_policy_id": null}});
    let kind = rig.refused(409, &rig.alice, "PUT", &format!("/v2.0/networks/{network}"), none).await;
    assert_eq!(kind, "QosResourceRequestInUse");
    rig.want(200, &rig.admin, "PUT", &port, json!({"port": {"binding:host_id": ""}})).await;
    rig.want(204, &rig.manager, "DELETE", &rule, Value::Null).await;
}
