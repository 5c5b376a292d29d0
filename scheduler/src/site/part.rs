//! What services give the fleet and each other: adapters, so that neither knows the other.
use async_trait::async_trait;
use parking_lot::Mutex;
use pilvi_agent_api::{neighbours::News, v1};
use pilvi_compute::Compute;
use pilvi_fleet::{Affected, Fleet, HostPart, ImageSink, ImageSource, Node, Part, Upload};
use pilvi_identity::Identity;
use pilvi_image::Image;
use pilvi_kit::{Fault, call::BodyStream, notify::Outlet};
use pilvi_network::{
    Network,
    host::{HostInfo, interest::Concerned},
};
use pilvi_reconcile::{Failure, Heir};
use pilvi_store::{Change, Listen, Record, Stored, Told};
use pilvi_volume::Volumes;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::Duration,
};

/// The network part of every host's wanted state.
pub struct NetworkPart {
    network: Arc<Network>,
    fleet: Arc<Fleet>,
    /// All hosts by the ids of their nodes; `None` until they have been listed.
    hosts: tokio::sync::Mutex<Option<BTreeMap<String, HostInfo>>>,
    /// Names of hosts that have changed since the network service was told of all; empty: nothing is under way.
    changed: Mutex<BTreeSet<String>>,
    me: Weak<NetworkPart>,
    /// Where samples of counters go.
    outlet: Outlet,
}

fn host(node: &Node) -> HostInfo {
    HostInfo {
        name: node.name.clone(),
        vtep: node.inventory.vtep.clone(),
        up: node.is_up(),
        physical: node.inventory.physical.clone(),
        zone: node.inventory.zone.clone(),
        wireguard: node.inventory.wireguard.clone().map(|(public_key, port)| v1::Wireguard { public_key, port }),
        overlay_error: node.inventory.overlay_error.clone(),
        ..HostInfo::default()
    }
}

/// A list of so many hosts is told at once when one of them changes. A longer one is told a moment later, once for all that
/// change together: ten thousand hosts that come, or are lost, are not ten thousand times ten thousand.
const SHORT: usize = 100;
const GATHER: Duration = Duration::from_millis(200);

impl NetworkPart {
    pub fn new(network: Arc<Network>, fleet: Arc<Fleet>, outlet: Outlet) -> Arc<Self> {
        let (hosts, changed) = Default::default();
        Arc::new_cyclic(|me| NetworkPart { network, fleet, hosts, changed, me: me.clone(), outlet })
    }

    /// Tells the network service what hosts there are, whichever scheduler has their sessions. `nodes`: those that may
    /// have changed; `None`: any.
    pub async fn refresh(&self, nodes: Option<&BTreeSet<String>>) -> Result<(), Fault> {
        let mut hosts = self.hosts.lock().await;
        let (Some(known), Some(nodes)) = (hosts.as_mut(), nodes) else {
            let all = self.fleet.nodes().await?;
            return self.tell(hosts.insert(all.iter().map(|node| (node.id.clone(), host(node))).collect())).await;
        };
        let mut changed = BTreeSet::new();
        for id in nodes {
            let now = self.fleet.node(id).await?.map(|node| host(&node));
            if known.get(id) == now.as_ref() {
                continue;
            }
            let before = known.remove(id);
            changed.extend(before.iter().chain(&now).map(|host| host.name.clone()));
            if let Some(now) = now {
                known.insert(id.clone(), now);
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        if known.len() <= SHORT {
            return self.tell(known).await;
        }
        let mut waiting = self.changed.lock();
        if waiting.is_empty() {
            tokio::spawn(tell_soon(self.me.clone()));
        }
        waiting.extend(changed);
        Ok(())
    }

    async fn tell(&self, hosts: &BTreeMap<String, HostInfo>) -> Result<(), Fault> {
        let mut all: Vec<HostInfo> = hosts.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        self.network.learn_reach(&all).await?;
        self.network.learn_zones(&all).await?;
        let before = self.network.hosts();
        if self.network.remember(&all) {
            // Ways out may have moved: to hosts that know nothing of it yet.
            self.network.concerned_by_hosts(&before).await?.iter().for_each(|host| self.fleet.touch(host));
            self.fleet.nudge();
        }
        Ok(())
    }
}

async fn tell_soon(part: Weak<NetworkPart>) {
    tokio::time::sleep(GATHER).await;
    let Some(part) = part.upgrade() else { return };
    let hosts = part.hosts.lock().await;
    let changed = std::mem::take(&mut *part.changed.lock());
    let Some(known) = hosts.as_ref() else { return };
    if let Err(fault) = part.tell(known).await {
        tracing::warn!(%fault, "the hosts could not be told");
    }
    // Their own wanted states were made of the list as it was.
    changed.iter().for_each(|host| part.fleet.touch(host));
}

impl Listen for NetworkPart {
    fn kinds(&self) -> Vec<&'static str> {
        vec![Node::KIND]
    }
    fn changed<'a>(&'a self, changes: &'a [Change]) -> Told<'a> {
        Box::pin(async move {
            let nodes = changes.iter().map(|change| change.id.clone()).collect();
            // A list of hosts that is late does less harm than no answer.
            if let Err(fault) = self.refresh(Some(&nodes)).await {
                tracing::warn!(%fault, "the hosts could not be looked at");
            }
            Ok(())
        })
    }
    fn lost(&self) -> Told<'_> {
        Box::pin(async move {
            if let Err(fault) = self.refresh(None).await {
                tracing::warn!(%fault, "the hosts could not be listed");
            }
            Ok(())
        })
    }
}

/// Settles what a dead scheduler was doing with images.
pub struct Uploads(pub Arc<Image>);

#[async_trait]
impl Heir for Uploads {
    async fn inherit(&self, dead: &str) -> Result<(), Failure> {
        Ok(self.0.inherit(dead).await?)
    }
}

#[async_trait]
impl HostPart for NetworkPart {
    async fn wanted(&self, host: &str) -> Result<Part, Fault> {
        let network = self.network.host_network_now(host).await?;
        Ok(Part { network: Some(network), ..Part::default() })
    }

    async fn affected(&self, changes: &[Change]) -> Affected {
        match self.network.concerned(changes).await {
            Ok(Concerned::Hosts(hosts)) => Affected::Hosts(hosts),
            Ok(Concerned::All) => Affected::All,
            Err(fault) => {
                tracing::warn!(%fault, "whom changes concern could not be read: all hosts look again");
                Affected::All
            }
        }
    }

    async fn neighbours(&self, network: &str, known: Option<u64>) -> Result<Option<News>, Fault> {
        Ok(self.network.neighbours(network, known).await?.map(News::from))
    }

    async fn news(&self, changes: &[Change]) -> Result<Vec<News>, Fault> {
        Ok(self.network.neighbours_news(changes).await?.into_iter().map(News::from).collect())
    }

    fn leave(&self, network: &str) {
        self.network.leave_neighbours(network);
    }

    fn forget(&self) {
        self.network.forget_neighbours();
    }

    async fn observed(&self, host: &str, observed: &v1::Observed) -> Result<(), Fault> {
        self.network.observe(host, &observed.ports).await?;
        self.network.delegated(host, &observed.delegations).await?;
        for sample in self.network.metered(host, &observed.meters).await? {
            self.outlet.emit("network", "l3.meter", sample.payload());
        }
        Ok(())
    }

    async fn unchanged(&self, host: &str, ports: &[v1::ObservedPort]) -> Result<(), Fault> {
        self.network.observe(host, ports).await
    }

    async fn host_changed(&self, node: &Stored<Node>) -> Result<(), Fault> {
        self.refresh(Some(&BTreeSet::from([node.id.clone()]))).await
    }
}

/// What the image service asks of identity.
#[derive(Debug)]
pub struct ImageCloud {
    identity: Arc<Identity>,
    region: String,
}

impl ImageCloud {
    pub fn new(identity: Arc<Identity>, region: &str) -> Self {
        ImageCloud { identity, region: region.to_owned() }
    }
}

#[async_trait]
impl pilvi_image::Cloud for ImageCloud {
    async fn limits(&self, project_id: &str) -> Result<BTreeMap<String, i64>, Fault> {
        self.identity.limits_of("image", &self.region, project_id).await
    }
    async fn image_endpoint(&self, region: &str, interface: &str) -> Result<Option<String>, Fault> {
        self.identity.endpoint("image", region, interface).await
    }
}

/// What the volume service asks and tells compute: an operator's zones are aggregates of hosts.
#[derive(Debug)]
pub struct VolumeCloud(pub Arc<Compute>);

#[async_trait]
impl pilvi_volume::Cloud for VolumeCloud {
    async fn zones(&self) -> Result<BTreeMap<String, String>, Fault> {
        self.0.zones_of_hosts().await
    }
    async fn extended(&self, server_id: &str) -> Result<(), Fault> {
        self.0.note_extended(server_id).await
    }
}

/// Image bytes for agents.
pub struct ImageBytes {
    image: Arc<Image>,
}

/// Snapshots and uploads of volumes from agents: compute or the volume service says which image a host may fill, the
/// image service takes the bytes.
pub struct Snapshots {
    image: Arc<Image>,
    compute: Arc<Compute>,
    volumes: Arc<Volumes>,
}

impl Snapshots {
    pub fn new(image: Arc<Image>, compute: Arc<Compute>, volumes: Arc<Volumes>) -> Self {
        Snapshots { image, compute, volumes }
    }
}

#[async_trait]
impl ImageSink for Snapshots {
    async fn take(&self, host: &str, image_id: &str, size: u64, bytes: Upload) -> Result<(), Fault> {
        let awaited =
            self.compute.awaits_snapshot(host, image_id).await? || self.volumes.awaits_upload(host, image_id).await?;
        if !awaited {
            return Err(Fault::forbidden("This host was not asked for this image."));
        }
        let image = pilvi_image::image::ops::get_any(self.image.store(), image_id).await?;
        if image.has_data() {
            return Ok(());
        }
        pilvi_image::data::ops::upload(&self.image, image_id, BodyStream::new(bytes), Some(size)).await
    }
}

impl ImageBytes {
    pub fn new(image: Arc<Image>) -> Self {
        ImageBytes { image }
    }
}

#[async_trait]
impl ImageSource for ImageBytes {
    async fn open(&self, image_id: &str, offset: u64) -> Result<pilvi_fleet::ImageStream, Fault> {
        pilvi_image::data::ops::open(&self.image, image_id, offset).await
    }
}
