//! Keeps candidates as they should be: the reconciler of routers that keep spare ways.
//!
//! ```text
//!  router or wish changed ---------------------------------------> that router
//!  host came, went, lives again, is on other wires (a poke) -----> routers that it stands by for; who lacks candidates
//!  a start, the job won, now and then ---------------------------> every router whose candidates or ports are not right
//! ```
use super::{
    model::{CENTRE, SPARE_INTERFACE, WANTED, is_settled},
    ops,
};
use crate::{
    Network,
    host::HostInfo,
    hosting::{self, model::Hosting},
    port::model::Port,
    router::model::Router,
    tables::find,
};
use async_trait::async_trait;
use pilvi_kit::Fault;
use pilvi_reconcile::{Driver, Failure, Job, Next, Reconcile};
use pilvi_store::{Change, Op, Query, Record};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};
use tokio::sync::watch;

/// What keys of hosts begin with; all others but one are routers.
const HOST: &str = "host/";
/// The key of all that more hosts could stand by for: many hosts that come together are one look.
const SHORT: &str = "short";
/// Ports of one query.
const CHUNK: usize = 400;

/// The reconciler.
pub struct Keeper {
    network: Arc<Network>,
}

impl Keeper {
    pub fn new(network: Arc<Network>) -> Self {
        Keeper { network }
    }

    /// Keeps while `job` is this scheduler's, until `stop` turns true.
    pub async fn run(network: Arc<Network>, job: Job, stop: watch::Receiver<bool>) {
        let driver = Driver::new(Arc::new(Keeper::new(network.clone())));
        driver.set_job(job);
        let _ = network.keeper.set(driver.clone());
        driver.run(network.store.clone(), stop).await;
    }

    /// Those of these routers whose candidates or ports are not right.
    async fn stale(&self, routers: Vec<Router>) -> Result<Vec<String>, Fault> {
        let store = &self.network.store;
        let (wishes, hosts) = (hosting::ops::all(store).await?, self.network.hosts());
        let ids: Vec<&str> = routers.iter().flat_map(Router::spare_ports).collect();
        let mut ports = HashMap::new();
        for chunk in ids.chunks(CHUNK) {
            let found = store.list::<Port>(Query::all().ids(chunk.iter().copied())).await?;
            ports.extend(found.into_iter().map(|p| (p.record.id.clone(), p.record)));
        }
        let stale = routers.iter().filter(|r| !is_settled(r, &wishes, &hosts, &ports));
        Ok(stale.map(|r| r.id.clone()).collect())
    }

    async fn settle(&self, router: &str) -> Result<(), Fault> {
        let (router, hosts) = (router.to_owned(), self.network.hosts());
        self.network
            .store
            .write(move |tx| {
                let (router, hosts) = (router.clone(), hosts.clone());
                Box::pin(async move { ops::settle_in(tx, &router, &hosts).await })
            })
            .await
    }

    /// Routers that a host stands by for.
    async fn around(&self, host: &str) -> Result<Vec<Router>, Fault> {
        let store = &self.network.store;
        let stands = |p: &Port| matches!(p.device_owner.as_str(), SPARE_INTERFACE | CENTRE);
        let ports = store.list::<Port>(find::on_host(host)).await?;
        let ids: BTreeSet<&str> = ports.iter().filter(|p| stands(p)).map(|p| p.device_id.as_str()).collect();
        let ids: Vec<&str> = ids.into_iter().collect();
        let mut routers = Vec::new();
        for chunk in ids.chunks(CHUNK) {
            let found = store.list::<Router>(Query::all().ids(chunk.iter().copied())).await?;
            routers.extend(found.into_iter().map(|r| r.record));
        }
        Ok(routers)
    }

    /// Routers that more hosts could stand by for.
    async fn short(&self) -> Result<Vec<Router>, Fault> {
        let routers = self.network.store.list::<Router>(find::with_gateway()).await?;
        Ok(routers.into_iter().map(|r| r.record).filter(|r| r.ha && r.candidates.len() < WANTED).collect())
    }
}

#[async_trait]
impl Reconcile for Keeper {
    fn name(&self) -> &'static str {
        "network.spare"
    }

    async fn keys_of(&self, change: &Change) -> Vec<String> {
        match change.kind.as_str() {
            Router::KIND if change.op != Op::Delete => vec![change.id.clone()],
            Hosting::KIND => Hosting::router_of(&change.id).map(str::to_owned).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    async fn all(&self) -> Result<Vec<String>, Failure> {
        let routers = self.network.store.list::<Router>(find::all()).await?;
        let concerned = routers.into_iter().map(|r| r.record).filter(|r| r.ha || r.spare_ports().next().is_some());
        Ok(self.stale(concerned.collect()).await?)
    }

    async fn reconcile(&self, key: &str) -> Result<Next, Failure> {
        let routers = match key.strip_prefix(HOST) {
            Some(host) => self.around(host).await?,
            None if key == SHORT => self.short().await?,
            None => self.network.store.get::<Router>(key).await?.map(|r| r.record).into_iter().collect(),
        };
        for router in self.stale(routers).await? {
            self.settle(&router).await?;
        }
        Ok(Next::Settled)
    }
}

impl Network {
    /// Hosts came, went or changed: where this scheduler keeps spare ways, it looks at theirs.
    pub(crate) fn look_at_hosts(&self, before: &[HostInfo], now: &[HostInfo]) {
        let Some(driver) = self.keeper.get() else { return };
        let what = |h: &HostInfo| (h.up, h.physical.clone(), h.zone.clone());
        let mut changed: HashMap<&str, _> = before.iter().map(|h| (h.name.as_str(), what(h))).collect();
        let news: Vec<&str> =
            now.iter().filter(|h| changed.remove(h.name.as_str()) != Some(what(h))).map(|h| h.name.as_str()).collect();
        if !news.is_empty() {
            driver.poke(SHORT);
        }
        // What is left is gone.
        news.into_iter().chain(changed.into_keys()).for_each(|name| driver.poke(&format!("{HOST}{name}")));
    }
}
