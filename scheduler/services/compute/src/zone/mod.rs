//! Availability zones: what aggregates call themselves to users.
pub mod api;

use crate::{Compute, tables::Aggregate};
use pilvi_kit::Fault;
use pilvi_store::Query;
use std::collections::BTreeMap;

impl Compute {
    /// host -> zone, for hosts that an aggregate puts into one.
    pub async fn zones_of_hosts(&self) -> Result<BTreeMap<String, String>, Fault> {
        let mut zones = BTreeMap::new();
        for aggregate in self.store.list::<Aggregate>(Query::all()).await? {
            if let Some(zone) = &aggregate.zone {
                zones.extend(aggregate.hosts.iter().map(|h| (h.clone(), zone.clone())));
            }
        }
        Ok(zones)
    }

    pub async fn zone_exists(&self, zone: &str) -> Result<bool, Fault> {
        let named = self.store.list::<Aggregate>(Query::all()).await?;
        Ok(zone == self.config.default_zone
            || named.iter().any(|a| a.zone.as_deref() == Some(zone) && !a.hosts.is_empty()))
    }
}
