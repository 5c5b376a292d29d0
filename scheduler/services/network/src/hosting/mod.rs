//! Which host does what for which network and router: `dhcp_agent_scheduler` and `l3_agent_scheduler`.
pub mod api;
pub mod model;
pub mod ops;
