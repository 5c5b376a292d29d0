//! The ports of the networks that this host reaches: where packets go, and who is called what. Told apart from the wanted
//! set, and kept over restarts.
//!
//! ```text
//! wanted set names networks --> only their rooms are kept
//! Neighbours ----apply-------> room ---> remotes of the packet path, names of the resolver
//!       '--does not fit--> Stale: the scheduler says it whole
//! Hello names each room's version: what is the same is not said again
//! ```
//! The file is written a moment later and not for each change: what it lacks, the scheduler tells. Without a scheduler a
//! restarted agent goes on with what the file says.
use crate::ledger::Ledger;
use pilvi_agent_api::neighbours::Room;
use pilvi_agent_api::v1::{HostNetwork, Neighbours, Remote, Tunnel, Wireguard};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Changes in between are written together.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// The rooms of one host.
#[derive(Debug)]
pub struct Neighbourhood {
    /// This host's own underlay address: who has it is no neighbour.
    vtep: String,
    rooms: Mutex<Rooms>,
}

#[derive(Debug, Default)]
struct Rooms {
    rooms: BTreeMap<String, Room>,
    changed: bool,
}

/// What became of news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The packet path is to be made anew.
    New,
    /// Of a network that this host does not reach.
    Foreign,
    /// They do not fit what is here.
    Stale,
}

impl Neighbourhood {
    /// What an earlier life of the agent was told.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn open(ledger: &Ledger, vtep: String) -> std::io::Result<Self> {
        let mut rooms = Rooms::default();
        for remote in ledger.load_neighbours()? {
            rooms.rooms.entry(remote.network_id.clone()).or_default().set(remote);
        }
        Ok(Self { vtep, rooms: Mutex::new(rooms) })
    }

    fn locked(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the rooms of these networks alone.
    pub fn keep(&self, wanted: &HostNetwork) {
        let named: BTreeSet<&str> = named(wanted).collect();
        let mut rooms = self.locked();
        let before = rooms.rooms.len();
        rooms.rooms.retain(|network, _| named.contains(network.as_str()));
        for network in named {
            rooms.rooms.entry(network.to_owned()).or_default();
        }
        rooms.changed |= rooms.rooms.len() != before;
    }

    /// Takes up what the scheduler says of a network.
    pub fn take(&self, news: Neighbours) -> Taken {
        let mut rooms = self.locked();
        let Some(room) = rooms.rooms.get_mut(&news.network_id) else { return Taken::Foreign };
        match room.apply(news) {
            Ok(()) => {
                rooms.changed = true;
                Taken::New
            }
            Err(_) => Taken::Stale,
        }
    }

    /// The version of each room.
    #[must_use]
    pub fn versions(&self) -> BTreeMap<String, u64> {
        self.locked().rooms.iter().map(|(network, room)| (network.clone(), room.version())).collect()
    }

    /// The wanted network with all that it reaches elsewhere.
    #[must_use]
    pub fn complete(&self, mut wanted: HostNetwork) -> HostNetwork {
        let rooms = self.locked();
        let here: BTreeSet<&str> = wanted.ports.iter().filter(|p| !p.idle).map(|port| port.id.as_str()).collect();
        let elsewhere = |remote: &&Remote| {
            !remote.vtep.is_empty() && remote.vtep != self.vtep && !here.contains(remote.port_id.as_str())
        };
        let reached = named(&wanted).filter_map(|network| rooms.rooms.get(network));
        let reached: Vec<&Remote> = reached.flat_map(Room::members).filter(elsewhere).collect();
        encrypt(&mut wanted.tunnels, &reached);
        // What the packet path compares shall not change when a name does.
        let bare = |remote: &&Remote| Remote {
            names: Vec::new(),
            wireguard: None,
            other_wireguard: None,
            ..(*remote).clone()
        };
        wanted.remotes = reached.iter().map(bare).collect();
        for zone in &mut wanted.zones {
            let room = rooms.rooms.get(&zone.network_id);
            zone.names = room.into_iter().flat_map(Room::members).flat_map(|remote| remote.names.clone()).collect();
        }
        wanted
    }

    /// Writes down what changed, now and then. Never returns.
    pub async fn save(&self, ledger: &Ledger) {
        loop {
            tokio::time::sleep(SAVE_EVERY).await;
            let all: Vec<Remote> = {
                let mut rooms = self.locked();
                if !std::mem::take(&mut rooms.changed) {
                    continue;
                }
                rooms.rooms.values().flat_map(Room::members).cloned().collect()
            };
            let saved = tokio::task::block_in_place(|| ledger.save_neighbours(all));
            if let Err(error) = saved {
                tracing::warn!(%error, "neighbours could not be written to the ledger");
                self.locked().changed = true;
            }
        }
    }
}

/// Each host once, with its key: those that the wanted set names, and those of the neighbours.
fn encrypt(tunnels: &mut Vec<Tunnel>, reached: &[&Remote]) {
    let mut known: BTreeMap<String, Option<Wireguard>> =
        std::mem::take(tunnels).into_iter().map(|t| (t.vtep, t.wireguard)).collect();
    for remote in reached {
        for (vtep, wireguard) in [(&remote.vtep, &remote.wireguard), (&remote.other_vtep, &remote.other_wireguard)] {
            if wireguard.is_some() && !known.contains_key(vtep) {
                known.insert(vtep.clone(), wireguard.clone());
            }
        }
    }
    tunnels.extend(known.into_iter().map(|(vtep, wireguard)| Tunnel { vtep, wireguard }));
}

fn named(wanted: &HostNetwork) -> impl Iterator<Item = &str> {
    wanted.networks.iter().filter(|network| network.neighbours).map(|network| network.id.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilvi_agent_api::v1::{L2, Port};

    fn remote(port: &str, vtep: &str) -> Remote {
        Remote { port_id: port.into(), network_id: "n".into(), vtep: vtep.into(), ..Remote::default() }
    }

    fn wanted(ports: &[&str]) -> HostNetwork {
        HostNetwork {
            networks: vec![
                L2 { id: "n".into(), neighbours: true, ..L2::default() },
                L2 { id: "outside".into(), ..L2::default() },
            ],
            ports: ports.iter().map(|id| Port { id: (*id).into(), ..Port::default() }).collect(),
            ..HostNetwork::default()
        }
    }

    fn whole(remotes: &[Remote]) -> Neighbours {
        let mut room = Room::default();
        for remote in remotes {
            room.set(remote.clone());
        }
        room.whole("n")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_keys_of_neighbours_hosts_are_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let here = Neighbourhood::open(&Ledger::open(dir.path()).unwrap(), "10.0.0.1".into()).unwrap();
        here.keep(&wanted(&[]));
        let key = |n: u8| Some(Wireguard { public_key: vec![n; 32], port: 51820 });
        let on = |port: &str, host: u8| Remote { wireguard: key(host), ..remote(port, &format!("10.0.0.{host}")) };
        let going = Remote { other_vtep: "10.0.0.4".into(), other_wireguard: key(4), ..on("p3", 3) };
        here.take(whole(&[on("p1", 1), on("p2", 3), going, remote("p4", "10.0.0.5")]));
        let gateway = Tunnel { vtep: "10.0.0.9".into(), wireguard: key(9) };
        let set = here.complete(HostNetwork { tunnels: vec![gateway], ..wanted(&[]) });
        let told = set.tunnels.iter().map(|t| (t.vtep.as_str(), t.wireguard.as_ref().unwrap().public_key[0]));
        assert_eq!(told.collect::<Vec<_>>(), [("10.0.0.3", 3), ("10.0.0.4", 4), ("10.0.0.9", 9)]);
        assert!(set.remotes.iter().all(|r| r.wireguard.is_none() && r.other_wireguard.is_none()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_told_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let told = [remote("p1", "10.0.0.1"), remote("p2", "10.0.0.2"), remote("p3", "10.0.0.3")];
        let first = Neighbourhood::open(&ledger, "10.0.0.1".into()).unwrap();
        assert_eq!(first.take(whole(&told)), Taken::Foreign, "nothing here reaches it");
        first.keep(&wanted(&[]));
        assert_eq!(first.take(whole(&told)), Taken::New);
        let stale = Neighbours { network_id: "n".into(), before: 1, after: 2, ..Neighbours::default() };
        assert_eq!(first.take(stale), Taken::Stale);
        // Neither what is on this host nor a port that has come to it.
        let reached = |of: &Neighbourhood| {
            let remotes = of.complete(wanted(&["p2"])).remotes;
            remotes.into_iter().map(|r| r.port_id).collect::<Vec<_>>()
        };
        assert_eq!(reached(&first), ["p3"]);
        let _ = tokio::time::timeout(SAVE_EVERY * 3, first.save(&ledger)).await;
        let second = Neighbourhood::open(&ledger, "10.0.0.1".into()).unwrap();
        assert_eq!((reached(&second), second.versions()), (reached(&first), first.versions()));
        second.keep(&HostNetwork::default());
        assert!(second.versions().is_empty());
    }
}
