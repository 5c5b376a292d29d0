//! Ports: interfaces, their addresses and where they are wired.
mod address_list;
pub mod allocation;
pub mod api;
pub mod binding;
pub mod leg;
pub mod model;
pub mod name;
pub mod ops;
