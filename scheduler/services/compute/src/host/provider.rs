//! A host's resources, offered in placement as one provider whose id is the node's.
use crate::Compute;
use pilvi_fleet::Node;
use pilvi_kit::Fault;
use pilvi_placement::provider::{
    model::Inventory,
    ops::{Wanted, ensure_in},
};
use pilvi_store::Stored;
use std::collections::BTreeMap;

/// Whose ports a host's link serves: those of the overlay and of the external network, with a tap.
const NETWORKS: [&str; 3] = ["CUSTOM_PHYSNET_RP_TUNNELLED", "CUSTOM_PHYSNET_EXTERNAL", "CUSTOM_VNIC_TYPE_NORMAL"];

impl Compute {
    /// Makes placement know what the host has. A host that has not reported yet offers nothing.
    pub async fn offer_host(&self, node: &Stored<Node>) -> Result<(), Fault> {
        let inventory = &node.inventory;
        if inventory.vcpus == 0 {
            return Ok(());
        }
        let whole = |total: u64, ratio: f64| {
            let total = i64::try_from(total).unwrap_or(i64::MAX);
            Inventory { total, reserved: 0, min_unit: 1, max_unit: total, step_size: 1, allocation_ratio: ratio }
        };
        let mut inventories = BTreeMap::new();
        let config = &self.config;
        for (class, total, ratio) in [
            ("VCPU", u64::from(inventory.vcpus), config.cpu_ratio),
            ("MEMORY_MB", inventory.memory_mib, config.memory_ratio),
            ("DISK_GB", inventory.disk_gib, config.disk_ratio),
        ] {
            if total > 0 {
                inventories.insert(class.to_owned(), whole(total, ratio));
            }
        }
        let mut traits = inventory.traits.clone();
        for (class, total) in &inventory.link {
            inventories.insert(class.clone(), whole(*total, 1.0));
        }
        if !inventory.link.is_empty() {
            traits.extend(NETWORKS.map(str::to_owned));
        }
        let wanted = Wanted { uuid: node.id.clone(), name: node.name.clone(), inventories, traits };
        self.store
            .write(move |tx| {
                let wanted = wanted.clone();
                Box::pin(async move {
                    ensure_in(tx, wanted).await?;
                    Ok::<_, Fault>(())
                })
            })
            .await
    }
}
