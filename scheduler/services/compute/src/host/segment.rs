//! Segments of routed networks in placement: which hosts reach one, and how many IPv4 addresses it has left.
//!
//! ```text
//!  subnets, addresses that ports have, wires of hosts --pass over a segment--> in one transaction:
//!      provider "Neutron segment id ..." (its id is the segment's): IPV4_ADDRESS, what is taken as reserved
//!      aggregate of that name and id: the hosts that reach it; in placement they and the segment are its members
//! ```
//! For operators and their tools. Ports hold their addresses themselves, so servers have no allocations of them, and a server is
//! placed by the addresses as they are ([`crate::server`]), which what is written here may be a moment behind.
use crate::{Compute, aggregate, tables::Aggregate};
use async_trait::async_trait;
use pilvi_fleet::Node;
use pilvi_kit::Fault;
use pilvi_network::{
    segment::{
        model::{HostReach, Segment},
        room::{self, Stock, Wires},
    },
    subnet::model::Subnet,
    tables::AddressLease,
};
use pilvi_placement::{
    aggregate::ops::member_in,
    candidate::ops::{Request, find},
    provider::{
        model::Inventory,
        ops::{Wanted, ensure_in, remove_in},
    },
};
use pilvi_reconcile::{Driver, Failure, Job, Next, Reconcile};
use pilvi_store::{Change, Op, Query, Record, Store, Tx};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

const CLASS: &str = "IPV4_ADDRESS";
/// How often is asked for a host that has not said yet what it has.
const HOST_POLL: Duration = Duration::from_secs(5);

/// The name of a segment's provider and aggregate.
fn name_of(segment: &str) -> String {
    format!("Neutron segment id {segment}")
}

fn is_ours(aggregate: &Aggregate) -> bool {
    aggregate.name == name_of(&aggregate.id)
}

/// The reconciler.
pub struct Segments {
    compute: Arc<Compute>,
}

impl std::fmt::Debug for Segments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Segments")
    }
}

/// What shall be known of a segment.
#[derive(Debug, Clone)]
struct Offer {
    stock: Stock,
    /// Names of the hosts that reach it.
    hosts: Vec<String>,
}

/// Providers of hosts that come into a segment's aggregate, and those that go.
#[derive(Debug, Clone, Default)]
struct Moves {
    come: Vec<String>,
    go: Vec<String>,
}

impl Segments {
    pub fn new(compute: Arc<Compute>) -> Self {
        Segments { compute }
    }

    /// Writes down what there is while `job` is this scheduler's, until `stop` turns true.
    pub async fn run(compute: Arc<Compute>, job: Job, stop: watch::Receiver<bool>) {
        let store = compute.store.clone();
        let driver = Driver::new(Arc::new(Segments::new(compute)));
        driver.set_job(job);
        driver.run(store, stop).await;
    }

    fn store(&self) -> &Store {
        &self.compute.store
    }

    /// Segments that are offered, or shall be.
    async fn known(&self) -> Result<Vec<String>, Fault> {
        let mut all = room::stocked(self.store()).await?;
        let aggregates = self.store().list::<Aggregate>(Query::all()).await?;
        all.extend(aggregates.into_iter().map(|a| a.record).filter(is_ours).map(|a| a.id));
        Ok(all.into_iter().collect())
    }

    async fn of_subnet(&self, subnet: &str) -> Result<Option<String>, Fault> {
        Ok(self.store().get::<Subnet>(subnet).await?.and_then(|found| found.record.segment_id))
    }

    async fn concerned_by(&self, change: &Change) -> Result<Vec<String>, Fault> {
        match change.kind.as_str() {
            AddressLease::KIND => {
                let subnet = change.id.split_once('/').map_or("", |(subnet, _)| subnet);
                Ok(self.of_subnet(subnet).await?.into_iter().collect())
            }
            Subnet::KIND if change.op != Op::Delete => Ok(self.of_subnet(&change.id).await?.into_iter().collect()),
            Subnet::KIND | HostReach::KIND => self.known().await,
            // Hosts are noted again and again; what they reach is a record of its own.
            Node::KIND if change.op != Op::Update => self.known().await,
            _ => Ok(Vec::new()),
        }
    }

    /// One pass over a segment; false while a host that belongs to it is not in placement yet.
    async fn settle(&self, segment: &str) -> Result<bool, Fault> {
        let nodes = self.compute.fleet.nodes().await?;
        let offer = self.offer(segment, nodes.iter().map(|node| node.name.as_str())).await?;
        let members = self.members(segment).await?;
        let mut moves = Moves::default();
        for node in &nodes {
            let wanted = offer.as_ref().is_some_and(|offer| offer.hosts.contains(&node.name));
            match (wanted, members.contains(&node.id)) {
                (true, false) => moves.come.push(node.id.clone()),
                (false, true) => moves.go.push(node.id.clone()),
                _ => {}
            }
        }
        let segment = segment.to_owned();
        self.store()
            .write(move |tx| {
                let (segment, offer, moves) = (segment.clone(), offer.clone(), moves.clone());
                Box::pin(async move {
                    match offer {
                        Some(offer) => offer_in(tx, &segment, offer, &moves).await,
                        None => withdraw_in(tx, &segment, &moves).await,
                    }
                })
            })
            .await
    }

    async fn offer<'n>(&self, segment: &str, nodes: impl Iterator<Item = &'n str>) -> Result<Option<Offer>, Fault> {
        let Some(stock) = room::stock(self.store(), segment).await? else { return Ok(None) };
        let Some(segment) = self.store().get::<Segment>(segment).await? else { return Ok(None) };
        let wires = Wires::read(self.store()).await?;
        let mut hosts: Vec<String> = nodes.filter(|name| wires.reaches(name, &segment)).map(str::to_owned).collect();
        hosts.sort_unstable();
        Ok(Some(Offer { stock, hosts }))
    }

    /// Providers in a segment's aggregate, its own among them.
    async fn members(&self, segment: &str) -> Result<BTreeSet<String>, Fault> {
        let within = Request { member_of: vec![vec![segment.to_owned()]], ..Request::default() };
        let found = find(&self.compute.placement, &within).await?;
        Ok(found.iter().map(|member| member.provider_uuid.to_string()).collect())
    }
}

fn inventory(stock: Stock) -> Inventory {
    let int = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    Inventory { max_unit: 1, reserved: int(stock.taken), ..Inventory::plain(int(stock.total)) }
}

/// False while a host that shall come is not in placement yet.
async fn offer_in(tx: &mut Tx, segment: &str, offer: Offer, moves: &Moves) -> Result<bool, Fault> {
    let name = name_of(segment);
    let inventories = BTreeMap::from([(CLASS.to_owned(), inventory(offer.stock))]);
    let wanted = Wanted { uuid: segment.to_owned(), name: name.clone(), inventories, traits: Vec::new() };
    ensure_in(tx, wanted).await?;
    member_in(tx, segment, segment, true).await?;
    match tx.get::<Aggregate>(segment).await? {
        Some(found) if found.hosts == offer.hosts && found.record.name == name => {}
        Some(mut found) => {
            (found.record.hosts, found.record.name) = (offer.hosts, name);
            tx.update(&found).await?;
        }
        None => {
            let (id, metadata) = (segment.to_owned(), BTreeMap::new());
            let new = Aggregate { id, number: 0, name, zone: None, hosts: offer.hosts, metadata };
            aggregate::ops::insert_in(tx, new).await?;
        }
    }
    move_in(tx, segment, moves).await
}

/// Takes back what was offered of a segment that has no IPv4 addresses any more.
async fn withdraw_in(tx: &mut Tx, segment: &str, moves: &Moves) -> Result<bool, Fault> {
    let Some(found) = tx.get::<Aggregate>(segment).await?.filter(|found| is_ours(found)) else { return Ok(true) };
    move_in(tx, segment, moves).await?;
    tx.delete::<Aggregate>(&found.id).await?;
    remove_in(tx, segment).await?;
    Ok(true)
}

async fn move_in(tx: &mut Tx, aggregate: &str, moves: &Moves) -> Result<bool, Fault> {
    let mut complete = true;
    for node in &moves.come {
        complete &= is_there(member_in(tx, node, aggregate, true).await)?;
    }
    for node in &moves.go {
        is_there(member_in(tx, node, aggregate, false).await)?;
    }
    Ok(complete)
}

fn is_there(done: Result<(), Fault>) -> Result<bool, Fault> {
    match done {
        Err(fault) if fault.code() == 404 => Ok(false),
        other => other.map(|()| true),
    }
}

#[async_trait]
impl Reconcile for Segments {
    fn name(&self) -> &'static str {
        "compute.segment"
    }

    async fn keys_of(&self, change: &Change) -> Vec<String> {
        self.concerned_by(change).await.unwrap_or_else(|fault| {
            // The next look at all finds what is missed.
            tracing::warn!(%fault, kind = change.kind, id = change.id, "whose segments a change concerns is not known");
            Vec::new()
        })
    }

    async fn all(&self) -> Result<Vec<String>, Failure> {
        Ok(self.known().await?)
    }

    async fn reconcile(&self, key: &str) -> Result<Next, Failure> {
        if self.settle(key).await? { Ok(Next::Settled) } else { Ok(Next::Again(HOST_POLL)) }
    }
}
