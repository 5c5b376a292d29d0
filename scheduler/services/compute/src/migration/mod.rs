//! Migrations: a server goes to another host while it runs; or while it is off, see [`cold`].
//!
//! ```text
//!  POST os-migrateLive -> claim on both hosts, ports prepared there, server.moving, task migrating   one transaction
//!    preparing   host there: a process waits, at this address
//!    running     host here: on its way
//!    completed   host there: it runs      -> ports, claim and server follow it               one transaction
//!    failed      either host: it did not  -> what was prepared is taken back, it runs on here one transaction
//!    cancelled   DELETE: the same, once the host here says that it runs on
//! ```
//! Both hosts are told by their wanted sets, and what they say decides ([`model`]); a scheduler that dies in between
//! leaves nothing that the next observation does not finish. The id of the migration names it everywhere.
pub mod api;
pub mod cold;
pub mod cold_api;
pub mod model;
pub mod ops;
