//! The packet path of one host: taps, one layer-2 segment for each network, DHCP, metadata, anti-spoofing,
//! security groups, routers, source NAT and floating addresses. It knows no cloud API: the caller hands over a
//! whole [`wanted::Wanted`] and gets it, however often and after whatever crash.
//!
//! # A packet's walk
//! ```text
//!  host's own namespace: never touched
//!  +-- node namespace <prefix> ------------------------------------------------------------------------+
//!  |                                                                                                    |
//!  |  guest A                                                                               guest B     |
//!  |  tapA (fd) --in--> [from_guest] ----------- same host: bpf_redirect ----------> [to_guest] --> tapB |
//!  |                     |  1 port up? VLAN tag? source MAC and IP its own?             ^  | its groups:  |
//!  |                     |  2 ARP: answered here from `addresses`                       |  | `flows`, or   |
//!  |                     |  3 DHCP: rate limit --> agent1 --> packet socket --(mark)----+  | a rule in     |
//!  |                     |  4 169.254.169.254: source := 100.64/10+ifindex --> agent0  -+  | `chunks`      |
//!  |                     |  (somebody looks: `mirrors`, a copy to another port)         |  |               |
//!  |                     |  5 its groups: `flows`, or a rule in `chunks`, `members`     |  v              |
//!  |                     |       what they decide: `notes`, if somebody asked           |                 |
//!  |                     |       a firewall: `firewall_flows`, or `firewall_rules`      |                 |
//!  |                     |  6 `stations`: where is the destination's MAC?               | drop: `drops`   |
//!  |                     |       local tap (by a local IP: `locals`, `met`) -------------+                 |
//!  |                     |       169.254.169.253 --> dns0 --> packet socket (TCP: as 4)                   |
//!  |                     |       other host --> key {vni, vtep} --> overlay0 (VXLAN) --> underlay --> ... |
//!  |                     |       router --> `routes` {router, prefix}, TTL-1, MACs                        |
//!  |                     |            a leg --> `addresses` --> local tap or overlay, as above            |
//!  |                     |            gateway --> `fixed`: floating address, else `nats`: source NAT      |
//!  |                     v                          (gateway on another host: overlay)                    |
//!  |                   edge0 <-- neighbour by the kernel's ARP -- [to_edge] sets the address's own MAC    |
//!  |                     |                                                                                |
//!  |  underlay --> overlay0 --in--> [from_overlay]: known far end? `stations` --> tap, or our gateway     |
//!  |  edge0 --in--> [from_edge]: ARP for `externals`; floating or NATed back, `routes` --> tap or overlay |
//!  |        (tagged: `tags`, `wires`; who is there: `nearby`, asked by the agent;                         |
//!  |         guests' own tags within: `stations`, `floods`)                                               |
//!  |  agent0 --out--> [from_agent]: 100.64/10 --> the port's own address --> tap                          |
//!  |                  the agent's word to a next hop (`watched`) --> edge0                                  |
//!  |  copy0 == copy1: copies for `collectors`: [wrap_copy] --> [send_copy] --> underlay or edge0          |
//!  +-----|--------------------------------------------------------------------------------------------+
//!        | veth (or a device that the caller gave)
//!  +-- edge namespace <prefix>-edge: bridge ext0 with the provider's gateway addresses ---------------+
//!  +--------------------------------------------------------------------------------------------------+
//! ```
//! Programs (`bpf/`, C, committed as an object so that a build needs no clang) sit on TCX hooks. Programs,
//! tables and links are pinned in a bpffs of this prefix alone: the path forwards while no agent runs, and a
//! new agent reads the tables back, compares and repairs (`plan.rs`). There is no bridge between guests, no
//! learning, no flooding (but of what guests send to many), no nftables and no kernel
//! conntrack; overlapping tenants are just other keys.
//!
//! Where what goes to other hosts is encrypted, `overlay0` speaks VXLAN in a third namespace, `<prefix>-wire`, that has nothing
//! but a WireGuard device (`wireguard`).
//!
//! # What it needs
//! Root, Linux 6.6 or newer (TCX) with veth, tun, vxlan (if there is an underlay), wireguard or a program for it (if that is to be encrypted) and bridge (if there is an edge
//! namespace).
//!
//! # What it does not do yet
//! - IPv6 guests speak by their fixed addresses and by the link-local one that follows from their hardware address; packets
//!   with a routing header are dropped. What leaves by a router's gateway is not translated, and its prefixes are not announced
//!   from here: the provider routes them (he may lend them: `delegation`), or the gateway answers for single addresses.
//! - Broadcast and multicast on wires (external networks) are dropped and counted (`multicast`), also for unsecured
//!   ports, but for those within tags of guests' own; frames to unknown stations as well (`unknown-station`).
//! - A single address of `allowed_pairs` (VRRP) follows the port that announced it last among the ports of this
//!   host; other hosts do not hear of it. A hardware address that two ports share stays with the first.
//! - Next hops are watched where a router wants that (`bfd`), by the host that holds its ways out: answers of floating addresses that
//!   leave from other hosts know nothing of it.
//! - Between two routers a leg with a firewall lets nothing pass: it is asked at the ports of guests (`firewall.rs`).
//! - One device to the outside for each host. On a tagged wire the first packet to an unknown neighbour is lost.
//! - Ports that share another's device (by a VLAN tag) have no metadata service by IPv4.
//! - Limits drop what is too much and queue nothing; nothing reserves bandwidth.
//! - TCP sequence numbers are not checked; a packet in the middle of an unknown connection is judged as a new one.
//! - Source NAT translates TCP, UDP, ICMP echo and the ICMP errors about them, nothing else (`nat`). It looks into no
//!   protocol; of those that answer from elsewhere it knows TFTP.
#![allow(unsafe_code)]

mod ask6;
mod bfd;
mod bpf;
mod choice;
mod config;
mod delegation;
mod device;
mod dhcp;
mod dhcp6;
mod dice;
mod edge;
mod error;
mod filter;
mod firewall;
mod forward;
mod gateway6;
mod helper;
pub mod hostile;
mod loader;
mod local;
mod many;
mod metadata;
mod meter;
mod mirror;
mod namespace;
mod nat;
mod nearby;
mod netlink;
mod node;
mod note;
mod offload;
mod overlay;
mod packet;
mod picture;
mod plan;
mod plane;
mod port;
mod quality;
mod question;
mod ra;
mod realm;
mod regroup;
mod resolver;
mod router;
#[cfg(test)]
mod sample;
mod scope;
mod sign;
mod standing;
mod stats;
mod switch;
mod table;
mod tap;
mod transparent;
mod v6;
mod view;
pub mod wanted;
mod wire;
mod wireguard;

pub use bfd::WatchedHop;
pub use config::{Config, Encryption, External, NETNS_DIR, NoteRate, Ns, Underlay, edge_name, node_name, ns_path};
pub use delegation::{Delegated, Delegations, Kept};
pub use device::{Applied, AppliedPort, tap_name};
pub use error::Error;
pub use metadata::{METADATA_ADDRESS, METADATA_ADDRESS6, MetadataListener};
pub use namespace::{connect_in, listen as listen_in_ns};
pub use note::{Note, Notes};
pub use plane::{DataPlane, clear};
pub use resolver::{RESOLVER_ADDRESS, RESOLVER_ADDRESS6};
pub use sign::{KEY_MAX, sign_tcp};
pub use stats::{Metered, PortStats, REASONS, Stats};
pub use switch::SERVICE_MAC;
pub use wireguard::{OVERHEAD as ENCRYPTION_OVERHEAD, PrivateKey};
