//! Network: one of each of the owner's, and an external network of the administrator's.
use super::{Facts, World, make, map, root, text};
use crate::persona;
use pilvi_kit::{Caller, service::Mounting, testing::App};
use pilvi_network::{Network, host::HostInfo, kinds, service};
use pilvi_store::Store;
use serde_json::{Value, json};
use std::collections::HashMap;

const FACTS: Facts = Facts {
    bodies: &[
        ("POST", "/v2.0/networks", r#"{"network": {"project_id": "p-own"}}"#),
        (
            "POST",
            "/v2.0/subnets",
            r#"{"subnet": {"project_id": "p-own", "network_id": "<network_id>", "ip_version": 4, "cidr": "10.3.0.0/24"}}"#,
        ),
        ("POST", "/v2.0/ports", r#"{"port": {"project_id": "p-own", "network_id": "<network_id>"}}"#),
        ("POST", "/v2.0/routers", r#"{"router": {"project_id": "p-own"}}"#),
        (
            "POST",
            "/v2.0/floatingips",
            r#"{"floatingip": {"project_id": "p-own", "floating_network_id": "<floating_network_id>"}}"#,
        ),
        (
            "POST",
            "/v2.0/subnetpools",
            r#"{"subnetpool": {"project_id": "p-own", "name": "x", "prefixes": ["10.8.0.0/16"]}}"#,
        ),
        ("POST", "/v2.0/security-groups", r#"{"security_group": {"project_id": "p-own", "name": "x"}}"#),
        (
            "POST",
            "/v2.0/security-group-rules",
            r#"{"security_group_rule": {"project_id": "p-own", "security_group_id": "<security_group_id>", "direction": "egress"}}"#,
        ),
        (
            "POST",
            "/v2.0/rbac-policies",
            r#"{"rbac_policy": {"project_id": "p-own", "object_type": "network", "object_id": "<network_id>", "target_tenant": "p-third", "action": "access_as_shared"}}"#,
        ),
        ("POST", "/v2.0/address-scopes", r#"{"address_scope": {"project_id": "p-own", "name": "x", "ip_version": 4}}"#),
        ("POST", "/v2.0/address-groups", r#"{"address_group": {"project_id": "p-own", "name": "x"}}"#),
        (
            "POST",
            "/v2.0/default-security-group-rules",
            r#"{"default_security_group_rule": {"direction": "ingress", "protocol": "udp"}}"#,
        ),
        ("POST", "/v2.0/segments", r#"{"segment": {"network_id": "<network_id>", "network_type": "vxlan"}}"#),
        (
            "POST",
            "/v2.0/network_segment_ranges",
            r#"{"network_segment_range": {"project_id": "p-own", "network_type": "vxlan", "minimum": 7, "maximum": 8}}"#,
        ),
        (
            "POST",
            "/v2.0/floatingips/{floatingip_id}/port_forwardings",
            r#"{"port_forwarding": {"internal_port_id": "<inside_port_id>", "protocol": "udp", "external_port": 9, "internal_port": 9}}"#,
        ),
        ("POST", "/v2.0/taas/tap_services", r#"{"tap_service": {"project_id": "p-own", "port_id": "<free_port_id>"}}"#),
        (
            "POST",
            "/v2.0/taas/tap_flows",
            r#"{"tap_flow": {"project_id": "p-own", "tap_service_id": "<tap_service_id>", "source_port": "<free_port_id>", "direction": "IN"}}"#,
        ),
        (
            "POST",
            "/v2.0/taas/tap_mirrors",
            r#"{"tap_mirror": {"project_id": "p-own", "port_id": "<free_port_id>", "directions": {"OUT": 8}, "remote_ip": "192.0.2.9", "mirror_type": "gre"}}"#,
        ),
        ("POST", "/v2.0/fwaas/firewall_groups", r#"{"firewall_group": {"project_id": "p-own"}}"#),
        ("POST", "/v2.0/fwaas/firewall_policies", r#"{"firewall_policy": {"project_id": "p-own"}}"#),
        ("POST", "/v2.0/fwaas/firewall_rules", r#"{"firewall_rule": {"project_id": "p-own"}}"#),
        ("PUT", "/v2.0/fwaas/firewall_policies/{id}/insert_rule", r#"{"firewall_rule_id": "<free_firewall_rule_id>"}"#),
        ("PUT", "/v2.0/fwaas/firewall_policies/{id}/remove_rule", r#"{"firewall_rule_id": "<used_firewall_rule_id>"}"#),
        (
            "POST",
            "/v2.0/security-groups-default-statefulness",
            r#"{"security_groups_default_statefulness": {"project_id": "p-own", "stateful": false}}"#,
        ),
        (
            "PUT",
            "/v2.0/security-groups-default-statefulness/{id}",
            r#"{"security_groups_default_statefulness": {"stateful": false}}"#,
        ),
        ("POST", "/v2.0/ports/{port_id}/bindings", r#"{"binding": {"host": "h2"}}"#),
        (
            "PUT",
            "/v2.0/routers/{id}/add_external_gateways",
            r#"{"router": {"external_gateways": [{"network_id": "<floating_network_id>"}]}}"#,
        ),
        (
            "PUT",
            "/v2.0/routers/{id}/update_external_gateways",
            r#"{"router": {"external_gateways": [{"network_id": "<floating_network_id>"}]}}"#,
        ),
        ("PUT", "/v2.0/routers/{id}/remove_external_gateways", r#"{"router": {"external_gateways": []}}"#),
        ("POST", "/v2.0/trunks", r#"{"trunk": {"project_id": "p-own", "port_id": "<free_port_id>"}}"#),
        (
            "PUT",
            "/v2.0/trunks/{id}/add_subports",
            r#"{"sub_ports": [{"port_id": "<inside_port_id>", "segmentation_type": "vlan", "segmentation_id": 9}]}"#,
        ),
        ("PUT", "/v2.0/trunks/{id}/remove_subports", r#"{"sub_ports": [{"port_id": "<sub_port_id>"}]}"#),
        ("POST", "/v2.0/qos/policies", r#"{"policy": {"project_id": "p-own"}}"#),
        (
            "POST",
            "/v2.0/qos/policies/{policy_id}/bandwidth_limit_rules",
            r#"{"bandwidth_limit_rule": {"max_kbps": 1, "direction": "ingress"}}"#,
        ),
        (
            "POST",
            "/v2.0/qos/policies/{policy_id}/packet_rate_limit_rules",
            r#"{"packet_rate_limit_rule": {"max_kpps": 1, "direction": "ingress"}}"#,
        ),
        (
            "POST",
            "/v2.0/qos/policies/{policy_id}/minimum_bandwidth_rules",
            r#"{"minimum_bandwidth_rule": {"min_kbps": 1, "direction": "ingress"}}"#,
        ),
        (
            "POST",
            "/v2.0/qos/policies/{policy_id}/minimum_packet_rate_rules",
            r#"{"minimum_packet_rate_rule": {"min_kpps": 1, "direction": "ingress"}}"#,
        ),
        ("PUT", "/v2.0/qos/alias_minimum_bandwidth_rules/{id}", r#"{"alias_minimum_bandwidth_rule": {"min_kbps": 2}}"#),
        (
            "PUT",
            "/v2.0/qos/alias_minimum_packet_rate_rules/{id}",
            r#"{"alias_minimum_packet_rate_rule": {"min_kpps": 2}}"#,
        ),
        ("POST", "/v2.0/qos/policies/{policy_id}/dscp_marking_rules", r#"{"dscp_marking_rule": {"dscp_mark": 8}}"#),
        ("PUT", "/v2.0/qos/alias_bandwidth_limit_rules/{id}", r#"{"alias_bandwidth_limit_rule": {"max_kbps": 2}}"#),
        ("PUT", "/v2.0/qos/alias_dscp_marking_rules/{id}", r#"{"alias_dscp_marking_rule": {"dscp_mark": 8}}"#),
        ("POST", "/v2.0/metering/metering-labels", r#"{"metering_label": {"project_id": "p-own"}}"#),
        (
            "POST",
            "/v2.0/metering/metering-label-rules",
            r#"{"metering_label_rule": {"project_id": "p-own", "metering_label_id": "<metering_label_id>", "direction": "egress", "remote_ip_prefix": "10.1.0.0/24"}}"#,
        ),
        (
            "POST",
            "/v2.0/log/logs",
            r#"{"log": {"project_id": "p-own", "resource_type": "security_group", "resource_id": "<security_group_id>"}}"#,
        ),
        ("POST", "/v2.0/local_ips", r#"{"local_ip": {"project_id": "p-own", "network_id": "<inside_network_id>"}}"#),
        (
            "POST",
            "/v2.0/local_ips/{local_ip_id}/port_associations",
            r#"{"port_association": {"fixed_port_id": "<free_inside_port_id>"}}"#,
        ),
        (
            "POST",
            "/v2.0/ndp_proxies",
            r#"{"ndp_proxy": {"project_id": "p-own", "router_id": "<proxy_router_id>", "port_id": "<six_port_id>"}}"#,
        ),
        (
            "POST",
            "/v2.0/routers/{router_id}/conntrack_helpers",
            r#"{"conntrack_helper": {"helper": "tftp", "protocol": "udp", "port": 70}}"#,
        ),
        (
            "POST",
            "/v2.0/bgp-speakers",
            r#"{"bgp_speaker": {"project_id": "p-own", "local_as": 65001, "ip_version": 4}}"#,
        ),
        (
            "POST",
            "/v2.0/bgp-peers",
            r#"{"bgp_peer": {"project_id": "p-own", "peer_ip": "192.0.2.2", "remote_as": 65010, "auth_type": "none"}}"#,
        ),
        ("PUT", "/v2.0/bgp-speakers/{id}/add_bgp_peer", r#"{"bgp_peer_id": "<other_bgp_peer_id>"}"#),
        ("PUT", "/v2.0/bgp-speakers/{id}/remove_bgp_peer", r#"{"bgp_peer_id": "<bgp_peer_id>"}"#),
        ("PUT", "/v2.0/bgp-speakers/{id}/add_gateway_network", r#"{"network_id": "<network_id>"}"#),
        ("PUT", "/v2.0/bgp-speakers/{id}/remove_gateway_network", r#"{"network_id": "<floating_network_id>"}"#),
        ("POST", "/v2.0/agents/{agent_id}/bgp-drinstances", r#"{"bgp_speaker_id": "<idle_bgp_speaker_id>"}"#),
        ("POST", "/v2.0/flavors", r#"{"flavor": {"name": "x", "service_type": "L3_ROUTER_NAT"}}"#),
        ("POST", "/v2.0/service_profiles", r#"{"service_profile": {"metainfo": "{}"}}"#),
        ("POST", "/v2.0/flavors/{id}/service_profiles", r#"{"service_profile": {"id": "<profile_id>"}}"#),
        ("POST", "/v2.0/agents/{id}/dhcp-networks", r#"{"network_id": "<network_id>"}"#),
        ("POST", "/v2.0/agents/{id}/l3-routers", r#"{"router_id": "<router_id>"}"#),
        ("PUT", "/v2.0/agents/{id}", r#"{"agent": {"description": "x"}}"#),
        ("PUT", "/v2.0/subnetpools/{id}/add_prefixes", r#"{"prefixes": ["10.10.0.0/16"]}"#),
        ("PUT", "/v2.0/subnetpools/{id}/remove_prefixes", r#"{"prefixes": ["10.10.0.0/16"]}"#),
        ("PUT", "/v2.0/subnetpools/{id}/onboard_network_subnets", r#"{"network_id": "<network_id>"}"#),
    ],
    // A project's default group is made when somebody first looks.
    makes: &[
        ("GET", "/v2.0/security-groups"),
        ("GET", "/v2.0/default-security-group-rules"),
        ("GET", "/v2.0/network_segment_ranges"),
        ("GET", "/v2.0/segments"),
    ],
    aliases: &["/v2.0/network-segment-ranges", "/v2.0/floatingip-pools"],
    unseeded: 20,
    ..Facts::NONE
};

/// Collections whose members have tags.
const TAGGED: [&str; 11] = [
    "networks",
    "subnets",
    "subnetpools",
    "ports",
    "routers",
    "floatingips",
    "security-groups",
    "qos/policies",
    "trunks",
    "segments",
    "network_segment_ranges",
];

async fn create(app: &App, who: &Caller, collection: &str, kind: &str, members: Value) -> String {
    let path = format!("/v2.0/{collection}");
    text(&make(app, who, "POST", &path, json!({ kind: members }), &[]).await[kind]["id"])
}

/// Who speaks BGP, and with whom.
struct Routing {
    agent: String,
    speaker: String,
    /// Taken from its agent.
    idle: String,
    peer: String,
    /// Nobody's.
    other: String,
}

impl Routing {
    async fn new(app: &App, external: &str) -> Self {
        let query = "/v2.0/agents?agent_type=BGP%20dynamic%20routing%20agent";
        let agents = app.call("GET", query, Some(&root()), None).await.body;
        let agent = text(&agents["agents"][0]["id"]);
        let new = || json!({"project_id": "p-own", "local_as": 65001, "ip_version": 4});
        let speaker = create(app, &root(), "bgp-speakers", "bgp_speaker", new()).await;
        let idle = create(app, &root(), "bgp-speakers", "bgp_speaker", new()).await;
        let peer =
            |address: &str| json!({"project_id": "p-own", "peer_ip": address, "remote_as": 65010, "auth_type": "none"});
        let one = create(app, &root(), "bgp-peers", "bgp_peer", peer("192.0.2.1")).await;
        let other = create(app, &root(), "bgp-peers", "bgp_peer", peer("192.0.2.3")).await;
        let at = format!("/v2.0/bgp-speakers/{speaker}");
        make(app, &root(), "PUT", &format!("{at}/add_bgp_peer"), json!({"bgp_peer_id": one}), &[]).await;
        make(app, &root(), "PUT", &format!("{at}/add_gateway_network"), json!({"network_id": external}), &[]).await;
        let taken = format!("/v2.0/agents/{agent}/bgp-drinstances/{idle}");
        make(app, &root(), "DELETE", &taken, Value::Null, &[]).await;
        Routing { agent, speaker, idle, peer: one, other }
    }
}

pub async fn world() -> World {
    let mut all = kinds();
    all.push(pilvi_store::KindSpec::of::<pilvi_kit::quota::QuotaOverride>());
    let store = Store::open("sqlite::memory:", all).await.unwrap();
    let state = Network::new(store.clone());
    let host = |name: &str| HostInfo { name: name.into(), up: true, ..HostInfo::default() };
    state.remember(&[host("h1"), host("h2")]);
    let app =
        App::new(move |authenticator| service().mount(state, Mounting { authenticator, policy_file: None }).unwrap());
    let names = HashMap::new();
    let owner = persona::named("member", &names).caller;
    let external = create(&app, &root(), "networks", "network", json!({"name": "ext", "router:external": true})).await;
    let members = json!({"network_id": external, "ip_version": 4, "cidr": "203.0.113.0/24"});
    create(&app, &root(), "subnets", "subnet", members).await;
    let net = create(&app, &owner, "networks", "network", json!({"name": "n-own"})).await;
    let members = json!({"network_id": net, "ip_version": 4, "cidr": "10.1.0.0/24"});
    let subnet = create(&app, &owner, "subnets", "subnet", members).await;
    let pool =
        create(&app, &owner, "subnetpools", "subnetpool", json!({"name": "sp", "prefixes": ["10.9.0.0/16"]})).await;
    let port = create(&app, &owner, "ports", "port", json!({"network_id": net})).await;
    let router = create(&app, &owner, "routers", "router", json!({"name": "r-own"})).await;
    let floating = create(&app, &owner, "floatingips", "floatingip", json!({"floating_network_id": external})).await;
    let group = create(&app, &owner, "security-groups", "security_group", json!({"name": "sg-own"})).await;
    let members = json!({"security_group_id": group, "direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22});
    let rule = create(&app, &owner, "security-group-rules", "security_group_rule", members).await;
    let members =
        json!({"object_type": "network", "object_id": net, "target_tenant": "p-fourth", "action": "access_as_shared"});
    let policy = create(&app, &owner, "rbac-policies", "rbac_policy", members).await;
    let scope = create(&app, &owner, "address-scopes", "address_scope", json!({"name": "as", "ip_version": 4})).await;
    let blocks = create(&app, &owner, "address-groups", "address_group", json!({"addresses": ["10.0.0.0/8"]})).await;
    let template = json!({"direction": "ingress", "protocol": "tcp"});
    let template = create(&app, &root(), "default-security-group-rules", "default_security_group_rule", template).await;
    let range = json!({"project_id": "p-own", "network_type": "vxlan", "minimum": 5, "maximum": 6});
    let range = create(&app, &root(), "network_segment_ranges", "network_segment_range", range).await;
    let segment = json!({"network_id": net, "network_type": "vxlan"});
    let segment = create(&app, &root(), "segments", "segment", segment).await;
    let flavor = json!({"name": "f", "service_type": "L3_ROUTER_NAT"});
    let flavor = create(&app, &root(), "flavors", "flavor", flavor).await;
    let profile = create(&app, &root(), "service_profiles", "service_profile", json!({"metainfo": "{}"})).await;
    // A way in: a floating IP that forwards a port to a guest behind a router of its own.
    let inside = create(&app, &owner, "networks", "network", json!({"name": "inside"})).await;
    let members = json!({"network_id": inside, "ip_version": 4, "cidr": "10.4.0.0/24"});
    let inside_subnet = create(&app, &owner, "subnets", "subnet", members).await;
    let inside_port = create(&app, &owner, "ports", "port", json!({"network_id": inside})).await;
    let gateway = json!({"external_gateway_info": {"network_id": external}});
    let way = create(&app, &owner, "routers", "router", gateway).await;
    let join = format!("/v2.0/routers/{way}/add_router_interface");
    make(&app, &owner, "PUT", &join, json!({"subnet_id": inside_subnet}), &[]).await;
    let forwarder = create(&app, &owner, "floatingips", "floatingip", json!({"floating_network_id": external})).await;
    let members = json!({"internal_port_id": inside_port, "protocol": "tcp", "external_port": 22, "internal_port": 22});
    let below = format!("floatingips/{forwarder}/port_forwardings");
    let forwarding = create(&app, &owner, &below, "port_forwarding", members).await;
    let statefulness = json!({"project_id": "p-own"});
    let kind = "security_groups_default_statefulness";
    let statefulness = create(&app, &root(), "security-groups-default-statefulness", kind, statefulness).await;
    let bound =
        json!({"network_id": net, "project_id": "p-own", "device_owner": "compute:nova", "binding:host_id": "h1"});
    let bound = create(&app, &root(), "ports", "port", bound).await;
    let free_port = create(&app, &owner, "ports", "port", json!({"network_id": net})).await;
    let sub_port = create(&app, &owner, "ports", "port", json!({"network_id": net})).await;
    let tap = create(&app, &owner, "taas/tap_services", "tap_service", json!({"port_id": sub_port})).await;
    let looked = json!({"tap_service_id": tap, "source_port": free_port, "direction": "BOTH"});
    let looked = create(&app, &owner, "taas/tap_flows", "tap_flow", looked).await;
    let mirrored =
        json!({"port_id": free_port, "directions": {"IN": 7}, "remote_ip": "192.0.2.9", "mirror_type": "erspanv1"});
    let mirrored = create(&app, &owner, "taas/tap_mirrors", "tap_mirror", mirrored).await;
    let wall_rule = create(&app, &owner, "fwaas/firewall_rules", "firewall_rule", json!({})).await;
    let used_rule = create(&app, &owner, "fwaas/firewall_rules", "firewall_rule", json!({})).await;
    let wall_policy = json!({"firewall_rules": [used_rule]});
    let wall_policy = create(&app, &owner, "fwaas/firewall_policies", "firewall_policy", wall_policy).await;
    let wall = create(&app, &owner, "fwaas/firewall_groups", "firewall_group", json!({})).await;
    let parent = create(&app, &owner, "ports", "port", json!({"network_id": net})).await;
    let subs = json!([{"port_id": sub_port, "segmentation_type": "vlan", "segmentation_id": 8}]);
    let trunk = create(&app, &owner, "trunks", "trunk", json!({"port_id": parent, "sub_ports": subs})).await;
    let policy_of = json!({"project_id": "p-own"});
    let quality = create(&app, &root(), "qos/policies", "policy", policy_of).await;
    let below = |kind: &str| format!("qos/policies/{quality}/{kind}s");
    let limits = json!({"max_kbps": 1});
    let bandwidth = create(&app, &root(), &below("bandwidth_limit_rule"), "bandwidth_limit_rule", limits).await;
    let limits = json!({"max_kpps": 1});
    let packets = create(&app, &root(), &below("packet_rate_limit_rule"), "packet_rate_limit_rule", limits).await;
    let least = json!({"min_kbps": 1});
    let least_bandwidth =
        create(&app, &root(), &below("minimum_bandwidth_rule"), "minimum_bandwidth_rule", least).await;
    let least = json!({"min_kpps": 1, "direction": "egress"});
    let least_packets =
        create(&app, &root(), &below("minimum_packet_rate_rule"), "minimum_packet_rate_rule", least).await;
    let mark = json!({"dscp_mark": 10});
    let mark = create(&app, &root(), &below("dscp_marking_rule"), "dscp_marking_rule", mark).await;
    let label = json!({"project_id": "p-own"});
    let label = create(&app, &root(), "metering/metering-labels", "metering_label", label).await;
    let counts = json!({"metering_label_id": label, "direction": "ingress", "remote_ip_prefix": "10.1.0.0/24"});
    let counts = create(&app, &root(), "metering/metering-label-rules", "metering_label_rule", counts).await;
    let local = create(&app, &owner, "local_ips", "local_ip", json!({"network_id": inside})).await;
    let below = format!("/v2.0/local_ips/{local}/port_associations");
    make(&app, &owner, "POST", &below, json!({"port_association": {"fixed_port_id": inside_port}}), &[]).await;
    let free_inside_port = create(&app, &owner, "ports", "port", json!({"network_id": inside})).await;
    // A router that answers for IPv6 addresses: outside and inside are of one scope.
    let scope6 = json!({"name": "six", "ip_version": 6, "shared": true});
    let scope6 = create(&app, &root(), "address-scopes", "address_scope", scope6).await;
    let pool6 = json!({"name": "six", "prefixes": ["2001:db8::/48"], "default_prefixlen": 64, "shared": true, "address_scope_id": scope6});
    let pool6 = create(&app, &root(), "subnetpools", "subnetpool", pool6).await;
    let six = |network: &str| json!({"network_id": network, "ip_version": 6, "subnetpool_id": pool6});
    create(&app, &root(), "subnets", "subnet", six(&external)).await;
    let inside6 = create(&app, &owner, "networks", "network", json!({"name": "inside6"})).await;
    let inside6_subnet = create(&app, &owner, "subnets", "subnet", six(&inside6)).await;
    let answers = json!({"external_gateway_info": {"network_id": external}, "enable_ndp_proxy": true});
    let answers = create(&app, &owner, "routers", "router", answers).await;
    let join = format!("/v2.0/routers/{answers}/add_router_interface");
    make(&app, &owner, "PUT", &join, json!({"subnet_id": inside6_subnet}), &[]).await;
    let port6 = create(&app, &owner, "ports", "port", json!({"network_id": inside6})).await;
    let proxy = json!({"router_id": answers, "port_id": port6});
    let proxy = create(&app, &owner, "ndp_proxies", "ndp_proxy", proxy).await;
    let six_port = create(&app, &owner, "ports", "port", json!({"network_id": inside6})).await;
    let helper = json!({"helper": "tftp", "protocol": "udp", "port": 69});
    let below = format!("routers/{router}/conntrack_helpers");
    let helper = create(&app, &owner, &below, "conntrack_helper", helper).await;
    let log = json!({"project_id": "p-own", "resource_type": "security_group"});
    let log = create(&app, &root(), "log/logs", "log", log).await;
    let agents = app.call("GET", "/v2.0/agents", Some(&root()), None).await.body;
    let agent = text(&agents["agents"][0]["id"]);
    let routing = Routing::new(&app, &external).await;
    let mut params = HashMap::new();
    for (collection, id) in [
        ("networks", &net),
        ("subnets", &subnet),
        ("subnetpools", &pool),
        ("ports", &port),
        ("routers", &router),
        ("floatingips", &floating),
        ("security-groups", &group),
        ("security-group-rules", &rule),
        ("network-ip-availabilities", &net),
        ("rbac-policies", &policy),
        ("address-scopes", &scope),
        ("address-groups", &blocks),
        ("default-security-group-rules", &template),
        ("segments", &segment),
        ("network_segment_ranges", &range),
        ("flavors", &flavor),
        ("service_profiles", &profile),
        ("floatingips/{floatingip_id}/port_forwardings", &forwarding),
        ("trunks", &trunk),
        ("qos/policies", &quality),
        ("policies", &quality),
        ("qos/policies/{policy_id}/bandwidth_limit_rules", &bandwidth),
        ("qos/policies/{policy_id}/packet_rate_limit_rules", &packets),
        ("qos/policies/{policy_id}/minimum_bandwidth_rules", &least_bandwidth),
        ("qos/policies/{policy_id}/minimum_packet_rate_rules", &least_packets),
        ("qos/alias_minimum_bandwidth_rules", &least_bandwidth),
        ("qos/alias_minimum_packet_rate_rules", &least_packets),
        ("qos/policies/{policy_id}/dscp_marking_rules", &mark),
        ("qos/alias_bandwidth_limit_rules", &bandwidth),
        ("qos/alias_dscp_marking_rules", &mark),
        ("metering/metering-labels", &label),
        ("metering/metering-label-rules", &counts),
        ("log/logs", &log),
        ("routers/{router_id}/conntrack_helpers", &helper),
        ("ndp_proxies", &proxy),
        ("local_ips", &local),
        ("local_ips/{local_ip_id}/port_associations", &inside_port),
        ("security-groups-default-statefulness", &statefulness),
        ("taas/tap_services", &tap),
        ("taas/tap_flows", &looked),
        ("taas/tap_mirrors", &mirrored),
        ("fwaas/firewall_groups", &wall),
        ("fwaas/firewall_policies", &wall_policy),
        ("fwaas/firewall_rules", &wall_rule),
        ("agents", &agent),
        ("bgp-speakers", &routing.speaker),
        ("bgp-peers", &routing.peer),
    ] {
        let tags = format!("/v2.0/{collection}/{id}/tags/a-tag");
        if TAGGED.contains(&collection) {
            make(&app, &root(), "PUT", &tags, Value::Null, &[]).await;
        }
        params.insert(format!("/v2.0/{collection}/{{id}}"), id.clone());
    }
    params.extend(map([("{tag}", "a-tag"), ("{project_id}", "p-own"), ("{router_id}", &router)]));
    params.insert("{floatingip_id}".to_owned(), forwarder);
    params.insert("{local_ip_id}".to_owned(), local);
    params.insert("{policy_id}".to_owned(), quality.clone());
    params.insert("{port_id}".to_owned(), bound);
    params.insert("{host}".to_owned(), "h1".to_owned());
    params.insert("{agent_id}".to_owned(), routing.agent.clone());
    params.insert("{bgp_speaker_id}".to_owned(), routing.speaker.clone());
    params.insert("{rule_type}".to_owned(), "bandwidth_limit".to_owned());
    params.extend(map([("{network_id}", net.as_str()), ("{profile_id}", &profile)]));
    let fill = map([
        ("project_id", "p-own"),
        ("tenant_id", "p-own"),
        ("network_id", &net),
        ("floating_network_id", &external),
        ("security_group_id", &group),
        ("router_id", &router),
        ("profile_id", &profile),
        ("metering_label_id", &label),
        ("inside_port_id", &inside_port),
        ("free_port_id", &free_port),
        ("proxy_router_id", &answers),
        ("six_port_id", &six_port),
        ("inside_network_id", &inside),
        ("free_inside_port_id", &free_inside_port),
        ("sub_port_id", &sub_port),
        ("tap_service_id", &tap),
        ("free_firewall_rule_id", &wall_rule),
        ("used_firewall_rule_id", &used_rule),
        ("bgp_peer_id", &routing.peer),
        ("other_bgp_peer_id", &routing.other),
        ("idle_bgp_speaker_id", &routing.idle),
    ]);
    World { app, store, names, params, fill, facts: FACTS, judged_by_original: false, _dir: None }
}
