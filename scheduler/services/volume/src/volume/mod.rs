//! Volumes: what they are made of, what is done with them, and where they lie.
pub mod action_api;
pub mod admin_api;
pub mod api;
pub mod attach_api;
mod change_api;
pub mod create;
pub mod filter;
pub mod image;
pub mod metadata_api;
pub mod model;
pub mod ops;
pub mod reconcile;
mod upload;
pub mod view;
