//! What services give the fleet: their part of a host's wanted state, and their ear for what it observes.
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use pilvi_agent_api::{neighbours::News, v1};
use pilvi_kit::Fault;
use pilvi_store::{Change, Query, Record, Store, Stored};
use std::collections::BTreeSet;

use crate::Node;

/// One service's share of a host's wanted state.
#[derive(Debug, Clone, Default)]
pub struct Part {
    pub instances: Vec<v1::Instance>,
    pub volumes: Vec<v1::Volume>,
    pub network: Option<v1::HostNetwork>,
}

/// Whose wanted states changes may alter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Affected {
    /// Names of hosts.
    Hosts(BTreeSet<String>),
    All,
}

/// Changes of one query.
const CHUNK: usize = 400;

/// Hosts of those records of one kind that changes are about; a record that is gone has none.
pub async fn affected_by<R: Record>(store: &Store, changes: &[Change], of: impl Fn(&R) -> Vec<String>) -> Affected {
    let ids: BTreeSet<&str> = changes.iter().filter(|c| c.kind == R::KIND).map(|c| c.id.as_str()).collect();
    let (ids, mut hosts): (Vec<&str>, _) = (ids.into_iter().collect(), BTreeSet::new());
    for chunk in ids.chunks(CHUNK) {
        match store.list::<R>(Query::all().ids(chunk.iter().copied())).await {
            Ok(found) => hosts.extend(found.iter().flat_map(|found| of(&found.record))),
            Err(_) => return Affected::All,
        }
    }
    Affected::Hosts(hosts)
}

/// Hosts are named here as in the APIs, by name and not by id.
#[async_trait]
pub trait HostPart: Send + Sync {
    async fn wanted(&self, host: &str) -> Result<Part, Fault>;
    /// Of changes that came together.
    async fn affected(&self, changes: &[Change]) -> Affected;
    /// The whole observation of a host, after each change there.
    async fn observed(&self, host: &str, observed: &v1::Observed) -> Result<(), Fault>;
    /// The host's wanted state was made anew and is the same as before, so its agent will say nothing: this is what it said
    /// of its ports when it was told. A port may have left and come back meanwhile, or its status not have been written.
    async fn unchanged(&self, host: &str, ports: &[v1::ObservedPort]) -> Result<(), Fault> {
        let _ = (host, ports);
        Ok(())
    }
    /// The host's session is here, and was just told or has just told what is new: what waits for the host's word
    /// ([`Fleet::confirmed_gone`](crate::Fleet::confirmed_gone)) may be looked at.
    async fn settled(&self, host: &str) -> Result<(), Fault> {
        let _ = host;
        Ok(())
    }
    /// All endpoints of a network that a wanted state names, unless `known` is the version of just these; `None` also
    /// from a part that knows of no networks.
    async fn neighbours(&self, network: &str, known: Option<u64>) -> Result<Option<News>, Fault> {
        let _ = (network, known);
        Ok(None)
    }
    /// What changed among the endpoints of networks that were asked for.
    async fn news(&self, changes: &[Change]) -> Result<Vec<News>, Fault> {
        let _ = changes;
        Ok(Vec::new())
    }
    /// Nobody here listens to this network any more.
    fn leave(&self, network: &str) {
        let _ = network;
    }
    /// Changes may have been missed.
    fn forget(&self) {}
    /// A host came, went, or changed what it has.
    async fn host_changed(&self, node: &Stored<Node>) -> Result<(), Fault> {
        let _ = node;
        Ok(())
    }
}

/// A stream of an image's bytes with the image's whole size.
pub type ImageBytes = (u64, BoxStream<'static, std::io::Result<Bytes>>);

/// Bytes on their way from a host, as they come.
pub type Upload = BoxStream<'static, std::io::Result<Bytes>>;

/// Where hosts' snapshots go.
#[async_trait]
pub trait ImageSink: Send + Sync {
    /// Takes all bytes of an image, `size` of them, from the host of this name: 403 unless that host was told to make
    /// this image. On return they are durable; an image that is complete already is well too.
    async fn take(&self, host: &str, image_id: &str, size: u64, bytes: Upload) -> Result<(), Fault>;
}

#[async_trait]
pub trait ImageSource: Send + Sync {
    /// The bytes from `offset` on.
    async fn open(&self, image_id: &str, offset: u64) -> Result<ImageBytes, Fault>;
}
