//! Quality of service: policies of limits and marks for ports, networks, floating IPs and the ways out of routers.
//!
//! ```text
//!  policy --bandwidth_limit, packet_rate_limit, dscp_marking rules--> host/quality.rs --> packet path
//!     '-- of a port, else of its network; of a floating IP, else of its network; of a router's gateway
//! ```
//! Nothing is reserved here, so there are no rules of a minimum: a rule that nobody keeps would be a lie.
pub mod alias;
pub mod model;
pub mod ops;
pub mod policy;
pub mod rule;
pub mod rule_type;
