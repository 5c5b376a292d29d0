//! Firewalls: what a project may make and change, what goes with what, and what hosts are told.
use super::{Rig, id, ids};
use crate::{
    firewall::model::{FirewallPolicy, FirewallPort, FirewallRule, RULES_MAX},
    host::{HostInfo, interest::Concerned},
};
use pilvi_store::{Change, Op, Record};
use serde_json::{Value, json};

const GROUPS: &str = "/v2.0/fwaas/firewall_groups";
const POLICIES: &str = "/v2.0/fwaas/firewall_policies";
const RULES: &str = "/v2.0/fwaas/firewall_rules";

async fn rule(rig: &Rig, attrs: Value) -> String {
    id(&rig.make(&rig.alice, RULES, "firewall_rule", attrs).await)
}

async fn policy(rig: &Rig, rules: &[&String]) -> String {
    id(&rig.make(&rig.alice, POLICIES, "firewall_policy", json!({"firewall_rules": rules})).await)
}

/// A port of a server.
async fn server_port(rig: &Rig, network: &str, host: &str) -> String {
    let attrs =
        json!({"network_id": network, "project_id": "alice", "binding:host_id": host, "device_owner": "compute:nova"});
    id(&rig.make(&rig.admin, "/v2.0/ports", "port", attrs).await)
}

/// A router with a leg in the network; the router, and the leg's port.
async fn leg(rig: &Rig, network: &str, cidr: &str) -> (String, String) {
    let subnet = rig.subnet(&rig.alice, network, cidr).await;
    let router = id(&rig.make(&rig.alice, "/v2.0/routers", "router", json!({})).await);
    let path = format!("/v2.0/routers/{router}/add_router_interface");
    let leg = rig.want(200, &rig.alice, "PUT", &path, json!({"subnet_id": subnet})).await;
    (router, leg["port_id"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_rule_says_what_can_be_meant() {
    let rig = Rig::new().await;
    let made = rig.make(&rig.alice, RULES, "firewall_rule", json!({})).await;
    for (name, value) in [
        ("action", json!("deny")),
        ("enabled", json!(true)),
        ("shared", json!(false)),
        ("ip_version", json!(4)),
        ("protocol", Value::Null),
        ("source_port", Value::Null),
        ("firewall_policy_id", Value::Null),
        ("tenant_id", json!("alice")),
    ] {
        assert_eq!(made[name], value, "{name}");
    }
    let refused = async |attrs: Value| {
        let kind = rig.refused(400, &rig.alice, "POST", RULES, json!({"firewall_rule": attrs.clone()})).await;
        if kind == "HTTPBadRequest" { String::default() } else { kind }
    };
    for bad in [
        json!({"protocol": "6"}),
        json!({"protocol": "gre"}),
        json!({"action": "drop"}),
        json!({"ip_version": 5}),
        json!({"source_ip_address": "10.0.0.0/33"}),
        json!({"source_ip_address": "elsewhere"}),
        json!({"protocol": "tcp", "source_port": "90:80"}),
        json!({"protocol": "tcp", "destination_port": "65536"}),
        json!({"position": 1}),
        json!({"firewall_policy_id": pilvi_kit::id::new()}),
        json!({"source_firewall_group_id": pilvi_kit::id::new()}),
    ] {
        assert_eq!(refused(bad.clone()).await, "", "{bad}");
    }
    assert_eq!(refused(json!({"destination_port": 80})).await, "FirewallRuleWithPortWithoutProtocolInvalid");
    let ping = json!({"protocol": "icmp", "source_port": "80"});
    assert_eq!(refused(ping).await, "FirewallRuleInvalidICMPParameter");
    let mixed = json!({"ip_version": 6, "destination_ip_address": "10.0.0.1"});
    assert_eq!(refused(mixed).await, "FirewallIpAddressConflict");
    let attrs = json!({"protocol": "tcp", "destination_port": "80:80", "source_port": 1024, "action": "ALLOW",
        "source_ip_address": "10.0.0.5/24", "destination_ip_address": "192.0.2.1"});
    let made = rig.make(&rig.alice, RULES, "firewall_rule", attrs).await;
    assert_eq!((&made["destination_port"], &made["source_port"]), (&json!("80"), &json!("1024")));
    assert_eq!((&made["source_ip_address"], &made["action"]), (&json!("10.0.0.5/24"), &json!("allow")));
    let path = format!("{RULES}/{}", id(&made));
    let no = rig.refused(400, &rig.alice, "PUT", &path, json!({"firewall_rule": {"protocol": null}})).await;
    assert_eq!(no, "FirewallRuleWithPortWithoutProtocolInvalid", "what it was and what it becomes");
    // Others neither see it nor may share their own.
    rig.want(404, &rig.bob, "GET", &path, Value::Null).await;
    rig.want(403, &rig.reader, "DELETE", &path, Value::Null).await;
    rig.want(403, &rig.alice, "PUT", &path, json!({"firewall_rule": {"shared": true}})).await;
    rig.want(403, &rig.alice, "POST", RULES, json!({"firewall_rule": {"shared": true}})).await;
    rig.want(200, &rig.admin, "PUT", &path, json!({"firewall_rule": {"shared": true}})).await;
    rig.want(200, &rig.bob, "GET", &path, Value::Null).await;
    assert!(ids(&rig.get(&rig.bob, RULES).await["firewall_rules"]).contains(&id(&made)));
    rig.want(403, &rig.bob, "DELETE", &path, Value::Null).await;
    rig.want(204, &rig.alice, "DELETE", &path, Value::Null).await;
}

#[tokio::test]
async fn a_policy_keeps_its_rules_in_order_and_forgets_that_it_was_audited() {
    let rig = Rig::new().await;
    let mut rules = Vec::new();
    for _ in 0..4 {
        rules.push(rule(&rig, json!({})).await);
    }
    let [a, b, c, d] = &rules[..] else { panic!() };
    let policy = policy(&rig, &[a, b]).await;
    let path = format!("{POLICIES}/{policy}");
    let audited = json!({"firewall_policy": {"audited": true}});
    assert_eq!(
        rig.want(200, &rig.alice, "PUT", &path, audited.clone()).await["firewall_policy"]["audited"],
        json!(true)
    );
    let insert = format!("{path}/insert_rule");
    let place = |rule: &String, key: &str, other: &str| json!({"firewall_rule_id": rule, key: other});
    // The answer has no envelope.
    let after = rig.want(200, &rig.alice, "PUT", &insert, place(c, "insert_after", a)).await;
    assert_eq!((&after["firewall_rules"], &after["audited"]), (&json!([a, c, b]), &json!(false)));
    let after = rig.want(200, &rig.alice, "PUT", &insert, place(d, "insert_before", "")).await;
    assert_eq!(after["firewall_rules"], json!([d, a, c, b]), "at the head");
    let remove = format!("{path}/remove_rule");
    let after = rig.want(200, &rig.alice, "PUT", &remove, json!({"firewall_rule_id": d})).await;
    assert_eq!(after["firewall_rules"], json!([a, c, b]));
    let before = json!({"firewall_rule_id": d, "insert_before": b, "insert_after": a});
    let after = rig.want(200, &rig.alice, "PUT", &insert, before).await;
    assert_eq!(after["firewall_rules"], json!([a, c, d, b]), "before counts more than after");
    assert_eq!(
        rig.refused(409, &rig.alice, "PUT", &insert, json!({"firewall_rule_id": a})).await,
        "FirewallRuleAlreadyAssociated"
    );
    assert_eq!(rig.refused(400, &rig.alice, "PUT", &insert, json!({})).await, "FirewallRuleInfoMissing");
    assert_eq!(
        rig.refused(404, &rig.alice, "PUT", &insert, json!({"firewall_rule_id": "x"})).await,
        "FirewallRuleNotFound"
    );
    let elsewhere = pilvi_kit::id::new();
    let no = rig.refused(404, &rig.alice, "PUT", &remove, json!({"firewall_rule_id": elsewhere})).await;
    assert_eq!(no, "FirewallRuleNotFound");
    let e = rule(&rig, json!({})).await;
    let no = rig.refused(400, &rig.alice, "PUT", &insert, place(&e, "insert_after", &elsewhere)).await;
    assert_eq!(no, "FirewallRuleNotAssociatedWithPolicy");
    let no = rig.refused(400, &rig.alice, "PUT", &remove, json!({"firewall_rule_id": e})).await;
    assert_eq!(no, "FirewallRuleNotAssociatedWithPolicy");
    rig.want(404, &rig.bob, "PUT", &insert, json!({"firewall_rule_id": e})).await;
    rig.want(403, &rig.reader, "PUT", &remove, json!({"firewall_rule_id": a})).await;
    // A rule knows its policies, stays while it is in one, and what becomes of it nobody has audited.
    rig.want(200, &rig.alice, "PUT", &path, audited).await;
    let of = format!("{RULES}/{a}");
    assert_eq!(rig.get(&rig.alice, &of).await["firewall_rule"]["firewall_policy_id"], json!([policy]));
    rig.want(200, &rig.alice, "PUT", &of, json!({"firewall_rule": {"enabled": false}})).await;
    assert_eq!(rig.get(&rig.alice, &path).await["firewall_policy"]["audited"], json!(false));
    assert_eq!(rig.refused(409, &rig.alice, "DELETE", &of, Value::Null).await, "FirewallRuleInUse");
    // Sharing: the rules first.
    let shared = |rules: Value| json!({"firewall_policy": {"shared": true, "firewall_rules": rules}});
    let no = rig.refused(409, &rig.admin, "PUT", &path, json!({"firewall_policy": {"shared": true}})).await;
    assert_eq!(no, "FirewallPolicySharingConflict");
    assert_eq!(rig.refused(404, &rig.admin, "PUT", &path, shared(json!([a]))).await, "FirewallRuleSharingConflict");
    rig.want(200, &rig.admin, "PUT", &of, json!({"firewall_rule": {"shared": true}})).await;
    rig.want(200, &rig.admin, "PUT", &path, shared(json!([a]))).await;
    rig.want(200, &rig.bob, "GET", &path, Value::Null).await;
    // Somebody else's rules are nobody's to use, and too many are not taken.
    let no = rig.refused(404, &rig.bob, "POST", POLICIES, json!({"firewall_policy": {"firewall_rules": [b]}})).await;
    assert_eq!(no, "FirewallRuleNotFound");
    let no = rig.refused(409, &rig.admin, "POST", POLICIES, json!({"firewall_policy": {"firewall_rules": [b]}})).await;
    assert_eq!(no, "FirewallRuleConflict");
    let many: Vec<String> = (0..=RULES_MAX).map(|_| pilvi_kit::id::new()).collect();
    let no = rig.refused(409, &rig.alice, "POST", POLICIES, json!({"firewall_policy": {"firewall_rules": many}})).await;
    assert_eq!(no, "FirewallPolicyRuleLimitReached");
    let taken = json!({"firewall_policy": {"name": "default egress"}});
    assert_eq!(rig.refused(409, &rig.alice, "POST", POLICIES, taken).await, "FirewallDefaultParameterExists");
    rig.want(204, &rig.alice, "DELETE", &path, Value::Null).await;
    rig.want(204, &rig.alice, "DELETE", &format!("{RULES}/{b}"), Value::Null).await;
}

#[tokio::test]
async fn every_project_has_a_group_of_its_own_that_it_may_not_change() {
    let rig = Rig::new().await;
    let listed = rig.get(&rig.alice, GROUPS).await["firewall_groups"].clone();
    let own = &listed[0];
    assert_eq!(
        (listed.as_array().unwrap().len(), &own["name"], &own["status"]),
        (1, &json!("default"), &json!("INACTIVE"))
    );
    assert_eq!(rig.get(&rig.alice, GROUPS).await["firewall_groups"], listed, "it is made once");
    let policies = rig.get(&rig.alice, POLICIES).await["firewall_policies"].clone();
    let mut names: Vec<&str> = policies.as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["default egress", "default ingress"]);
    let rules = rig.get(&rig.alice, &format!("{RULES}?action=allow")).await["firewall_rules"].clone();
    assert_eq!(rules.as_array().unwrap().len(), 2, "one for each IP version goes out");
    let path = format!("{GROUPS}/{}", id(own));
    for change in
        [json!({"description": "x"}), json!({"admin_state_up": false}), json!({"ingress_firewall_policy_id": null})]
    {
        let no = rig.refused(409, &rig.alice, "PUT", &path, json!({"firewall_group": change})).await;
        assert_eq!(no, "FirewallDefaultObjectUpdateRestricted");
    }
    rig.want(200, &rig.admin, "PUT", &path, json!({"firewall_group": {"description": "x"}})).await;
    let no = rig.refused(409, &rig.admin, "PUT", &path, json!({"firewall_group": {"name": "x"}})).await;
    assert_eq!(no, "FirewallDefaultObjectUpdateRestricted");
    let taken = rig.refused(409, &rig.alice, "POST", GROUPS, json!({"firewall_group": {"name": "default"}})).await;
    assert_eq!(taken, "FirewallDefaultParameterExists");
    let policy = format!("{POLICIES}/{}", own["ingress_firewall_policy_id"].as_str().unwrap());
    let no = rig.refused(409, &rig.admin, "PUT", &policy, json!({"firewall_policy": {"description": "x"}})).await;
    assert_eq!(no, "FirewallDefaultObjectUpdateRestricted");
    assert_eq!(rig.refused(409, &rig.alice, "DELETE", &policy, Value::Null).await, "FirewallPolicyInUse");
    assert_eq!(rig.refused(409, &rig.alice, "DELETE", &path, Value::Null).await, "FirewallGroupCannotRemoveDefault");
    rig.want(204, &rig.admin, "DELETE", &path, Value::Null).await;
    // Nothing is left of it; whoever looks gets a new one.
    rig.want(404, &rig.alice, "GET", &policy, Value::Null).await;
    let again = rig.get(&rig.alice, GROUPS).await["firewall_groups"].clone();
    assert_ne!(id(&again[0]), id(own));
    assert_eq!(rig.get(&rig.alice, RULES).await["firewall_rules"].as_array().unwrap().len(), 4);
    // It counts: ten are nine more.
    for _ in 0..9 {
        rig.make(&rig.alice, GROUPS, "firewall_group", json!({})).await;
    }
    assert_eq!(rig.refused(409, &rig.alice, "POST", GROUPS, json!({"firewall_group": {}})).await, "OverQuota");
    let quota = rig.get(&rig.admin, "/v2.0/quotas/alice/details.json").await["quota"].clone();
    assert_eq!(quota["firewall_group"], json!({"limit": 10, "used": 10, "reserved": 0}));
    assert_eq!((&quota["firewall_policy"]["limit"], &quota["firewall_rule"]["limit"]), (&json!(10), &json!(100)));
}

#[tokio::test]
async fn a_port_is_in_one_group_and_leaves_it_with_its_end() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    let (_, leg) = leg(&rig, &network, "10.0.0.0/24").await;
    let server = server_port(&rig, &network, "h1").await;
    let plain = id(&rig.port(&rig.alice, &network).await);
    let unbound = json!({"network_id": network, "device_owner": "compute:nova"});
    let unbound = id(&rig.make(&rig.alice, "/v2.0/ports", "port", unbound).await);
    let group = |ports: Value| json!({"firewall_group": {"ports": ports}});
    assert_eq!(rig.refused(409, &rig.alice, "POST", GROUPS, group(json!([plain]))).await, "FirewallGroupPortInvalid");
    assert_eq!(
        rig.refused(409, &rig.alice, "POST", GROUPS, group(json!([unbound]))).await,
        "FirewallGroupPortNotSupported"
    );
    assert_eq!(rig.refused(404, &rig.bob, "POST", GROUPS, group(json!([server]))).await, "PortNotFound");
    rig.want(400, &rig.alice, "POST", GROUPS, group(json!([server, server]))).await;
    let first = rig.make(&rig.alice, GROUPS, "firewall_group", json!({"ports": [server, leg]})).await;
    assert_eq!((&first["ports"].as_array().unwrap().len(), &first["status"]), (&2, &json!("INACTIVE")), "no policy");
    let second = rig.make(&rig.alice, GROUPS, "firewall_group", json!({"ports": null})).await;
    let second = format!("{GROUPS}/{}", id(&second));
    assert_eq!(rig.refused(409, &rig.alice, "PUT", &second, group(json!([leg]))).await, "FirewallGroupPortInUse");
    let path = format!("{GROUPS}/{}", id(&first));
    let policy = policy(&rig, &[]).await;
    let change = |attrs: Value| json!({"firewall_group": attrs});
    let after = rig.want(200, &rig.alice, "PUT", &path, change(json!({"egress_firewall_policy_id": policy}))).await;
    assert_eq!(
        (&after["firewall_group"]["status"], after["firewall_group"]["ports"].as_array().unwrap().len()),
        (&json!("ACTIVE"), 2)
    );
    let after = rig.want(200, &rig.alice, "PUT", &path, change(json!({"admin_state_up": false}))).await;
    assert_eq!(after["firewall_group"]["status"], json!("DOWN"));
    assert_eq!(ids(&rig.get(&rig.alice, &format!("{GROUPS}?ports={leg}")).await["firewall_groups"]), [id(&first)]);
    assert_eq!(rig.refused(409, &rig.alice, "DELETE", &path, Value::Null).await, "FirewallGroupInUse");
    assert_eq!(
        rig.refused(409, &rig.alice, "DELETE", &format!("{POLICIES}/{policy}"), Value::Null).await,
        "FirewallPolicyInUse"
    );
    let theirs = change(json!({"egress_firewall_policy_id": policy}));
    assert_eq!(rig.refused(404, &rig.bob, "POST", GROUPS, theirs.clone()).await, "FirewallPolicyNotFound");
    assert_eq!(rig.refused(404, &rig.admin, "POST", GROUPS, theirs).await, "FirewallPolicyConflict");
    // One leaves for the other group, one ends.
    rig.want(200, &rig.alice, "PUT", &path, group(json!([server]))).await;
    rig.want(200, &rig.alice, "PUT", &second, group(json!([leg]))).await;
    rig.want(204, &rig.admin, "DELETE", &format!("/v2.0/ports/{server}"), Value::Null).await;
    assert_eq!(rig.get(&rig.alice, &path).await["firewall_group"]["ports"], json!([]));
    rig.want(404, &rig.bob, "GET", &path, Value::Null).await;
    rig.want(403, &rig.reader, "PUT", &path, group(json!([]))).await;
    rig.want(204, &rig.alice, "DELETE", &path, Value::Null).await;
}

#[tokio::test]
async fn hosts_are_told_of_their_ports_and_of_the_legs_that_those_reach() {
    let rig = Rig::new().await;
    let host = |n: u8| HostInfo { name: format!("h{n}"), up: true, ..HostInfo::default() };
    let hosts = [host(1), host(2), host(3)];
    rig.svc.remember(&hosts);
    let (network, other) = (rig.network(&rig.alice, "n").await, rig.network(&rig.alice, "m").await);
    let (router, leg) = leg(&rig, &network, "10.0.0.0/24").await;
    let (near, _far) = (server_port(&rig, &network, "h1").await, server_port(&rig, &network, "h2").await);
    server_port(&rig, &other, "h3").await;
    let told = async |name: &str| rig.svc.host_network(name, &hosts).await.unwrap().firewalls;
    let web =
        json!({"protocol": "tcp", "destination_port": "80:81", "action": "allow", "source_ip_address": "10.0.0.9"});
    let off = rule(&rig, json!({"enabled": false, "action": "allow"})).await;
    let six = rule(&rig, json!({"ip_version": 6, "protocol": "icmp", "action": "reject"})).await;
    let web = rule(&rig, web).await;
    let list = policy(&rig, &[&six, &off, &web]).await;
    let attrs = json!({"ingress_firewall_policy_id": list, "ports": [near, leg]});
    let group = id(&rig.make(&rig.alice, GROUPS, "firewall_group", attrs).await);
    let here = told("h1").await;
    let firewall = &here[0];
    assert_eq!((here.len(), firewall.id.as_str(), firewall.ports.as_slice()), (1, group.as_str(), &[near.clone()][..]));
    let brief: Vec<(u32, Option<u32>, bool, bool, &str)> =
        firewall.ingress.iter().map(|r| (r.ether_type, r.protocol, r.allow, r.reject, r.source.as_str())).collect();
    assert_eq!(
        brief,
        [(6, Some(1), false, true, ""), (4, Some(6), true, false, "10.0.0.9")],
        "in order, without what is off"
    );
    assert_eq!(firewall.ingress[1].destination_ports.map(|p| (p.first, p.last)), Some((80, 81)));
    assert!(firewall.egress.is_empty(), "no policy that way: nothing passes");
    assert_eq!((firewall.legs.len(), &firewall.legs[0].router_id), (1, &router));
    assert_eq!(firewall.legs[0].network_id, network);
    let there = told("h2").await;
    assert!(there[0].ports.is_empty() && there[0].legs == firewall.legs, "the leg's guests there ask it too");
    assert!(told("h3").await.is_empty());

    // Who is asked anew when something changes.
    let concerned = async |kind: &str, id: &str, op: Op| {
        let change = Change { seq: 1, kind: kind.into(), id: id.into(), rev: 1, op, at_us: 0 };
        rig.svc.concerned(std::slice::from_ref(&change)).await.unwrap()
    };
    let both = Concerned::Hosts(["h1".to_owned(), "h2".to_owned()].into());
    assert_eq!(concerned(FirewallRule::KIND, &web, Op::Update).await, both);
    assert_eq!(concerned(FirewallPolicy::KIND, &list, Op::Update).await, both);
    assert_eq!(concerned(FirewallPort::KIND, &leg, Op::Delete).await, both);
    assert_eq!(concerned(FirewallPort::KIND, &near, Op::Insert).await, Concerned::Hosts(["h1".to_owned()].into()));
    // Down lets nothing pass; without a policy it is none.
    let path = format!("{GROUPS}/{group}");
    rig.want(200, &rig.alice, "PUT", &path, json!({"firewall_group": {"admin_state_up": false}})).await;
    assert!(told("h1").await[0].ingress.is_empty());
    let none = json!({"firewall_group": {"admin_state_up": true, "ingress_firewall_policy_id": null}});
    rig.want(200, &rig.alice, "PUT", &path, none).await;
    assert!(told("h1").await.is_empty());
}
