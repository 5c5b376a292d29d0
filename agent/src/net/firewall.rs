//! Firewalls from the contract's words to netdev's.
//!
//! The order of rules says what they mean, so a firewall with a rule that this host does not understand has none: it refuses
//! everything, rather than allow what the missing rule forbade.
use super::convert::{address_or_cidr, each, mac, small};
use pilvi_agent_api::v1;
use pilvi_netdev::wanted::{Family, Firewall, FirewallAction, FirewallLeg, FirewallRule};

pub(super) fn firewall(from: &v1::Firewall) -> Result<Firewall, String> {
    let leg = |leg: &v1::FirewallLeg| {
        let (router, network) = (leg.router_id.clone(), leg.network_id.clone());
        Ok(FirewallLeg { router, network, mac: mac(&leg.mac)? })
    };
    let legs = each("leg of a firewall", &from.legs, |l| &l.router_id, leg);
    let (ingress, egress) = match (rules(&from.ingress), rules(&from.egress)) {
        (Ok(ingress), Ok(egress)) => (ingress, egress),
        (Err(why), _) | (_, Err(why)) => {
            tracing::error!(id = from.id, why, "this firewall lets nothing pass");
            (Vec::new(), Vec::new())
        }
    };
    Ok(Firewall { id: from.id.clone(), ingress, egress, ports: from.ports.clone(), legs })
}

fn rules(from: &[v1::FirewallRule]) -> Result<Vec<FirewallRule>, String> {
    from.iter().map(|r| rule(r).map_err(|why| format!("rule {}: {why}", r.id))).collect()
}

fn rule(from: &v1::FirewallRule) -> Result<FirewallRule, String> {
    let family = match from.ether_type {
        4 => Family::V4,
        6 => Family::V6,
        other => return Err(format!("ether type {other}")),
    };
    let side = |text: &str| if text.is_empty() { Ok(None) } else { address_or_cidr(text).map(Some) };
    let protocol = from.protocol.map(|p| small("protocol", p)).transpose()?;
    Ok(FirewallRule {
        family,
        protocol,
        source: side(&from.source)?,
        destination: side(&from.destination)?,
        source_ports: range(from.source_ports.as_ref())?,
        destination_ports: range(from.destination_ports.as_ref())?,
        action: match (from.allow, from.reject) {
            (true, false) => FirewallAction::Allow,
            (false, true) => FirewallAction::Reject,
            (false, false) => FirewallAction::Deny,
            (true, true) => return Err("allowed and rejected".into()),
        },
    })
}

fn range(from: Option<&v1::PortRange>) -> Result<Option<(u16, u16)>, String> {
    let Some(from) = from else { return Ok(None) };
    let (first, last) = (small("port", from.first)?, small("port", from.last)?);
    if first > last { Err(format!("ports {first} to {last}")) } else { Ok(Some((first, last))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_cannot_be_read_closes_its_firewall() {
        let web = v1::PortRange { first: 80, last: 81 };
        let good = v1::FirewallRule {
            ether_type: 4,
            protocol: Some(6),
            source: "10.0.0.5".into(),
            destination_ports: Some(web),
            allow: true,
            ..v1::FirewallRule::default()
        };
        let leg = v1::FirewallLeg { mac: "02:00:00:00:00:01".into(), ..v1::FirewallLeg::default() };
        let mut from = v1::Firewall { ingress: vec![good.clone()], legs: vec![leg], ..v1::Firewall::default() };
        let read = firewall(&from).unwrap();
        assert_eq!(read.ingress[0].source, Some("10.0.0.5/32".parse().unwrap()));
        assert_eq!(
            (read.ingress[0].destination_ports, read.ingress[0].action),
            (Some((80, 81)), FirewallAction::Allow)
        );
        let bad = |change: fn(&mut v1::FirewallRule)| {
            let mut rule = good.clone();
            change(&mut rule);
            rule
        };
        for bad in [
            bad(|r| r.ether_type = 0),
            bad(|r| r.protocol = Some(256)),
            bad(|r| r.reject = true),
            bad(|r| r.source = "10.0.0.0/33".into()),
            bad(|r| r.source_ports = Some(v1::PortRange { first: 9, last: 8 })),
            bad(|r| r.source_ports = Some(v1::PortRange { first: 9, last: 70_000 })),
        ] {
            from.egress = vec![bad];
            let read = firewall(&from).unwrap();
            assert!(read.ingress.is_empty() && read.egress.is_empty() && read.legs.len() == 1, "{:?}", from.egress);
        }
    }
}
