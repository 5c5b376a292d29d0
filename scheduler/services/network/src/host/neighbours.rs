//! The ports of each network, told alike to every host that reaches it: where packets go, and who is called what.
//!
//! ```text
//!  first host that reaches a network --> its room is read from the store        all members --> that host
//!  a port or its floating IP changes --> read again, put into its room          news --> every host of the room
//!  a host's underlay address changes --> its ports are looked at again          news
//! ```
//! Only rooms that somebody here listens to are kept; a port of any other network costs nothing. All is read from the
//! store again when the feed was cut.
use super::names;
use crate::{Network, floating_ip::model::FloatingIp, port::model::Port, tables::find};
use parking_lot::Mutex;
use pilvi_agent_api::{neighbours::Room, v1};
use pilvi_kit::Fault;
use pilvi_store::{Change, Query, Record, Stored};
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
    /// Underlay addresses by hosts' names.
    vteps: HashMap<String, String>,
    /// Hosts whose address has changed since news were last made.
    moved: BTreeSet<String>,
}

#[derive(Debug)]
struct Placed {
    network: String,
    host: String,
    /// Floating IPs with names that lead to it.
    named: Vec<String>,
}

/// What happened in a room.
struct Draft {
    before: u64,
    changed: BTreeMap<String, v1::Remote>,
    gone: BTreeSet<String>,
}

/// A port, and the floating IPs that lead to it.
type Found<'f> = (&'f Port, Vec<&'f FloatingIp>);

impl Rooms {
    /// As hosts see the port; no underlay address when packets cannot be sent to it.
    fn member(&self, (port, floating): &Found<'_>) -> v1::Remote {
        let vtep = self.vteps.get(&port.host_id).filter(|_| port.is_endpoint());
        v1::Remote {
            port_id: port.id.clone(),
            network_id: port.network_id.clone(),
            mac: port.mac_address.clone(),
            addresses: port.fixed_ips.iter().map(|f| f.ip_address.clone()).collect(),
            vtep: vtep.cloned().unwrap_or_default(),
            groups: port.security_groups.clone(),
            names: names::of(port, floating.iter().copied()),
        }
    }

    /// Puts a port where it belongs now; `None`: it is gone. Gateways are nobody's neighbours.
    fn place(&mut self, id: &str, found: Option<Found<'_>>, drafts: &mut BTreeMap<String, Draft>) {
        let fits = |p: &Port| !p.device_owner.starts_with("network:") && self.rooms.contains_key(&p.network_id);
        let found = found.filter(|(port, _)| fits(port));
        let network = found.as_ref().map(|(port, _)| port.network_id.clone());
        let former = self.placed.remove(id);
        former.iter().flat_map(|f| &f.named).for_each(|floating| drop(self.named.remove(floating)));
        if let Some(former) = former.map(|f| f.network).filter(|former| Some(former) != network.as_ref())
            && let Some(room) = self.rooms.get_mut(&former)
        {
            let before = room.version();
            if room.remove(id) {
                let draft = Draft::of(drafts, &former, before);
                draft.changed.remove(id);
                draft.gone.insert(id.to_owned());
            }
        }
        let (Some(found), Some(network)) = (found, network) else { return };
        let named: Vec<String> = found.1.iter().filter(|f| names::is_named(f)).map(|f| f.id.clone()).collect();
        self.named.extend(named.iter().map(|floating| (floating.clone(), id.to_owned())));
        let placed = Placed { network: network.clone(), host: found.0.host_id.clone(), named };
        self.placed.insert(id.to_owned(), placed);
        let member = self.member(&found);
        let Some(room) = self.rooms.get_mut(&network) else { return };
        let before = room.version();
        if room.set(member.clone()) {
            let draft = Draft::of(drafts, &network, before);
            draft.gone.remove(id);
            draft.changed.insert(id.to_owned(), member);
        }
    }
}

impl Draft {
    fn of<'d>(drafts: &'d mut BTreeMap<String, Draft>, network: &str, before: u64) -> &'d mut Draft {
        drafts.entry(network.to_owned()).or_insert(Draft { before, changed: BTreeMap::new(), gone: BTreeSet::new() })
    }
}

fn by_port(floating: &[Stored<FloatingIp>]) -> HashMap<&str, Vec<&FloatingIp>> {
    let mut out: HashMap<&str, Vec<&FloatingIp>> = HashMap::new();
    for found in floating {
        if let Some(port) = &found.record.port_id {
            out.entry(port).or_default().push(&found.record);
        }
    }
    out
}

impl Neighbourhood {
    /// What hosts there are. A host that has left the list keeps the address that it had.
    pub(crate) fn set_vtep(&self, host: &str, vtep: &str) {
        let mut rooms = self.rooms.lock();
        if !vtep.is_empty() && rooms.vteps.get(host).map(String::as_str) != Some(vtep) {
            rooms.vteps.insert(host.to_owned(), vtep.to_owned());
            rooms.moved.insert(host.to_owned());
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
            placed.retain(|_, port| port.network != network);
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
            let ports = self.store.list::<Port>(find::on_network(network)).await?;
            let ids: Vec<&str> = ports.iter().map(|p| p.record.id.as_str()).collect();
            let mut floating = Vec::new();
            for chunk in ids.chunks(CHUNK) {
                floating.extend(self.store.list::<FloatingIp>(find::of_ports(chunk.to_vec())).await?);
            }
            let floating = by_port(&floating);
            let mut rooms = self.neighbourhood.rooms.lock();
            rooms.rooms.entry(network.to_owned()).or_default();
            for port in &ports {
                let leading = floating.get(port.record.id.as_str()).cloned().unwrap_or_default();
                rooms.place(&port.record.id, Some((&port.record, leading)), &mut BTreeMap::new());
            }
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
            let floating = self.store.list::<FloatingIp>(find::of_ports(chunk.to_vec())).await?;
            let floating = by_port(&floating);
            let ports: HashMap<&str, &Port> = ports.iter().map(|p| (p.record.id.as_str(), &p.record)).collect();
            let mut rooms = self.neighbourhood.rooms.lock();
            for id in chunk {
                let leading = floating.get(id).cloned().unwrap_or_default();
                rooms.place(id, ports.get(id).map(|port| (*port, leading)), &mut drafts);
            }
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
