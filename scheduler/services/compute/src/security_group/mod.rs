//! Security groups as compute spelled them before there was a network service (until 2.35).
pub mod api;
