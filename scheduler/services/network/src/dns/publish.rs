//! Follows the store and keeps the name server told: the reconciler of names.
//!
//! ```text
//!  port, floating IP, network, subnet changed --> publications --> wishes for names --> server
//!  a start, the job won, now and then ----------> sweep --------^
//! ```
use super::{
    model::{NameWish, PublishedName},
    outage::Outages,
    source::{self, of_floating, of_port},
    sweep, tell,
};
use crate::{
    Network, floating_ip::model::FloatingIp, network::model::VirtualNetwork, port::model::Port, subnet::model::Subnet,
    tables::find,
};
use async_trait::async_trait;
use parking_lot::Mutex;
use pilvi_dns_update::{Server, Trouble};
use pilvi_reconcile::{Driver, Failure, Job, Next, Reconcile};
use pilvi_store::{Change, Op, Record};
use std::{net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};

/// Where names go, and which.
#[derive(Debug, Clone)]
pub struct Settings {
    pub server: Server,
    /// What may be changed: whole names, in lower case, with the dot at the end.
    pub zones: Vec<String>,
    /// Seconds that others may remember a record.
    pub ttl: u32,
    /// Addresses lead back to names as well.
    pub reverse: Option<Reverse>,
}

/// Lengths of the prefixes of reverse zones: multiples of 8, and of 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reverse {
    pub v4: u8,
    pub v6: u8,
}

impl Default for Settings {
    fn default() -> Self {
        let address = (Ipv4Addr::LOCALHOST, 53).into();
        let server = Server { address, key_file: PathBuf::new(), patience: Duration::from_secs(5) };
        Settings { server, zones: Vec::new(), ttl: 300, reverse: None }
    }
}

impl Settings {
    pub fn address(&self) -> String {
        self.server.address.to_string()
    }

    /// Was the name told where and how it would be now?
    pub fn told_so(&self, name: &PublishedName) -> bool {
        self.zone_of(&name.id).is_some_and(|zone| zone == name.zone)
            && name.server == self.address()
            && name.ttl == self.ttl
    }
}

const SWEEP_EVERY: Duration = Duration::from_secs(300);
const SWEEP: &str = "sweep";
const NAME: &str = "name";

/// The reconciler.
pub struct Publisher {
    network: Arc<Network>,
    settings: Settings,
    outages: Outages,
    swept: Mutex<Option<Instant>>,
}

impl Publisher {
    pub fn new(network: Arc<Network>, settings: Settings) -> Arc<Self> {
        Arc::new(Publisher { network, settings, outages: Outages::default(), swept: Mutex::default() })
    }

    /// Publishes while `job` is this scheduler's, until `stop` turns true.
    pub async fn run(network: Arc<Network>, settings: Settings, job: Job, stop: watch::Receiver<bool>) {
        let publisher = Publisher::new(network.clone(), settings);
        let driver = Driver::new(publisher.clone());
        driver.set_job(job.clone());
        tokio::select! {
            () = driver.run(network.store.clone(), stop) => {}
            () = publisher.mind_the_job(job) => {}
        }
    }

    /// Whoever has had the job meanwhile knows what this one does not.
    async fn mind_the_job(&self, mut job: Job) {
        loop {
            job.changed().await;
            *self.swept.lock() = None;
        }
    }

    async fn port(&self, id: &str) -> Result<(), Failure> {
        let store = &self.network.store;
        source::settle(store, &self.settings, &of_port(id)).await?;
        for floating in store.list::<FloatingIp>(find::of_ports([id])).await? {
            source::settle(store, &self.settings, &of_floating(&floating.id)).await?;
        }
        Ok(())
    }

    async fn sweep(&self) -> Result<(), Failure> {
        let begun = Instant::now();
        for stale in sweep::stale(&self.network.store, &self.settings).await? {
            source::settle(&self.network.store, &self.settings, &stale).await?;
        }
        sweep::ask_outdated(&self.network.store, &self.settings).await?;
        *self.swept.lock() = Some(begun);
        Ok(())
    }

    async fn name(&self, name: &str) -> Result<Next, Failure> {
        let store = &self.network.store;
        let zone = match self.settings.zone_of(name) {
            Some(zone) => zone,
            // It is to be taken back from where it was told.
            None => store.get::<PublishedName>(name).await?.map(|known| known.zone.clone()).unwrap_or_default(),
        };
        if store.get::<NameWish>(name).await?.is_none() {
            return Ok(Next::Settled);
        }
        // Before anything is written down: what nobody tries is not there.
        if let Some(rest) = self.outages.rest(&zone) {
            return Ok(Next::Again(rest));
        }
        let Some(errand) = tell::begin(store, &self.settings, name).await? else { return Ok(Next::Settled) };
        let outcome = errand.run(&self.settings).await;
        errand.end(store, &outcome).await?;
        match outcome {
            Err(trouble @ (Trouble::Silent(..) | Trouble::Key(_) | Trouble::Zone { .. })) => {
                return Ok(Next::Again(self.outages.begin(&zone, &trouble)));
            }
            Ok(()) | Err(Trouble::Taken(_)) => self.outages.end(&zone),
            Err(Trouble::Impossible(_)) => {}
        }
        outcome.map(|()| Next::Settled).map_err(Failure::from)
    }
}

#[async_trait]
impl Reconcile for Publisher {
    fn name(&self) -> &'static str {
        "network.dns"
    }

    async fn keys_of(&self, change: &Change) -> Vec<String> {
        match change.kind.as_str() {
            Port::KIND | FloatingIp::KIND | VirtualNetwork::KIND => vec![format!("{}/{}", change.kind, change.id)],
            Subnet::KIND => {
                let subnet = self.network.store.get::<Subnet>(&change.id).await.ok().flatten();
                subnet.map(|s| format!("{}/{}", VirtualNetwork::KIND, s.network_id)).into_iter().collect()
            }
            NameWish::KIND if change.op != Op::Delete => vec![format!("{NAME}/{}", change.id)],
            _ => Vec::new(),
        }
    }

    async fn all(&self) -> Result<Vec<String>, Failure> {
        let waiting = self.network.store.list::<NameWish>(find::all()).await?;
        let mut all: Vec<String> = waiting.into_iter().map(|n| format!("{NAME}/{}", n.id)).collect();
        if self.swept.lock().is_none_or(|at| at.elapsed() >= SWEEP_EVERY) {
            all.push(SWEEP.to_owned());
        }
        Ok(all)
    }

    async fn reconcile(&self, key: &str) -> Result<Next, Failure> {
        match key.split_once('/') {
            None => self.sweep().await?,
            Some((Port::KIND, id)) => self.port(id).await?,
            Some((FloatingIp::KIND, _)) => source::settle(&self.network.store, &self.settings, key).await?,
            Some((VirtualNetwork::KIND, id)) => {
                for port in self.network.store.list::<Port>(find::on_network(id)).await? {
                    if !port.dns_name.is_empty() {
                        self.port(&port.id).await?;
                    }
                }
            }
            Some((_, name)) => return self.name(name).await,
        }
        Ok(Next::Settled)
    }
}
