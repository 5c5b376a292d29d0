//! A BGP speaker that announces and never learns (RFC 4271): it dials its peers, tells them routes, and keeps
//! what it has told equal to what is wanted. It knows no cloud: the caller hands over peerings and routes.
//!
//! ```text
//!            .--------------------------- back-off, doubling ---------------------------------.
//!            v                                                                                |
//!  Idle --> Connect --TCP is up: OPEN--> OpenSent --OPEN is good: KEEPALIVE--> OpenConfirm     |
//!            |                              |                                      | KEEPALIVE |
//!            | refused, no answer           | NOTIFICATION, bad message, silence   v          |
//!            '------------------------------'----------------- <------------- Established ----'
//!                                                                              | differences as UPDATE, then End-of-RIB
//! ```
//! There is no Active state: nobody is let in, so two connections never meet. A peering is of one family (IPv4 or
//! IPv6 routes), whatever family its connection is of.
//!
//! | offered in the OPEN | |
//! | --- | --- |
//! | one family (RFC 4760) | the peer must take it |
//! | AS numbers of four octets (RFC 6793) | a peer of two octets is told `AS_TRANS` and the real path beside it |
//! | route refresh (RFC 2918) | everything is told again |
//! | graceful restart (RFC 4724) | what forwards packets does not restart with the speaker: routes stay while it does |
//!
//! What a peer sends is hostile: messages are bounded, checked whole, and then forgotten but for their meaning to the
//! session. Connections may be signed (RFC 2385): how a socket is told the key is the caller's.
mod connect;
mod frame;
pub mod hostile;
mod notification;
mod open;
mod peer;
mod rib;
mod session;
mod speaker;
#[cfg(feature = "testing")]
pub mod testing;
mod update;

pub use connect::Sign;
pub use rib::Routes;
pub use session::State;
pub use speaker::{Shown, Speakers};

use std::net::{IpAddr, Ipv4Addr};

/// Which kind of routes a peering is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    fn afi(self) -> u16 {
        match self {
            Family::V4 => 1,
            Family::V6 => 2,
        }
    }
}

/// Unicast.
const SAFI: u8 = 1;
/// What stands for a number of four octets where two are known.
const AS_TRANS: u16 = 23456;

/// A key that is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(pub String);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// One session as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peering {
    pub local_as: u32,
    /// Not 0.0.0.0.
    pub identifier: Ipv4Addr,
    pub family: Family,
    pub peer: IpAddr,
    pub port: u16,
    /// Where the connection comes from; `None`: as the routes of this host have it.
    pub source: Option<IpAddr>,
    pub remote_as: u32,
    pub key: Option<Key>,
    /// Seconds of silence that end the session: 0 (none) or at least 3.
    pub hold: u16,
    /// Seconds that the peer is asked to keep routes when the connection breaks; 0: not at all.
    pub restart: u16,
}

impl Peering {
    fn is_internal(&self) -> bool {
        self.local_as == self.remote_as
    }
}
