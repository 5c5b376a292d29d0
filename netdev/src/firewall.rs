//! Firewalls as rows: which port and which leg has which list of rules. The asking is in `bpf/firewall.h`.
//!
//! ```text
//!   firewalls       {port} or {network, the leg's hardware address} -> the list, and whose leg it is
//!   firewall_rules  {list, direction and family, n} -> up to 16 rules, "more follows"
//! ```
//! A list ends with a refusal, so whatever is missing from it (too long a list, two of one name) only ever closes.
use crate::picture::Picture;
use crate::router::router_name;
use crate::table::{Bytes, FIREWALL_CHUNKS, FIREWALL_RULES, Table, name64, put};
use crate::wanted::{Direction, Family, Firewall, FirewallAction, FirewallRule, Port, Wanted};
use ipnet::IpNet;
use std::collections::{HashMap, HashSet};

const PORT: u16 = 1;
const LEG: u16 = 2;
const V6: u32 = 2;
const PROTOCOL: u8 = 1;
const SOURCE_PORTS: u8 = 2;
const PORTS: u8 = 4;
const ALLOWS: u8 = 8;
const REJECTS: u8 = 16;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// Rules of one family in one direction that a firewall has at most.
pub(crate) const RULES_MAX: usize = FIREWALL_CHUNKS * FIREWALL_RULES;

/// Ports that must ask a firewall about what they send and get.
pub(crate) struct Covered<'w> {
    ports: HashSet<&'w str>,
    networks: HashSet<&'w str>,
}

impl<'w> Covered<'w> {
    pub fn of(wanted: &'w Wanted) -> Self {
        let ports = wanted.firewalls.iter().flat_map(|f| &f.ports).map(String::as_str).collect();
        let networks = wanted.firewalls.iter().flat_map(|f| &f.legs).map(|l| l.network.as_str()).collect();
        Self { ports, networks }
    }

    pub fn has(&self, port: &Port) -> bool {
        self.ports.contains(port.id.as_str()) || self.networks.contains(port.network.as_str())
    }
}

/// An address and its mask; an IPv4 address stands in the first of four words.
fn side(row: Bytes, net: Option<IpNet>, family: Family) -> Option<Bytes> {
    match (net.map(|n| n.trunc()), family) {
        (None, _) => Some(row.raw(&[0; 32])),
        (Some(IpNet::V4(net)), Family::V4) => Some(row.ip(net.network()).raw(&[0; 12]).ip(net.netmask()).raw(&[0; 12])),
        (Some(IpNet::V6(net)), Family::V6) => Some(row.raw(&net.network().octets()).raw(&net.netmask().octets())),
        (Some(_), _) => None,
    }
}

/// A rule's row; `None` for one that no packet fits.
fn row(rule: &FirewallRule) -> Option<Vec<u8>> {
    let row = side(side(Bytes::new(), rule.source, rule.family)?, rule.destination, rule.family)?;
    let mut flags = match rule.action {
        FirewallAction::Allow => ALLOWS,
        FirewallAction::Deny => 0,
        FirewallAction::Reject => REJECTS,
    };
    let protocol = rule.protocol.inspect(|_| flags |= PROTOCOL).unwrap_or(0);
    // The older name of the protocol means the one of the rule's family.
    let protocol = if rule.family == Family::V6 && protocol == ICMP { ICMP6 } else { protocol };
    let (source_low, source_high) = rule.source_ports.inspect(|_| flags |= SOURCE_PORTS).unwrap_or((0, 0));
    let (low, high) = rule.destination_ports.inspect(|_| flags |= PORTS).unwrap_or((0, 0));
    Some(row.u16(source_low).u16(source_high).u16(low).u16(high).u8(flags).u8(protocol).raw(&[0; 6]).0)
}

pub(crate) fn draw(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    let mut names: HashMap<u64, &str> = HashMap::new();
    for firewall in &wanted.firewalls {
        let name = name64(&firewall.id);
        // Of two with one name the second has no rules at all, under the name that nobody else has.
        let name = match names.insert(name, &firewall.id) {
            Some(other) if other != firewall.id => {
                names.insert(name, other);
                picture
                    .problem(None, format!("firewall {} shares its name with another: it allows nothing", firewall.id));
                0
            }
            _ => name,
        };
        draw_places(picture, firewall, name);
        if name == 0 {
            continue;
        }
        for (direction, rules) in [(Direction::Ingress, &firewall.ingress), (Direction::Egress, &firewall.egress)] {
            for family in [Family::V4, Family::V6] {
                draw_rules(picture, firewall, name, direction, family, rules);
            }
        }
    }
}

fn draw_places(picture: &mut Picture<'_>, firewall: &Firewall, name: u64) {
    for port in &firewall.ports {
        let Some(&index) = picture.devices.get(port) else { continue };
        let key = Bytes::new().u32(index).raw(&[0; 6]).u16(PORT);
        put(&mut picture.tables, Table::Firewalls, key, Bytes::new().u64(name).u64(0));
    }
    for leg in &firewall.legs {
        let Some(vni) = picture.networks.get(leg.network.as_str()).map(|n| n.vni) else { continue };
        let key = Bytes::new().u32(vni).raw(&leg.mac.0).u16(LEG);
        put(&mut picture.tables, Table::Firewalls, key, Bytes::new().u64(name).u64(router_name(&leg.router)));
    }
}

fn draw_rules(
    picture: &mut Picture<'_>,
    firewall: &Firewall,
    name: u64,
    direction: Direction,
    family: Family,
    rules: &[FirewallRule],
) {
    let mut rows: Vec<Vec<u8>> = rules.iter().filter(|r| r.family == family).filter_map(row).collect();
    if rows.len() > RULES_MAX {
        picture.problem(None, format!("firewall {} has more than {RULES_MAX} rules: the rest is refused", firewall.id));
        rows.truncate(RULES_MAX);
    }
    let direction = match direction {
        Direction::Ingress => 0,
        Direction::Egress => 1,
    };
    let direction = direction | if family == Family::V6 { V6 } else { 0 };
    let last = rows.len().div_ceil(FIREWALL_RULES).saturating_sub(1);
    for (i, chunk) in rows.chunks(FIREWALL_RULES).enumerate() {
        let index = u32::try_from(i).unwrap_or(u32::MAX);
        let used = u32::try_from(chunk.len()).unwrap_or(0);
        let key = Bytes::new().u64(name).u32(direction).u32(index);
        let mut value = Bytes::new().u32(used).u32(u32::from(i < last)).raw(&chunk.concat());
        value.0.resize(Table::FirewallRules.sizes().1, 0);
        put(&mut picture.tables, Table::FirewallRules, key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture;
    use crate::sample;
    use crate::table::Settings;
    use crate::wanted::{FirewallLeg, Mac};
    use std::collections::BTreeMap;

    fn rule(source: &str, allows: bool) -> FirewallRule {
        FirewallRule {
            family: Family::V4,
            protocol: Some(6),
            source: Some(source.parse().unwrap()),
            destination: None,
            source_ports: None,
            destination_ports: Some((80, 81)),
            action: if allows { FirewallAction::Allow } else { FirewallAction::Deny },
        }
    }

    fn drawn(firewalls: Vec<Firewall>) -> (crate::table::Tables, Vec<picture::Problem>) {
        let network = sample::network("n", 7);
        let wanted = Wanted { networks: vec![network], firewalls, ..Wanted::default() };
        let devices = BTreeMap::from([("p".to_owned(), 4)]);
        picture::draw(&wanted, &devices, None, &Settings::default())
    }

    #[test]
    fn rows_have_the_size_that_the_programs_declare() {
        let bytes = row(&rule("10.0.0.5/24", true)).unwrap();
        assert_eq!(bytes.len() * FIREWALL_RULES + 8, Table::FirewallRules.sizes().1);
        assert_eq!(
            (&bytes[..4], &bytes[16..20]),
            (&[10, 0, 0, 0][..], &[255, 255, 255, 0][..]),
            "host bits are cut off"
        );
        assert_eq!(row(&rule("fd00::/8", true)), None, "of the other family: nothing fits");
    }

    #[test]
    fn the_order_of_the_rules_is_that_of_the_list_and_too_many_only_close() {
        let rules: Vec<FirewallRule> = (0..200).map(|i| rule("10.0.0.0/8", i % 2 == 0)).collect();
        let leg = FirewallLeg { router: "r".into(), network: "n".into(), mac: Mac([2, 0, 0, 0, 0, 9]) };
        let firewall = Firewall {
            id: "f".into(),
            ingress: rules,
            ports: vec!["p".into()],
            legs: vec![leg],
            ..Firewall::default()
        };
        let (tables, problems) = drawn(vec![firewall]);
        let chunks: Vec<&Vec<u8>> = tables[&Table::FirewallRules].values().collect();
        assert_eq!((chunks.len(), problems.len()), (FIREWALL_CHUNKS, 1));
        assert_eq!(chunks.iter().filter(|c| c[4] == 1).count(), FIREWALL_CHUNKS - 1, "the last has none after it");
        let allows: Vec<bool> = (0..4).map(|i| chunks[0][8 + 80 * i + 72] & ALLOWS != 0).collect();
        assert_eq!(allows, [true, false, true, false]);
        assert_eq!(tables[&Table::Firewalls].len(), 2, "the port and the leg");
    }
}
