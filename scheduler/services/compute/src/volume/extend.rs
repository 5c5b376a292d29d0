//! A volume grew while a server had it: the server's log says so, as clients that wait for the guest's disk look there.
use crate::{
    Compute, action,
    server::{model::Ended, reconcile::owner},
    tables::{Event, Server},
};
use pilvi_kit::Fault;

impl Compute {
    /// The host has made the volume larger, and the guest's disk with it.
    pub async fn note_extended(&self, server_id: &str) -> Result<(), Fault> {
        let Some(server) = self.store.get::<Server>(server_id).await? else { return Ok(()) };
        let began = vec![Event::began("compute_extend_volume")];
        let mut log = action::started(&owner(&server), server_id, &server.project_id, "extend_volume", began);
        action::finish(&mut log, &Ended::Well, server.host.as_deref());
        self.store
            .write(move |tx| {
                let log = log.clone();
                Box::pin(async move { action::insert_in(tx, log).await })
            })
            .await
    }
}
