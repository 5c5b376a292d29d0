//! The endpoints of a network as far as they must add up: a number for each, not the endpoint. Ten thousand hosts that know a
//! thousand each would be more than the machine's memory.
use pilvi_agent_api::{neighbours::weight, v1::Neighbours};
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

#[derive(Default)]
pub struct Room {
    /// Hash of the port's id -> what it adds to the version.
    members: HashMap<u64, u64>,
    version: u64,
}

fn key(port: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    port.hash(&mut hasher);
    hasher.finish()
}

impl Room {
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// As `pilvi_agent_api::neighbours::Room::apply`; false where it does not add up.
    pub fn apply(&mut self, news: &Neighbours) -> bool {
        if !news.whole && news.before != self.version {
            return false;
        }
        if news.whole {
            *self = Room::default();
        }
        for port in &news.gone {
            let former = self.members.remove(&key(port)).unwrap_or_default();
            self.version = self.version.wrapping_sub(former);
        }
        for remote in &news.changed {
            let weight = weight(remote);
            let former = self.members.insert(key(&remote.port_id), weight).unwrap_or_default();
            self.version = self.version.wrapping_add(weight).wrapping_sub(former);
        }
        self.version == news.after
    }
}
