//! The reshaper: inventories and the allocations on them move between providers in one step, as when a
//! host starts to tell its devices as children of its own.
pub mod api;
pub mod ops;
mod view;
