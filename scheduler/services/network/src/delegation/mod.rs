//! Prefix delegation: subnets whose prefix the provider lends (`subnetpool_id` is `prefix_delegation`).
//!
//! ```text
//!  create        ::/64, which no host is told of
//!  attach        the router's host asks (DHCPv6, in netdev) --> observe: the prefix becomes the subnet's, and every address in
//!                it one of the prefix; guests hear it from their router
//!  renew         the host says until when --> hosts, so that no guest believes longer
//!  lost          observe: back to ::/64
//!  detach        back to ::/64 at once; the host gives the prefix back, and says that it has
//! ```
//! A router asks that has a leg in the subnet and a way out with an IPv6 address; of several, the one that has a prefix, or the
//! first one by its id. When its
//! way out moves, the next host is told what there was and asks on under the same name.
pub mod model;
pub mod observe;
pub mod ops;
