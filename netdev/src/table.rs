//! Rows of the kernel tables as bytes, in the layout of `bpf/tables.h`.
//!
//! A row is compared, written and dumped as bytes, so the plan needs to know nothing of its meaning.
//! Ids of the caller become 64-bit names here: the same id gives the same name after a restart, which is
//! what lets tables found in the kernel be compared without a file that says who was who.
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Tables that the agent writes. The order is the order of writing: what a row points to comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    Vteps,
    Members6,
    Chunks6,
    Sources6,
    Members,
    Chunks,
    Sources,
    Live,
    Limits,
    Buckets,
    Collected,
    Collectors,
    Mirrors,
    Sinks,
    FirewallRules,
    Firewalls,
    Ports,
    Addresses,
    Addresses6,
    Stations,
    Choices,
    Choices6,
    Routes6,
    Floods,
    Wires,
    Tags,
    Watched,
    Externals,
    Scopes,
    Fixed,
    Locals,
    Helpers,
    Forwards,
    Routes,
    Meters,
    MeterRules,
    MeterRules6,
    Settings,
}

impl Table {
    pub const ALL: [Table; 38] = [
        Table::Vteps,
        Table::Members6,
        Table::Chunks6,
        Table::Sources6,
        Table::Members,
        Table::Chunks,
        Table::Sources,
        Table::Live,
        Table::Limits,
        Table::Buckets,
        Table::Collected,
        Table::Collectors,
        Table::Mirrors,
        Table::Sinks,
        Table::FirewallRules,
        Table::Firewalls,
        Table::Ports,
        Table::Addresses,
        Table::Addresses6,
        Table::Stations,
        Table::Choices,
        Table::Choices6,
        Table::Routes6,
        Table::Floods,
        Table::Wires,
        Table::Tags,
        Table::Watched,
        Table::Externals,
        Table::Scopes,
        Table::Fixed,
        Table::Locals,
        Table::Helpers,
        Table::Forwards,
        Table::Routes,
        Table::Meters,
        Table::MeterRules,
        Table::MeterRules6,
        Table::Settings,
    ];

    /// Name of the map, and of its pin.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Table::Vteps => "vteps",
            Table::Members => "members",
            Table::Chunks => "chunks",
            Table::Sources => "sources",
            Table::Live => "live",
            Table::Limits => "limits",
            Table::Buckets => "buckets",
            Table::Mirrors => "mirrors",
            Table::Sinks => "sinks",
            Table::Collected => "collected",
            Table::Collectors => "collectors",
            Table::FirewallRules => "firewall_rules",
            Table::Firewalls => "firewalls",
            Table::Ports => "ports",
            Table::Addresses => "addresses",
            Table::Stations => "stations",
            Table::Externals => "externals",
            Table::Floods => "floods",
            Table::Wires => "wires",
            Table::Tags => "tags",
            Table::Watched => "watched",
            Table::Fixed => "fixed",
            Table::Sources6 => "sources6",
            Table::Members6 => "members6",
            Table::Chunks6 => "chunks6",
            Table::Addresses6 => "addresses6",
            Table::Choices => "choices",
            Table::Choices6 => "choices6",
            Table::Routes6 => "routes6",
            Table::Scopes => "scopes",
            Table::Locals => "locals",
            Table::Helpers => "helpers",
            Table::Forwards => "forwards",
            Table::Routes => "routes",
            Table::Meters => "meters",
            Table::MeterRules => "meter_rules",
            Table::MeterRules6 => "meter_rules6",
            Table::Settings => "settings",
        }
    }

    /// Bytes of a key and of a value.
    #[must_use]
    pub fn sizes(self) -> (usize, usize) {
        match self {
            Table::Vteps => (4, 4),
            Table::Members => (16, 4),
            Table::Chunks => (16, 8 + 24 * CHUNK_RULES),
            Table::Sources => (12, 24),
            Table::Live => (4, 48),
            Table::Limits => (12, 32),
            Table::Buckets => (12, 16),
            Table::Mirrors => (8, 72),
            Table::Sinks => (4, 4),
            Table::Collected => (4, 8),
            Table::Collectors => (4, 56),
            Table::FirewallRules => (16, 8 + 80 * FIREWALL_RULES),
            Table::Firewalls => (12, 16),
            Table::Ports => (4, 32),
            Table::Addresses => (8, 24),
            Table::Stations => (12, 24),
            Table::Externals => (8, 24),
            Table::Floods => (8, 8),
            Table::Wires | Table::Tags => (4, 4),
            Table::Watched => (36, 8),
            Table::Fixed => (16, 4),
            Table::Sources6 => (24, 24),
            Table::Members6 => (32, 4),
            Table::Chunks6 => (16, 8 + 48 * CHUNK6_RULES),
            Table::Addresses6 => (20, 24),
            Table::Choices => (16, 32),
            Table::Choices6 => (16, 56),
            Table::Routes6 => (28, 56),
            Table::Scopes => (8, 4),
            Table::Locals => (8, 4),
            Table::Helpers => (16, 4),
            Table::Forwards => (16, 12),
            Table::Routes => (16, 32),
            Table::Meters => (8, 16),
            Table::MeterRules => (16, 8 + 32 * METER_RULES),
            Table::MeterRules6 => (16, 8 + 80 * METER_RULES),
            Table::Settings => (4, 80),
        }
    }

    /// The programs write this table's values: only whether a row is there is ours.
    #[must_use]
    pub fn presence_only(self) -> bool {
        matches!(self, Table::Live | Table::Buckets | Table::Meters | Table::Watched | Table::Collected)
    }
}

pub const CHUNK_RULES: usize = 32;
pub const CHUNKS: usize = 64;
pub const CHUNK6_RULES: usize = 16;
pub const FIREWALL_RULES: usize = 16;
pub const FIREWALL_CHUNKS: usize = 8;
pub const METER_RULES: usize = 16;
pub const METER_CHUNKS: usize = 32;

/// The contents of all tables, wanted or found.
pub type Tables = BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>;

/// Puts a row; the first writer of a key wins. Whether it was free.
pub(crate) fn put(tables: &mut Tables, table: Table, key: Bytes, value: Bytes) -> bool {
    debug_assert_eq!((key.0.len(), value.0.len()), table.sizes(), "{table:?}");
    let rows = tables.entry(table).or_default();
    if rows.contains_key(&key.0) {
        return false;
    }
    rows.insert(key.0, value.0);
    true
}

/// Writes a structure field by field.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn new() -> Self {
        Self::default()
    }
    pub fn u8(mut self, v: u8) -> Self {
        self.0.push(v);
        self
    }
    pub fn u16(mut self, v: u16) -> Self {
        self.0.extend(v.to_ne_bytes());
        self
    }
    pub fn u32(mut self, v: u32) -> Self {
        self.0.extend(v.to_ne_bytes());
        self
    }
    pub fn u64(mut self, v: u64) -> Self {
        self.0.extend(v.to_ne_bytes());
        self
    }
    pub fn ip(mut self, v: Ipv4Addr) -> Self {
        self.0.extend(v.octets());
        self
    }
    /// Six bytes and two of padding.
    pub fn mac(mut self, v: [u8; 6]) -> Self {
        self.0.extend(v);
        self.0.extend([0, 0]);
        self
    }
    pub fn raw(mut self, v: &[u8]) -> Self {
        self.0.extend(v);
        self
    }
}

/// The 64-bit name of an id. FNV-1a with a finish that spreads it; whoever uses it checks for two ids with
/// one name.
#[must_use]
pub fn name64(id: &str) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325u64;
    for b in id.bytes() {
        h = (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^ (h >> 33)
}

/// `ADDRESS_*` of `bpf/tables.h`.
const MOVES: u16 = 1;
const LOCAL: u16 = 2;
const PROXY: u16 = 3;
const LEFT: u16 = 4;

/// `hop`: where an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hop {
    Local(u32),
    Remote(Ipv4Addr),
    Router(u64),
    Service,
}

impl Hop {
    pub fn bytes(self, mac: [u8; 6]) -> Bytes {
        self.bytes_as(mac, 0)
    }

    fn bytes_as(self, mac: [u8; 6], how: u16) -> Bytes {
        let b = Bytes::new();
        let b = match self {
            Hop::Local(ifindex) => b.u32(1).u32(ifindex).u64(0),
            Hop::Remote(vtep) => b.u32(2).ip(vtep).u64(0),
            Hop::Router(router) => b.u32(3).u32(0).u64(router),
            Hop::Service => b.u32(4).u32(0).u64(0),
        };
        b.raw(&mac).u16(how)
    }

    /// A local address that moves to whichever of its ports announced it last.
    pub fn movable(ifindex: u32, mac: [u8; 6]) -> Bytes {
        Hop::Local(ifindex).bytes_as(mac, MOVES)
    }

    /// A local IP behind which this port stands.
    pub fn local_ip(ifindex: u32, mac: [u8; 6]) -> Bytes {
        Hop::Local(ifindex).bytes_as(mac, LOCAL)
    }

    /// A station that was here and is there now: who does not know that yet is led there.
    pub fn left(vtep: Ipv4Addr, mac: [u8; 6]) -> Bytes {
        Hop::Remote(vtep).bytes_as(mac, LEFT)
    }

    /// An address that a router answers for, or such a router.
    pub fn proxy(router: u64, mac: [u8; 6]) -> Bytes {
        Hop::Router(router).bytes_as(mac, PROXY)
    }
}

/// The interface that has a movable address; `None` for every other row of `addresses`.
#[must_use]
pub fn movable_at(row: &[u8]) -> Option<u32> {
    let flag = u16::from_ne_bytes(*row.get(22..)?.first_chunk()?);
    let ifindex = u32::from_ne_bytes(*row.get(4..)?.first_chunk()?);
    (flag == MOVES).then_some(ifindex)
}

/// Where rows lead copies for collectors outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copies {
    /// The link that wraps them.
    pub link: u32,
    /// The underlay's device, 0: there is none.
    pub underlay: u32,
    /// Bytes that it carries, and that the edge link's device does.
    pub mtu: u32,
    pub edge_mtu: u32,
    /// Address of the underlay's device.
    pub from6: Option<Ipv6Addr>,
}

/// Values for the `settings` table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    pub epoch: u32,
    pub overlay_if: u32,
    pub edge_if: u32,
    pub agent_if: u32,
    pub punt_if: u32,
    /// The network that has no tag on the edge link.
    pub ext_vni: u32,
    pub shared: bool,
    /// There are floating addresses in networks that routers have a leg in.
    pub by_leg: bool,
    pub leaks: bool,
    /// Some leg has a firewall.
    pub firewalls: bool,
    pub flow_cap: u32,
    pub agent_mac: [u8; 6],
    pub service_mac: [u8; 6],
    pub edge_mac: [u8; 6],
    /// Not for the programs: where rows send questions about names.
    pub resolver_if: u32,
    /// Not for the programs: what copies for collectors take on their way.
    pub copies: Copies,
    /// Who asks by ARP on the edge link.
    pub ask: Option<(Ipv4Addr, [u8; 6])>,
    /// Nanoseconds: what a note costs, what may be owed.
    pub notes: (u64, u64),
}

impl Settings {
    pub(crate) fn bytes(&self) -> Bytes {
        Bytes::new()
            .u32(self.epoch)
            .u32(self.overlay_if)
            .u32(self.edge_if)
            .u32(self.agent_if)
            .u32(self.punt_if)
            .u32(self.ext_vni)
            .u32(
                u32::from(self.shared)
                    | u32::from(self.by_leg) << 1
                    | u32::from(self.firewalls) << 2
                    | u32::from(self.leaks) << 3,
            )
            .u32(self.flow_cap)
            .raw(&self.agent_mac)
            .raw(&self.service_mac)
            .raw(&self.edge_mac)
            .raw(&self.ask.map_or([0; 6], |(_, mac)| mac))
            .ip(self.ask.map_or(Ipv4Addr::UNSPECIFIED, |(ip, _)| ip))
            .u32(0)
            .u64(self.notes.0)
            .u64(self.notes.1)
    }

    /// The epoch that a found row says, 0 if there is none.
    #[must_use]
    pub fn epoch_of(row: Option<&Vec<u8>>) -> u32 {
        row.and_then(|r| r.first_chunk::<4>()).map_or(0, |b| u32::from_ne_bytes(*b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_the_size_that_the_programs_declare() {
        assert_eq!(Settings::default().bytes().0.len(), Table::Settings.sizes().1);
        assert_eq!(Hop::Service.bytes([0; 6]).0.len(), Table::Addresses.sizes().1);
    }

    #[test]
    fn names_are_stable_and_differ() {
        assert_eq!(name64("a"), name64("a"));
        let mut all: Vec<u64> = (0..10_000).map(|i| name64(&format!("port-{i}"))).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 10_000);
    }

    #[test]
    fn first_writer_of_a_row_wins() {
        let mut t = Tables::new();
        let key = || Bytes::new().u32(1);
        assert!(put(&mut t, Table::Vteps, key(), Bytes::new().u32(7)));
        assert!(!put(&mut t, Table::Vteps, key(), Bytes::new().u32(8)));
        assert_eq!(t[&Table::Vteps][&1u32.to_ne_bytes().to_vec()], 7u32.to_ne_bytes());
    }
}
