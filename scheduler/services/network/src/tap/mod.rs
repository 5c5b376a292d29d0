//! Taps: copies of what ports send and get, for a port that looks at them (TaaS), or for a collector outside.
//!
//! ```text
//!  tap flow: source port, IN | OUT | BOTH --> tap service: the port that looks --> every frame once more, as it was
//!  tap mirror: port, a number for each way --> an address outside              --> the same, in GRE or ERSPAN with that number
//! ```
//! Both ports are of one project. On one host a copy goes from device to device; to another it goes over the overlay under a
//! number that is the service's own, so that no network's tables can take it for theirs. Copies pass no groups on their way in,
//! and are never copied again.
pub mod flow;
pub mod mirror;
pub mod model;
pub mod ops;
pub mod service;
