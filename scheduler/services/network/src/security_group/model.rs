//! A security group and its rules: what may come in and go out, where nothing else may.
use serde::{Deserialize, Serialize};

/// Name of the group that every project has.
pub const DEFAULT: &str = "default";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SecurityGroup {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub description: Option<String>,
    pub stateful: bool,
    /// Is it its project's default group? (Its name alone does not tell.)
    pub is_default: bool,
    /// With every project?
    #[serde(default)]
    pub shared: bool,
    /// Projects that RBAC policies name.
    #[serde(default)]
    pub shared_with: Vec<String>,
    #[serde(default)]
    pub tags: Vec<String>,
}

impl SecurityGroup {
    /// No group in particular: rules are checked against it before they are anybody's.
    pub fn unnamed() -> Self {
        SecurityGroup {
            id: String::new(),
            project_id: String::new(),
            name: String::new(),
            description: None,
            stateful: true,
            is_default: false,
            shared: false,
            shared_with: Vec::new(),
            tags: Vec::new(),
        }
    }
    /// May ports of this project be in it?
    pub fn is_open_to(&self, project: &str) -> bool {
        self.shared || self.project_id == project || self.shared_with.iter().any(|p| p == project)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Ingress,
    Egress,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SecurityGroupRule {
    pub id: String,
    pub project_id: String,
    pub security_group_id: String,
    pub description: Option<String>,
    pub direction: Direction,
    /// `IPv4` or `IPv6`
    pub ethertype: String,
    /// A name as the client wrote it, or a number as text; `None`: any.
    pub protocol: Option<String>,
    pub port_range_min: Option<i64>,
    pub port_range_max: Option<i64>,
    pub remote_ip_prefix: Option<String>,
    pub remote_group_id: Option<String>,
    #[serde(default)]
    pub remote_address_group_id: Option<String>,
    #[serde(default)]
    pub belongs_to_default_sg: bool,
    #[serde(default)]
    pub tags: Vec<String>,
}

/// Protocols that have a name here, with their IP protocol numbers.
pub const PROTOCOLS: &[(&str, u8)] = &[
    ("ah", 51),
    ("dccp", 33),
    ("egp", 8),
    ("esp", 50),
    ("gre", 47),
    ("hopopt", 0),
    ("icmp", 1),
    ("icmpv6", 58),
    ("igmp", 2),
    ("ip", 0),
    ("ipip", 4),
    ("ipv6-encap", 41),
    ("ipv6-frag", 44),
    ("ipv6-icmp", 58),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("ipv6-route", 43),
    ("ospf", 89),
    ("pgm", 113),
    ("rsvp", 46),
    ("sctp", 132),
    ("tcp", 6),
    ("udp", 17),
    ("udplite", 136),
    ("vrrp", 112),
];

impl SecurityGroupRule {
    /// The IP protocol number; `None`: any. `icmp` in an IPv6 rule means ICMPv6.
    pub fn protocol_number(&self) -> Option<u8> {
        let number = protocol_number(self.protocol.as_deref()?)?;
        Some(if number == 1 && self.ethertype == "IPv6" { 58 } else { number })
    }
    /// Rules that would do the same thing are duplicates whatever their description.
    pub fn same_as(&self, other: &Self) -> bool {
        self.direction == other.direction
            && self.ethertype == other.ethertype
            && self.protocol_number() == other.protocol_number()
            && self.port_range_min == other.port_range_min
            && self.port_range_max == other.port_range_max
            && self.remote_group_id == other.remote_group_id
            && self.remote_address_group_id == other.remote_address_group_id
            && self.normalized_cidr() == other.normalized_cidr()
    }
    pub fn normalized_cidr(&self) -> Option<String> {
        let net: ipnet::IpNet = self.remote_ip_prefix.as_ref()?.parse().ok()?;
        Some(net.trunc().to_string())
    }
}

pub fn protocol_number(text: &str) -> Option<u8> {
    let known = PROTOCOLS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, n)| *n);
    known.or_else(|| text.parse().ok())
}

/// Do port ranges mean ports for this protocol?
pub fn has_ports(number: u8) -> bool {
    matches!(number, 6 | 17 | 33 | 132 | 136)
}

pub fn is_icmp(number: u8) -> bool {
    matches!(number, 1 | 58)
}
