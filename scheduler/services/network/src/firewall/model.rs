//! What firewalls are made of. Pure.
use serde::{Deserialize, Serialize};

/// The name of a project's own group, which no other has.
pub const DEFAULT: &str = "default";
pub const DEFAULT_INGRESS: &str = "default ingress";
pub const DEFAULT_EGRESS: &str = "default egress";
/// Rules of one policy: what the packet path looks through for one packet.
pub const RULES_MAX: usize = 128;

/// Protocols that rules name.
pub const PROTOCOLS: &[(&str, u8)] =
    &[("dccp", 33), ("icmp", 1), ("ipv6-icmp", 58), ("sctp", 132), ("tcp", 6), ("udp", 17)];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Allow,
    Deny,
    /// Denied, and the sender is told.
    Reject,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FirewallRule {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub description: Option<String>,
    pub shared: bool,
    pub protocol: Option<String>,
    pub ip_version: u8,
    /// An address or a block.
    pub source_ip_address: Option<String>,
    pub destination_ip_address: Option<String>,
    /// `80`, or `80:90`.
    pub source_port: Option<String>,
    pub destination_port: Option<String>,
    pub action: Action,
    pub enabled: bool,
}

impl FirewallRule {
    pub fn protocol_number(&self) -> Option<u8> {
        let named = self.protocol.as_deref()?;
        PROTOCOLS.iter().find(|(name, _)| *name == named).map(|(_, number)| *number)
    }

    pub fn has_ports(&self) -> bool {
        self.source_port.is_some() || self.destination_port.is_some()
    }

    /// Are all its addresses of its IP version?
    pub fn is_of_one_version(&self) -> bool {
        let sides = [&self.source_ip_address, &self.destination_ip_address].into_iter().flatten();
        let v6 = self.ip_version == 6;
        sides.into_iter().all(|side| side.contains(':') == v6)
    }
}

/// Both ends of a range of ports, the first no higher than the last; `None`: it is none.
pub fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(first) || !digits(last) {
        return None;
    }
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FirewallPolicy {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub description: Option<String>,
    pub shared: bool,
    /// Somebody has looked at it since it last changed, and says so.
    pub audited: bool,
    /// In the order in which they are asked.
    pub firewall_rules: Vec<String>,
}

impl FirewallPolicy {
    /// Is it one of those that come with a project's default group?
    pub fn is_default(&self) -> bool {
        matches!(self.name.as_str(), DEFAULT_INGRESS | DEFAULT_EGRESS)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FirewallGroup {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub description: Option<String>,
    pub admin_state_up: bool,
    pub shared: bool,
    pub ingress_firewall_policy_id: Option<String>,
    pub egress_firewall_policy_id: Option<String>,
}

impl FirewallGroup {
    pub fn is_default(&self) -> bool {
        self.name == DEFAULT
    }

    pub fn policies(&self) -> impl Iterator<Item = &String> {
        self.ingress_firewall_policy_id.iter().chain(&self.egress_firewall_policy_id)
    }

    /// Hosts do what is written, so this follows from it.
    pub fn status(&self, has_ports: bool) -> &'static str {
        match (has_ports && self.policies().next().is_some(), self.admin_state_up) {
            (false, _) => "INACTIVE",
            (true, false) => "DOWN",
            (true, true) => "ACTIVE",
        }
    }
}

/// That a port is in a group; called as the port is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FirewallPort {
    pub id: String,
    pub firewall_group_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_two_ports_in_order() {
        assert_eq!((range("80"), range("80:90"), range("0:65535")), (Some((80, 80)), Some((80, 90)), Some((0, 65535))));
        for bad in ["", ":", "80:", ":80", "90:80", "65536", "1:2:3", "+1", "-1", " 1", "http"] {
            assert_eq!(range(bad), None, "{bad}");
        }
    }
}
