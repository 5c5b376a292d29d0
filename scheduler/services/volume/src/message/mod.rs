//! Messages to users: what failed after the call about it had been answered.
pub mod api;
pub mod ops;
