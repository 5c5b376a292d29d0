//! Hosts as the volume service sees them: their part of wanted state, what they offer, what an operator lets them do.
pub mod backend;
pub mod part;
pub mod service;
