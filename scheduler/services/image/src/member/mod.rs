//! Members: projects that an image is shared with, and whether they want it in their lists.
pub mod api;
pub mod model;
pub mod ops;
mod view;
