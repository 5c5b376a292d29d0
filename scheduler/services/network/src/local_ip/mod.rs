//! Local IPs: one address of a network that means, on every host, the nearest of several guests.
//!
//! ```text
//!  local IP (an address of a network) --- association --> port, with one of its addresses
//!     a guest on host A asks for it --> the associated port of host A        host B --> that of host B
//! ```
//! Done by the packet path of each host (netdev's `bpf/local.h`); a host without an associated port knows the address as
//! that of the local port, if that one is a guest's.
pub mod api;
pub mod association;
pub mod model;
pub mod ops;
