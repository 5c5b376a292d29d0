//! NDP proxies: IPv6 addresses of guests that a router answers neighbours for on its external network.
//!
//! ```text
//!  router (enable_ndp_proxy) -- answers for, and lets in --> addresses with a proxy        nothing else comes in
//! ```
//! The outside and the inside are in one address scope: nothing is translated. A router without the flag is as before: the
//! provider routes the prefixes of its inside to it.
pub mod api;
pub mod model;
pub mod ops;
