//! pilvi-netdev
//! The packet path of one host.
#![allow(unsafe_code)]

mod bpf;
mod config;
mod dhcp;
mod edge;
mod error;
mod filter;
mod loader;
mod metadata;
mod namespace;
mod nat;
mod netlink;
mod node;
mod overlay;
mod packet;
mod picture;
mod plan;
mod plane;
mod port;
mod router;
mod stats;
mod switch;
mod table;
mod tap;
pub mod wanted;

pub use config::{Config, External, NETNS_DIR, Ns, Underlay, edge_name, node_name, ns_path};
pub use error::Error;
pub use metadata::{METADATA_ADDRESS, MetadataListener};
pub use namespace::connect_in;
pub use node::tap_name;
pub use plane::{Applied, AppliedPort, DataPlane, clear};
pub use stats::{PortStats, REASONS, Stats};
pub use switch::SERVICE_MAC;
