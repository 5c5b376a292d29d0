//! Why a session ends, as both sides tell each other: NOTIFICATION.
use crate::frame::{self, Kind};
use std::fmt;

/// Data of a notification that is looked at or sent.
const DATA_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    pub code: u8,
    pub subcode: u8,
    pub data: Vec<u8>,
}

impl Notification {
    pub const fn new(code: u8, subcode: u8) -> Self {
        Notification { code, subcode, data: Vec::new() }
    }
    pub fn with(code: u8, subcode: u8, data: &[u8]) -> Self {
        Notification { code, subcode, data: data.iter().take(DATA_MAX).copied().collect() }
    }

    /// The connection is not synchronised.
    pub const MARKER: Self = Self::new(1, 1);
    pub fn length(length: u16) -> Self {
        Self::with(1, 2, &length.to_be_bytes())
    }
    pub fn kind(kind: u8) -> Self {
        Self::with(1, 3, &[kind])
    }
    pub const OPEN_MALFORMED: Self = Self::new(2, 0);
    /// We speak version 4.
    pub fn version() -> Self {
        Self::with(2, 1, &[0, 4])
    }
    pub const WRONG_AS: Self = Self::new(2, 2);
    pub const WRONG_IDENTIFIER: Self = Self::new(2, 3);
    pub const OPTION_UNKNOWN: Self = Self::new(2, 4);
    pub const HOLD_TIME: Self = Self::new(2, 6);
    pub fn capability_needed(capability: &[u8]) -> Self {
        Self::with(2, 7, capability)
    }
    pub const ATTRIBUTES_MALFORMED: Self = Self::new(3, 1);
    pub const PREFIX_MALFORMED: Self = Self::new(3, 10);
    pub const SILENCE: Self = Self::new(4, 0);
    /// A message that the state does not expect: 1 in OpenSent, 2 in OpenConfirm, 3 in Established.
    pub const fn unexpected(state: u8) -> Self {
        Self::new(5, state)
    }
    /// The peering is no longer wanted.
    pub const GONE: Self = Self::new(6, 3);
    /// The peering is wanted otherwise.
    pub const CHANGED: Self = Self::new(6, 6);
    pub const REFRESH_LENGTH: Self = Self::new(7, 1);

    pub fn encode(&self) -> Vec<u8> {
        let mut body = vec![self.code, self.subcode];
        body.extend(&self.data);
        frame::put(Kind::Notification, &body)
    }

    /// Whatever the peer sent: its end is an end, also when it is badly put.
    pub fn read(body: &[u8]) -> Self {
        let byte = |at: usize| body.get(at).copied().unwrap_or(0);
        Self::with(byte(0), byte(1), body.get(2..).unwrap_or_default())
    }

    fn words(&self) -> &'static str {
        match (self.code, self.subcode) {
            (1, 1) => "not synchronised",
            (1, 2) => "bad message length",
            (1, 3) => "bad message type",
            (1, _) => "bad message header",
            (2, 1) => "unsupported version",
            (2, 2) => "bad peer AS",
            (2, 3) => "bad BGP identifier",
            (2, 4) => "unsupported optional parameter",
            (2, 5) => "authentication failed",
            (2, 6) => "unacceptable hold time",
            (2, 7) => "a needed capability is missing",
            (2, _) => "bad OPEN",
            (3, _) => "bad UPDATE",
            (4, _) => "hold timer expired",
            (5, _) => "unexpected message",
            (6, 1) => "maximum number of prefixes",
            (6, 2) => "administrative shutdown",
            (6, 3) => "peer de-configured",
            (6, 4) => "administrative reset",
            (6, 5) => "connection rejected",
            (6, 6) => "other configuration change",
            (6, 7) => "connection collision",
            (6, 8) => "out of resources",
            (6, _) => "cease",
            (7, _) => "bad ROUTE-REFRESH",
            _ => "unknown reason",
        }
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}/{})", self.words(), self.code, self.subcode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_read_however_it_is_put() {
        assert_eq!(Notification::read(&[]), Notification::new(0, 0));
        let long = Notification::read(&[6; 4000]);
        assert_eq!((long.code, long.subcode, long.data.len()), (6, 6, DATA_MAX));
        assert_eq!(Notification::GONE.to_string(), "peer de-configured (6/3)");
    }
}
