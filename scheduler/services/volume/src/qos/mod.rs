//! QoS specs: what is promised with types of volumes.
pub mod api;
