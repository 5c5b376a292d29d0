//! A client of dynamic updates of the DNS (RFC 2136), each signed with a shared key (TSIG, RFC 8945). It knows no cloud:
//! the caller says what a name shall have and have no more.
//!
//! ```text
//!  Change ── one UPDATE ──TCP, signed──> primary server of the zone ── signed answer ──> done, or Trouble
//!            zone; "the name is not in use" where it is to be new; single records that go; single records that come
//! ```
//! Records go one by one, by their data: whatever else stands at a name, or comes there meanwhile, stays. Each exchange has
//! a connection of its own, a bound in time, and an answer of 64 KiB at most; an answer that is not signed as the question
//! was is no answer. The key is read from its file for each exchange, so that a new one needs no restart, and is never shown.
mod exchange;
pub mod key;
mod message;
#[cfg(feature = "testing")]
pub mod testing;

pub use key::Key;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// One record's data; its type follows from it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Data {
    /// A or AAAA.
    Address(IpAddr),
    /// PTR: a whole name.
    Pointer(String),
}

/// What is asked for at one name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    pub zone: String,
    pub name: String,
    /// Only if nothing at all stands at the name yet.
    pub new: bool,
    pub remove: Vec<Data>,
    pub add: Vec<Data>,
    pub ttl: u32,
}

/// Why nothing has changed, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    #[error("the name server {0} does not answer: {1}")]
    Silent(SocketAddr, String),
    #[error("the name server and we do not agree about the key: {0}")]
    Key(String),
    #[error("the name server does not take updates of the zone {zone}: {why}")]
    Zone { zone: String, why: String },
    #[error("{0} has records already that are not the cloud's")]
    Taken(String),
    #[error("no such question can be asked: {0}")]
    Impossible(String),
}

/// The primary server, and what signs.
#[derive(Debug, Clone)]
pub struct Server {
    pub address: SocketAddr,
    pub key_file: PathBuf,
    /// Of a whole exchange.
    pub patience: Duration,
}

impl Server {
    /// Asks for a change; done once the server has said so.
    pub async fn update(&self, change: &Change) -> Result<(), Trouble> {
        let question = message::update(change)?;
        let answer = self.exchange(question).await?;
        message::outcome(change, answer)
    }

    /// The addresses (or names, where `pointers`) that the server has at a name.
    pub async fn look(&self, zone: &str, name: &str, pointers: bool) -> Result<Vec<Data>, Trouble> {
        let mut found = Vec::new();
        for question in message::questions(name, pointers)? {
            found.extend(message::found(zone, name, self.exchange(question).await?)?);
        }
        Ok(found)
    }
}
