//! What an operator lets hosts do with volumes: take new ones, change those that are there.
use crate::{Volumes, tables::HostService};
use pilvi_kit::Fault;
use pilvi_store::{Query, Tx};
use std::collections::BTreeSet;

/// 503 when an operator froze the host: nothing of it changes.
pub async fn check_thawed_in(tx: &mut Tx, host: Option<&str>) -> Result<(), Fault> {
    let Some(host) = host else { return Ok(()) };
    match tx.get::<HostService>(host).await? {
        Some(service) if service.frozen => Err(Fault::bad_request(format!(
            "Modification is not allowed on frozen storage backend {}.",
            super::backend::service_of(host)
        ))),
        _ => Ok(()),
    }
}

/// Sets what an operator says of a host.
pub async fn set_in(tx: &mut Tx, host: &str, set: impl FnOnce(&mut HostService)) -> Result<HostService, Fault> {
    let known = tx.get::<HostService>(host).await?;
    match known {
        Some(mut known) => {
            set(&mut known.record);
            Ok(tx.update(&known).await?.record)
        }
        None => {
            let mut new = HostService { id: host.to_owned(), disabled: false, reason: None, frozen: false };
            set(&mut new);
            Ok(tx.insert(&new).await?.record)
        }
    }
}

impl Volumes {
    /// Hosts that take no new volumes.
    pub(crate) async fn closed_hosts(&self) -> Result<BTreeSet<String>, Fault> {
        let said = self.store.list::<HostService>(Query::all()).await?;
        Ok(said.into_iter().filter(|s| s.disabled || s.frozen).map(|s| s.record.id).collect())
    }
}

/// The id of a host's volume service: always the same one.
pub fn uuid(host: &str) -> String {
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, format!("volume-service/{host}").as_bytes()).to_string()
}
