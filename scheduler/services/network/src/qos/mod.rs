//! Quality of service: policies of limits and marks for ports, networks, floating IPs and the ways out of routers.
//!
//! ```text
//!  policy --bandwidth_limit, packet_rate_limit, dscp_marking rules--> host/quality.rs --> packet path
//!     '-- of a port, else of its network; of a floating IP, else of its network; of a router's gateway
//! ```
//! Rules of a minimum go to placement instead: see [`least`].
pub mod alias;
pub mod least;
pub mod model;
pub mod ops;
pub mod policy;
pub mod rule;
pub mod rule_type;
