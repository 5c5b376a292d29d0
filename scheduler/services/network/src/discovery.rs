//! What this API is: `/network/` (versions), `/network/v2.0` (resources) and `/v2.0/extensions`.
//!
//! An extension is listed only if everything it promises works here, so that clients can trust the list.
use crate::{Network, RESOURCES};
use pilvi_kit::{Call, Fault, Reply, Response, Route};
use serde_json::{Value, json};
use std::sync::Arc;

/// (alias, name, what it adds)
const EXTENSIONS: &[(&str, &str, &str)] = &[
    (
        "aap-reject-multicast",
        "Allowed address pairs reject multicast extension",
        "Nobody sends from a multicast address.",
    ),
    ("address-group", "Address group", "Lists of blocks that rules of security groups name."),
    ("address-scope", "Address scope", "Address scopes that routers keep apart."),
    ("agent", "agent", "The hosts of the cloud as agents."),
    ("agent-resources-synced", "Agent's Resource View Synced to Placement", "Whether placement knows what a host has."),
    ("agent_sort_key", "Agents Sort Key", "Agents in order."),
    ("allowed-address-pairs", "Allowed Address Pairs", "Further addresses that a port may use."),
    ("auto-allocated-topology", "Auto Allocated Topology Services", "A network that leads outside, by one call."),
    ("availability_zone", "Availability Zone", "Zones of hosts."),
    ("availability_zone_filter", "Availability Zone Filter Extension", "Zones by name, resource and state."),
    (
        "bgp",
        "Neutron BGP Dynamic Routing Extension",
        "Routers of the provider are told of floating IPs and inside networks.",
    ),
    ("bgp_4byte_asn", "BGP 4-byte AS numbers", "AS numbers of four octets."),
    ("bgp_dragent_scheduler", "BGP Dynamic Routing Agent Scheduler", "Which agent speaks for a speaker."),
    ("binding", "Port Binding", "Where a port is wired."),
    ("binding-extended", "Port Bindings Extended", "The hosts on which a port is wired, and which of them has it."),
    ("data-plane-status", "Port data plane status extension", "What others say of the wires under a port."),
    ("default-subnetpools", "Default Subnetpools", "Subnets from the cloud's default pool."),
    ("dhcp_agent_scheduler", "DHCP Agent Scheduler", "Which hosts answer the DHCP of a network."),
    ("dns-domain-ports", "dns_domain for ports", "Ports have domains of their own."),
    ("dns-integration", "DNS Integration", "Ports and floating IPs have names, and guests find each other by them."),
    (
        "dns-integration-domain-keywords",
        "DNS domain names with keywords allowed",
        "Domains of networks and ports that name their project or user.",
    ),
    ("dvr", "Distributed Virtual Router", "Routing happens on the host of each guest."),
    ("ecmp_routes", "Equal Cost Multipath Routing", "Several next hops for one destination."),
    ("empty-string-filtering", "Empty String Filtering Extension", "Filters for attributes without a value."),
    ("expose-l3-conntrack-helper", "Expose CT helpers in Router", "Routers show their conntrack helpers."),
    (
        "expose-port-forwarding-in-fip",
        "Expose Floating IP port forwardings",
        "Floating IPs show which ports they forward.",
    ),
    ("enable-default-route-bfd", "Enable Default Route BFD", "Default routes hold while their next hop answers."),
    ("enable-default-route-ecmp", "Enable Default Route ECMP", "What goes out is spread over all ways out."),
    ("ext-gw-mode", "Neutron L3 Configurable external gateway mode", "Source NAT on or off."),
    ("external-gateway-multihoming", "Neutron L3 External Gateway Multihoming", "Routers with several ways out."),
    ("external-net", "Neutron external network", "Networks that lead out of the cloud."),
    ("extra_dhcp_opt", "Neutron Extra DHCP options", "Further DHCP options of a port."),
    ("extraroute", "Neutron Extra Route", "Static routes of routers."),
    ("extraroute-atomic", "Atomically add/remove extra routes", "Static routes, one by one."),
    ("filter-validation", "Filter parameters validation", "Unknown filters are refused."),
    ("fip-port-details", "Floating IP Port Details Extension", "A floating IP shows its port."),
    ("flavors", "Neutron Service Flavors", "Kinds of services that users choose from."),
    ("floating-ip-port-forwarding", "Floating IP Port Forwarding", "Single ports of floating IPs lead to guests."),
    (
        "floating-ip-router-writable",
        "Floating IP Router (writable)",
        "Floating IPs lead by a router that has others between itself and the port.",
    ),
    (
        "floating-ip-port-forwarding-description",
        "Floating IP Port Forwarding new attribute description",
        "Port forwardings have descriptions.",
    ),
    (
        "floating-ip-port-forwarding-detail",
        "Floating IP Port Forwarding Detail Extension",
        "Floating IPs show where their ports lead to.",
    ),
    (
        "floating-ip-port-forwarding-port-ranges",
        "Floating IP Port Forwarding support port ranges",
        "Ranges of ports of floating IPs.",
    ),
    ("fwaas_v2", "FWaaS v2", "Firewalls of servers' ports and of routers' legs."),
    ("floatingip-pools", "Floating IP Pools Extension", "Subnets that floating IPs come from."),
    ("ip_allocation", "IP Allocation", "When a port gets its addresses."),
    ("ip-substring-filtering", "IP address substring filtering", "Ports by a part of an address."),
    (
        "l3-agent-scheduler-ha-chassis-priority",
        "L3 Agent Scheduler HA Chassis Priority",
        "Whose turn it is to hold a way out.",
    ),
    ("l3-ha", "HA Router extension", "Routers that keep spare ways: hosts stand by for theirs."),
    ("l3_agent_scheduler", "L3 Agent Scheduler", "Which host holds the way out of a router."),
    ("l3-conntrack-helper", "Neutron L3 Conntrack Helper", "Protocols that source NAT has to be told of: tftp."),
    ("l3-ext-ndp-proxy", "Router support NDP proxy", "Routers answer for single IPv6 addresses of their inside."),
    ("l3-flavors", "Router Flavor Extension", "Routers by flavor."),
    ("l3-ndp-proxy", "L3 NDP Proxy", "Which IPv6 addresses a router answers for."),
    ("local_ip", "Local IP", "An address that means, on every host, a guest of that host."),
    ("logging", "Logging API Extension", "What security groups decide, written down by every host."),
    ("metering", "Neutron Metering", "Labels that count what routers carry to and from the outside."),
    (
        "metering_source_and_destination_fields",
        "Neutron Metering with source and destination filtering",
        "Metering by both ends.",
    ),
    ("multi-provider", "Multi Provider Network", "Networks are made with several segments."),
    ("net-mtu", "Network MTU", "Networks show their MTU."),
    ("net-mtu-writable", "Network MTU (writable)", "Networks take an MTU."),
    ("network_availability_zone", "Network Availability Zone", "Zones of networks."),
    ("network_ha", "Network HA creation flag", "The network of those who stand by for a project's routers."),
    ("network-ip-availability", "Network IP Availability", "How many addresses are in use."),
    (
        "network-ip-availability-details",
        "Network IP Availability Details Extension",
        "Addresses in use in pools and beside them.",
    ),
    ("network-segment-range", "Neutron Network Segment Range", "Numbers that are set aside for a project."),
    ("ovn-bgp", "OVN BGP", "Subnets that the provider is told of, and that routers do not hide."),
    ("pagination", "Pagination support", "Lists by pages."),
    ("port-device-profile", "Port device profile", "Which accelerator a port asks for."),
    ("port-hardware-offload-type", "Port hardware offload", "What a port's device should do by itself."),
    ("port-mac-address-regenerate", "Neutron Port MAC address regenerate", "A new MAC address for a port."),
    ("port-numa-affinity-policy", "Port NUMA affinity policy", "Where at a processor a device should sit."),
    ("port-numa-affinity-policy-socket", "Port NUMA affinity policy \"socket\"", "The same, by socket."),
    ("port-resource-request", "Port Resource Request", "Ports tell what they ask of placement."),
    ("port-resource-request-groups", "Port Resource Request Groups", "By groups, one for each provider."),
    ("port-security", "Port Security", "Anti-spoofing on or off."),
    ("port-security-groups-filtering", "Port filtering on security groups", "Ports by their security groups."),
    ("port-trusted-vif", "Port trusted vif", "Ports whose guests are trusted."),
    ("project-id", "project_id field enabled", "Resources show project_id."),
    ("provider", "Provider Network", "How networks are realised."),
    ("pvlan", "Private VLAN", "Ports of a network that see each other by what they are."),
    ("qinq", "QinQ networks", "VLAN networks by service tags (802.1ad), within which guests send tags of their own."),
    ("qos", "Quality of Service", "Policies of limits and marks."),
    ("qos-bw-limit-direction", "Direction for QoS bandwidth limit rule", "Limits each way."),
    ("qos-bw-minimum-ingress", "Ingress direction for QoS minimum bandwidth rule", "Minima each way."),
    ("qos-default", "QoS default policy", "The policy of a project's new networks."),
    ("qos-fip", "Floating IP QoS", "Floating IPs have policies."),
    ("qos-fip-network-policy", "QoS floating IP network policy ID", "Floating IPs show their network's policy."),
    ("qos-gateway-ip", "Router gateway IP QoS", "The ways out of routers have policies."),
    ("qos-port-network-policy", "QoS port network policy ID", "Ports show their network's policy."),
    ("qos-pps", "QoS Rule Type Packet per Second Extension", "Limits of packets."),
    ("qos-pps-minimum", "QoS rule type for minimum packet rate", "Packet rates that are kept free."),
    (
        "qos-pps-minimum-rule-alias",
        "Quality of Service minimum packet rate rule alias",
        "Rules of packet rates that are kept free, by their own id.",
    ),
    ("qos-rule-type-details", "Details of QoS rule types", "What kinds of rules take."),
    ("qos-rule-type-filter", "QoS rule type filter", "Kinds of rules that are or could be."),
    ("qos-rules-alias", "Quality of Service rules alias API", "Rules by their own id."),
    ("quota-check-limit", "Quota engine limit check", "Limits below what is used are refused if asked so."),
    ("quota-check-limit-default", "Quota engine limit check by default", "Limits below what is used are refused."),
    ("quota_details", "Quota details management support", "Quotas with usage."),
    ("quotas", "Quota management support", "Quotas by project."),
    ("rbac-address-group", "Add address_group type to RBAC", "Address groups opened to projects."),
    ("rbac-address-scope", "Add address_scope type to RBAC", "Address scopes opened to projects."),
    ("rbac-policies", "RBAC Policies", "Things opened to single projects."),
    ("rbac-security-groups", "Add security_group type to network RBAC", "Security groups opened to projects."),
    ("rbac-subnetpool", "Add subnet pool type to network RBAC", "Subnet pools opened to projects."),
    ("revision-if-match", "If-Match constraints based on revision_number", "Updates that fail if somebody was faster."),
    ("router", "Neutron L3 Router", "Routers and floating IPs."),
    (
        "router-admin-state-down-before-update",
        "Enforce Router's Admin State Down Before Update Extension",
        "Routers change their kind only while down.",
    ),
    ("router-interface-fip", "Router Interface Floating IP", "Floating IPs of networks that the router has a leg in."),
    ("router_availability_zone", "Router Availability Zone", "Zones of routers."),
    (
        "router-enable-snat",
        "Exposes the router \"enable_snat\" read-only configuration flag",
        "Whether ways out hide the inside unless told otherwise.",
    ),
    ("security-group", "security-group", "Security groups and their rules."),
    ("security-groups-default-rules", "Default rules for security groups", "What new security groups begin with."),
    (
        "security-groups-default-statefulness",
        "Security Groups Default Statefulness",
        "Whether new groups keep flows in mind.",
    ),
    ("security-groups-name-restrictions", "Security group name restrictions", "Names of groups can be printed."),
    (
        "security-groups-normalized-cidr",
        "Normalized CIDR field for security group rules",
        "Rules show their block without host bits.",
    ),
    (
        "security-groups-remote-address-group",
        "Remote address group id field for security group rules",
        "Rules that name address groups.",
    ),
    (
        "security-groups-rules-belongs-to-default-sg",
        "Security group rules belongs to the project default security group",
        "Rules tell whether they are the default group's.",
    ),
    ("security-groups-shared-filtering", "Security group filtering on the shared field", "Groups by who sees them."),
    ("segment", "Segment", "Networks of several layer-2 domains, and subnets on them."),
    (
        "segments-peer-subnet-host-routes",
        "Segments peer-subnet host routes",
        "Subnets of a routed network tell their guests the way to each other.",
    ),
    ("service-type", "Neutron Service Type Management", "Service providers."),
    ("sort-key-validation", "Sort keys validation", "Unknown sort keys are refused."),
    ("sorting", "Sorting support", "Lists in order."),
    ("standard-attr-description", "standard-attr-description", "Resources have descriptions."),
    (
        "standard-attr-fwaas-v2",
        "Standard Attribute FWaaS v2 Extension",
        "Firewalls have descriptions, revisions and timestamps.",
    ),
    ("standard-attr-revisions", "Resource revision numbers", "Resources count their changes."),
    ("standard-attr-segment", "standard-attr-segment", "Segments have descriptions, revisions and timestamps."),
    (
        "standard-attr-tag",
        "Tag support for resources with standard attribute: network, subnet, subnetpool, port, router, floatingip, security_group",
        "Tags.",
    ),
    ("standard-attr-timestamp", "Resource timestamps", "Resources tell when they were made and changed."),
    ("stateful-security-group", "Stateful security group", "Groups without connection tracking."),
    ("subnet_allocation", "Subnet Allocation", "Subnet pools."),
    ("subnet-dns-publish-fixed-ip", "Subnet DNS publish fixed IP", "Fixed IPs that are published, by their subnets."),
    ("subnet-external-network", "Subnet belongs to an external network", "Subnets tell whether they are outside."),
    ("subnet_onboard", "Subnet Onboard", "Subnets that join a pool later."),
    ("subnet-service-types", "Subnet service types", "Subnets for some devices only."),
    ("subnetpool-prefix-ops", "Subnet Pool Prefix Operations", "Blocks of a pool, one by one."),
    ("taas", "Neutron Tap as a Service", "Copies of what ports send and get, for a port that looks."),
    (
        "tap-mirror",
        "Tap as a Service GRE or ERSPAN mirror",
        "Copies of what ports send and get, for a collector outside.",
    ),
    (
        "tap-mirror-both-direction",
        "Tap as a Service mirror with BOTH direction support",
        "Both directions of a port's mirror under one number.",
    ),
    ("tag-creation", "Tag creation extension", "Several tags by one request."),
    ("tag-ports-during-bulk-creation", "Tag Ports During Bulk Creation", "Ports are made with tags."),
    ("trunk", "Trunk Extension", "Interfaces that carry several networks."),
    ("trunk-details", "Trunk port details", "Parent ports show their trunk."),
    ("uplink-status-propagation", "Port uplink status propagation", "Whether a port's link follows its uplink."),
    (
        "uplink-status-propagation-updatable",
        "Port uplink status propagation attribute is updatable",
        "Whether a port's link follows its uplink, later.",
    ),
    ("vlan-transparent", "Vlantransparent", "Networks whose guests may send frames with tags to each other."),
];

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::get("/", versions)
            .public("clients look for versions before they have a token")
            .summary("Lists versions"),
        Route::get("/v2.0", resources)
            .public("clients look for resources before they have a token")
            .summary("Lists resources"),
        Route::get("/v2.0/extensions", extensions).rule_by_handler("get_extension").summary("Lists extensions"),
        Route::get("/v2.0/extensions/{alias}", extension)
            .rule_by_handler("get_extension")
            .summary("Shows an extension"),
    ]
}

async fn versions(_svc: Arc<Network>, call: Call) -> Reply {
    let links = json!([{"rel": "self", "href": call.url("/v2.0/")}]);
    Ok(Response::ok(json!({"versions": [{"id": "v2.0", "status": "CURRENT", "links": links}]})))
}

async fn resources(_svc: Arc<Network>, call: Call) -> Reply {
    let listed: Vec<Value> = RESOURCES
        .iter()
        .map(|r| {
            let collection = r.collection.replace('_', "-");
            let links = json!([{"rel": "self", "href": call.url(&format!("/v2.0/{collection}"))}]);
            json!({"name": r.name, "collection": r.collection, "links": links})
        })
        .collect();
    Ok(Response::ok(json!({"resources": listed})))
}

fn view((alias, name, description): &(&str, &str, &str)) -> Value {
    json!({"alias": alias, "name": name, "description": description, "updated": "2026-11-23T00:00:00-00:00", "links": []})
}

async fn extensions(_svc: Arc<Network>, call: Call) -> Reply {
    call.authorize(&call.target())?;
    Ok(Response::ok(json!({"extensions": EXTENSIONS.iter().map(view).collect::<Vec<_>>()})))
}

async fn extension(_svc: Arc<Network>, call: Call) -> Reply {
    call.authorize(&call.target())?;
    let alias = call.param("alias");
    let found = EXTENSIONS.iter().find(|e| e.0 == alias);
    let found = found.ok_or_else(|| {
        Fault::not_found(format!("Extension with alias {alias} does not exist")).kind("ExtensionNotFound")
    })?;
    Ok(Response::ok(json!({"extension": view(found)})))
}
