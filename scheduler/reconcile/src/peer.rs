//! What a scheduler says of itself to the others of its store.
use pilvi_store::{KindSpec, Record};
use serde::{Deserialize, Serialize};

/// One start of one scheduler; the record lives as long as the process, and until its death is settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// New with each start.
    pub id: String,
    /// Of the scheduler, the same at each start; for people.
    pub name: String,
    pub version: String,
    /// Where agents reach it: `https://host:port`.
    pub address: String,
    /// What the directory of image bytes is marked with; two that share it read the same mark.
    pub images: String,
    /// Microseconds since 1970.
    pub started_us: i64,
}

impl Record for Peer {
    const KIND: &'static str = "scheduler_peer";
    fn id(&self) -> &str {
        &self.id
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
}

/// The record kinds of this crate.
pub fn kinds() -> Vec<KindSpec> {
    vec![KindSpec::of::<Peer>()]
}
