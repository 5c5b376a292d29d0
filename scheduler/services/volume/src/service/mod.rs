//! The services behind volumes as operators see them: one on each host, and this scheduler.
pub mod api;
pub mod host_api;
pub mod pool_api;

use crate::{Volumes, host::backend, tables::HostService};
use pilvi_fleet::Node;
use pilvi_kit::{Fault, clock};
use pilvi_store::Query;
use std::collections::BTreeMap;

pub const VOLUME: &str = "cinder-volume";
pub const SCHEDULER: &str = "cinder-scheduler";
/// What the schedulers are called together: any of them does the work of one that is gone.
const SCHEDULER_HOST: &str = "pilvi";

/// One service.
#[derive(Debug, Clone)]
pub struct Listed {
    pub binary: &'static str,
    /// `host1@files`
    pub host: String,
    pub zone: String,
    pub up: bool,
    pub updated_us: i64,
    pub said: HostService,
    /// Of its host, where it has one.
    pub node: Option<Node>,
}

impl Volumes {
    /// All services: those of hosts, by name, and the scheduler.
    pub(crate) async fn services(&self) -> Result<Vec<Listed>, Fault> {
        let said = self.store.list::<HostService>(Query::all()).await?;
        let said: BTreeMap<String, HostService> = said.into_iter().map(|s| (s.record.id.clone(), s.record)).collect();
        let silent = |host: &str| HostService { id: host.into(), disabled: false, reason: None, frozen: false };
        let zones = self.zones().await?;
        let mut listed = vec![Listed {
            binary: SCHEDULER,
            host: SCHEDULER_HOST.into(),
            zone: self.config.default_zone.clone(),
            up: true,
            updated_us: clock::now_us(),
            said: silent(SCHEDULER_HOST),
            node: None,
        }];
        let mut nodes: Vec<Node> = self.fleet.nodes().await?.into_iter().map(|n| n.record).collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        for node in nodes {
            listed.push(Listed {
                binary: VOLUME,
                host: backend::service_of(&node.name),
                zone: zones.get(&node.name).unwrap_or(&self.config.default_zone).clone(),
                up: node.is_up(),
                updated_us: node.last_seen_us,
                said: said.get(&node.name).cloned().unwrap_or_else(|| silent(&node.name)),
                node: Some(node),
            });
        }
        Ok(listed)
    }
}
