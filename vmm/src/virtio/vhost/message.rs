//! Messages of the vhost-user protocol, as its specification numbers them: a head of twelve bytes, then what belongs to it.
//!
//! ```text
//!   u32 request │ u32 flags: version 1, reply, reply wanted │ u32 bytes that follow
//! ```

/// Bytes of the head.
pub const HEAD: usize = 12;
/// Longest body that is taken from a backend: a configuration space with its place.
pub const BODY_MAX: usize = 512;

const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// Feature bit of a device: it writes down what it writes into guest memory.
pub const F_LOG_ALL: u64 = 1 << 26;
/// Feature bit of a device: there are protocol features.
pub const F_PROTOCOL: u64 = 1 << 30;

/// Protocol feature: more than one pair of queues.
pub const P_MQ: u64 = 1;
/// Protocol feature: the log is a shared file.
pub const P_LOG_SHMFD: u64 = 1 << 1;
/// Protocol feature: every message can be answered.
pub const P_REPLY_ACK: u64 = 1 << 3;
/// Protocol feature: the backend has requests of its own.
pub const P_BACKEND_REQ: u64 = 1 << 5;
/// Protocol feature: the backend has the configuration space.
pub const P_CONFIG: u64 = 1 << 9;
/// Protocol feature: requests under way are noted in a shared file.
pub const P_INFLIGHT: u64 = 1 << 12;
/// Protocol feature: the device can be reset.
pub const P_RESET_DEVICE: u64 = 1 << 13;
/// Protocol feature: the backend is told the device's status.
pub const P_STATUS: u64 = 1 << 16;

/// What the backend is asked or told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)] // the specification's names
pub enum Ask {
    GetFeatures = 1,
    SetFeatures = 2,
    SetOwner = 3,
    SetMemTable = 5,
    SetLogBase = 6,
    SetVringNum = 8,
    SetVringAddr = 9,
    SetVringBase = 10,
    GetVringBase = 11,
    SetVringKick = 12,
    SetVringCall = 13,
    GetProtocolFeatures = 15,
    SetProtocolFeatures = 16,
    GetQueueNum = 17,
    SetVringEnable = 18,
    SetBackendReqFd = 21,
    GetConfig = 24,
    SetConfig = 25,
    GetInflightFd = 31,
    SetInflightFd = 32,
    ResetDevice = 34,
    SetStatus = 39,
}

/// A backend's own request: the configuration space has changed.
pub const CONFIG_CHANGED: u32 = 2;

/// The head of a message, looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Which.
    pub request: u32,
    /// It is an answer.
    pub reply: bool,
    /// An answer is wanted.
    pub need_reply: bool,
    /// Bytes that follow.
    pub bytes: usize,
}

/// A message with this body.
pub fn message(ask: Ask, need_reply: bool, body: &[u8]) -> Vec<u8> {
    let flags = VERSION | if need_reply { NEED_REPLY } else { 0 };
    put(ask as u32, flags, body)
}

/// An answer to a request of the backend.
pub fn reply(request: u32, value: u64) -> Vec<u8> {
    put(request, VERSION | REPLY, &value.to_le_bytes())
}

pub(super) fn put(request: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + body.len());
    for word in [request, flags, body.len() as u32] {
        out.extend(word.to_le_bytes());
    }
    out.extend(body);
    out
}

/// Takes a head apart. None: another version, or longer than anything that is meant for us.
pub fn head(bytes: &[u8; HEAD]) -> Option<Head> {
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (flags, bytes) = (word(4), word(8) as usize);
    let known = flags & 3 == VERSION && bytes <= BODY_MAX;
    known.then(|| Head { request: word(0), reply: flags & REPLY != 0, need_reply: flags & NEED_REPLY != 0, bytes })
}

/// Words of 64 bits, one after the other.
pub fn longs(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Words of 32 bits, one after the other.
pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The first 64 bits of a body.
pub fn long(body: &[u8]) -> Option<u64> {
    body.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_layout_of_the_specification() {
        let bytes = message(Ask::SetVringNum, true, &words(&[1, 256]));
        assert_eq!(bytes, [8, 0, 0, 0, 9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0]);
        let answer = reply(CONFIG_CHANGED, 1);
        let found = head(answer.first_chunk().unwrap()).unwrap();
        assert_eq!(found, Head { request: 2, reply: true, need_reply: false, bytes: 8 });
        assert_eq!(long(&answer[HEAD..]), Some(1));
        // Another version, and more than anybody has to say.
        assert_eq!(head(&[1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(head(&[1, 0, 0, 0, 1, 0, 0, 0, 1, 2, 0, 0]), None);
    }
}
