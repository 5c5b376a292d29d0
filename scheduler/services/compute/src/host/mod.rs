//! Hosts as compute sees them: their part of wanted state, their resources in placement, and the segments that they reach.
pub mod part;
pub mod provider;
pub mod segment;
