//! The endpoints of each network, told alike to every host that reaches it.
//!
//! ```text
//!  first host that reaches a network --> its room is read from the store        all members --> that host
//!  a port changes                    --> read again, put into its room          news --> every host of the room
//!  a host's underlay address changes --> its ports are looked at again          news
//! ```
//! Only rooms that somebody here listens to are kept; a port of any other network costs nothing. All is read from the
//! store again when the feed was cut.
use crate::{Network, port::model::Port, tables::find};
use parking_lot::Mutex;
use pilvi_agent_api::{neighbours::Room, v1};
use pilvi_kit::Fault;
use pilvi_store::{Change, Query, Record};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Ports of one query.
const CHUNK: usize = 400;

/// The rooms that are listened to here.
#[derive(Debug, Default)]
pub struct Neighbourhood(Mutex<Rooms>);

#[derive(Debug, Default)]
struct Rooms {
    rooms: HashMap<String, Room>,
    /// Endpoints of these rooms: network and host. Those whose host has no underlay address are in no room yet.
    placed: HashMap<String, (String, String)>,
    /// Underlay addresses by hosts' names.
    vteps: HashMap<String, String>,
    /// Hosts whose address has changed since news were last made.
    moved: BTreeSet<String>,
}

/// What happened in a room.
struct Draft {
    before: u64,
    changed: BTreeMap<String, v1::Remote>,
    gone: BTreeSet<String>,
}

impl Rooms {
    /// As other hosts see the port; `None` when they cannot reach it.
    fn remote(&self, port: &Port) -> Option<v1::Remote> {
        let vtep = self.vteps.get(&port.host_id).filter(|_| port.is_endpoint())?;
        Some(v1::Remote {
            port_id: port.id.clone(),
            network_id: port.network_id.clone(),
            mac: port.mac_address.clone(),
            addresses: port.fixed_ips.iter().map(|f| f.ip_address.clone()).collect(),
            vtep: vtep.clone(),
            groups: port.security_groups.clone(),
        })
    }

    /// Puts a port where it belongs now; `None`: it is gone.
    fn place(&mut self, id: &str, port: Option<&Port>, drafts: &mut BTreeMap<String, Draft>) {
        let former = self.placed.get(id).map(|(network, _)| network.clone());
        let port = port.filter(|p| p.is_endpoint() && self.rooms.contains_key(&p.network_id));
        let next = port.and_then(|p| self.remote(p));
        if let Some(former) = former.filter(|f| next.as_ref().is_none_or(|n| n.network_id != *f))
            && let Some(room) = self.rooms.get_mut(&former)
        {
            let before = room.version();
            if room.remove(id) {
                let draft = Draft::of(drafts, &former, before);
                draft.changed.remove(id);
                draft.gone.insert(id.to_owned());
            }
        }
        match port {
            Some(port) => self.placed.insert(id.to_owned(), (port.network_id.clone(), port.host_id.clone())),
            None => self.placed.remove(id),
        };
        let Some(remote) = next else { return };
        let network = remote.network_id.clone();
        let Some(room) = self.rooms.get_mut(&network) else { return };
        let before = room.version();
        if room.set(remote.clone()) {
            let draft = Draft::of(drafts, &network, before);
            draft.gone.remove(id);
            draft.changed.insert(id.to_owned(), remote);
        }
    }
}

impl Draft {
    fn of<'d>(drafts: &'d mut BTreeMap<String, Draft>, network: &str, before: u64) -> &'d mut Draft {
        drafts.entry(network.to_owned()).or_insert(Draft { before, changed: BTreeMap::new(), gone: BTreeSet::new() })
    }
}

impl Neighbourhood {
    /// What hosts there are. A host that has left the list keeps the address that it had.
    pub(crate) fn set_vtep(&self, host: &str, vtep: &str) {
        let mut rooms = self.0.lock();
        if !vtep.is_empty() && rooms.vteps.get(host).map(String::as_str) != Some(vtep) {
            rooms.vteps.insert(host.to_owned(), vtep.to_owned());
            rooms.moved.insert(host.to_owned());
        }
    }

    pub fn version(&self, network: &str) -> Option<u64> {
        self.0.lock().rooms.get(network).map(Room::version)
    }

    /// Nobody here listens any more.
    pub fn leave(&self, network: &str) {
        let mut rooms = self.0.lock();
        if rooms.rooms.remove(network).is_some() {
            rooms.placed.retain(|_, (of, _)| of != network);
        }
    }

    /// Whatever was missed is read again.
    pub fn forget(&self) {
        let mut rooms = self.0.lock();
        rooms.rooms.clear();
        rooms.placed.clear();
    }
}

impl Network {
    /// All endpoints of a network; `None` when `known` is the version of just these.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn neighbours(&self, network: &str, known: Option<u64>) -> Result<Option<v1::Neighbours>, Fault> {
        if self.neighbourhood.version(network).is_none() {
            let ports = self.store.list::<Port>(find::on_network(network)).await?;
            let mut rooms = self.neighbourhood.0.lock();
            rooms.rooms.entry(network.to_owned()).or_default();
            for port in &ports {
                rooms.place(&port.id, Some(port), &mut BTreeMap::new());
            }
        }
        let rooms = self.neighbourhood.0.lock();
        let room = rooms.rooms.get(network).filter(|room| Some(room.version()) != known);
        Ok(room.map(|room| room.whole(network)))
    }

    /// News of rooms.
    ///
    /// # Errors
    /// Those of the store; then [`Network::forget_neighbours`] is due.
    pub async fn neighbours_news(&self, changes: &[Change]) -> Result<Vec<v1::Neighbours>, Fault> {
        let ports = changes.iter().filter(|change| change.kind == Port::KIND).map(|change| &change.id);
        let ids = {
            let mut rooms = self.neighbourhood.0.lock();
            if rooms.rooms.is_empty() {
                rooms.moved.clear();
                return Ok(Vec::new());
            }
            let mut ids: BTreeSet<String> = ports.cloned().collect();
            let moved = std::mem::take(&mut rooms.moved);
            if !moved.is_empty() {
                let theirs = rooms.placed.iter().filter(|(_, (_, host))| moved.contains(host));
                ids.extend(theirs.map(|(port, _)| port.clone()));
            }
            ids
        };
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let mut drafts = BTreeMap::new();
        for chunk in ids.chunks(CHUNK) {
            let found = self.store.list::<Port>(Query::all().ids(chunk.to_vec())).await?;
            let found: HashMap<&str, &Port> = found.iter().map(|p| (p.record.id.as_str(), &p.record)).collect();
            let mut rooms = self.neighbourhood.0.lock();
            for id in chunk {
                rooms.place(id, found.get(id).copied(), &mut drafts);
            }
        }
        let rooms = self.neighbourhood.0.lock();
        let news = drafts.into_iter().filter_map(|(network_id, draft)| {
            let after = rooms.rooms.get(&network_id)?.version();
            Some(v1::Neighbours {
                network_id,
                whole: false,
                before: draft.before,
                after,
                changed: draft.changed.into_values().collect(),
                gone: draft.gone.into_iter().collect(),
            })
        });
        Ok(news.filter(|news| news.before != news.after).collect())
    }
}
