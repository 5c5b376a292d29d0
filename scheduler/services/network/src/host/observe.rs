//! What a host reports of its ports becomes their status, written only where it changes.
use crate::{
    Network,
    port::model::{Port, Status},
    tables::find,
};
use pilvi_agent_api::v1::ObservedPort;
use pilvi_kit::Fault;
use std::collections::HashMap;

impl Network {
    /// `ports` is the whole set that `host` has wired or tried to; ports it does not name are not wired.
    pub async fn observe(&self, host: &str, ports: &[ObservedPort]) -> Result<(), Fault> {
        let wired: HashMap<&str, bool> = ports.iter().map(|p| (p.id.as_str(), p.wired)).collect();
        let status = |id: &str| if wired.get(id) == Some(&true) { Status::Active } else { Status::Down };
        let changes: Vec<(String, Status)> = self
            .store
            .list::<Port>(find::on_host(host))
            .await?
            .iter()
            .filter(|p| p.is_endpoint() && p.status != status(&p.id))
            .map(|p| (p.id.clone(), status(&p.id)))
            .collect();
        if changes.is_empty() {
            return Ok(());
        }
        let host = host.to_owned();
        self.store
            .write(move |tx| {
                let (host, changes) = (host.clone(), changes.clone());
                Box::pin(async move {
                    for (id, status) in changes {
                        // The port may have moved or gone since the report was made.
                        if let Some(mut port) = tx.get::<Port>(&id).await?
                            && port.host_id == host
                            && port.status != status
                        {
                            port.status = status;
                            tx.update(&port).await?;
                        }
                    }
                    Ok::<_, Fault>(())
                })
            })
            .await
    }
}
