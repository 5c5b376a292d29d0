//! Which scheduler holds a host's session.
//!
//! ```text
//!  Hello --seize host/<node>--> ours, a new epoch: what an older session still says is fenced
//!        --released-----------> nobody's: the scheduler that watches over the hosts judges the silence
//!  the holder dies -----------> the same, from when that is noticed; the agent connects to another meanwhile
//! ```
//! The lease has no time of its own: it is worth what its holder's membership is worth. Without a member (a program that
//! only looks, a test) the fleet counts as the only one.
use crate::{Fleet, session::Session};
use pilvi_kit::{Fault, clock};
use pilvi_reconcile::{Member, Peer};
use pilvi_store::{Guard, Holding};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

const HOST: &str = "host/";
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// Whose session it is when there is no member.
const ALONE: &str = "alone";

fn lease_of(node: &str) -> String {
    format!("{HOST}{node}")
}

/// The scheduler in a holder's name, `<scheduler>/<session>`.
fn scheduler_of(holding: &Holding) -> &str {
    holding.holder.split('/').next().unwrap_or_default()
}

impl Fleet {
    /// Tells the fleet which scheduler it belongs to. Before [`Fleet::run`].
    pub fn set_member(&self, member: Arc<Member>) {
        let _ = self.hosts_job.set(member.job("fleet.hosts"));
        let _ = self.member.set(member);
    }

    pub(crate) fn scheduler_id(&self) -> Arc<str> {
        self.member.get().map_or_else(|| ALONE.into(), |m| m.id())
    }

    /// Is it ours to judge hosts that nobody has a session with?
    pub(crate) fn watches_hosts(&self) -> bool {
        self.hosts_job.get().is_none_or(|job| job.held())
    }

    /// Schedulers that live.
    pub(crate) async fn living(&self) -> Result<Vec<Peer>, Fault> {
        match self.member.get() {
            Some(member) => Ok(member.living().await?),
            None => Ok(Vec::new()),
        }
    }

    /// Makes a session the host's only one.
    pub(crate) async fn own(&self, node: &str, session: &Arc<Session>) -> Result<Guard, Fault> {
        let holder = format!("{}/{}", self.scheduler_id(), session.id);
        let lease = self.store.seize(&lease_of(node), &holder, FOREVER).await?;
        *session.holder.lock() = Some(holder);
        self.sessions.insert(node, session);
        Ok(Guard { lease: lease_of(node).into(), epoch: lease.epoch })
    }

    /// Gives a session's host back, with the time it was last heard of. Does nothing if a newer session has it.
    pub(crate) async fn disown(&self, node: &str, session: &Arc<Session>) {
        self.sessions.remove_this(node, session);
        let Some(holder) = session.holder.lock().take() else { return };
        let heard = session.heard_us();
        let noted = self.update_node(node, move |node| {
            let newer = heard > node.last_seen_us;
            node.last_seen_us = node.last_seen_us.max(heard);
            newer
        });
        let given = match noted.await {
            Ok(_) => self.store.release(&lease_of(node), &holder).await.map_err(Fault::from),
            Err(fault) => Err(fault),
        };
        if let Err(fault) = given {
            tracing::warn!(node, %fault, "the end of a session could not be noted");
        }
    }

    /// Is this session still the host's?
    pub(crate) async fn owns(&self, node: &str, session: &Session) -> Result<bool, Fault> {
        let holder = session.holder.lock().clone();
        let held = self.store.holdings(&lease_of(node)).await?;
        Ok(held.iter().any(|h| h.name == lease_of(node) && Some(&h.holder) == holder.as_ref()))
    }

    /// Id of the scheduler that holds a host's session, dead or alive.
    pub(crate) async fn holder_of(&self, node: &str) -> Result<Option<String>, Fault> {
        let held = self.store.holdings(&lease_of(node)).await?;
        Ok(held.iter().find(|h| h.name == lease_of(node)).map(|h| scheduler_of(h).to_owned()))
    }

    /// Node -> the living scheduler that holds its session.
    pub(crate) async fn live_holders(&self) -> Result<BTreeMap<String, String>, Fault> {
        let mut living: BTreeSet<String> = self.living().await?.into_iter().map(|peer| peer.id).collect();
        living.insert(self.scheduler_id().to_string());
        let held = self.store.holdings(HOST).await?;
        let live = held.iter().filter(|h| living.contains(scheduler_of(h)));
        Ok(live.map(|h| (h.name[HOST.len()..].to_owned(), scheduler_of(h).to_owned())).collect())
    }

    /// Ends every session: this scheduler was declared dead, and others may have its hosts.
    pub(crate) fn end_sessions(&self) {
        self.sessions.take().iter().for_each(|session| session.end());
    }

    /// A host was removed: its session's lease goes with it.
    pub(crate) async fn forget_owner(&self, node: &str) -> Result<(), Fault> {
        for held in self.store.holdings(&lease_of(node)).await? {
            if held.name == lease_of(node) {
                self.store.forget_lease(&held.name, &held.holder).await?;
            }
        }
        Ok(())
    }

    /// Where agents reach the schedulers that live, this one first.
    pub async fn addresses(&self) -> Result<Vec<String>, Fault> {
        let me = self.scheduler_id();
        let mut peers = self.living().await?;
        peers.sort_by_key(|peer| *peer.id != *me);
        Ok(peers.into_iter().map(|peer| peer.address).filter(|a| !a.is_empty()).collect())
    }
}

/// When hosts that nobody holds were first seen so.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    since: BTreeMap<String, i64>,
}

impl Orphans {
    /// Microseconds of the last word of a host without a session; it gets its time from when that was noticed.
    pub fn heard(&mut self, node: &str, last_seen_us: i64) -> i64 {
        last_seen_us.max(*self.since.entry(node.to_owned()).or_insert_with(clock::now_us))
    }

    pub fn keep_only(&mut self, orphans: &BTreeSet<String>) {
        self.since.retain(|node, _| orphans.contains(node));
    }
}
