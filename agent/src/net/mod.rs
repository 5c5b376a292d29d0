//! The packet path of this host as the rest of the agent sees it.
//!
//! ```text
//! want(set) ----> [ apply task ] ----> Network::apply ----> state: per port wired or why not
//! hold(instance): its ports stay although the wanted set no longer names them, until
//! uses(instance, ports): its guest has cards for these alone, the others need not stay
//! release(instance): the guest is gone, its ports may go
//! departed(instance), present(instance): it has gone to another host, or come from one, whatever the set says
//! ```
//! [`Network`] hides what makes it so: pilvi-netdev on a real host, nothing on a simulated one.
pub mod convert;
mod delegation;
pub mod encryption;
mod firewall;
pub mod flowlog;
pub mod lead;
pub mod neighbours;
pub mod real;

use async_trait::async_trait;
use pilvi_agent_api::v1::{self, HostNetwork, ObservedDelegation, ObservedMeter, ObservedPort};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::report::Board;
use lead::Lead;

/// How one port stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortState {
    pub device: String,
    pub wired: bool,
    /// Why it is not wired.
    pub error: String,
}

/// What the security groups of a port decided about one packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    pub port: String,
    pub accepted: bool,
    /// Words that describe it.
    pub packet: String,
}

/// What makes packets flow.
#[async_trait]
pub trait Network: Send + Sync {
    /// Makes the host's packet path as wanted; one port's trouble is not another's.
    async fn apply(&self, wanted: &HostNetwork) -> Result<BTreeMap<String, PortState>, String>;

    /// Why guests of this host are cut off from those of others, as the last set found it; "" when they are not.
    fn overlay_error(&self) -> String {
        String::new()
    }

    /// Descriptors of a wired port's tap, one for each queue.
    async fn open_taps(&self, port: &str) -> Result<Vec<OwnedFd>, String>;

    /// The same, of a tap that the process with this id has open: both share it then.
    async fn taps_of(&self, port: &str, pid: u32) -> Result<Vec<OwnedFd>, String>;

    /// Whether ports have devices at all.
    fn has_taps(&self) -> bool {
        true
    }

    /// What the labels of the last set have counted.
    async fn meters(&self) -> Result<Vec<ObservedMeter>, String> {
        Ok(Vec::new())
    }

    /// What has become of prefixes that the last set wants lent, once there is news of it. Never returns on a network that asks
    /// for none.
    async fn delegations(&self) -> Result<Vec<ObservedDelegation>, String> {
        std::future::pending().await
    }

    /// The next decisions of security groups that a log of the last set asks for, at least one. Never returns on a network
    /// that has none.
    async fn flows(&self) -> Result<Vec<Flow>, String> {
        std::future::pending().await
    }

    /// The next connection to 169.254.169.254 and the port that it came from. Never returns on a
    /// network that has no such thing.
    async fn accept_metadata(&self) -> Result<(TcpStream, String), String>;
}

/// The network of a simulated host: every port is called wired.
#[derive(Debug, Default)]
pub struct NoNetwork;

#[async_trait]
impl Network for NoNetwork {
    async fn apply(&self, wanted: &HostNetwork) -> Result<BTreeMap<String, PortState>, String> {
        let wired = |id: &String| {
            let state = PortState { device: "none".into(), wired: true, error: String::new() };
            (id.clone(), state)
        };
        Ok(wanted.ports.iter().map(|port| wired(&port.id)).collect())
    }
    async fn open_taps(&self, _port: &str) -> Result<Vec<OwnedFd>, String> {
        Ok(Vec::new())
    }
    async fn taps_of(&self, _port: &str, _pid: u32) -> Result<Vec<OwnedFd>, String> {
        Ok(Vec::new())
    }
    fn has_taps(&self) -> bool {
        false
    }
    async fn accept_metadata(&self) -> Result<(TcpStream, String), String> {
        std::future::pending().await
    }
}

/// How long a start waits for its ports.
const WIRE_LIMIT: Duration = Duration::from_secs(30);
/// How long after a failure the same set is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// How often counters are read.
const METER_EVERY: Duration = Duration::from_secs(30);

#[derive(Debug, Default, Clone)]
struct Applied {
    ports: BTreeMap<String, PortState>,
    error: String,
}

/// Instances whose ports stay, and which of them where that is known: all of them, where it is not.
type Held = BTreeMap<String, Option<BTreeSet<String>>>;

/// The wanted packet path and how far it is made.
pub struct Plane {
    /// What carries it out.
    pub network: Arc<dyn Network>,
    /// Nothing is touched before something is wanted: guests may be running on it.
    wanted: watch::Sender<Option<Arc<HostNetwork>>>,
    applied: watch::Sender<Applied>,
    held: Mutex<Held>,
    /// Instances that have arrived, whatever the wanted set still says.
    arrived: Mutex<BTreeSet<String>>,
    lead: Mutex<Lead>,
    latest: Mutex<HostNetwork>,
}

impl Plane {
    /// A plane that wants nothing yet.
    #[must_use]
    pub fn new(network: Arc<dyn Network>) -> Self {
        Self {
            network,
            wanted: watch::Sender::new(None),
            applied: watch::Sender::new(Applied::default()),
            held: Mutex::default(),
            arrived: Mutex::default(),
            lead: Mutex::default(),
            latest: Mutex::default(),
        }
    }

    /// Takes up a new wanted set.
    pub fn want(&self, set: HostNetwork) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = set;
        self.renew();
    }

    /// The logs of what security groups decide.
    fn latest_logs(&self) -> Vec<v1::FlowLog> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).logs.clone()
    }

    /// Ports of this instance stay until [`Plane::release`].
    pub fn hold(&self, instance: &str) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.insert(instance.to_owned(), None);
    }

    /// The guest of a held instance has cards for these ports: others of it need not stay.
    pub fn uses(&self, instance: &str, ports: BTreeSet<String>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = held.get_mut(instance) else { return };
        let news = known.as_ref() != Some(&ports);
        *known = Some(ports);
        drop(held);
        if news && self.wanted.borrow().is_some() {
            self.renew();
        }
    }

    /// The instance has no guest any more.
    pub fn release(&self, instance: &str) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let was = held.remove(instance);
        drop(held);
        if was.is_some() && self.wanted.borrow().is_some() {
            self.renew();
        }
    }

    /// The guest of an instance has come from another host: its idle ports carry its packets now.
    pub fn present(&self, instance: &str) {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).insert(instance.to_owned());
        self.lead.lock().unwrap_or_else(PoisonError::into_inner).arrive(instance);
        if self.wanted.borrow().is_some() {
            self.renew();
        }
    }

    /// The guest of an instance has gone to the host that its ports were prepared on: what comes for it goes there.
    pub fn departed(&self, instance: &str) {
        self.lead.lock().unwrap_or_else(PoisonError::into_inner).depart(instance, Instant::now());
        if self.wanted.borrow().is_some() {
            self.renew();
        }
    }

    /// Returns when it is time to forget a guest that has moved.
    async fn overdue(&self) {
        let due = self.lead.lock().unwrap_or_else(PoisonError::into_inner).due();
        match due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    fn renew(&self) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        wake(&mut latest, &mut self.arrived.lock().unwrap_or_else(PoisonError::into_inner));
        latest = self.lead.lock().unwrap_or_else(PoisonError::into_inner).apply(latest, Instant::now());
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        self.wanted.send_modify(|wanted| {
            let former = wanted.take().unwrap_or_default();
            *wanted = Some(Arc::new(retain(&former, latest, &held)));
        });
    }

    /// Waits until these ports are wired.
    ///
    /// # Errors
    /// Text that names the port and why it is not wired.
    pub async fn wired(&self, ports: &[String]) -> Result<(), String> {
        let mut applied = self.applied.subscribe();
        let lacking = |applied: &Applied| {
            ports.iter().find_map(|id| match applied.ports.get(id) {
                Some(state) if state.wired => None,
                Some(state) if !state.error.is_empty() => Some((id.clone(), state.error.clone())),
                _ => Some((id.clone(), applied.error.clone())),
            })
        };
        let all = applied.wait_for(|applied| lacking(applied).is_none());
        if tokio::time::timeout(WIRE_LIMIT, all).await.is_ok() {
            return Ok(());
        }
        match lacking(&self.applied.borrow()) {
            None => Ok(()),
            Some((port, why)) if why.is_empty() => Err(format!("port {port} is not wired in time")),
            Some((port, why)) => Err(format!("port {port} is not wired: {why}")),
        }
    }

    /// Reads the counters now and then. Never returns.
    pub async fn meter(&self, board: &Board) {
        let mut again = tokio::time::interval(METER_EVERY);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            again.tick().await;
            match self.network.meters().await {
                Ok(meters) => board.set_meters(meters),
                Err(error) => tracing::warn!(error, "counters not read"),
            }
        }
    }

    /// Applies what is wanted, whenever that changes and again after a failure. Never returns.
    pub async fn run(&self, board: &Board) {
        let mut wanted = self.wanted.subscribe();
        loop {
            let set = wanted.borrow_and_update().clone();
            let Some(set) = set else {
                match wanted.changed().await {
                    Ok(()) => continue,
                    Err(_) => return,
                }
            };
            let result = self.network.apply(&set).await;
            let (ports, error) = match result {
                Ok(ports) => (ports, self.network.overlay_error()),
                Err(error) => (self.applied.borrow().ports.clone(), error),
            };
            let troubled = !error.is_empty() || ports.values().any(|port| !port.wired);
            if !error.is_empty() {
                tracing::error!(error, "packet path");
            }
            let seen = ports.iter().map(|(id, port)| ObservedPort {
                id: id.clone(),
                wired: port.wired,
                device: port.device.clone(),
            });
            board.set_network(seen.collect(), error.clone());
            self.applied.send_replace(Applied { ports, error });
            if troubled {
                let _ = tokio::time::timeout(AGAIN, wanted.changed()).await;
                continue;
            }
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                () = self.overdue() => self.renew(),
            }
        }
    }
}

/// Ports of guests that have arrived are idle no more. What the wanted set has caught up with is forgotten.
fn wake(set: &mut HostNetwork, arrived: &mut BTreeSet<String>) {
    let mut behind = BTreeSet::new();
    for port in set.ports.iter_mut().filter(|port| port.idle && arrived.contains(&port.instance_id)) {
        port.idle = false;
        behind.insert(port.instance_id.clone());
    }
    *arrived = behind;
}

/// The set `next`, with those ports of `former` that held instances still use.
fn retain(former: &HostNetwork, mut next: HostNetwork, held: &Held) -> HostNetwork {
    let named: BTreeSet<String> = next.ports.iter().map(|port| port.id.clone()).collect();
    let groups: BTreeSet<String> = next.groups.iter().map(|group| group.id.clone()).collect();
    for port in &former.ports {
        let taken = next.ports.iter().any(|other| other.network_id == port.network_id && other.mac == port.mac);
        let used = held.get(&port.instance_id).is_some_and(|ports| ports.as_ref().is_none_or(|p| p.contains(&port.id)));
        if named.contains(&port.id) || taken || !used {
            continue;
        }
        let network = former.networks.iter().find(|network| network.id == port.network_id);
        let Some(network) = network else { continue };
        if !next.networks.iter().any(|other| other.id == network.id) {
            if next.networks.iter().any(|other| other.vni == network.vni) {
                continue;
            }
            next.networks.push(network.clone());
        }
        let mut port = port.clone();
        // It shall carry nothing any more; only its device stays for the guest that holds it.
        (port.up, port.idle) = (false, true);
        port.groups.retain(|group| groups.contains(group));
        next.ports.push(port);
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilvi_agent_api::v1::{L2, Port};

    fn set(ports: &[(&str, &str)]) -> HostNetwork {
        let port = |(id, instance): &(&str, &str)| Port {
            id: (*id).into(),
            mac: (*id).into(),
            network_id: "n".into(),
            instance_id: (*instance).into(),
            up: true,
            ..Port::default()
        };
        HostNetwork {
            networks: vec![L2 { id: "n".into(), vni: 5, ..L2::default() }],
            ports: ports.iter().map(port).collect(),
            ..HostNetwork::default()
        }
    }

    #[test]
    fn ports_of_a_guest_that_still_runs_stay() {
        let former = set(&[("p1", "i1"), ("p2", "i2"), ("p3", "i3"), ("p4", "i3")]);
        let of_i3 = BTreeSet::from(["p3".to_owned()]);
        let held = BTreeMap::from([("i1".to_owned(), None), ("i3".to_owned(), Some(of_i3))]);
        let next = retain(&former, HostNetwork::default(), &held);
        let ids: Vec<_> = next.ports.iter().map(|p| (p.id.as_str(), p.up)).collect();
        assert_eq!(ids, [("p1", false), ("p3", false)]);
        assert_eq!(next.networks.len(), 1);
        let next = retain(&former, set(&[("p3", "i3")]), &held);
        assert_eq!(next.ports.len(), 2);
        assert!(next.ports[0].up, "a port that is wanted is as wanted");
    }

    #[tokio::test]
    async fn held_until_released() {
        let plane = Arc::new(Plane::new(Arc::new(NoNetwork)));
        let board = Board::default();
        plane.hold("i1");
        plane.want(set(&[("p1", "i1")]));
        let count = || plane.wanted.borrow().as_ref().map_or(0, |set| set.ports.len());
        let drive = async {
            plane.wired(&["p1".into()]).await.unwrap();
            plane.want(HostNetwork::default());
            assert_eq!(count(), 1);
            plane.uses("i1", BTreeSet::from(["p1".to_owned()]));
            assert_eq!(count(), 1);
            plane.uses("i1", BTreeSet::new());
            assert_eq!(count(), 0, "its card was taken out");
            plane.want(set(&[("p1", "i1")]));
            plane.hold("i1");
            plane.want(HostNetwork::default());
            assert_eq!(count(), 1);
            plane.release("i1");
            assert_eq!(count(), 0);
        };
        tokio::select! { () = plane.run(&board) => {} () = drive => {} }
    }
}
