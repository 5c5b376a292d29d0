//! From gathered records to the agent's message. Pure.
use super::{HostInfo, delegations, firewalls, names, private, quality, reach::Reach, segments, taps, tunnels};
use crate::{
    address_scope::model::of_network,
    conntrack_helper::model::ConntrackHelper,
    delegation::model::is_bare_address,
    floating_ip::model::FloatingIp,
    flow_log::model::FlowLog,
    hosting::model::{answers_dhcp, holder, is_steered},
    local_ip::{model::Association, ops::translates},
    metering::model::MeteringLabel,
    network::model::{FLAT, VirtualNetwork, tag_of},
    port::model::{DhcpOption, Port, ROUTER_INTERFACE},
    port_forwarding::model::PortForwarding,
    router::model::Router,
    security_group::model::{Direction, SecurityGroupRule, is_icmp},
    subnet::model::Subnet,
    trunk::model::SUBPORT,
};
use pilvi_agent_api::v1;
use std::net::Ipv4Addr;

/// Seconds of a DHCP lease: a day, as elsewhere in OpenStack.
const LEASE_SECONDS: u32 = 86_400;
/// An ICMP code that no packet has: any code.
const ANY_CODE: u32 = 256;

pub fn compose(reach: &Reach, host: &str, hosts: &[HostInfo]) -> v1::HostNetwork {
    let own = hosts.iter().find(|h| h.name == host);
    let mut message = v1::HostNetwork {
        networks: reach.networks.values().map(|n| network(reach, n, host, own)).collect(),
        ports: reach.local.values().filter(|p| is_whole(reach, p)).map(|p| port(reach, p, host, hosts)).collect(),
        remotes: Vec::new(),
        groups: reach.groups.values().map(|g| group(reach, &g.id, g.stateful)).collect(),
        routers: reach.routers.values().filter(|r| r.admin_state_up).map(|r| router(reach, r, host, hosts)).collect(),
        floating: reach.floating.values().filter(|f| !f.by_leg).filter_map(|f| floating(reach, f)).collect(),
        by_leg: reach.by_leg.values().filter_map(|f| floating(reach, f)).collect(),
        forwards: reach.forwardings.values().filter_map(|f| forward(reach, f)).collect(),
        qualities: quality::compose(reach),
        labels: reach.labels.values().map(|l| label(reach, l)).collect(),
        zones: names::zones(reach),
        views: Vec::new(),
        local_ips: reach.associations.values().filter_map(|a| local_ip(reach, a)).collect(),
        logs: reach.logs.values().map(|l| flow_log(reach, l)).collect(),
        taps: taps::flows(reach, host, hosts),
        tap_sinks: taps::sinks(reach, host, hosts),
        left: Vec::new(),
        peers: Vec::new(),
        firewalls: Vec::new(),
        releases: delegations::releases(reach, host),
        tunnels: Vec::new(),
    };
    private::split(reach, &mut message);
    segments::split(reach, own, &mut message);
    leave_gateways(&mut message);
    message.firewalls = firewalls::compose(reach, &message.routers);
    message.tunnels = tunnels::compose(&message, hosts);
    message
}

/// On the provider's wire the gateway is somebody else, who answers for his address himself: there hosts answer DHCP
/// under no address of the subnet.
fn leave_gateways(message: &mut v1::HostNetwork) {
    for network in message.networks.iter_mut().filter(|n| n.external) {
        network.subnets.iter_mut().for_each(|s| s.dhcp_server.clear());
    }
}

fn network(reach: &Reach, network: &VirtualNetwork, host: &str, own: Option<&HostInfo>) -> v1::L2 {
    let answers = answers_dhcp(&reach.wishes, &network.id, host);
    v1::L2 {
        id: network.id.clone(),
        vni: network.vni,
        mtu: network.mtu,
        external: network.is_physical() && segments::is_connected(own, network.physical_network.as_deref()),
        subnets: reach
            .subnets
            .values()
            .filter(|s| s.network_id == network.id && !s.is_bare())
            .map(|s| v1::Subnet { lent_until: delegations::until(reach, s), ..subnet(s, answers) })
            .collect(),
        neighbours: reach.rooms.contains(&network.id),
        scope4: scope(reach, network, 4),
        scope6: scope(reach, network, 6),
        vlan: tag_of(&network.network_type, network.segmentation_id),
        transparent: network.takes_tags(),
        service_tag: network.qinq.unwrap_or_default(),
    }
}

/// "" is none.
fn scope(reach: &Reach, network: &VirtualNetwork, version: u8) -> String {
    let subnets = reach.subnets.values().filter(|s| s.network_id == network.id);
    let scope = of_network(subnets, version, |pool| reach.pools.get(pool)?.address_scope_id.as_deref());
    scope.unwrap_or_default().to_owned()
}

fn route(route: &crate::subnet::model::Route) -> v1::Route {
    v1::Route { destination: route.destination.clone(), nexthop: route.nexthop.clone() }
}

/// `answers`: does this host answer DHCP on the network?
fn subnet(subnet: &Subnet, answers: bool) -> v1::Subnet {
    let v4 = subnet.ip_version == 4;
    let dhcp = subnet.enable_dhcp && answers && (v4 || subnet.asks_dhcp());
    v1::Subnet {
        id: subnet.id.clone(),
        cidr: subnet.cidr.clone(),
        gateway: subnet.gateway_ip.clone().unwrap_or_default(),
        dhcp,
        dhcp_server: if dhcp && v4 { subnet.dhcp_server() } else { String::new() },
        dns: subnet.dns_nameservers.clone(),
        routes: subnet.host_routes.iter().map(route).collect(),
        lease_seconds: LEASE_SECONDS,
        ra: said_by_routers(subnet).into(),
        lent_until: 0,
    }
}

fn said_by_routers(subnet: &Subnet) -> v1::Ra {
    match subnet.ipv6_ra_mode.as_deref().filter(|_| subnet.enable_dhcp) {
        Some("slaac") => v1::Ra::Slaac,
        Some("dhcpv6-stateless") => v1::Ra::Stateless,
        Some("dhcpv6-stateful") => v1::Ra::Stateful,
        _ => v1::Ra::Unspecified,
    }
}

/// A subport without its trunk has no device to come by.
fn is_whole(reach: &Reach, port: &Port) -> bool {
    port.device_owner != SUBPORT || reach.trunks.values().any(|t| t.tag_of(&port.id).is_some())
}

fn port(reach: &Reach, port: &Port, host: &str, hosts: &[HostInfo]) -> v1::Port {
    let other = if port.host_id == host { &port.also_on } else { &port.host_id };
    let network_up = reach.networks.get(&port.network_id).is_none_or(|n| n.admin_state_up);
    let is_server = port.device_owner.starts_with("compute:");
    let trunk = reach.trunks.values().find_map(|t| Some((t, t.tag_of(&port.id)?)));
    let trunk_up = trunk.is_none_or(|(t, _)| t.admin_state_up);
    v1::Port {
        id: port.id.clone(),
        network_id: segments::of_port(reach, port),
        mac: port.mac_address.clone(),
        fixed_ips: port
            .fixed_ips
            .iter()
            .filter(|f| !is_bare_address(&f.ip_address))
            .map(|f| v1::FixedIp { subnet_id: f.subnet_id.clone(), address: f.ip_address.clone() })
            .collect(),
        groups: port.security_groups.clone(),
        port_security: port.port_security_enabled,
        up: port.admin_state_up && network_up && trunk_up,
        allowed_pairs: port
            .allowed_address_pairs
            .iter()
            .map(|p| v1::AddressPair { mac: p.mac_address.clone(), cidr: p.ip_address.clone() })
            .collect(),
        hostname: port.dns_name.clone(),
        dhcp_options: port.extra_dhcp_opts.iter().filter_map(dhcp_option).collect(),
        instance_id: if is_server { port.device_id.clone() } else { String::new() },
        parent_id: trunk.map(|(t, _)| t.port_id.clone()).unwrap_or_default(),
        vlan: trunk.map(|(_, tag)| u32::from(tag)).unwrap_or_default(),
        idle: port.host_id != host,
        other_vtep: hosts.iter().find(|h| h.name == *other).map(|h| h.vtep.clone()).unwrap_or_default(),
    }
}

/// Options that have a number here; clients may name others, which guests then do not get.
fn dhcp_option(option: &DhcpOption) -> Option<v1::DhcpOption> {
    if option.ip_version != 4 {
        return None;
    }
    let name = option.opt_name.trim().to_ascii_lowercase();
    let code: u8 = match name.as_str() {
        "router" => 3,
        "dns-server" | "domain-name-servers" => 6,
        "hostname" | "host-name" => 12,
        "domain-name" => 15,
        "root-path" => 17,
        "mtu" | "interface-mtu" => 26,
        "ntp-server" | "ntp-servers" => 42,
        "tftp-server" | "tftp-server-name" => 66,
        "bootfile-name" => 67,
        "domain-search" => return None,
        "tftp-server-address" | "server-ip-address" => 150,
        "path-prefix" => 210,
        "wpad" => 252,
        number => number.parse().ok()?,
    };
    let value = match code {
        3 | 6 | 42 | 150 => {
            let list: Option<Vec<Ipv4Addr>> = option.opt_value.split(',').map(|a| a.trim().parse().ok()).collect();
            list?.iter().flat_map(|a| a.octets()).collect()
        }
        26 => option.opt_value.trim().parse::<u16>().ok()?.to_be_bytes().to_vec(),
        // As in the files of the DHCP server that others hand them to, text may stand in quotes.
        _ => {
            let text = option.opt_value.trim();
            let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            bare.unwrap_or(text).as_bytes().to_vec()
        }
    };
    Some(v1::DhcpOption { code: u32::from(code), value })
}

fn group(reach: &Reach, id: &str, stateful: bool) -> v1::Group {
    let rules = reach.rules.values().filter(|r| r.security_group_id == id).flat_map(|r| expand(reach, r)).collect();
    v1::Group { id: id.to_owned(), stateful, rules }
}

/// A rule that names an address group is one for each of its blocks; the host never hears of the group.
fn expand(reach: &Reach, named: &SecurityGroupRule) -> Vec<v1::Rule> {
    let Some(group) = &named.remote_address_group_id else { return vec![rule(named)] };
    let v6 = named.ethertype == "IPv6";
    let blocks = reach.address_groups.get(group).map_or(&[][..], |g| &g.addresses);
    blocks
        .iter()
        .enumerate()
        .filter(|(_, block)| block.contains(':') == v6)
        .map(|(n, block)| v1::Rule { id: format!("{}/{n}", named.id), remote_cidr: block.clone(), ..rule(named) })
        .collect()
}

fn rule(rule: &SecurityGroupRule) -> v1::Rule {
    let number = rule.protocol_number().filter(|n| *n != 0 || rule.protocol.as_deref() != Some("ip"));
    let word = |n: Option<i64>| n.and_then(|n| u32::try_from(n).ok());
    let (min, max) = (word(rule.port_range_min), word(rule.port_range_max));
    let icmp = number.is_some_and(is_icmp);
    let any_port = if icmp { min.is_none() } else { min.is_none() && max.is_none() };
    let last = if icmp { max.unwrap_or(ANY_CODE) } else { max.or(min).unwrap_or(0) };
    v1::Rule {
        id: rule.id.clone(),
        ingress: rule.direction == Direction::Ingress,
        ether_type: if rule.ethertype == "IPv6" { 6 } else { 4 },
        protocol: number.map_or(0, u32::from),
        any_protocol: number.is_none(),
        port_min: min.unwrap_or(0),
        port_max: last,
        any_port,
        remote_cidr: rule.normalized_cidr().unwrap_or_default(),
        remote_group: rule.remote_group_id.clone().unwrap_or_default(),
    }
}

fn prefix(reach: &Reach, subnet_id: &str) -> Option<u32> {
    Some(u32::from(reach.subnets.get(subnet_id)?.net()?.prefix_len()))
}

fn router(reach: &Reach, router: &Router, host: &str, hosts: &[HostInfo]) -> v1::Router {
    let legs = reach
        .legs
        .values()
        .filter(|l| l.device_id == router.id && l.device_owner == ROUTER_INTERFACE && l.admin_state_up);
    let interfaces = legs
        .flat_map(|leg| leg.fixed_ips.iter().map(move |f| (leg, f)))
        .filter(|(_, f)| !is_bare_address(&f.ip_address))
        .filter_map(|(leg, f)| {
            Some(v1::RouterInterface {
                network_id: segments::of_subnet(reach, &leg.network_id, &f.subnet_id),
                subnet_id: f.subnet_id.clone(),
                address: f.ip_address.clone(),
                prefix: prefix(reach, &f.subnet_id)?,
                mac: leg.mac_address.clone(),
                leaked: reach.subnets.get(&f.subnet_id).is_some_and(|s| s.leak_routes),
            })
        })
        .collect();
    let gateway6 = gateway(reach, router, host, hosts, true);
    // Nobody is to be asked on a network that leads to no wire; hosts ask without a tag.
    let wired = |g: &v1::RouterGateway| reach.networks.get(&g.network_id).is_none_or(|n| n.network_type == FLAT);
    let here = gateway6.as_ref().is_some_and(|g| g.vtep.is_empty() && wired(g));
    v1::Router {
        id: router.id.clone(),
        interfaces,
        gateway: gateway(reach, router, host, hosts, false),
        delegations: if here { delegations::asked(reach, router) } else { Vec::new() },
        gateway6,
        routes: router.routes.iter().map(route).collect(),
        helpers: reach.helpers.values().filter(|h| h.router_id == router.id).map(helper).collect(),
        further: further(reach, router, host, hosts),
        balanced: router.enable_default_route_ecmp,
        watched: router.enable_default_route_bfd,
    }
}

fn helper(helper: &ConntrackHelper) -> v1::Helper {
    let protocol = if helper.protocol == "udp" { 17 } else { 6 };
    v1::Helper { name: helper.helper.clone(), protocol, port: u32::from(helper.port) }
}

/// The way out of a family; unset while no host is up that could hold it.
fn gateway(reach: &Reach, router: &Router, host: &str, hosts: &[HostInfo], v6: bool) -> Option<v1::RouterGateway> {
    let port = reach.legs.get(router.gw_port_id.as_ref()?)?;
    let first = way_out(reach, router, port, host, hosts, v6)?;
    let proxied = if v6 { proxied(reach, router) } else { Vec::new() };
    Some(v1::RouterGateway { proxies_only: v6 && router.enable_ndp_proxy, proxied, ..first })
}

/// The ways out beside the first; a router that proxies lets nothing in by them either.
fn further(reach: &Reach, router: &Router, host: &str, hosts: &[HostInfo]) -> Vec<v1::RouterGateway> {
    let ports = router.further.iter().filter_map(|g| reach.legs.get(&g.port_id));
    let families = |port| {
        [false, true].into_iter().filter_map(move |v6| way_out(reach, router, port, host, hosts, v6).map(|g| (v6, g)))
    };
    ports
        .flat_map(families)
        .map(|(v6, g)| v1::RouterGateway { proxies_only: v6 && router.enable_ndp_proxy, ..g })
        .collect()
}

/// One way out of a family, by its port.
fn way_out(
    reach: &Reach,
    router: &Router,
    port: &Port,
    host: &str,
    hosts: &[HostInfo],
    v6: bool,
) -> Option<v1::RouterGateway> {
    let info = router.external_gateway_info.as_ref()?;
    let fixed = port.fixed_ips.iter().find(|f| f.ip_address.contains(':') == v6)?;
    let vtep = match holder(&reach.wishes, router, hosts) {
        // Every host has been sent away from it, or none that lives is where it leads out.
        None if hosts.len() > 1 || is_steered(&reach.wishes, &router.id) => return None,
        Some(there) if there.name != host && hosts.len() > 1 => {
            // A host without an underlay address cannot be sent anything.
            if there.vtep.is_empty() {
                return None;
            }
            there.vtep.clone()
        }
        _ => String::new(),
    };
    Some(v1::RouterGateway {
        network_id: segments::of_subnet(reach, &port.network_id, &fixed.subnet_id),
        address: fixed.ip_address.clone(),
        prefix: prefix(reach, &fixed.subnet_id)?,
        next_hop: reach.subnets.get(&fixed.subnet_id)?.gateway_ip.clone().unwrap_or_default(),
        mac: port.mac_address.clone(),
        snat: info.enable_snat,
        vtep,
        ..v1::RouterGateway::default()
    })
}

/// The addresses that a router answers for.
fn proxied(reach: &Reach, router: &Router) -> Vec<String> {
    reach.proxies.values().filter(|p| p.router_id == router.id).map(|p| p.ip_address.clone()).collect()
}

fn floating(reach: &Reach, floating: &FloatingIp) -> Option<v1::Floating> {
    Some(v1::Floating {
        id: floating.id.clone(),
        address: floating.floating_ip_address.clone(),
        mac: floating.mac.clone(),
        port_id: floating.port_id.clone()?,
        fixed_address: floating.fixed_ip_address.clone()?,
        router_id: floating.router_id.clone()?,
        network_id: segments::of_address(reach, &floating.floating_network_id, &floating.floating_ip_address),
    })
}

fn forward(reach: &Reach, forwarding: &PortForwarding) -> Option<v1::Forward> {
    let floating = reach.forwarders.get(&forwarding.floatingip_id)?;
    Some(v1::Forward {
        id: forwarding.id.clone(),
        address: floating.floating_ip_address.clone(),
        mac: floating.mac.clone(),
        router_id: forwarding.router_id.clone(),
        protocol: if forwarding.protocol == "udp" { 17 } else { 6 },
        external_first: u32::from(forwarding.external.first),
        external_last: u32::from(forwarding.external.last),
        fixed_address: forwarding.internal_ip_address.clone(),
        internal_first: u32::from(forwarding.internal.first),
        to_one: forwarding.external.single().is_none() && forwarding.internal.single().is_some(),
        network_id: segments::of_address(reach, &floating.floating_network_id, &floating.floating_ip_address),
    })
}

/// A label counts for the routers of its project, or for all.
fn label(reach: &Reach, label: &MeteringLabel) -> v1::MeterLabel {
    let counts = |r: &&Router| r.admin_state_up && (label.shared || r.project_id == label.project_id);
    let rules = reach.meter_rules.values().filter(|r| r.metering_label_id == label.id).map(|rule| {
        let (source, destination) = rule.ends();
        v1::MeterRule {
            ingress: rule.direction == Direction::Ingress,
            excluded: rule.excluded,
            source: source.unwrap_or_default().to_owned(),
            destination: destination.unwrap_or_default().to_owned(),
        }
    });
    v1::MeterLabel {
        id: label.id.clone(),
        routers: reach.routers.values().filter(counts).map(|r| r.id.clone()).collect(),
        rules: rules.collect(),
    }
}

fn local_ip(reach: &Reach, association: &Association) -> Option<v1::LocalIp> {
    let local = reach.local_ips.get(&association.local_ip_id)?;
    Some(v1::LocalIp {
        id: association.id.clone(),
        port_id: association.fixed_port_id.clone(),
        address: local.local_ip_address.clone(),
        fixed_address: association.fixed_ip.clone(),
        translate: translates(local),
    })
}

fn flow_log(reach: &Reach, log: &FlowLog) -> v1::FlowLog {
    v1::FlowLog {
        id: log.id.clone(),
        project_id: log.project_id.clone(),
        ports: reach.local.values().filter(|p| log.means(p)).map(|p| p.id.clone()).collect(),
        accepted: log.accepts(),
        dropped: log.drops(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(name: &str, value: &str) -> Option<v1::DhcpOption> {
        dhcp_option(&DhcpOption { opt_name: name.into(), opt_value: value.into(), ip_version: 4 })
    }

    #[test]
    fn dhcp_options_are_encoded_by_their_kind() {
        assert_eq!(option("mtu", "1400").unwrap().value, vec![5, 120]);
        assert_eq!(option("ntp-server", "10.0.0.1, 10.0.0.2").unwrap().value, vec![10, 0, 0, 1, 10, 0, 0, 2]);
        assert_eq!(option("bootfile-name", "pxelinux.0").unwrap().code, 67);
        assert_eq!(option("67", "x").unwrap().code, 67);
        assert_eq!(option("domain-name", "\"test.domain\"").unwrap().value, b"test.domain");
        assert_eq!(option("ntp-server", "time.example"), None);
        assert_eq!(option("no-such-option", "x"), None);
    }

    #[test]
    fn icmp_without_code_means_any_code() {
        let wanted = SecurityGroupRule {
            id: "r".into(),
            project_id: "p".into(),
            security_group_id: "g".into(),
            description: None,
            direction: Direction::Ingress,
            ethertype: "IPv4".into(),
            protocol: Some("icmp".into()),
            port_range_min: Some(8),
            port_range_max: None,
            remote_ip_prefix: None,
            remote_group_id: None,
            remote_address_group_id: None,
            belongs_to_default_sg: false,
            tags: vec![],
        };
        let sent = rule(&wanted);
        assert_eq!((sent.protocol, sent.port_min, sent.port_max, sent.any_port), (1, 8, ANY_CODE, false));
        let any = rule(&SecurityGroupRule { protocol: None, port_range_min: None, ..wanted });
        assert!(any.any_protocol && any.any_port);
    }
}
