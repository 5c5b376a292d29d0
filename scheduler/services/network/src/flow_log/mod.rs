//! Logs of what security groups decide: which packets hosts write down, for whom.
//!
//! ```text
//!  log (a group, a port, or all of a project) --> hosts of the ports that it means (host/message.rs)
//!      --> packet path notes --> the agent's file
//! ```
pub mod api;
pub mod model;
pub mod ops;
