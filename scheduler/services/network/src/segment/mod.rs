//! Segments: the layer-2 domains that a network is made of.
//!
//! ```text
//!  network --- its first segment (made with it, has the network's own number)
//!          '-- further segments, each with a number or a physical network of its own
//!  subnet  --- at most one segment. Once one subnet of a network has one, all have: the network is routed
//!  host    --- reaches every overlay segment, and the physical networks that its agent says
//! ```
//! A port of a routed network has its addresses of one segment. As long as nobody says which host it will be on, it has none
//! (`ip_allocation` is `deferred`); with the host it gets one that works there. Between segments there is a router, inside
//! or outside of the cloud: hosts are told each segment as a network by itself ([`crate::host`]).
pub mod api;
pub mod model;
pub mod ops;
pub mod peers;
pub mod reach;
pub mod room;
