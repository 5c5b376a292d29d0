//! What to look for: every query of this service by the columns it uses.
use crate::rbac::model::label;
use pilvi_store::Query;

/// By what leases are counted.
pub const SUBNET: &str = "subnet_id";
/// The label of subnets that the provider is told of.
pub const LEAKED: &str = "leaked";

pub fn of_project(project: &str) -> Query {
    Query::all().project(project)
}
pub fn all() -> Query {
    Query::all()
}
/// What a project owns, what is open to all, and what policies open to it.
pub fn open_to(project: &str) -> Query {
    let choices = [of_project(project), Query::all().eq("open", 1), Query::all().labelled(label(project))];
    Query::all().any_of(choices)
}
/// What a project owns, and what is shared with all.
pub fn own_or_shared(project: &str) -> Query {
    Query::all().any_of([of_project(project), Query::all().eq("open", 1)])
}
/// Firewall groups that a policy holds for, either way.
pub fn with_firewall_policy(id: &str) -> Query {
    let ways = ["ingress_firewall_policy_id", "egress_firewall_policy_id"];
    Query::all().any_of(ways.map(|way| Query::all().eq(way, id)))
}
/// Firewall policies that a rule is in.
pub fn with_firewall_rule(id: &str) -> Query {
    labelled(id)
}
/// Ports of some firewall groups.
pub fn in_firewall_groups<'a>(ids: impl IntoIterator<Item = &'a str>) -> Query {
    Query::all().one_of("firewall_group_id", ids)
}
/// Policies on one thing.
pub fn about(object_id: &str) -> Query {
    Query::all().eq("object_id", object_id)
}
/// Pools of an address scope.
pub fn in_scope(id: &str) -> Query {
    Query::all().eq("address_scope_id", id)
}
/// Routers of a service flavor.
pub fn with_flavor(id: &str) -> Query {
    Query::all().eq("flavor_id", id)
}
/// What is wished of hosts for one network or router.
pub fn hosting(object_id: &str) -> Query {
    Query::all().eq("object_id", object_id)
}
/// Rules that name an address group.
pub fn with_address_group(id: &str) -> Query {
    Query::all().eq("remote_address_group_id", id)
}
/// What has another among its own.
pub fn labelled(id: &str) -> Query {
    Query::all().labelled(id)
}
/// What a network has among its labels that is a project's for routers that keep spare ways.
pub fn spare_label(project: &str) -> String {
    format!("ha={project}")
}
pub fn spare_network(project: &str) -> Query {
    labelled(&spare_label(project))
}
pub fn external() -> Query {
    Query::all().eq("external", 1)
}
pub fn vni(vni: u32) -> Query {
    Query::all().eq("vni", vni)
}
/// Networks with numbers from one to another, both included.
pub fn vni_between(first: u32, last: u32) -> Query {
    Query::all().ge("vni", first).le("vni", last)
}
pub fn physical_network(name: &str) -> Query {
    Query::all().eq("physical_network", name)
}
/// Subnets or ports of some networks.
pub fn on_networks<'a>(ids: impl IntoIterator<Item = &'a str>) -> Query {
    Query::all().one_of("network_id", ids)
}
pub fn on_network(id: &str) -> Query {
    on_networks([id])
}
/// Subnets of a segment.
pub fn on_segment(id: &str) -> Query {
    Query::all().eq("segment_id", id)
}
/// Subnets of any segment.
pub fn on_segments() -> Query {
    Query::all().ne("segment_id", "")
}
/// Subnets that the provider is told of.
pub fn leaked() -> Query {
    labelled(LEAKED)
}
pub fn from_pool(id: &str) -> Query {
    Query::all().eq("subnetpool_id", id)
}
/// Prefixes that are lent for some subnets.
pub fn lent_to<'a>(ids: impl IntoIterator<Item = &'a str>) -> Query {
    Query::all().one_of("subnet_id", ids)
}
pub fn mac_on(network: &str, mac: &str) -> Query {
    on_network(network).eq("mac_address", mac)
}
pub fn of_device(id: &str) -> Query {
    of_devices([id])
}
pub fn of_devices<'a>(ids: impl IntoIterator<Item = &'a str>) -> Query {
    Query::all().one_of("device_id", ids)
}
/// Ports of one kind of device on some networks.
pub fn owned_on<'a>(networks: impl IntoIterator<Item = &'a str>, owner: &str) -> Query {
    on_networks(networks).eq("device_owner", owner)
}
pub fn on_host(host: &str) -> Query {
    Query::all().eq("host_id", host)
}
/// Ports whose guests are about to come to a host.
pub fn coming_to(host: &str) -> Query {
    Query::all().eq("also_on", host)
}
/// Leases of some subnets.
pub fn on_subnets<'i>(ids: impl IntoIterator<Item = &'i str>) -> Query {
    Query::all().one_of("subnet_id", ids)
}
pub fn on_subnet(id: &str) -> Query {
    Query::all().eq("subnet_id", id)
}
/// Floating IPs (or leases) of some ports.
pub fn of_ports<'a>(ids: impl IntoIterator<Item = &'a str>) -> Query {
    Query::all().one_of("port_id", ids)
}
/// Tap flows that look at some ports.
pub fn tapped<'a>(ids: impl IntoIterator<Item = &'a str>) -> Query {
    Query::all().one_of("source_port", ids)
}
/// Tap flows of some tap services.
pub fn of_tap_services<'a>(ids: impl IntoIterator<Item = &'a str>) -> Query {
    Query::all().one_of("tap_service_id", ids)
}
/// Floating IPs that a router translates.
pub fn of_router(id: &str) -> Query {
    Query::all().eq("router_id", id)
}
pub fn of_floating_network(id: &str) -> Query {
    of_floating_networks([id])
}
pub fn of_floating_networks<'a>(ids: impl IntoIterator<Item = &'a str>) -> Query {
    Query::all().one_of("floating_network_id", ids)
}
/// Routers that have a gateway at all.
pub fn with_gateway() -> Query {
    Query::all().ne("external_network_id", "")
}
/// Rules of some groups.
pub fn of_groups<'a>(ids: impl IntoIterator<Item = &'a str>) -> Query {
    Query::all().one_of("security_group_id", ids)
}
pub fn with_remote_group(id: &str) -> Query {
    Query::all().eq("remote_group_id", id)
}
/// What lives below another's path.
pub fn below(member: &str, id: &str) -> Query {
    Query::all().eq(member, id)
}
/// Rules of some QoS policies.
pub fn of_policies<'a>(ids: impl IntoIterator<Item = &'a str>) -> Query {
    Query::all().one_of("policy_id", ids)
}
/// What has a QoS policy.
pub fn with_policy(id: &str) -> Query {
    Query::all().eq("qos_policy_id", id)
}
/// Port forwardings of a floating IP.
pub fn of_floating(id: &str) -> Query {
    of_floatings([id])
}
pub fn of_floatings<'a>(ids: impl IntoIterator<Item = &'a str>) -> Query {
    Query::all().one_of("floatingip_id", ids)
}
/// Port forwardings that lead to a port.
pub fn to_port(id: &str) -> Query {
    Query::all().eq("internal_port_id", id)
}
/// What several routers translate.
pub fn of_routers<'a>(ids: impl IntoIterator<Item = &'a str>) -> Query {
    Query::all().one_of("router_id", ids)
}
/// Rules and readings of a metering label.
pub fn of_label(id: &str) -> Query {
    of_labels([id])
}
pub fn of_labels<'a>(ids: impl IntoIterator<Item = &'a str>) -> Query {
    Query::all().one_of("metering_label_id", ids)
}
/// Ports behind a local IP.
pub fn of_local_ip(id: &str) -> Query {
    Query::all().eq("local_ip_id", id)
}
/// Associations of some ports.
pub fn of_fixed_ports<'a>(ids: impl IntoIterator<Item = &'a str>) -> Query {
    Query::all().one_of("fixed_port_id", ids)
}
/// Local IPs whose address a port holds.
pub fn held_by(port: &str) -> Query {
    Query::all().eq("local_port_id", port)
}
/// Logs that name a port or a group.
pub fn of_subject(id: &str) -> Query {
    Query::all().any_of([Query::all().eq("resource_id", id), Query::all().eq("target_id", id)])
}
pub fn named(project: &str, name: &str) -> Query {
    of_project(project).name(name)
}
