//! The endpoints of one network, kept alike at both ends.
//!
//! ```text
//! scheduler: set, remove ---> news (before, after, what changed) ---> agent: apply --> the same set
//!                        '--> whole (after)                                 '--> Mismatch: asks for the whole
//! ```
//! A version is the sum of its members' hashes: it depends on the set alone, so it holds over restarts of either end
//! and at another scheduler, and costs nothing to keep.
use crate::v1::{Neighbours, Remote};
use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Endpoints by the ids of their ports.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Room {
    members: BTreeMap<String, Remote>,
    version: u64,
}

/// [`Neighbours`] as they are sent: made once for all that are told alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    pub network_id: String,
    /// Version that the change is made to; nothing of the kind for all members.
    pub before: Option<u64>,
    pub after: u64,
    pub message: Bytes,
}

impl From<Neighbours> for News {
    fn from(news: Neighbours) -> Self {
        let message = news.encode_to_vec().into();
        let before = (!news.whole).then_some(news.before);
        News { network_id: news.network_id, before, after: news.after, message }
    }
}

/// News that do not fit what is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mismatch;

/// What one member adds to the version.
#[must_use]
pub fn weight(remote: &Remote) -> u64 {
    let hash: [u8; 32] = Sha256::digest(remote.encode_to_vec()).into();
    hash[..8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

impl Room {
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn members(&self) -> impl Iterator<Item = &Remote> {
        self.members.values()
    }

    #[must_use]
    pub fn get(&self, port: &str) -> Option<&Remote> {
        self.members.get(port)
    }

    /// Adds or replaces; false when it was there just so.
    pub fn set(&mut self, remote: Remote) -> bool {
        if self.members.get(&remote.port_id) == Some(&remote) {
            return false;
        }
        self.version = self.version.wrapping_add(weight(&remote));
        if let Some(former) = self.members.insert(remote.port_id.clone(), remote) {
            self.version = self.version.wrapping_sub(weight(&former));
        }
        true
    }

    /// False when there was no such member.
    pub fn remove(&mut self, port: &str) -> bool {
        let Some(former) = self.members.remove(port) else { return false };
        self.version = self.version.wrapping_sub(weight(&former));
        true
    }

    /// All of it, for one who has none or another version.
    #[must_use]
    pub fn whole(&self, network: &str) -> Neighbours {
        Neighbours {
            network_id: network.to_owned(),
            whole: true,
            before: 0,
            after: self.version,
            changed: self.members.values().cloned().collect(),
            gone: Vec::new(),
        }
    }

    /// Takes up what the other end says.
    ///
    /// # Errors
    /// [`Mismatch`] when that was said of another version, and nothing has changed; or when it does not add up, and all of
    /// it must be told.
    pub fn apply(&mut self, news: Neighbours) -> Result<(), Mismatch> {
        if !news.whole && news.before != self.version {
            return Err(Mismatch);
        }
        if news.whole {
            *self = Room::default();
        }
        for port in &news.gone {
            self.remove(port);
        }
        for remote in news.changed {
            self.set(remote);
        }
        if self.version == news.after { Ok(()) } else { Err(Mismatch) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(port: &str, vtep: &str) -> Remote {
        Remote { port_id: port.into(), network_id: "n".into(), vtep: vtep.into(), ..Remote::default() }
    }

    #[test]
    fn a_version_depends_on_the_set_alone() {
        let (mut one, mut other) = (Room::default(), Room::default());
        assert!(one.set(remote("a", "1")) && one.set(remote("b", "1")) && !one.set(remote("b", "1")));
        assert!(other.set(remote("b", "2")) && other.set(remote("c", "1")) && other.set(remote("a", "1")));
        assert_ne!(one.version(), other.version());
        assert!(other.remove("c") && !other.remove("c") && other.set(remote("b", "1")));
        assert_eq!(one, other);
        assert!(one.remove("a") && one.remove("b"));
        assert_eq!(one, Room::default());
    }

    #[test]
    fn both_ends_keep_the_same_or_find_out() {
        let (mut here, mut there) = (Room::default(), Room::default());
        here.set(remote("a", "1"));
        there.apply(here.whole("n")).unwrap();
        let before = here.version();
        here.set(remote("b", "1"));
        here.remove("a");
        let news = Neighbours {
            network_id: "n".into(),
            whole: false,
            before,
            after: here.version(),
            changed: vec![remote("b", "1")],
            gone: vec!["a".into()],
        };
        there.apply(news.clone()).unwrap();
        assert_eq!(here, there);
        assert_eq!(there.apply(news.clone()), Err(Mismatch), "said twice");
        let mut other = Room::default();
        other.set(remote("z", "1"));
        assert_eq!(other.apply(news), Err(Mismatch));
        assert_eq!(other.apply(Neighbours { after: 7, ..here.whole("n") }), Err(Mismatch), "it does not add up");
        other.apply(here.whole("n")).unwrap();
        assert_eq!(here, other);
    }
}
