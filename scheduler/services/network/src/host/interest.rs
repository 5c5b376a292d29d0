//! Which hosts a change concerns: those whose view was made with the record, or with what the record belongs to.
//!
//! ```text
//!  a view is made --> the ids of all that it was made of are noted for the host
//!  a change       --> the record's id, and the ids of its parents --> hosts that noted one of them
//! ```
//! Noted by hash: two ids with one hash make a host look twice, never too seldom. Of a host's own ports it is noted as
//! well what they were like: when the host says that one is wired, its status changes and nothing that a view shows.
use super::reach::Reach;
use crate::{
    Network,
    address_group::model::AddressGroup,
    conntrack_helper::model::ConntrackHelper,
    delegation::model::PrefixLease,
    firewall::model::{FirewallGroup, FirewallPolicy, FirewallPort, FirewallRule},
    floating_ip::model::FloatingIp,
    flow_log::model::FlowLog,
    hosting::model::Hosting,
    local_ip::model::Association,
    metering::model::{MeteringLabel, MeteringRule},
    ndp_proxy::model::NdpProxy,
    network::model::VirtualNetwork,
    port::model::{Port, ROUTER_GATEWAY, ROUTER_INTERFACE, Status},
    port_forwarding::model::PortForwarding,
    qos::model::{Bandwidth, Dscp, PacketRate, QosRule},
    router::model::Router,
    security_group::model::{SecurityGroup, SecurityGroupRule},
    subnet::model::Subnet,
    subnet_pool::model::SubnetPool,
    tables::KINDS,
    tap::model::{TapFlow, TapMirror, TapService},
    trunk::model::Trunk,
};
use parking_lot::Mutex;
use pilvi_kit::Fault;
use pilvi_store::{Change, Op, Query, Record};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
};

/// What every view with a way out is noted under.
pub(super) const WAYS_OUT: &str = "ways out";

/// Kinds whose records are noted by themselves wherever they count. A firewall's port is called as the port is.
const BY_ITSELF: [&str; 8] = [
    VirtualNetwork::KIND,
    SecurityGroup::KIND,
    AddressGroup::KIND,
    SubnetPool::KIND,
    FirewallGroup::KIND,
    FirewallPolicy::KIND,
    FirewallRule::KIND,
    FirewallPort::KIND,
];

/// Whose state a change may alter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Concerned {
    Hosts(BTreeSet<String>),
    All,
}

/// Ports of one query.
const CHUNK: usize = 400;

#[derive(Debug, Default)]
pub struct Interest(Mutex<Notes>);

#[derive(Debug, Default)]
struct Notes {
    hosts: HashMap<u64, HashSet<String>>,
    keys: HashMap<String, Vec<u64>>,
    /// What ports were like when the view of their host was made.
    ports: HashMap<String, u64>,
}

fn hash(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// All of a port but its status.
fn likeness(port: &Port) -> u64 {
    let shown = Port { status: Status::Down, ..port.clone() };
    hash(&serde_json::to_string(&shown).unwrap_or_default())
}

impl Interest {
    /// Notes what a host's ports are like.
    pub fn note_ports<'p>(&self, ports: impl Iterator<Item = &'p Port>) {
        let likes: Vec<(String, u64)> = ports.map(|port| (port.id.clone(), likeness(port))).collect();
        self.0.lock().ports.extend(likes);
    }

    /// Is there nothing new to the view of its host? A port that is gone is forgotten.
    fn is_known(&self, id: &str, port: Option<&Port>) -> bool {
        let mut notes = self.0.lock();
        match port.filter(|port| port.is_endpoint()) {
            Some(port) => notes.ports.get(id) == Some(&likeness(port)),
            None => {
                notes.ports.remove(id);
                false
            }
        }
    }

    /// Notes what a host's view was made of, instead of what it was made of before.
    pub fn note<'k>(&self, host: &str, keys: impl Iterator<Item = &'k str>) {
        let keys: HashSet<u64> = keys.map(hash).collect();
        let mut notes = self.0.lock();
        let former = notes.keys.remove(host).unwrap_or_default();
        for key in former.iter().filter(|key| !keys.contains(key)) {
            if let Some(hosts) = notes.hosts.get_mut(key) {
                hosts.remove(host);
                if hosts.is_empty() {
                    notes.hosts.remove(key);
                }
            }
        }
        for key in keys.iter().filter(|key| !former.contains(key)) {
            notes.hosts.entry(*key).or_default().insert(host.to_owned());
        }
        if !keys.is_empty() {
            notes.keys.insert(host.to_owned(), keys.into_iter().collect());
        }
    }

    pub(super) fn hosts<'k>(&self, keys: impl Iterator<Item = &'k str>) -> BTreeSet<String> {
        let notes = self.0.lock();
        keys.filter_map(|key| notes.hosts.get(&hash(key))).flatten().cloned().collect()
    }
}

impl Reach {
    /// Ids of all that a view is made of.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        fn of<V>(map: &std::collections::BTreeMap<String, V>) -> impl Iterator<Item = &str> {
            map.keys().map(String::as_str)
        }
        let ways_out = self.routers.values().any(|r| r.external_gateway_info.is_some()).then_some(WAYS_OUT);
        let wire = of(&self.local)
            .chain(of(&self.networks))
            .chain(of(&self.subnets))
            .chain(of(&self.pools))
            .chain(of(&self.prefix_leases))
            .chain(of(&self.trunks));
        let rooms = self.rooms.iter().map(String::as_str);
        let routing = of(&self.routers)
            .chain(of(&self.legs))
            .chain(of(&self.floating))
            .chain(of(&self.by_leg))
            .chain(of(&self.forwardings))
            .chain(of(&self.proxies))
            .chain(of(&self.helpers));
        let filters = of(&self.groups).chain(of(&self.rules)).chain(of(&self.address_groups));
        let quality = of(&self.bandwidths).chain(of(&self.packet_rates)).chain(of(&self.marks));
        let policies = self.policies.iter().map(String::as_str);
        let counted =
            of(&self.forwarders).chain(of(&self.associations)).chain(of(&self.labels)).chain(of(&self.meter_rules));
        let firewalls = of(&self.firewalls).chain(of(&self.firewall_policies)).chain(of(&self.firewall_rules));
        let taps = of(&self.tap_flows).chain(of(&self.tap_services)).chain(of(&self.tap_ports));
        let taps = taps.chain(of(&self.tap_mirrors));
        wire.chain(taps)
            .chain(firewalls)
            .chain(rooms)
            .chain(routing)
            .chain(filters)
            .chain(quality)
            .chain(policies)
            .chain(counted)
            .chain(ways_out)
    }
}

impl Network {
    /// Whose view of the network changes may alter. A port that is only another's neighbour alters no view.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn concerned(&self, changes: &[Change]) -> Result<Concerned, Fault> {
        let (mut keys, mut hosts, mut ports) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for change in changes {
            let kind = change.kind.as_str();
            if !KINDS.contains(&kind) {
                continue;
            }
            if [Hosting::KIND, MeteringLabel::KIND, FlowLog::KIND].contains(&kind) {
                return Ok(Concerned::All);
            }
            if kind == Port::KIND {
                ports.insert(change.id.as_str());
                continue;
            }
            keys.push(change.id.clone());
            if change.op != Op::Delete && !self.add_parents(kind, &change.id, &mut keys, &mut hosts).await? {
                return Ok(Concerned::All);
            }
        }
        let ports: Vec<&str> = ports.into_iter().collect();
        for chunk in ports.chunks(CHUNK) {
            self.add_ports(chunk, &mut keys, &mut hosts).await?;
        }
        hosts.extend(self.interest.hosts(keys.iter().map(String::as_str)));
        Ok(Concerned::Hosts(hosts))
    }

    /// Those of ports that have changed, or are gone.
    async fn add_ports(&self, ids: &[&str], keys: &mut Vec<String>, hosts: &mut BTreeSet<String>) -> Result<(), Fault> {
        let found = self.store.list::<Port>(Query::all().ids(ids.iter().copied())).await?;
        let mut ports: HashMap<String, Port> = found.into_iter().map(|p| (p.record.id.clone(), p.record)).collect();
        for id in ids {
            let port = ports.remove(*id);
            if self.interest.is_known(id, port.as_ref()) {
                continue;
            }
            keys.push((*id).to_owned());
            match port {
                Some(port) if matches!(port.device_owner.as_str(), ROUTER_INTERFACE | ROUTER_GATEWAY) => {
                    keys.extend([port.network_id, port.device_id]);
                }
                Some(port) if port.is_endpoint() => {
                    hosts.extend([port.host_id, port.also_on].into_iter().filter(|host| !host.is_empty()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn add_floating(&self, id: &str, keys: &mut Vec<String>, hosts: &mut BTreeSet<String>) -> Result<(), Fault> {
        let Some(floating) = self.store.get::<FloatingIp>(id).await? else { return Ok(()) };
        keys.extend(floating.port_id.clone());
        keys.extend(floating.router_id.clone().filter(|_| floating.by_leg));
        // Whoever holds the way out passes on what comes there.
        if let Some(router) = &floating.router_id
            && let Some(router) = self.store.get::<Router>(router).await?
        {
            hosts.extend(self.holder_of(&router).await?);
        }
        Ok(())
    }

    /// False for a kind that this does not know.
    async fn add_parents(
        &self,
        kind: &str,
        id: &str,
        keys: &mut Vec<String>,
        hosts: &mut BTreeSet<String>,
    ) -> Result<bool, Fault> {
        if BY_ITSELF.contains(&kind) {
            return Ok(true);
        }
        match kind {
            Subnet::KIND => keys.extend(self.parent::<Subnet>(id, |s| vec![s.network_id.clone()]).await?),
            SecurityGroupRule::KIND => {
                keys.extend(self.parent::<SecurityGroupRule>(id, |r| vec![r.security_group_id.clone()]).await?);
            }
            FloatingIp::KIND => self.add_floating(id, keys, hosts).await?,
            PortForwarding::KIND => {
                keys.extend(self.parent::<PortForwarding>(id, |f| vec![f.router_id.clone()]).await?);
            }
            MeteringRule::KIND => {
                keys.extend(self.parent::<MeteringRule>(id, |r| vec![r.metering_label_id.clone()]).await?);
            }
            ConntrackHelper::KIND => {
                keys.extend(self.parent::<ConntrackHelper>(id, |h| vec![h.router_id.clone()]).await?);
            }
            PrefixLease::KIND => {
                if let Some(lease) = self.store.get::<PrefixLease>(id).await?.map(|found| found.record) {
                    hosts.insert(lease.host_id);
                    keys.extend([lease.subnet_id, lease.router_id]);
                }
            }
            NdpProxy::KIND => {
                keys.extend(self.parent::<NdpProxy>(id, |p| vec![p.router_id.clone()]).await?);
            }
            Association::KIND => {
                keys.extend(self.parent::<Association>(id, |a| vec![a.fixed_port_id.clone()]).await?);
            }
            TapFlow::KIND => {
                keys.extend(
                    self.parent::<TapFlow>(id, |t| vec![t.source_port.clone(), t.tap_service_id.clone()]).await?,
                );
            }
            TapMirror::KIND => keys.extend(self.parent::<TapMirror>(id, |t| vec![t.port_id.clone()]).await?),
            TapService::KIND => keys.extend(self.parent::<TapService>(id, |t| vec![t.port_id.clone()]).await?),
            Trunk::KIND => {
                keys.extend(self.parent::<Trunk>(id, |t| t.ports().map(str::to_owned).collect()).await?);
            }
            _ if kind == QosRule::<Bandwidth>::KIND => {
                keys.extend(self.parent::<QosRule<Bandwidth>>(id, |r| vec![r.policy_id.clone()]).await?);
            }
            _ if kind == QosRule::<PacketRate>::KIND => {
                keys.extend(self.parent::<QosRule<PacketRate>>(id, |r| vec![r.policy_id.clone()]).await?);
            }
            _ if kind == QosRule::<Dscp>::KIND => {
                keys.extend(self.parent::<QosRule<Dscp>>(id, |r| vec![r.policy_id.clone()]).await?);
            }
            Router::KIND => {
                if let Some(router) = self.store.get::<Router>(id).await?
                    && router.external_gateway_info.is_some()
                {
                    hosts.extend(self.holder_of(&router).await?);
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    async fn parent<R: Record>(&self, id: &str, of: impl Fn(&R) -> Vec<String>) -> Result<Vec<String>, Fault> {
        Ok(self.store.get::<R>(id).await?.map(|found| of(&found.record)).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_found_by_what_its_last_view_was_made_of() {
        let interest = Interest::default();
        interest.note("h1", ["a", "b"].into_iter());
        interest.note("h2", ["b", "c"].into_iter());
        let hosts = |key: &str| interest.hosts(std::iter::once(key)).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!([hosts("a"), hosts("b"), hosts("c"), hosts("d")], ["h1", "h1 h2", "h2", ""]);
        interest.note("h1", ["c"].into_iter());
        assert_eq!([hosts("a"), hosts("b"), hosts("c")], ["", "h2", "h1 h2"]);
        interest.note("h2", [].into_iter());
        assert_eq!(hosts("c"), "h1");
        interest.note("h1", [].into_iter());
        assert!(interest.0.lock().hosts.is_empty() && interest.0.lock().keys.is_empty());
    }
}
