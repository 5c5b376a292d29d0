//! What one host's packet path shall be: the input of `plan.rs`.
//!
//! Everything here is plain data, owned by the caller and compared by value. Nothing names a cloud
//! API: a group is a set of rules, a router is a set of legs. Ids are opaque strings of at most 64
//! bytes; equal ids mean the same thing from one `Wanted` to the next.
use ipnet::{IpNet, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

/// The whole wanted packet path of this host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    pub networks: Vec<Network>,
    /// Ports whose guests run on this host.
    pub ports: Vec<Port>,
    /// Endpoints on other hosts that local ports may talk to.
    pub remotes: Vec<Remote>,
    pub groups: Vec<Group>,
    pub routers: Vec<Router>,
    pub floating: Vec<Floating>,
    /// Floating addresses inside: of networks that a router has a leg in.
    #[serde(default)]
    pub by_leg: Vec<ByLeg>,
    pub forwards: Vec<Forward>,
    pub qualities: Vec<Quality>,
    pub labels: Vec<Label>,
    /// Networks whose guests ask this host about names.
    pub zones: Vec<Zone>,
    /// Ports that are seen in other networks than their own.
    pub views: Vec<View>,
    /// Ports of which is noted what their groups decide.
    pub watches: Vec<Watch>,
    pub locals: Vec<LocalIp>,
    pub scopes: Vec<Scope>,
    pub helpers: Vec<Helper>,
    /// Ways out of routers beside their first.
    #[serde(default)]
    pub ways: Vec<Way>,
    /// Ports of this host that are looked at, and those that look at ports of other hosts.
    #[serde(default)]
    pub taps: Vec<Tap>,
    #[serde(default)]
    pub sinks: Vec<TapSink>,
    #[serde(default)]
    pub firewalls: Vec<Firewall>,
    /// Remotes that were on this host a moment ago: what other hosts still send here for them is led there.
    #[serde(default)]
    pub left: Vec<String>,
    /// Prefixes that this host asks for, or gives back, for routers whose way out it holds.
    #[serde(default)]
    pub delegations: Vec<Delegation>,
    /// Routers whose default routes hold only while their next hop answers by BFD.
    #[serde(default)]
    pub bfd: Vec<String>,
    /// Subnets whose prefix is lent.
    #[serde(default)]
    pub lent: Vec<LentSubnet>,
    /// Hosts that may speak though nothing that is known is there: a guest has come from there a moment ago.
    #[serde(default)]
    pub peers: Vec<Ipv4Addr>,
    /// How hosts that encrypt are spoken to; looked at by those that encrypt themselves.
    #[serde(default)]
    pub tunnels: Vec<Tunnel>,
}

/// The public half of a host's WireGuard key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

/// Another host that encrypts what it sends to hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Underlay address: whence and whither encrypted packets go, and what is inside them.
    pub vtep: Ipv4Addr,
    pub key: PublicKey,
    /// UDP port that it gets encrypted packets on.
    pub port: u16,
}

/// One layer-2 segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub id: String,
    /// VXLAN network identifier, 1 to 2^24-1; unique on the host.
    pub vni: u32,
    /// Bytes, of the guests' interfaces.
    pub mtu: u16,
    /// Reached through the host's external device and not the overlay.
    pub external: bool,
    /// The tag of its frames there, 1 to 4094; 0: none.
    #[serde(default)]
    pub vlan: u16,
    /// That tag is a service tag (802.1ad) and no customer's (802.1Q).
    #[serde(default)]
    pub service_tag: bool,
    /// Its guests may send frames with tags among each other; outside, within its own tag.
    #[serde(default)]
    pub transparent: bool,
    pub subnets: Vec<Subnet>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub id: String,
    pub cidr: IpNet,
    pub gateway: Option<IpAddr>,
    /// Answered: addresses by DHCPv4, addresses or all else by DHCPv6.
    pub dhcp: bool,
    /// Source address of DHCP answers (server identifier), which this host answers for; `None`: the gateway is somebody
    /// else, and the host has no address of the subnet.
    pub dhcp_server: Option<Ipv4Addr>,
    pub dns: Vec<IpAddr>,
    pub routes: Vec<Route>,
    pub lease_seconds: u32,
    /// Of IPv6: how routers tell guests to get their addresses; `None`: routers say nothing of the subnet.
    pub ra: Option<Ra>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ra {
    /// They make them from their hardware address.
    Slaac,
    /// The same, and ask DHCPv6 for all else.
    Stateless,
    /// They ask DHCPv6 for them.
    Stateful,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub destination: IpNet,
    pub nexthop: IpAddr,
}

/// A guest's interface on this host: a tap, or one end of a veth pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub id: String,
    pub network: String,
    pub mac: Mac,
    pub fixed: Vec<Fixed>,
    pub groups: Vec<String>,
    /// Anti-spoofing and groups apply. `false`: the port may send and receive anything.
    pub secured: bool,
    /// Administrative state: `false` drops everything.
    pub up: bool,
    pub allowed_pairs: Vec<AddressPair>,
    /// DHCP option 12.
    pub hostname: String,
    /// Further DHCP options, by code.
    pub dhcp_options: Vec<(u8, Vec<u8>)>,
    /// May ask 169.254.169.254.
    pub metadata: bool,
    /// Its frames come tagged over another port's device; it has none of its own.
    pub parent: Option<Parent>,
    /// It has its device, for a guest that runs on another host still or already; its packets go there.
    #[serde(default)]
    pub idle: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// A port of this host that has a device.
    pub port: String,
    /// 1 to 4094.
    pub vlan: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fixed {
    pub subnet: String,
    pub address: IpAddr,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPair {
    /// `None`: the port's own.
    pub mac: Option<Mac>,
    pub cidr: IpNet,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    pub port: String,
    pub network: String,
    pub mac: Mac,
    pub addresses: Vec<IpAddr>,
    /// Underlay address of the host that has it.
    pub vtep: Ipv4Addr,
    pub groups: Vec<String>,
}

/// A security group: what its members may receive and send. Nothing is allowed by default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub id: String,
    pub stateful: bool,
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub id: String,
    pub direction: Direction,
    pub family: Family,
    /// IP protocol number; `None` is any.
    pub protocol: Option<u8>,
    pub ports: Ports,
    pub peer: Peer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    Ingress,
    Egress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Family {
    V4,
    V6,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ports {
    Any,
    /// Destination ports, both ends included.
    Range(u16, u16),
    /// ICMP type and code.
    Icmp(u8, Option<u8>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Peer {
    Any,
    Cidr(IpNet),
    /// Any member of the group, wherever it runs.
    Group(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    pub id: String,
    pub interfaces: Vec<Interface>,
    pub gateway: Option<Gateway>,
    pub gateway6: Option<Gateway6>,
    pub routes: Vec<Route>,
}

/// A router's leg in a network: it answers ARP and ping at `address`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    pub network: String,
    pub address: IpAddr,
    pub prefix: u8,
    pub mac: Mac,
    /// The provider routes its subnet to the router's gateway: nothing hides it on its way out.
    #[serde(default)]
    pub leaked: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// External network.
    pub network: String,
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub next_hop: Option<Ipv4Addr>,
    pub mac: Mac,
    /// Source NAT to `address` for guests without a floating address.
    pub snat: bool,
    /// Underlay address of the host that holds the gateway; `None`: this host.
    pub vtep: Option<Ipv4Addr>,
}

/// The way out of IPv6: nothing is translated. The provider routes the inside's prefixes to `address`, or it answers for single
/// addresses of the inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway6 {
    /// External network.
    pub network: String,
    /// Answered to neighbours there, as is the link-local address that follows from `mac`.
    pub address: Ipv6Addr,
    pub prefix: u8,
    pub next_hop: Option<Ipv6Addr>,
    pub mac: Mac,
    /// Underlay address of the host that holds the gateway; `None`: this host.
    pub vtep: Option<Ipv4Addr>,
    /// Addresses of the inside that it answers for by itself; nothing else comes in then.
    pub proxied: Option<Vec<Ipv6Addr>>,
}

/// A prefix that the provider's delegating router lends for one subnet behind a router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegation {
    /// Of subnet and router: the servers know the client by it, on whatever host it runs.
    pub id: String,
    /// `None`: what this host holds of it is to be given back.
    pub ask: Option<Ask>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The way out's, whose link-local address asks.
    pub mac: Mac,
    /// What the host that held the way out before was lent, and until when (seconds since 1970).
    pub had: Option<(Ipv6Net, u64)>,
}

/// Guests must not be told of a prefix for longer than it is lent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LentSubnet {
    pub subnet: String,
    /// Seconds since 1970; `u64::MAX`: for ever.
    pub until: u64,
}

/// One more way out of a router that has one of the family: what comes in by it reaches the inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    pub router: String,
    pub out: Out,
    /// What goes out is spread over it and the first, flow by flow; else it takes the first.
    pub balanced: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Out {
    V4(Gateway),
    V6(Gateway6),
}

impl Wanted {
    /// All ways out of a router for IPv4, the first one first, and whether what goes out is spread over it.
    pub(crate) fn gateways<'w>(&'w self, router: &'w Router) -> impl Iterator<Item = (&'w Gateway, bool)> {
        let further = self.ways.iter().filter(|w| w.router == router.id).filter_map(|w| match &w.out {
            Out::V4(gateway) => Some((gateway, w.balanced)),
            Out::V6(_) => None,
        });
        router.gateway.iter().map(|g| (g, true)).chain(further)
    }

    /// The same for IPv6.
    pub(crate) fn gateways6<'w>(&'w self, router: &'w Router) -> impl Iterator<Item = (&'w Gateway6, bool)> {
        let further = self.ways.iter().filter(|w| w.router == router.id).filter_map(|w| match &w.out {
            Out::V6(gateway) => Some((gateway, w.balanced)),
            Out::V4(_) => None,
        });
        router.gateway6.iter().map(|g| (g, true)).chain(further)
    }
}

/// A stateless one-to-one translation between an external and a fixed address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floating {
    pub id: String,
    /// External network that the address is of.
    #[serde(default)]
    pub network: String,
    pub address: Ipv4Addr,
    /// Answers ARP for `address` on the external network.
    pub mac: Mac,
    /// Local port that owns `fixed`.
    pub port: String,
    pub fixed: Ipv4Addr,
    pub router: String,
}

/// The same between two legs of a router: whoever is in `network` reaches `fixed` by `address`, and is answered from it.
/// Every host of the router's guests does it for its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByLeg {
    pub id: String,
    /// That the address is of, where `mac` answers for it.
    pub network: String,
    pub address: Ipv4Addr,
    pub mac: Mac,
    pub fixed: Ipv4Addr,
    pub router: String,
}

/// Ports of an external address that lead to a guest's, on the host that holds the router's gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    pub id: String,
    /// External network that the address is of.
    #[serde(default)]
    pub network: String,
    /// External; it leads nowhere else.
    pub address: Ipv4Addr,
    /// Answers ARP for `address` on the external network.
    pub mac: Mac,
    pub router: String,
    /// 6 or 17.
    pub protocol: u8,
    /// External ports, both ends included.
    pub ports: (u16, u16),
    pub fixed: Ipv4Addr,
    /// The fixed port that the first external one leads to; the others follow, unless `to_one`.
    pub inside: u16,
    /// All external ports lead to `inside`.
    pub to_one: bool,
}

/// How much may pass, and how it is marked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quality {
    pub of: Limited,
    /// From the guest.
    pub egress: Rate,
    /// Towards the guest.
    pub ingress: Rate,
    /// Differentiated services code point of what a port sends.
    pub dscp: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Limited {
    /// A port on this host.
    Port(String),
    /// An external address: a floating one, or a router's. One of IPv4 holds for all of the router's way out, one of IPv6
    /// for routers that have no other.
    Address(IpAddr),
}

/// 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// 1000 bits a second.
    pub kbps: u64,
    /// 1000 bits at once.
    pub burst_kbit: u64,
    /// Packets a second, and at once.
    pub packets: u64,
    pub burst_packets: u64,
}

/// An address of a port's network that means this port for every guest of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalIp {
    pub id: String,
    pub port: String,
    pub address: Ipv4Addr,
    /// The port's own, which packets are translated to.
    pub fixed: Ipv4Addr,
    /// The port gets them with its own address; else it has the other one itself.
    pub translates: bool,
}

/// A network whose addresses of one family mean the same as those of other networks of the scope, and nothing elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    pub id: String,
    pub family: Family,
    pub network: String,
}

/// Questions of a router's guests to a port outside whose answers come from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Helper {
    pub router: String,
    pub port: u16,
    pub answers: Answers,
}

/// Where they come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answers {
    /// UDP: from one other port of the host that was asked.
    Tftp,
}

/// Every frame of a port once more, for a port that looks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tap {
    pub id: String,
    pub port: String,
    /// What the port gets.
    pub ingress: bool,
    /// What it sends.
    pub egress: bool,
    pub to: Looker,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Looker {
    /// A port of this host.
    Port(String),
    /// One of another host, by a tunnel key that no network has.
    Host { vtep: Ipv4Addr, vni: u32 },
    /// A collector outside, which is no port: copies come to it wrapped.
    Collector { address: IpAddr, wrap: Wrap },
}

/// How a collector tells whose copies it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wrap {
    /// Frames in GRE, with this key.
    Gre { key: u32 },
    /// ERSPAN type II, with this session, of ten bits.
    Erspan { session: u16 },
}

/// A port of this host that looks at ports of other hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapSink {
    pub port: String,
    pub vni: u32,
    /// Whose copies are taken.
    pub from: Vec<Ipv4Addr>,
}

/// Ordered rules for ports of this host and legs of routers, beside the groups: both must allow. What no rule allows is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewall {
    pub id: String,
    /// Towards the port, or out of the router by the leg. The first rule that fits decides.
    pub ingress: Vec<FirewallRule>,
    /// From the port, or into the router by the leg.
    pub egress: Vec<FirewallRule>,
    pub ports: Vec<String>,
    pub legs: Vec<FirewallLeg>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirewallRule {
    pub family: Family,
    /// IP protocol number; `None` is any.
    pub protocol: Option<u8>,
    pub source: Option<IpNet>,
    pub destination: Option<IpNet>,
    /// Both ends included.
    pub source_ports: Option<(u16, u16)>,
    pub destination_ports: Option<(u16, u16)>,
    pub action: FirewallAction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FirewallAction {
    Allow,
    Deny,
    /// The sender is told by an ICMP error.
    Reject,
}

/// A router's leg, as guests know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirewallLeg {
    pub router: String,
    pub network: String,
    pub mac: Mac,
}

/// What is noted of one port of this host: see [`crate::Notes`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    pub port: String,
    /// The first packet of each flow that its groups allow.
    pub accepted: bool,
    /// Every packet that they refuse.
    pub dropped: bool,
}

/// Ports of this host that are seen in a network which is not theirs, but shares its subnets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    pub network: String,
    pub ports: Vec<String>,
    /// The network's own ports do not see each other.
    pub apart: bool,
}

/// How things are called on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    pub network: String,
    /// What follows a name that is not whole; "" is nothing.
    pub domain: String,
    /// Nobody outside knows of the domain: what is not in it here is not at all.
    pub closed: bool,
    /// Names that are not whole are found below this too; "" is nothing. Others may know of it.
    #[serde(default)]
    pub also: String,
    pub names: Vec<Name>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// Whole if it ends with a dot.
    pub name: String,
    pub addresses: Vec<IpAddr>,
}

/// Counts what some routers carry to and from the outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    pub id: String,
    pub routers: Vec<String>,
    pub rules: Vec<MeterRule>,
}

/// What a label counts, or leaves out. Addresses are those of the inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeterRule {
    /// Ingress: from outside.
    pub direction: Direction,
    pub excluded: bool,
    /// `None` is any.
    pub source: Option<IpNet>,
    pub destination: Option<IpNet>,
}
