//! The ports of each network, told alike to every host that reaches it: where packets go, and who is called what.
//!
//! ```text
//!  first host that reaches a network --> its room is read from the store        all members --> that host
//!  a port or its floating IP changes --> read again, put into its room          news --> every host of the room
//!  a host's underlay address or key changes --> its ports are looked at again   news
//! ```
//! Only rooms that somebody here listens to are kept; a port of any other network costs nothing. All is read from the
//! store again when the feed was cut.
use super::{HostInfo, names, private, segments};
use crate::{
    Network, delegation::model::is_bare_address, floating_ip::model::FloatingIp, network::model::VirtualNetwork,
    port::model::Port, tables::find,
};
use parking_lot::Mutex;
use pilvi_agent_api::{neighbours::Room, v1};
use pilvi_kit::Fault;
use pilvi_store::{Change, Query, Record, Store, Stored};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Ports of one query.
const CHUNK: usize = 400;

/// The rooms that are listened to here.
#[derive(Debug, Default)]
pub struct Neighbourhood {
    rooms: Mutex<Rooms>,
    /// Held from reading the store until what was read is in its room: what is older must not come after.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Rooms {
    rooms: HashMap<String, Room>,
    /// Ports of these rooms.
    placed: HashMap<String, Placed>,
    /// Floating IPs with names, and the ports they lead to.
    named: HashMap<String, String>,
    /// By hosts' names.
    ends: HashMap<String, End>,
    /// Hosts whose address or key has changed since news were last made.
    moved: BTreeSet<String>,
}

/// Where a host is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct End {
    vtep: String,
    /// If it encrypts.
    wireguard: Option<v1::Wireguard>,
}

#[derive(Debug, Default)]
struct Placed {
    /// Where it is a member.
    rooms: Vec<String>,
    host: String,
    /// Floating IPs with names that lead to it.
    named: Vec<String>,
}

/// What was read of ports, and what tells where they belong.
struct Found {
    ports: HashMap<String, Port>,
    floating: Vec<Stored<FloatingIp>>,
    networks: HashMap<String, VirtualNetwork>,
}

/// What happened in a room.
struct Draft {
    before: u64,
    changed: BTreeMap<String, v1::Remote>,
    gone: BTreeSet<String>,
}

impl Found {
    async fn read(store: &Store, ports: Vec<Stored<Port>>) -> Result<Self, Fault> {
        let ids: Vec<&str> = ports.iter().map(|p| p.record.id.as_str()).collect();
        let mut floating = Vec::new();
        for chunk in ids.chunks(CHUNK) {
            floating.extend(store.list::<FloatingIp>(find::of_ports(chunk.to_vec())).await?);
        }
        let networks: BTreeSet<&str> = ports.iter().map(|p| p.record.network_id.as_str()).collect();
        let networks = store.list::<VirtualNetwork>(Query::all().ids(networks)).await?;
        Ok(Found {
            floating,
            networks: networks.into_iter().map(|n| (n.record.id.clone(), n.record)).collect(),
            ports: ports.into_iter().map(|p| (p.record.id.clone(), p.record)).collect(),
        })
    }

    fn leading_to<'f>(&'f self, port: &'f str) -> impl Iterator<Item = &'f FloatingIp> {
        self.floating.iter().map(|f| &f.record).filter(move |f| f.port_id.as_deref() == Some(port))
    }

    /// A port that is somebody's neighbour (gateways are not), and where it is seen.
    fn neighbour(&self, id: &str) -> Option<(&Port, Vec<String>)> {
        let port = self.ports.get(id).filter(|p| !p.device_owner.starts_with("network:"))?;
        let network = self.networks.get(&port.network_id);
        let segment = segments::room_of(network, port).map(|room| vec![room]);
        Some((port, segment.unwrap_or_else(|| private::seen_in(network, port))))
    }
}

impl Rooms {
    /// As hosts see the port; no underlay address when packets cannot be sent to it.
    fn member(&self, found: &Found, port: &Port) -> v1::Remote {
        let end = |host: &String| self.ends.get(host).filter(|_| port.is_endpoint()).cloned().unwrap_or_default();
        let (here, other) = (end(&port.host_id), end(&port.also_on));
        v1::Remote {
            port_id: port.id.clone(),
            network_id: port.network_id.clone(),
            mac: port.mac_address.clone(),
            addresses: port.fixed_ips.iter().map(|f| f.ip_address.clone()).filter(|a| !is_bare_address(a)).collect(),
            vtep: here.vtep,
            wireguard: here.wireguard,
            other_vtep: other.vtep,
            other_wireguard: other.wireguard,
            groups: port.security_groups.clone(),
            names: names::of(port, found.leading_to(&port.id)),
        }
    }

    /// Puts a port where it belongs now; one that was not found is gone.
    fn place(&mut self, id: &str, found: &Found, drafts: &mut BTreeMap<String, Draft>) {
        let neighbour = found.neighbour(id);
        let seen_in = neighbour.as_ref().map(|(_, seen_in)| seen_in.as_slice()).unwrap_or_default();
        let former = self.placed.remove(id).unwrap_or_default();
        for floating in &former.named {
            // It may lead to another port already.
            if self.named.get(floating).is_some_and(|port| port == id) {
                self.named.remove(floating);
            }
        }
        for left in former.rooms.iter().filter(|room| !seen_in.contains(room)) {
            let Some(room) = self.rooms.get_mut(left) else { continue };
            let before = room.version();
            if room.remove(id) {
                let draft = Draft::of(drafts, left, before);
                draft.changed.remove(id);
                draft.gone.insert(id.to_owned());
            }
        }
        let Some((port, seen_in)) = neighbour else { return };
        let member = self.member(found, port);
        for name in &seen_in {
            let Some(room) = self.rooms.get_mut(name) else { continue };
            let (before, member) = (room.version(), v1::Remote { network_id: name.clone(), ..member.clone() });
            if room.set(member.clone()) {
                let draft = Draft::of(drafts, name, before);
                draft.gone.remove(id);
                draft.changed.insert(id.to_owned(), member);
            }
        }
        let rooms: Vec<String> = seen_in.into_iter().filter(|name| self.rooms.contains_key(name)).collect();
        if !rooms.is_empty() {
            self.note(id, found, port, rooms);
        }
    }

    /// Fills a room that is new: no other is touched.
    fn furnish(&mut self, name: &str, found: &Found) {
        let mut room = Room::default();
        for id in found.ports.keys() {
            let Some((port, seen_in)) = found.neighbour(id) else { continue };
            if !seen_in.iter().any(|seen| seen == name) {
                continue;
            }
            room.set(v1::Remote { network_id: name.to_owned(), ..self.member(found, port) });
            let mut rooms = self.placed.get(id).map(|p| p.rooms.clone()).unwrap_or_default();
            rooms.push(name.to_owned());
            self.note(id, found, port, rooms);
        }
        self.rooms.insert(name.to_owned(), room);
    }

    fn note(&mut self, id: &str, found: &Found, port: &Port, rooms: Vec<String>) {
        let named: Vec<String> = found.leading_to(id).filter(|f| names::is_named(f)).map(|f| f.id.clone()).collect();
        self.named.extend(named.iter().map(|floating| (floating.clone(), id.to_owned())));
        self.placed.insert(id.to_owned(), Placed { rooms, host: port.host_id.clone(), named });
    }
}

impl Draft {
    fn of<'d>(drafts: &'d mut BTreeMap<String, Draft>, network: &str, before: u64) -> &'d mut Draft {
        drafts.entry(network.to_owned()).or_insert(Draft { before, changed: BTreeMap::new(), gone: BTreeSet::new() })
    }
}

impl Neighbourhood {
    /// What hosts there are. A host that has left the list keeps the address that it had.
    pub(crate) fn set_end(&self, host: &HostInfo) {
        let mut rooms = self.rooms.lock();
        let known = rooms.ends.get(&host.name);
        if !host.vtep.is_empty() && known.is_none_or(|k| k.vtep != host.vtep || k.wireguard != host.wireguard) {
            let end = End { vtep: host.vtep.clone(), wireguard: host.wireguard.clone() };
            rooms.ends.insert(host.name.clone(), end);
            rooms.moved.insert(host.name.clone());
        }
    }

    pub fn version(&self, network: &str) -> Option<u64> {
        self.rooms.lock().rooms.get(network).map(Room::version)
    }

    /// Nobody here listens any more.
    pub fn leave(&self, network: &str) {
        let mut rooms = self.rooms.lock();
        if rooms.rooms.remove(network).is_some() {
            let Rooms { placed, named, .. } = &mut *rooms;
            placed.retain(|_, port| {
                port.rooms.retain(|room| room != network);
                !port.rooms.is_empty()
            });
            named.retain(|_, port| placed.contains_key(port));
        }
    }

    /// Whatever was missed is read again.
    pub fn forget(&self) {
        let mut rooms = self.rooms.lock();
        rooms.rooms.clear();
        rooms.placed.clear();
        rooms.named.clear();
    }
}

impl Network {
    /// All endpoints of a network; `None` when `known` is the version of just these.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn neighbours(&self, network: &str, known: Option<u64>) -> Result<Option<v1::Neighbours>, Fault> {
        if self.neighbourhood.version(network).is_none() {
            let _reading = self.neighbourhood.reading.lock().await;
            let ports = self.store.list::<Port>(find::on_network(private::whole_of(network))).await?;
            let found = Found::read(&self.store, ports).await?;
            self.neighbourhood.rooms.lock().furnish(network, &found);
        }
        let rooms = self.neighbourhood.rooms.lock();
        let room = rooms.rooms.get(network).filter(|room| Some(room.version()) != known);
        Ok(room.map(|room| room.whole(network)))
    }

    /// News of rooms.
    ///
    /// # Errors
    /// Those of the store; then [`Network::forget_neighbours`] is due.
    pub async fn neighbours_news(&self, changes: &[Change]) -> Result<Vec<v1::Neighbours>, Fault> {
        let _reading = self.neighbourhood.reading.lock().await;
        let of = |kind: &'static str| changes.iter().filter(move |c| c.kind == kind).map(|change| &change.id);
        let ids = {
            let mut rooms = self.neighbourhood.rooms.lock();
            if rooms.rooms.is_empty() {
                rooms.moved.clear();
                return Ok(Vec::new());
            }
            let mut ids: BTreeSet<String> = of(Port::KIND).cloned().collect();
            ids.extend(of(FloatingIp::KIND).filter_map(|id| rooms.named.get(id)).cloned());
            let moved = std::mem::take(&mut rooms.moved);
            if !moved.is_empty() {
                let theirs = rooms.placed.iter().filter(|(_, port)| moved.contains(&port.host));
                ids.extend(theirs.map(|(port, _)| port.clone()));
            }
            ids
        };
        let mut ids = ids;
        let leading: Vec<&str> = of(FloatingIp::KIND).map(String::as_str).collect();
        for chunk in leading.chunks(CHUNK) {
            let found = self.store.list::<FloatingIp>(Query::all().ids(chunk.to_vec())).await?;
            ids.extend(found.into_iter().filter_map(|f| f.record.port_id));
        }
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let mut drafts = BTreeMap::new();
        for chunk in ids.chunks(CHUNK) {
            let ports = self.store.list::<Port>(Query::all().ids(chunk.to_vec())).await?;
            let found = Found::read(&self.store, ports).await?;
            let mut rooms = self.neighbourhood.rooms.lock();
            chunk.iter().for_each(|id| rooms.place(id, &found, &mut drafts));
        }
        let rooms = self.neighbourhood.rooms.lock();
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
