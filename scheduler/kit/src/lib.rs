//! What every service shares, and nothing of any one service.
//!
//! A service is data: a list of [`Route`]s (method, path, microversion range, schema, rule, handler),
//! a list of policy [`RuleDefault`]s, a way to render a [`Fault`] and, where it has them, microversions.
//! [`Service::mount`] checks that data once (a route without a known rule is refused there, at start)
//! and the kit does the rest for every request:
//!
//! ```text
//! TLS -> request id, trace -> rate limits -> match route -> microversion -> token -> JSON + schema -> rule -> handler
//!                                                                                            |
//!        audit, notifications, metrics, log <- headers (request id, version, Vary) <- Fault or Response <---+
//! ```
//!
//! The HTTP library shows only in [`server`], [`mod@dispatch`] and the two small types [`Call`] and
//! [`Response`]; service crates never see it.
pub mod audit;
pub mod auth;
pub mod body;
pub mod call;
pub mod clock;
pub mod dispatch;
pub mod fault;
pub mod fetch;
pub mod id;
pub mod metric;
pub mod navigator;
pub mod notify;
pub mod openapi;
pub mod page;
pub mod peer;
pub mod policy;
pub mod probe;
pub mod quota;
pub mod response;
pub mod route;
pub mod server;
pub mod service;
pub mod subject;
pub mod testing;
pub mod throttle;
mod token;
pub mod trace;
pub mod version;

pub use auth::{Caller, Scope};
pub use body::Schema;
pub use call::{Call, Ctx};
pub use fault::Fault;
pub use navigator::Documented;
pub use notify::EventStyle;
pub use policy::{RuleDefault, Target};
pub use response::{Reply, Response};
pub use route::Route;
pub use service::{Mounted, Service};
pub use version::{Microversions, Version};
