//! Interoperable import: bytes come in by one way, are worked on and checked in the background, become the image's.
//!
//! | method | from |
//! | --- | --- |
//! | `glance-direct` | what a client staged |
//! | `web-download` | a URL that passes the operator's filter |
//! | `glance-download` | the image service of a region, with the caller's token |
//! | `copy-image` | the image itself, to stores that do not have it |
//!
//! `ops` checks, takes the image for a task and starts `run`; `download` brings bytes; what becomes of them on the
//! way is `plugin`'s business.
pub mod api;
pub mod config;
pub mod download;
pub mod model;
pub mod ops;
pub mod request;
mod run;

pub use config::ImportConfig;
pub use request::METHODS;
