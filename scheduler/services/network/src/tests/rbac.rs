//! What owners open to others: RBAC policies, address scopes, address groups.
use super::{Rig, id, ids};
use crate::host::HostInfo;
use serde_json::{Value, json};

impl Rig {
    async fn open(&self, object_type: &str, object: &str, target: &str) -> String {
        let policy = json!({"object_type": object_type, "object_id": object, "target_tenant": target, "action": "access_as_shared"});
        id(&self.make(&self.alice, "/v2.0/rbac-policies", "rbac_policy", policy).await)
    }
}

#[tokio::test]
async fn a_network_is_opened_to_one_project_and_closed_again() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    let subnet = rig.subnet(&rig.alice, &network, "10.0.0.0/24").await;
    let path = format!("/v2.0/networks/{network}");
    rig.want(404, &rig.bob, "GET", &path, Value::Null).await;
    let policy = rig.open("network", &network, "bob").await;
    assert_eq!(rig.get(&rig.bob, &path).await["network"]["shared"], true);
    assert_eq!(rig.get(&rig.alice, &path).await["network"]["shared"], false, "not with its owner");
    assert_eq!(ids(&rig.get(&rig.bob, "/v2.0/networks?shared=true").await["networks"]), vec![network.clone()]);
    assert_eq!(ids(&rig.get(&rig.bob, "/v2.0/subnets").await["subnets"]), vec![subnet]);
    rig.want(404, &rig.bob, "PUT", &path, json!({"network": {"name": "mine"}})).await;
    assert_eq!(rig.get(&rig.bob, "/v2.0/rbac-policies").await["rbac_policies"], json!([]));
    let port = id(&rig.port(&rig.bob, &network).await);
    let policy_path = format!("/v2.0/rbac-policies/{policy}");
    assert_eq!(rig.refused(409, &rig.alice, "DELETE", &policy_path, Value::Null).await, "RbacPolicyInUse");
    let moved = json!({"rbac_policy": {"target_tenant": "carol"}});
    assert_eq!(rig.refused(409, &rig.alice, "PUT", &policy_path, moved).await, "RbacPolicyInUse");
    rig.want(204, &rig.bob, "DELETE", &format!("/v2.0/ports/{port}"), Value::Null).await;
    rig.want(204, &rig.alice, "DELETE", &policy_path, Value::Null).await;
    rig.want(404, &rig.bob, "GET", &path, Value::Null).await;
    assert_eq!(ids(&rig.get(&rig.bob, "/v2.0/networks").await["networks"]), Vec::<String>::new());
}

#[tokio::test]
async fn flags_and_policies_say_the_same() {
    let rig = Rig::new().await;
    let external = rig.external().await;
    let listed = |query: &'static str| {
        let (rig, external) = (&rig, external.clone());
        async move {
            let path = format!("/v2.0/rbac-policies?object_id={external}&{query}");
            ids(&rig.get(&rig.admin, &path).await["rbac_policies"])
        }
    };
    let made = listed("action=access_as_external&target_tenant=*").await;
    assert_eq!(made.len(), 1, "an external network is so by a policy");
    let path = format!("/v2.0/networks/{external}");
    let one = json!({"rbac_policy": {"target_tenant": "alice"}});
    rig.want(200, &rig.admin, "PUT", &format!("/v2.0/rbac-policies/{}", made[0]), one).await;
    rig.want(200, &rig.alice, "GET", &path, Value::Null).await;
    rig.want(404, &rig.bob, "GET", &path, Value::Null).await;
    let way_out = json!({"router": {"external_gateway_info": {"network_id": external}}});
    rig.want(404, &rig.bob, "POST", "/v2.0/routers", way_out.clone()).await;
    rig.want(201, &rig.alice, "POST", "/v2.0/routers", way_out).await;
    let gone = format!("/v2.0/rbac-policies/{}", made[0]);
    assert_eq!(rig.refused(409, &rig.admin, "DELETE", &gone, Value::Null).await, "RbacPolicyInUse");
    rig.want(200, &rig.admin, "PUT", &path, json!({"network": {"shared": true}})).await;
    assert_eq!(listed("action=access_as_shared").await.len(), 1);
    rig.want(200, &rig.admin, "PUT", &path, json!({"network": {"shared": false}})).await;
    assert_eq!(listed("action=access_as_shared").await, Vec::<String>::new());
}

#[tokio::test]
async fn only_owners_open_and_only_administrators_to_all() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    let policy = |target: Value| json!({"rbac_policy": {"object_type": "network", "object_id": network, "target_tenant": target, "action": "access_as_shared"}});
    let path = "/v2.0/rbac-policies";
    assert_eq!(rig.refused(403, &rig.alice, "POST", path, policy(json!("*"))).await, "PolicyNotAuthorized");
    rig.want(400, &rig.alice, "POST", path, policy(Value::Null)).await;
    rig.want(400, &rig.alice, "POST", path, policy(json!("x".repeat(256)))).await;
    assert_eq!(rig.refused(400, &rig.bob, "POST", path, policy(json!("bob"))).await, "InvalidInput");
    let one = rig.want(201, &rig.alice, "POST", path, policy(json!("bob"))).await["rbac_policy"].clone();
    assert_eq!(rig.refused(409, &rig.alice, "POST", path, policy(json!("bob"))).await, "DuplicateRbacPolicy");
    let wide = json!({"rbac_policy": {"target_tenant": "*"}});
    rig.want(403, &rig.alice, "PUT", &format!("{path}/{}", id(&one)), wide.clone()).await;
    rig.want(200, &rig.admin, "PUT", &format!("{path}/{}", id(&one)), wide).await;
    let strange = json!({"rbac_policy": {"object_type": "subnetpool", "object_id": network, "target_tenant": "bob", "action": "access_as_external"}});
    assert_eq!(rig.refused(400, &rig.alice, "POST", path, strange).await, "InvalidInput");
}

#[tokio::test]
async fn scopes_keep_the_blocks_of_their_pools_apart() {
    let rig = Rig::new().await;
    let scope = |version: u8| json!({"name": "s", "ip_version": version});
    let four = id(&rig.make(&rig.alice, "/v2.0/address-scopes", "address_scope", scope(4)).await);
    let six = id(&rig.make(&rig.alice, "/v2.0/address-scopes", "address_scope", scope(6)).await);
    let pool = |prefix: &str, scope: &str| json!({"subnetpool": {"name": "p", "prefixes": [prefix], "address_scope_id": scope}});
    let made = rig.want(201, &rig.alice, "POST", "/v2.0/subnetpools", pool("10.0.0.0/16", &four)).await;
    let overlap = rig.refused(409, &rig.alice, "POST", "/v2.0/subnetpools", pool("10.0.0.0/8", &four)).await;
    assert_eq!(overlap, "AddressScopePrefixConflict");
    let version = rig.refused(400, &rig.alice, "POST", "/v2.0/subnetpools", pool("10.1.0.0/16", &six)).await;
    assert_eq!(version, "IllegalSubnetPoolIpVersionAssociationToAddressScope");
    let foreign = rig.refused(404, &rig.bob, "POST", "/v2.0/subnetpools", pool("10.1.0.0/16", &four)).await;
    assert_eq!(foreign, "AddressScopeNotFound");
    let network = rig.network(&rig.alice, "n").await;
    let cut = json!({"subnet": {"network_id": network, "ip_version": 4, "prefixlen": 24, "subnetpool_id": made["subnetpool"]["id"]}});
    rig.want(201, &rig.alice, "POST", "/v2.0/subnets", cut).await;
    let shown = rig.get(&rig.alice, &format!("/v2.0/networks/{network}")).await["network"].clone();
    assert_eq!((&shown["ipv4_address_scope"], &shown["ipv6_address_scope"]), (&json!(four), &Value::Null));
    let path = format!("/v2.0/address-scopes/{four}");
    assert_eq!(rig.refused(409, &rig.alice, "DELETE", &path, Value::Null).await, "AddressScopeInUse");
    rig.want(403, &rig.alice, "PUT", &path, json!({"address_scope": {"shared": true}})).await;
    rig.want(200, &rig.admin, "PUT", &path, json!({"address_scope": {"shared": true}})).await;
    rig.want(201, &rig.bob, "POST", "/v2.0/subnetpools", pool("10.1.0.0/16", &four)).await;
    let back = json!({"address_scope": {"shared": false}});
    assert_eq!(rig.refused(400, &rig.admin, "PUT", &path, back).await, "AddressScopeUpdateError");
    // A pool cannot go where its scope cannot.
    let hidden = id(&rig.make(&rig.alice, "/v2.0/address-scopes", "address_scope", scope(4)).await);
    let inner = rig.want(201, &rig.alice, "POST", "/v2.0/subnetpools", pool("10.2.0.0/16", &hidden)).await;
    let policy = json!({"rbac_policy": {"object_type": "subnetpool", "object_id": inner["subnetpool"]["id"], "target_tenant": "bob", "action": "access_as_shared"}});
    assert_eq!(rig.refused(400, &rig.alice, "POST", "/v2.0/rbac-policies", policy).await, "InvalidInput");
}

#[tokio::test]
async fn a_rule_means_what_its_address_group_holds_now() {
    let rig = Rig::new().await;
    let blocks = json!({"name": "g", "addresses": ["10.10.10.3/32", "192.168.0.10/24", "2001:db8::f00/64"]});
    let group = rig.make(&rig.alice, "/v2.0/address-groups", "address_group", blocks).await;
    assert_eq!(group["addresses"], json!(["10.10.10.3/32", "192.168.0.0/24", "2001:db8::/64"]));
    let path = format!("/v2.0/address-groups/{}", id(&group));
    let wrong = json!({"address_group": {"addresses": ["10.20.30.40"]}});
    rig.want(400, &rig.alice, "POST", "/v2.0/address-groups", wrong).await;
    let network = rig.network(&rig.alice, "n").await;
    rig.subnet(&rig.alice, &network, "10.0.0.0/24").await;
    let filter = id(&rig.make(&rig.alice, "/v2.0/security-groups", "security_group", json!({"name": "f"})).await);
    let rule = json!({"security_group_id": filter, "direction": "ingress", "protocol": "tcp", "remote_address_group_id": group["id"]});
    let mut both = rule.clone();
    both["remote_ip_prefix"] = json!("10.0.0.0/8");
    let refused =
        rig.refused(400, &rig.alice, "POST", "/v2.0/security-group-rules", json!({"security_group_rule": both})).await;
    assert_eq!(refused, "SecurityGroupMultipleRemoteEntitiesRule");
    let rule = id(&rig.make(&rig.alice, "/v2.0/security-group-rules", "security_group_rule", rule).await);
    let port =
        json!({"project_id": "alice", "network_id": network, "security_groups": [filter], "binding:host_id": "h1"});
    rig.make(&rig.admin, "/v2.0/ports", "port", port).await;
    let sent = || async {
        let hosts = [HostInfo { name: "h1".into(), up: true, ..HostInfo::default() }];
        let wire = rig.svc.host_network("h1", &hosts).await.unwrap();
        let rules = wire.groups.iter().flat_map(|g| &g.rules).filter(|r| r.id.starts_with(&rule));
        rules.map(|r| r.remote_cidr.clone()).collect::<Vec<_>>()
    };
    assert_eq!(sent().await, ["10.10.10.3/32", "192.168.0.0/24"], "one for each block of the rule's family");
    let more = json!({"addresses": ["10.20.30.40/32"]});
    let grown = rig.want(200, &rig.alice, "PUT", &format!("{path}/add_addresses"), more.clone()).await;
    assert_eq!(grown["address_group"]["addresses"].as_array().unwrap().len(), 4);
    let twice = rig.refused(400, &rig.alice, "PUT", &format!("{path}/add_addresses"), more).await;
    assert_eq!(twice, "AddressesAlreadyExist");
    let less = json!({"addresses": ["10.10.10.3/32", "192.168.0.0/24"]});
    rig.want(200, &rig.alice, "PUT", &format!("{path}/remove_addresses"), less).await;
    assert_eq!(sent().await, ["10.20.30.40/32"]);
    let absent = json!({"addresses": ["10.200.200.200"]});
    let absent = rig.refused(404, &rig.alice, "PUT", &format!("{path}/remove_addresses"), absent).await;
    assert_eq!(absent, "AddressesNotFound");
    assert_eq!(rig.refused(409, &rig.alice, "DELETE", &path, Value::Null).await, "AddressGroupInUse");
    rig.want(404, &rig.bob, "GET", &path, Value::Null).await;
    rig.open("address_group", &id(&group), "bob").await;
    rig.want(200, &rig.bob, "GET", &path, Value::Null).await;
}

#[tokio::test]
async fn ports_of_others_use_an_opened_security_group() {
    let rig = Rig::new().await;
    let group = id(&rig.make(&rig.alice, "/v2.0/security-groups", "security_group", json!({"name": "f"})).await);
    let network = rig.network(&rig.bob, "n").await;
    let port = json!({"port": {"network_id": network, "security_groups": [group]}});
    rig.want(404, &rig.bob, "POST", "/v2.0/ports", port.clone()).await;
    let policy = rig.open("security_group", &group, "bob").await;
    rig.want(201, &rig.bob, "POST", "/v2.0/ports", port).await;
    assert!(ids(&rig.get(&rig.bob, "/v2.0/security-groups").await["security_groups"]).contains(&group));
    let path = format!("/v2.0/rbac-policies/{policy}");
    assert_eq!(rig.refused(409, &rig.alice, "DELETE", &path, Value::Null).await, "RbacPolicyInUse");
    let path = format!("/v2.0/security-groups/{group}");
    assert_eq!(rig.refused(409, &rig.alice, "DELETE", &path, Value::Null).await, "SecurityGroupInUse");
}

#[tokio::test]
async fn who_may_not_change_what_all_may_see_is_told_so() {
    let rig = Rig::new().await;
    let policy = json!({"name": "p", "shared": false});
    let path =
        format!("/v2.0/qos/policies/{}", id(&rig.make(&rig.admin, "/v2.0/qos/policies", "policy", policy).await));
    rig.want(404, &rig.bob, "DELETE", &path, Value::Null).await;
    rig.want(200, &rig.admin, "PUT", &path, json!({"policy": {"shared": true}})).await;
    rig.want(403, &rig.bob, "DELETE", &path, Value::Null).await;
    rig.want(403, &rig.bob, "PUT", &path, json!({"policy": {"name": "mine"}})).await;
    let network = json!({"name": "n", "shared": true});
    let network = id(&rig.make(&rig.admin, "/v2.0/networks", "network", network).await);
    rig.want(403, &rig.bob, "PUT", &format!("/v2.0/networks/{network}"), json!({"network": {"name": "mine"}})).await;
    let port = id(&rig.port(&rig.alice, &network).await);
    rig.want(404, &rig.bob, "DELETE", &format!("/v2.0/ports/{port}"), Value::Null).await;
}
