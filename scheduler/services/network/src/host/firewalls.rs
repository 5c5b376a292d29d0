//! What a host must know of firewalls: those of its ports, and those of the legs that they reach. Pure.
use super::reach::Reach;
use crate::firewall::model::{Action, FirewallGroup, FirewallRule, range};
use pilvi_agent_api::v1;

/// `routers`: as the host is told of them, each leg in all the networks that it is in there.
pub fn compose(reach: &Reach, routers: &[v1::Router]) -> Vec<v1::Firewall> {
    reach.firewalls.values().filter_map(|group| firewall(reach, group, routers)).collect()
}

/// A group without policies does nothing.
fn firewall(reach: &Reach, group: &FirewallGroup, routers: &[v1::Router]) -> Option<v1::Firewall> {
    group.policies().next()?;
    let ports = reach.firewall_ports.values().filter(|p| p.firewall_group_id == group.id);
    let (mut local, mut legs) = (Vec::new(), Vec::new());
    for port in ports {
        if reach.local.contains_key(&port.id) {
            local.push(port.id.clone());
        }
        if let Some(leg) = reach.legs.get(&port.id) {
            let router = routers.iter().filter(|r| r.id == leg.device_id).flat_map(|r| &r.interfaces);
            let mut networks: Vec<&str> =
                router.filter(|i| i.mac == leg.mac_address).map(|i| i.network_id.as_str()).collect();
            networks.sort_unstable();
            networks.dedup();
            legs.extend(networks.into_iter().map(|network| v1::FirewallLeg {
                router_id: leg.device_id.clone(),
                network_id: network.to_owned(),
                mac: leg.mac_address.clone(),
            }));
        }
    }
    Some(v1::Firewall {
        id: group.id.clone(),
        ingress: rules(reach, group, group.ingress_firewall_policy_id.as_ref()),
        egress: rules(reach, group, group.egress_firewall_policy_id.as_ref()),
        ports: local,
        legs,
    })
}

/// In order; none where the group is down, so that nothing passes.
fn rules(reach: &Reach, group: &FirewallGroup, policy: Option<&String>) -> Vec<v1::FirewallRule> {
    let policy = policy.filter(|_| group.admin_state_up).and_then(|id| reach.firewall_policies.get(id));
    let named = policy.into_iter().flat_map(|p| &p.firewall_rules);
    named.filter_map(|id| reach.firewall_rules.get(id)).filter(|r| r.enabled).map(rule).collect()
}

fn rule(rule: &FirewallRule) -> v1::FirewallRule {
    let ports = |text: &Option<String>| {
        let (first, last) = range(text.as_deref()?)?;
        Some(v1::PortRange { first: u32::from(first), last: u32::from(last) })
    };
    v1::FirewallRule {
        id: rule.id.clone(),
        ether_type: u32::from(rule.ip_version),
        protocol: rule.protocol_number().map(u32::from),
        source: rule.source_ip_address.clone().unwrap_or_default(),
        destination: rule.destination_ip_address.clone().unwrap_or_default(),
        source_ports: ports(&rule.source_port),
        destination_ports: ports(&rule.destination_port),
        allow: rule.action == Action::Allow,
        reject: rule.action == Action::Reject,
    }
}
