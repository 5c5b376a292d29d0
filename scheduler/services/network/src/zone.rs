//! Availability zones: which there are, who asks for one, and what follows from it.
//!
//! A host says in its agent's settings which zone it is in; what says nothing is in [`COMMON`]. A router that asks for zones
//! (`availability_zone_hints`) has its way out at hosts of those alone. All else of routers and networks is on the hosts of their
//! guests, wherever these are: a network's wish is kept, and shown as its zones, but moves nothing.
use crate::{Network, host::HostInfo, tables::Zone};
use pilvi_kit::Fault;
use pilvi_store::{Query, Store, Tx};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The zone of hosts that say nothing.
pub const COMMON: &str = "nova";

impl HostInfo {
    pub fn zone(&self) -> &str {
        if self.zone.is_empty() { COMMON } else { &self.zone }
    }

    /// Is it where somebody with these wishes wants to be?
    pub fn is_in(&self, hints: &[String]) -> bool {
        hints.is_empty() || hints.iter().any(|hint| hint == self.zone())
    }
}

/// All zones, and whether a host of it is up.
pub fn all(hosts: &[HostInfo]) -> BTreeMap<&str, bool> {
    let mut zones = BTreeMap::new();
    for host in hosts {
        *zones.entry(host.zone()).or_default() |= host.up;
    }
    zones
}

impl Network {
    /// Keeps the names of the zones where transactions see them; writes only what is new. Before [`Network::remember`].
    ///
    /// # Errors
    /// Those of the store.
    pub async fn learn_zones(&self, hosts: &[HostInfo]) -> Result<(), Fault> {
        let said: BTreeSet<String> = all(hosts).into_keys().map(str::to_owned).collect();
        if !self.hosts().is_empty() && all(&self.hosts()).into_keys().eq(said.iter().map(String::as_str)) {
            return Ok(());
        }
        let known = names(&self.store).await?;
        if known == said {
            return Ok(());
        }
        self.store
            .write(move |tx| {
                let said = said.clone();
                Box::pin(async move {
                    let known = tx.list::<Zone>(Query::all()).await?;
                    for gone in known.iter().filter(|z| !said.contains(&z.id)) {
                        tx.delete::<Zone>(&gone.id).await?;
                    }
                    for new in said.into_iter().filter(|name| known.iter().all(|z| z.id != *name)) {
                        tx.insert(&Zone { id: new }).await?;
                    }
                    Ok::<_, Fault>(())
                })
            })
            .await
    }
}

async fn names(store: &Store) -> Result<BTreeSet<String>, Fault> {
    Ok(store.list::<Zone>(Query::all()).await?.into_iter().map(|z| z.record.id).collect())
}

/// What somebody wants who makes a network or a router: 404 for a zone that no host is in.
pub async fn wished_in(tx: &mut Tx, attrs: &Map<String, Value>) -> Result<Vec<String>, Fault> {
    let hints = attrs.get("availability_zone_hints").cloned().unwrap_or_default();
    let hints: Vec<String> = serde_json::from_value(hints).unwrap_or_default();
    if hints.is_empty() {
        return Ok(hints);
    }
    let known = tx.list::<Zone>(Query::all()).await?;
    match hints.iter().find(|hint| known.iter().all(|z| z.id != **hint)) {
        Some(none) => {
            Err(Fault::not_found(format!("AvailabilityZone {none} could not be found."))
                .kind("AvailabilityZoneNotFound"))
        }
        None => Ok(hints),
    }
}

/// The zones of which some are wished for; of nobody with a wish, all.
pub struct Zones(BTreeSet<String>);

impl Zones {
    pub async fn read(store: &Store) -> Result<Self, Fault> {
        names(store).await.map(Zones)
    }

    pub fn of(&self, hints: &[String]) -> Value {
        match hints {
            [] => json!(self.0),
            some => json!(some.iter().filter(|hint| self.0.contains(*hint)).collect::<Vec<_>>()),
        }
    }
}
