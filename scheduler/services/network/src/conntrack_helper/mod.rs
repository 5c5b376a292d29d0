//! Conntrack helpers of routers: protocols whose answers come from where nobody was asked, so that source NAT has to be told
//! of them.
//!
//! ```text
//!  router, udp, port 69: tftp --> a guest's question to that port --> the answer of the same host, from any port, gets in
//! ```
//! Only what the packet path can do is offered. `tftp` is; `ftp` in its active form would have addresses rewritten inside a
//! TCP stream, which changes its length, and its passive form needs no helper.
pub mod api;
pub mod model;
pub mod ops;
