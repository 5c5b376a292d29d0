//! What the network and image services give the fleet: adapters, so that neither knows it.
use async_trait::async_trait;
use pilvi_agent_api::v1;
use pilvi_fleet::{Affected, Fleet, HostPart, ImageSource, Part};
use pilvi_image::Image;
use pilvi_kit::Fault;
use pilvi_network::{Network, host::HostInfo};
use pilvi_store::Change;
use std::sync::Arc;

/// The network part of every host's wanted state.
pub struct NetworkPart {
    network: Arc<Network>,
    fleet: Arc<Fleet>,
}

impl NetworkPart {
    pub fn new(network: Arc<Network>, fleet: Arc<Fleet>) -> Self {
        NetworkPart { network, fleet }
    }
}

#[async_trait]
impl HostPart for NetworkPart {
    async fn wanted(&self, host: &str) -> Result<Part, Fault> {
        let nodes = self.fleet.nodes().await?;
        let hosts: Vec<HostInfo> = nodes
            .iter()
            .map(|n| HostInfo {
                name: n.name.clone(),
                vtep: n.inventory.vtep.clone(),
                up: n.is_up(),
                ..HostInfo::default()
            })
            .collect();
        let network = self.network.host_network(host, &hosts).await?;
        Ok(Part { instances: Vec::new(), network: Some(network) })
    }

    async fn affected(&self, change: &Change) -> Affected {
        if pilvi_network::KINDS.contains(&change.kind.as_str()) { Affected::All } else { Affected::None }
    }

    async fn observed(&self, host: &str, observed: &v1::Observed) -> Result<(), Fault> {
        self.network.observe(host, &observed.ports).await
    }
}

/// Image bytes for agents.
pub struct ImageBytes {
    image: Arc<Image>,
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
