//! Networks: one folder per role, as in every resource here.
pub mod api;
pub mod model;
pub mod ops;
pub mod private;
pub(crate) mod provider;
pub mod vlan;
