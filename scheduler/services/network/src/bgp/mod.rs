//! BGP: what the provider's routers are told of the cloud's addresses (neutron-dynamic-routing).
//!
//! ```text
//!  speaker (AS, IP version) --peers--> routers of the provider, which it tells
//!          '----------- gateway networks: what is reached through them ----.
//!   floating IP  203.0.113.20/32 --> the router's address on the gateway network   (IPv4)
//!   inside subnet in the gateway network's address scope --> the same              (IPv4, IPv6)
//!
//!  change feed --> announce (one scheduler at a time) --> pilvi_bgp::Speakers --TCP--> peers
//! ```
//! The next hop is always the router's own address on the gateway network: it is there as long as the router has the gateway. There are no agents for it: the scheduler that holds the job speaks, and
//! stands in the lists of agents as one "BGP dynamic routing agent", from which a speaker can be taken and given back.
pub mod announce;
pub mod dragent;
pub mod model;
pub mod ops;
pub mod peer;
pub mod route;
pub mod speaker;

pub use announce::{Announcer, Settings};
