//! Routers that keep spare ways (`ha`): which hosts stand by for a router's way out, in which order, and the ports that say so.
//!
//! ```text
//!  `ha`, no way out   nothing but the project's HA network
//!  `ha`, a way out    up to three candidates, each a port on the HA network (binding:host_id: which host; ACTIVE: it lives)
//!                       |-- highest priority that lives ------> active: holds the way out, every host sends there
//!                       |-- the others -----------------------> standby, take over in order, and give back
//!                       '-- none of them lives ----------------> whoever the hash over all hosts names stands in
//!  not `ha`           no candidates: always the hash over all hosts
//! ```
//! Candidates are the live hosts whose hash with the router is the greatest, as long as nobody says otherwise: becoming `ha` moves
//! nothing. From then on they stay: a host that joins takes no way out from another, as it does where the hash decides. One that
//! leaves the cloud, or the wire that the router goes out by, is replaced; one that is down is not, for it may come back.
//! Operators add, take away and reorder candidates as those of an L3 agent (`/v2.0/agents/{id}/l3-routers`).
//!
//! What a router must not have any longer goes in the transaction that changes it ([`ops::follow_in`]); what it lacks, and what
//! happens to hosts, is for a reconciler ([`keeper`]). Until it has come by, the hash holds, and names the host that will be first.
pub mod keeper;
pub mod model;
pub mod network;
pub mod ops;

pub use keeper::Keeper;
