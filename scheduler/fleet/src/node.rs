//! A host's record, and the watch over its life.
use crate::{Fleet, ownership::Orphans};
use pilvi_agent_api::v1;
use pilvi_kit::{Fault, clock};
use pilvi_store::{Claim, Query, Record, Stored};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Has a certificate, has never had a session.
    Registered,
    Up,
    Down,
}

impl NodeState {
    pub fn as_str(self) -> &'static str {
        match self {
            NodeState::Registered => "registered",
            NodeState::Up => "up",
            NodeState::Down => "down",
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Node {
    /// UUID; the common name of its certificate.
    pub id: String,
    /// Host name, unique.
    pub name: String,
    pub state: NodeState,
    /// SHA-256 of its certificate's DER, hex: an older certificate of the same node is refused.
    pub fingerprint: String,
    pub agent_version: String,
    pub boot_id: String,
    /// Microseconds since 1970.
    pub last_seen_us: i64,
    pub inventory: NodeInventory,
    /// No new servers here, by an operator's wish.
    pub disabled: bool,
    pub disabled_reason: Option<String>,
    /// An operator knows that the host is dead.
    pub forced_down: bool,
}

/// As the agent reported it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInventory {
    pub vcpus: u32,
    pub memory_mib: u64,
    pub disk_gib: u64,
    pub cpu_model: String,
    pub cpu_arch: String,
    pub traits: Vec<String>,
    /// (name, usable, reason)
    pub runtimes: Vec<(String, bool, String)>,
    pub vtep: String,
    pub hypervisor_version: String,
    pub host_ip: String,
    /// What of its link may be promised, by the classes of placement.
    #[serde(default)]
    pub link: BTreeMap<String, u64>,
    /// The physical networks that it is connected to; `None`: it does not say, so any.
    #[serde(default)]
    pub physical: Option<Vec<String>>,
    /// Availability zone of its networks and routers; "": that of hosts which say nothing.
    #[serde(default)]
    pub zone: String,
    /// Its WireGuard key and port, if it encrypts what goes to other hosts.
    #[serde(default)]
    pub wireguard: Option<(Vec<u8>, u32)>,
    /// Why guests of other hosts do not reach it; "" when they do.
    #[serde(default)]
    pub overlay_error: String,
}

/// As the agent says it; what can be no key is none.
fn wireguard(told: Option<v1::Wireguard>) -> Option<(Vec<u8>, u32)> {
    let told = told.filter(|w| w.public_key.len() == 32 && (1..=65_535).contains(&w.port))?;
    Some((told.public_key, told.port))
}

/// Bytes of an agent's word that are kept.
const ERROR_MAX: usize = 1000;

fn short(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(ERROR_MAX));
    text
}

/// A host's link as placement counts it; what is nothing is left out.
fn link(link: Option<v1::Link>) -> BTreeMap<String, u64> {
    let link = link.unwrap_or_default();
    let classes = [
        ("NET_BW_EGR_KILOBIT_PER_SEC", link.egress_kbps),
        ("NET_BW_IGR_KILOBIT_PER_SEC", link.ingress_kbps),
        ("NET_PACKET_RATE_KILOPACKET_PER_SEC", link.kpps),
        ("NET_PACKET_RATE_EGR_KILOPACKET_PER_SEC", link.egress_kpps),
        ("NET_PACKET_RATE_IGR_KILOPACKET_PER_SEC", link.ingress_kpps),
    ];
    classes.into_iter().filter(|(_, n)| *n > 0).map(|(class, n)| (class.to_owned(), n)).collect()
}

impl From<v1::Inventory> for NodeInventory {
    fn from(i: v1::Inventory) -> Self {
        NodeInventory {
            vcpus: i.vcpus,
            memory_mib: i.memory_mib,
            disk_gib: i.disk_gib,
            cpu_model: i.cpu_model,
            cpu_arch: i.cpu_arch,
            traits: i.traits,
            runtimes: i.runtimes.into_iter().map(|r| (r.name, r.usable, r.reason)).collect(),
            vtep: i.vtep,
            hypervisor_version: i.hypervisor_version,
            host_ip: i.host_ip,
            link: link(i.link),
            physical: i.physical.map(|physical| physical.names),
            zone: i.zone,
            wireguard: wireguard(i.wireguard),
            overlay_error: short(i.overlay_error),
        }
    }
}

impl Record for Node {
    const KIND: &'static str = "fleet_node";
    fn id(&self) -> &str {
        &self.id
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
    fn state(&self) -> Option<&str> {
        Some(self.state.as_str())
    }
    fn claims(&self) -> Vec<Claim> {
        vec![Claim { scope: "fleet_node".into(), value: self.name.clone() }]
    }
}

impl Node {
    pub fn is_up(&self) -> bool {
        self.state == NodeState::Up && !self.forced_down
    }
}

impl Fleet {
    /// Changes a node's record; `change` returns false when there is nothing to write.
    pub async fn update_node(
        &self,
        id: &str,
        change: impl Fn(&mut Node) -> bool + Send + Sync + Clone + 'static,
    ) -> Result<Option<Stored<Node>>, Fault> {
        let id = id.to_owned();
        self.store
            .write(move |tx| {
                let (id, change) = (id.clone(), change.clone());
                Box::pin(async move {
                    let Some(mut node) = tx.get::<Node>(&id).await? else { return Ok(None) };
                    if change(&mut node.record) {
                        return Ok::<_, Fault>(Some(tx.update(&node).await?));
                    }
                    Ok(Some(node))
                })
            })
            .await
    }

    /// Tells the parts of a change of a host.
    pub(crate) async fn announce(&self, node: &Stored<Node>) {
        for part in self.parts() {
            if let Err(fault) = part.host_changed(node).await {
                tracing::warn!(host = node.name, %fault, "a service did not take the change of a host");
            }
        }
    }

    /// An operator's wish: no new servers on this host, and why.
    pub async fn set_disabled(
        &self,
        id: &str,
        disabled: bool,
        reason: Option<String>,
    ) -> Result<Option<Stored<Node>>, Fault> {
        let changed = self
            .update_node(id, move |node| {
                node.disabled = disabled;
                node.disabled_reason.clone_from(&reason);
                true
            })
            .await?;
        if let Some(node) = &changed {
            self.announce(node).await;
        }
        Ok(changed)
    }

    /// An operator says that the host is dead, or takes it back.
    pub async fn set_forced_down(&self, id: &str, forced: bool) -> Result<Option<Stored<Node>>, Fault> {
        let changed = self
            .update_node(id, move |node| {
                node.forced_down = forced;
                true
            })
            .await?;
        if let Some(node) = &changed {
            self.announce(node).await;
        }
        Ok(changed)
    }

    /// Removes a host for good: its certificate is worth nothing from now on.
    pub async fn remove_node(&self, id: &str) -> Result<bool, Fault> {
        let key = id.to_owned();
        let gone = self
            .store
            .write(move |tx| {
                let key = key.clone();
                Box::pin(async move { Ok::<_, Fault>(tx.delete::<Node>(&key).await?) })
            })
            .await?;
        if let Some(session) = self.sessions.remove(id) {
            session.end();
        }
        self.forget_owner(id).await?;
        Ok(gone)
    }
}

/// Marks hosts down that have been silent for too long: those whose session is here, and, where that is this scheduler's
/// job, those with whom no living scheduler has one.
pub(crate) async fn watch_silence(fleet: Arc<Fleet>, mut stop: watch::Receiver<bool>) {
    let tick = (fleet.silence() / 4).max(Duration::from_millis(100));
    let mut orphans = Orphans::default();
    loop {
        tokio::select! {
            () = pilvi_kit::server::stopped(&mut stop) => return,
            () = tokio::time::sleep(tick) => {}
        }
        if let Err(fault) = fleet.judge_silence(&mut orphans).await {
            tracing::warn!(%fault, "the hosts could not be judged");
        }
    }
}

impl Fleet {
    async fn judge_silence(&self, orphans: &mut Orphans) -> Result<(), Fault> {
        let watches = self.watches_hosts();
        if watches {
            self.forget_old_questions().await?;
        }
        // As many as are up have spoken to us: there is nobody to judge.
        if self.store.count::<Node>(Query::all().state("up")).await? == self.heard_lately() {
            orphans.keep_only(&BTreeSet::new());
            return Ok(());
        }
        let (nodes, holders) = (self.store.list::<Node>(Query::all().state("up")).await?, self.live_holders().await?);
        let me = self.scheduler_id();
        let mut alone = BTreeSet::new();
        for node in nodes {
            let elsewhere = holders.get(&node.id).is_some_and(|holder| **holder != *me);
            let heard = match self.last_heard(&node.id) {
                Some(heard) => heard,
                None if elsewhere || !watches => continue,
                None => {
                    alone.insert(node.id.clone());
                    orphans.heard(&node.id, node.last_seen_us)
                }
            };
            self.judge(&node, heard).await?;
        }
        orphans.keep_only(&alone);
        Ok(())
    }

    fn silence_us(&self) -> i64 {
        i64::try_from(self.silence().as_micros()).unwrap_or(i64::MAX)
    }

    /// Sessions here that are not silent.
    fn heard_lately(&self) -> u64 {
        let since = clock::now_us() - self.silence_us();
        self.sessions.all().iter().filter(|session| session.heard_us() > since).count() as u64
    }

    async fn judge(&self, node: &Node, heard: i64) -> Result<(), Fault> {
        let silent = clock::now_us() - heard;
        if silent < self.silence_us() {
            return Ok(());
        }
        tracing::warn!(host = node.name, silent_s = silent / 1_000_000, "host is down");
        let down = self.update_node(&node.id, |n| {
            let was = n.state == NodeState::Up;
            n.state = NodeState::Down;
            was
        });
        if let Some(node) = down.await? {
            self.announce(&node).await;
        }
        Ok(())
    }
}
