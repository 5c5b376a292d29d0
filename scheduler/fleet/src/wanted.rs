//! From the parts to one numbered wanted state per host, sent when it changed.
//!
//! The generation is kept in the store beside the hash of what it numbers, so that it grows over restarts
//! of the scheduler and an unchanged state keeps its number.
//!
//! ```text
//!  feed ──► follow: news of neighbours, at once ──► compute: whom does a change concern? ──► states, in turns
//! ```
//! One task marks and computes in turn, so that no change is missed: a state is computed and what it was made of is
//! noted ([`HostPart`](crate::HostPart)) before the next changes are looked at.
use crate::{
    Affected, Fleet, Node,
    session::{Sent, Session},
};
use futures::StreamExt;
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
    /// How many of all hosts, by name, have had their turn of the comparison.
    compared: usize,
    /// Changes of which it is not known yet whom they concern.
    changes: Vec<Change>,
}

/// Changes that come together are answered together.
const COALESCE: Duration = Duration::from_millis(10);
/// Hosts are compared again this often, change or not: all of a small cloud, of a large one a part of so many.
const RESYNC: Duration = Duration::from_secs(30);
const SMALL: usize = 50;
const ROUND: usize = 20;
/// Changes that wait to be looked at; with more, everything is.
const CHANGES_MAX: usize = 100_000;
/// States that are computed before changes are looked at again, and how many of them at once.
const TURN: usize = 64;
const AT_ONCE: usize = 8;

impl Fleet {
    /// Compute this host's wanted state anew.
    pub fn touch(&self, host: &str) {
        self.dirty.lock().hosts.insert(host.to_owned());
        self.wake.notify_one();
    }

    /// A host has got another address: there are news without a change in the feed.
    pub fn nudge(&self) {
        self.moved.notify_one();
    }

    pub(crate) fn touch_all(&self) {
        self.dirty.lock().all = true;
        self.wake.notify_one();
    }

    fn leave_to_mark(&self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let mut dirty = self.dirty.lock();
        if dirty.changes.len() + changes.len() > CHANGES_MAX {
            dirty.changes.clear();
            dirty.all = true;
        } else {
            dirty.changes.extend(changes);
        }
        drop(dirty);
        self.wake.notify_one();
    }

    async fn mark(&self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        for part in self.parts() {
            match part.affected(changes).await {
                Affected::All => self.touch_all(),
                Affected::Hosts(hosts) => hosts.iter().for_each(|h| self.touch(h)),
            }
        }
    }

    /// Computes the next hosts' states; the rest wait for the next turn, with those that changes have made due meanwhile.
    async fn send_dirty(&self) {
        let turn: Vec<(String, Arc<Session>)> = {
            let mut dirty = self.dirty.lock();
            if std::mem::take(&mut dirty.all) {
                dirty.hosts.extend(self.sessions.hosts());
            }
            // Hosts without a session here are somebody else's.
            let next = std::iter::from_fn(|| dirty.hosts.pop_first());
            next.filter_map(|host| self.sessions.of_host(&host)).take(TURN).collect()
        };
        let work = turn.into_iter().map(|(node, session)| async move {
            if let Err(fault) = self.send_wanted(&node, &session).await {
                tracing::warn!(host = session.host, %fault, "wanted state could not be made");
                self.dirty.lock().hosts.insert(session.host.clone());
            }
        });
        futures::stream::iter(work).buffer_unordered(AT_ONCE).collect::<()>().await;
        if !self.dirty.lock().hosts.is_empty() {
            self.wake.notify_one();
        }
    }

    /// Everything is compared again in turns: all of a small cloud at once, a part of a large one.
    fn touch_some(&self) {
        let mut hosts = self.sessions.hosts();
        hosts.sort_unstable();
        let count = (hosts.len() / ROUND).max(SMALL).min(hosts.len());
        let mut dirty = self.dirty.lock();
        let from = if dirty.compared < hosts.len() { dirty.compared } else { 0 };
        let part = hosts.into_iter().skip(from).take(count);
        dirty.hosts.extend(part);
        dirty.compared = from + count;
        drop(dirty);
        self.wake.notify_one();
    }

    /// Computes, numbers and, when the agent does not have it yet, sends.
    async fn send_wanted(&self, node: &str, session: &Arc<Session>) -> Result<(), Fault> {
        let mut wanted = v1::Wanted::default();
        for part in self.parts() {
            let part = part.wanted(&session.host).await?;
            wanted.instances.extend(part.instances);
            wanted.volumes.extend(part.volumes);
            if let Some(network) = part.network {
                wanted.network = Some(network);
            }
        }
        let networks = wanted.network.iter().flat_map(|n| &n.networks).filter(|n| n.neighbours);
        let networks: BTreeSet<String> = networks.map(|n| n.id.clone()).collect();
        let hash: [u8; 32] = Sha256::digest(wanted.encode_to_vec()).into();
        if session.sent.lock().as_ref().is_some_and(|s| s.hash == hash) {
            self.listen(session, networks).await?;
            if let Some(ports) = session.still_reported() {
                for part in self.parts() {
                    part.unchanged(&session.host, &ports).await?;
                }
            }
            return self.settled(&session.host).await;
        }
        wanted.generation = self.number(node, &hex::encode(hash)).await?;
        tracing::debug!(
            host = session.host,
            generation = wanted.generation,
            instances = wanted.instances.len(),
            volumes = wanted.volumes.len(),
            "sending wanted state"
        );
        let instances = wanted.instances.iter().map(|i| &i.id);
        let things = instances.chain(wanted.volumes.iter().map(|v| &v.id)).cloned().collect();
        // Before it is sent: the answer may be quicker than we are.
        *session.sent.lock() = Some(Sent { hash, generation: wanted.generation, things });
        if !session.send(v1::scheduler_message::Body::Wanted(wanted)) {
            *session.sent.lock() = None;
        }
        self.listen(session, networks).await?;
        self.settled(&session.host).await
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
        for session in self.sessions.all() {
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

/// Follows the change feed: tells news of neighbours at once, and leaves the rest to [`compute`].
pub(crate) async fn follow(fleet: Arc<Fleet>, mut stop: watch::Receiver<bool>) {
    let mut feed = Feed::new(fleet.store.clone()).await;
    fleet.touch_all();
    loop {
        let batch = tokio::select! {
            () = pilvi_kit::server::stopped(&mut stop) => return,
            batch = feed.next() => batch,
            () = fleet.moved.notified() => Some(Vec::new()),
        };
        let Some(changes) = batch else {
            fleet.send_addresses().await;
            fleet.sessions.all().iter().for_each(|session| session.forget_node());
            for part in fleet.parts() {
                fleet.unsure(&*part);
            }
            continue;
        };
        for change in &changes {
            fleet.take_question(change);
            if change.kind == Node::KIND
                && let Some(session) = fleet.sessions.get(&change.id)
            {
                session.forget_node();
            }
        }
        if changes.iter().any(|change| change.kind == Peer::KIND) {
            fleet.send_addresses().await;
        }
        fleet.spread(&changes).await;
        fleet.leave_to_mark(changes);
    }
}

/// Keeps every connected agent's wanted state fresh.
pub(crate) async fn compute(fleet: Arc<Fleet>, mut stop: watch::Receiver<bool>) {
    let mut resync = tokio::time::interval(RESYNC);
    loop {
        tokio::select! {
            () = pilvi_kit::server::stopped(&mut stop) => return,
            _ = resync.tick() => fleet.touch_some(),
            () = fleet.wake.notified() => {
                tokio::time::sleep(COALESCE).await;
                let changes = std::mem::take(&mut fleet.dirty.lock().changes);
                fleet.mark(&changes).await;
                fleet.send_dirty().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // as in any test
    use super::*;
    use crate::{Config, HostPart, Part, certificate::Authority};
    use parking_lot::Mutex;
    use pilvi_store::Store;
    use tokio::sync::mpsc;

    /// Wants what it is told to, and notes which ports it is reminded of.
    #[derive(Default)]
    struct One {
        wanted: Mutex<Vec<v1::Instance>>,
        reminded: Mutex<Vec<Vec<String>>>,
    }

    #[async_trait::async_trait]
    impl HostPart for One {
        async fn wanted(&self, _host: &str) -> Result<Part, Fault> {
            Ok(Part { instances: self.wanted.lock().clone(), ..Part::default() })
        }
        async fn affected(&self, _changes: &[Change]) -> Affected {
            Affected::Hosts(BTreeSet::new())
        }
        async fn observed(&self, _host: &str, _observed: &v1::Observed) -> Result<(), Fault> {
            Ok(())
        }
        async fn unchanged(&self, _host: &str, ports: &[v1::ObservedPort]) -> Result<(), Fault> {
            self.reminded.lock().push(ports.iter().map(|port| port.id.clone()).collect());
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_an_agent_said_counts_again_where_nothing_new_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open("sqlite::memory:", crate::kinds()).await.unwrap();
        let fleet = Fleet::new(store, Authority::open(folder.path()).unwrap(), Config::default());
        let service = Arc::new(One::default());
        fleet.add_part(service.clone());
        let (send, _queue) = mpsc::channel(8);
        let session = Arc::new(Session::new("h".into(), send));
        let says = |generation, port: &str| {
            let ports = vec![v1::ObservedPort { id: port.into(), wired: true, ..v1::ObservedPort::default() }];
            session.heard_of(&v1::Observed { generation, ports, ..v1::Observed::default() });
        };
        fleet.send_wanted("n", &session).await.unwrap();
        // The agent has not spoken yet: its word is to come.
        fleet.send_wanted("n", &session).await.unwrap();
        assert!(service.reminded.lock().is_empty());
        says(1, "a");
        fleet.send_wanted("n", &session).await.unwrap();
        assert_eq!(std::mem::take(&mut *service.reminded.lock()), [["a"]]);
        // Something else is wanted: what was said before was not about that.
        service.wanted.lock().push(v1::Instance::default());
        fleet.send_wanted("n", &session).await.unwrap();
        fleet.send_wanted("n", &session).await.unwrap();
        assert!(service.reminded.lock().is_empty());
        says(2, "b");
        fleet.send_wanted("n", &session).await.unwrap();
        assert_eq!(*service.reminded.lock(), [["b"]]);
    }
}
