//! Resource classes: the standard ones, and `CUSTOM_...` ones that operators make.
pub mod api;
pub mod model;
pub mod ops;
mod view;
