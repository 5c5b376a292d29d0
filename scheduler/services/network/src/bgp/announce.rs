//! Follows the store and keeps peers told: the reconciler of speakers.
//!
//! ```text
//!  speaker or peer changed ------------------------> that speaker ---> peerings and routes --> pilvi_bgp::Speakers
//!  floating IP, router, leg, subnet, pool changed -> every speaker with peers                      (differences)
//!  the job is another scheduler's -----------------> all sessions end, without a word
//! ```
//! Sessions that end so are taken up by whoever has the job next: peers keep the routes meanwhile (graceful restart), and
//! nobody's packets wait for the scheduler.
use super::{
    model::{BgpPeer, BgpSpeaker},
    route,
};
use crate::{
    Network,
    floating_ip::model::FloatingIp,
    port::model::{Port, ROUTER_GATEWAY, ROUTER_INTERFACE},
    router::model::Router,
    subnet::model::Subnet,
    subnet_pool::model::SubnetPool,
    tables::find,
};
use async_trait::async_trait;
use pilvi_bgp::{Routes, Sign, Speakers};
use pilvi_reconcile::{Driver, Failure, Job, Next, Reconcile};
use pilvi_store::{Change, Op, Record};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};
use tokio::sync::watch;

/// How all speakers of the cloud speak.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Of the peers.
    pub port: u16,
    /// `None`: each speaker has its own.
    pub router_id: Option<Ipv4Addr>,
    /// Addresses that connections come from, at most one of each family.
    pub sources: Vec<IpAddr>,
    /// Seconds of silence that end a session.
    pub hold_time: u16,
    /// Seconds that peers are asked to keep routes while the scheduler restarts; 0: none.
    pub restart_time: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { port: 179, router_id: None, sources: Vec::new(), hold_time: 90, restart_time: 120 }
    }
}

/// The reconciler, and the sessions of this process.
pub struct Announcer {
    network: Arc<Network>,
    settings: Settings,
    speakers: Speakers,
    job: Job,
}

impl Announcer {
    /// Announces while `job` is this scheduler's, until `stop` turns true. `sign`: how sockets are told keys.
    pub async fn run(
        network: Arc<Network>,
        settings: Settings,
        sign: Option<Sign>,
        job: Job,
        stop: watch::Receiver<bool>,
    ) {
        let speakers = Speakers::new(sign);
        let announcer = Arc::new(Announcer { network: network.clone(), settings, speakers, job: job.clone() });
        let driver = Driver::new(announcer.clone());
        driver.set_job(job);
        tokio::select! {
            () = driver.run(network.store.clone(), stop) => {}
            () = announcer.mind_the_job() => {}
        }
        announcer.speakers.leave().await;
    }

    async fn mind_the_job(&self) {
        let mut job = self.job.clone();
        loop {
            job.changed().await;
            if !job.held() {
                self.speakers.leave().await;
            }
        }
    }

    /// Gateways and legs of routers matter (one that goes changes its router as well).
    async fn matters(&self, id: &str) -> bool {
        let Ok(Some(port)) = self.network.store.get::<Port>(id).await else { return false };
        matches!(port.device_owner.as_str(), ROUTER_GATEWAY | ROUTER_INTERFACE)
    }
}

#[async_trait]
impl Reconcile for Announcer {
    fn name(&self) -> &'static str {
        "network.bgp"
    }

    async fn keys_of(&self, change: &Change) -> Vec<String> {
        match change.kind.as_str() {
            BgpSpeaker::KIND => vec![change.id.clone()],
            BgpPeer::KIND => {
                let speakers = self.network.store.list::<BgpSpeaker>(find::labelled(&change.id)).await;
                speakers.unwrap_or_default().into_iter().map(|s| s.record.id).collect()
            }
            FloatingIp::KIND | Router::KIND | Subnet::KIND | SubnetPool::KIND => self.speakers.names(),
            Port::KIND if change.op != Op::Delete => {
                let names = self.speakers.names();
                if !names.is_empty() && self.matters(&change.id).await { names } else { Vec::new() }
            }
            _ => Vec::new(),
        }
    }

    async fn all(&self) -> Result<Vec<String>, Failure> {
        let stored = self.network.store.list::<BgpSpeaker>(find::all()).await?;
        let mut all: BTreeSet<String> = self.speakers.names().into_iter().collect();
        all.extend(stored.into_iter().map(|s| s.record.id));
        Ok(all.into_iter().collect())
    }

    async fn reconcile(&self, key: &str) -> Result<Next, Failure> {
        let store = &self.network.store;
        let speaker = store.get::<BgpSpeaker>(key).await?.filter(|s| !s.idle);
        let (mut peerings, mut routes) = (BTreeMap::new(), Routes::new());
        if let Some(speaker) = speaker.filter(|s| !s.peers.is_empty()) {
            let peers = store.list::<BgpPeer>(find::all().ids(speaker.peers.iter().map(String::as_str))).await?;
            let of = |peer: &BgpPeer| (peer.id.clone(), speaker.peering(peer, &self.settings));
            peerings = peers.iter().map(|peer| of(&peer.record)).collect();
            routes = route::single(&route::advertised(store, &speaker).await?);
        }
        self.speakers.set(key, peerings, &Arc::new(routes));
        // The job may have gone meanwhile, and with it what minds it.
        if !self.job.held() {
            self.speakers.leave().await;
        }
        Ok(Next::Settled)
    }
}
