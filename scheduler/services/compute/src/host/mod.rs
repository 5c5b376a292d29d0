//! Hosts as compute sees them: their part of wanted state, and their resources in placement.
pub mod part;
pub mod provider;
