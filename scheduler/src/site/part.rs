//! What the network and image services give the fleet: adapters, so that neither knows it.
use async_trait::async_trait;
use pilvi_agent_api::v1;
use pilvi_compute::Compute;
use pilvi_fleet::{Affected, Fleet, HostPart, ImageSink, ImageSource, Node, Part, Upload};
use pilvi_identity::Identity;
use pilvi_image::Image;
use pilvi_kit::{Fault, call::BodyStream, notify::Outlet};
use pilvi_network::{Network, host::HostInfo};
use pilvi_reconcile::{Failure, Heir};
use pilvi_store::{Change, Listen, Record, Stored, Told};
use std::{collections::BTreeMap, sync::Arc};

/// The network part of every host's wanted state.
pub struct NetworkPart {
    network: Arc<Network>,
    fleet: Arc<Fleet>,
    /// Where samples of counters go.
    outlet: Outlet,
}

impl NetworkPart {
    pub fn new(network: Arc<Network>, fleet: Arc<Fleet>, outlet: Outlet) -> Self {
        NetworkPart { network, fleet, outlet }
    }

    async fn hosts(&self) -> Result<Vec<HostInfo>, Fault> {
        let nodes = self.fleet.nodes().await?;
        let host = |n: &Node| HostInfo {
            name: n.name.clone(),
            vtep: n.inventory.vtep.clone(),
            up: n.is_up(),
            ..HostInfo::default()
        };
        Ok(nodes.iter().map(|n| host(n)).collect())
    }

    /// Tells the network service what hosts there are, whichever scheduler has their sessions.
    pub async fn refresh(&self) -> Result<(), Fault> {
        self.network.remember(&self.hosts().await?);
        Ok(())
    }
}

impl Listen for NetworkPart {
    fn kinds(&self) -> Vec<&'static str> {
        vec![Node::KIND]
    }
    fn changed<'a>(&'a self, _changes: &'a [Change]) -> Told<'a> {
        self.lost()
    }
    fn lost(&self) -> Told<'_> {
        Box::pin(async move {
            // A list of hosts that is late does less harm than no answer.
            if let Err(fault) = self.refresh().await {
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
        let hosts = self.hosts().await?;
        let network = self.network.host_network(host, &hosts).await?;
        Ok(Part { instances: Vec::new(), network: Some(network) })
    }

    async fn affected(&self, change: &Change) -> Affected {
        if pilvi_network::KINDS.contains(&change.kind.as_str()) { Affected::All } else { Affected::None }
    }

    async fn observed(&self, host: &str, observed: &v1::Observed) -> Result<(), Fault> {
        self.network.observe(host, &observed.ports).await?;
        for sample in self.network.metered(host, &observed.meters).await? {
            self.outlet.emit("network", "l3.meter", sample.payload());
        }
        Ok(())
    }

    async fn host_changed(&self, _node: &Stored<Node>) -> Result<(), Fault> {
        self.refresh().await
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

/// Image bytes for agents.
pub struct ImageBytes {
    image: Arc<Image>,
}

/// Snapshots from agents: compute says which image a host may fill, the image service takes the bytes.
pub struct Snapshots {
    image: Arc<Image>,
    compute: Arc<Compute>,
}

impl Snapshots {
    pub fn new(image: Arc<Image>, compute: Arc<Compute>) -> Self {
        Snapshots { image, compute }
    }
}

#[async_trait]
impl ImageSink for Snapshots {
    async fn take(&self, host: &str, image_id: &str, size: u64, bytes: Upload) -> Result<(), Fault> {
        if !self.compute.awaits_snapshot(host, image_id).await? {
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
