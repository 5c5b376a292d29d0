//! Floating IPs as compute spelled them before there was a network service (until 2.35; actions until 2.43).
pub mod api;
