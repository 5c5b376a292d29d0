//! From the parts to one numbered wanted state per host, sent when it changed.
//!
//! The generation is kept in the store beside the hash of what it numbers, so that it grows over restarts
//! of the scheduler and an unchanged state keeps its number.
use crate::{
    Affected, Fleet, Node,
    session::{Sent, Session},
};
use pilvi_agent_api::v1;
use pilvi_kit::Fault;
use pilvi_reconcile::{Feed, Peer};
use pilvi_store::{Change, Record};
use prost::Message;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::sync::watch;

/// The number of a host's wanted state.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WantedRecord {
    /// Of the node.
    pub id: String,
    pub generation: u64,
    /// SHA-256, hex, of the state without its number.
    pub hash: String,
}

impl Record for WantedRecord {
    const KIND: &'static str = "fleet_wanted";
    fn id(&self) -> &str {
        &self.id
    }
}

/// Hosts to compute anew, by name.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    all: bool,
    hosts: BTreeSet<String>,
}

/// Changes that come together are answered together.
const COALESCE: Duration = Duration::from_millis(10);
/// Everything is compared again this often, change or not.
const RESYNC: Duration = Duration::from_secs(30);

impl Fleet {
    /// Compute this host's wanted state anew.
    pub fn touch(&self, host: &str) {
        self.dirty.lock().hosts.insert(host.to_owned());
        self.wake.notify_one();
    }

    fn touch_all(&self) {
        self.dirty.lock().all = true;
        self.wake.notify_one();
    }

    async fn mark(&self, changes: &[Change]) {
        for change in changes {
            for part in self.parts() {
                match part.affected(change).await {
                    Affected::None => {}
                    Affected::All => self.touch_all(),
                    Affected::Hosts(hosts) => hosts.iter().for_each(|h| self.touch(h)),
                }
            }
        }
    }

    async fn send_dirty(&self) {
        let dirty = std::mem::take(&mut *self.dirty.lock());
        let nodes = match self.nodes().await {
            Ok(nodes) => nodes,
            Err(fault) => {
                tracing::warn!(%fault, "listing hosts failed");
                return;
            }
        };
        for node in nodes {
            let Some(session) = self.session(&node.id) else { continue };
            if !dirty.all && !dirty.hosts.contains(&node.name) {
                continue;
            }
            if let Err(fault) = self.send_wanted(&node, &session).await {
                tracing::warn!(host = node.name, %fault, "wanted state could not be made");
                self.dirty.lock().hosts.insert(node.name.clone());
            }
        }
    }

    /// Computes, numbers and, when the agent does not have it yet, sends.
    async fn send_wanted(&self, node: &Node, session: &Session) -> Result<(), Fault> {
        let mut wanted = v1::Wanted::default();
        for part in self.parts() {
            let part = part.wanted(&node.name).await?;
            wanted.instances.extend(part.instances);
            if let Some(network) = part.network {
                wanted.network = Some(network);
            }
        }
        let hash: [u8; 32] = Sha256::digest(wanted.encode_to_vec()).into();
        if session.sent.lock().as_ref().is_some_and(|s| s.hash == hash) {
            return self.settled(&node.name).await;
        }
        wanted.generation = self.number(&node.id, &hex::encode(hash)).await?;
        tracing::debug!(
            host = node.name,
            generation = wanted.generation,
            instances = wanted.instances.len(),
            "sending wanted state"
        );
        let instances = wanted.instances.iter().map(|i| i.id.clone()).collect();
        // Before it is sent: the answer may be quicker than we are.
        *session.sent.lock() = Some(Sent { hash, generation: wanted.generation, instances });
        if !session.send(v1::scheduler_message::Body::Wanted(wanted)) {
            *session.sent.lock() = None;
        }
        self.settled(&node.name).await
    }

    pub(crate) async fn settled(&self, host: &str) -> Result<(), Fault> {
        for part in self.parts() {
            part.settled(host).await?;
        }
        Ok(())
    }

    /// Tells every connected agent where schedulers are.
    async fn send_addresses(&self) {
        let addresses = match self.addresses().await {
            Ok(addresses) => addresses,
            Err(fault) => {
                tracing::warn!(%fault, "the schedulers' addresses are not known");
                return;
            }
        };
        let sessions: Vec<_> = self.sessions.lock().values().cloned().collect();
        for session in sessions {
            let urls = addresses.clone();
            session.send(v1::scheduler_message::Body::Schedulers(v1::Schedulers { urls }));
        }
    }

    async fn number(&self, node: &str, hash: &str) -> Result<u64, Fault> {
        let (node, hash) = (node.to_owned(), hash.to_owned());
        self.store
            .write(move |tx| {
                let (node, hash) = (node.clone(), hash.clone());
                Box::pin(async move {
                    let Some(mut known) = tx.get::<WantedRecord>(&node).await? else {
                        tx.insert(&WantedRecord { id: node, generation: 1, hash }).await?;
                        return Ok::<_, Fault>(1);
                    };
                    if known.record.hash != hash {
                        known.record.generation += 1;
                        known.record.hash = hash;
                        known = tx.update(&known).await?;
                    }
                    Ok(known.record.generation)
                })
            })
            .await
    }
}

/// Follows the change feed and keeps every connected agent's wanted state fresh.
pub(crate) async fn run(fleet: Arc<Fleet>, mut stop: watch::Receiver<bool>) {
    let mut feed = Feed::new(fleet.store.clone()).await;
    fleet.touch_all();
    let mut resync = tokio::time::interval(RESYNC);
    loop {
        tokio::select! {
            () = pilvi_kit::server::stopped(&mut stop) => return,
            _ = resync.tick() => fleet.touch_all(),
            batch = feed.next() => match batch {
                Some(changes) => {
                    changes.iter().for_each(|change| fleet.take_question(change));
                    if changes.iter().any(|change| change.kind == Peer::KIND) {
                        fleet.send_addresses().await;
                    }
                    fleet.mark(&changes).await;
                }
                None => {
                    fleet.send_addresses().await;
                    fleet.touch_all();
                }
            },
            () = fleet.wake.notified() => {
                tokio::time::sleep(COALESCE).await;
                fleet.send_dirty().await;
            }
        }
    }
}
