//! The hosts: who they are, whether they live, what they shall do and what they say.
//!
//! ```text
//!            Join (token)             Session (mTLS)                     silence
//!  (token) ------------> registered ----------------> up ----------------------------> down
//!                                                      ^------------- heartbeat --------'
//! ```
//!
//! Several schedulers may share the hosts: each session is at one of them ([`ownership`]), and whatever another needs of
//! a host passes through the store.
//!
//! The fleet knows no cloud API. Services give it [`HostPart`]s: what of a host's wanted state is theirs,
//! and whom to tell what the host observed. The fleet joins the parts, numbers every change with a
//! generation that survives restarts, and sends the whole set to the host's agent; so a message that is
//! lost, doubled or late does no harm.
mod certificate;
mod grpc;
mod image;
mod join;
mod node;
mod ownership;
mod part;
mod question;
mod rooms;
mod session;
mod sessions;
mod upload;
mod wanted;

pub use certificate::{Authority, CertificateError};
pub use image::{ImageFile, ImageStage, SeenImage, short};
pub use join::JoinToken;
pub use node::{Node, NodeState};
pub use part::{Affected, HostPart, ImageBytes as ImageStream, ImageSink, ImageSource, Part, Upload, affected_by};
pub use question::HostQuestion;
pub use wanted::WantedRecord;

use parking_lot::{Mutex, RwLock};
use pilvi_kit::Fault;
use pilvi_reconcile::{Job, Member};
use pilvi_store::{KindSpec, Query, Store, Stored};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// The record kinds of this crate.
pub fn kinds() -> Vec<KindSpec> {
    vec![
        KindSpec::of::<Node>(),
        KindSpec::of::<JoinToken>(),
        KindSpec::of::<WantedRecord>(),
        KindSpec::of::<HostQuestion>(),
    ]
}

/// How patient the fleet is.
#[derive(Debug, Clone)]
pub struct Config {
    /// A host that says nothing for so long is down.
    pub silence: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config { silence: Duration::from_secs(10) }
    }
}

/// All hosts. Cheap to clone behind its `Arc`.
pub struct Fleet {
    pub(crate) store: Store,
    pub(crate) authority: Authority,
    config: Config,
    sessions: sessions::Sessions,
    parts: RwLock<Vec<Arc<dyn HostPart>>>,
    images: RwLock<Option<Arc<dyn ImageSource>>>,
    snapshots: RwLock<Option<Arc<dyn ImageSink>>>,
    /// Who is told of which network's endpoints.
    rooms: rooms::Rooms,
    /// Hosts whose wanted state must be computed anew.
    dirty: Mutex<wanted::Dirty>,
    wake: Notify,
    moved: Notify,
    /// Which scheduler this is.
    member: OnceLock<Arc<Member>>,
    /// Judging the hosts that nobody has a session with.
    hosts_job: OnceLock<Job>,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fleet({} sessions)", self.sessions.len())
    }
}

impl Fleet {
    pub fn new(store: Store, authority: Authority, config: Config) -> Arc<Self> {
        Arc::new(Fleet {
            store,
            authority,
            config,
            sessions: sessions::Sessions::default(),
            parts: RwLock::default(),
            images: RwLock::default(),
            snapshots: RwLock::default(),
            rooms: rooms::Rooms::default(),
            dirty: Mutex::default(),
            wake: Notify::new(),
            moved: Notify::new(),
            member: OnceLock::new(),
            hosts_job: OnceLock::new(),
        })
    }

    /// Adds a service's part of every host's wanted state. Before [`Fleet::run`].
    pub fn add_part(&self, part: Arc<dyn HostPart>) {
        self.parts.write().push(part);
    }

    /// Where agents' image bytes come from. Before [`Fleet::run`].
    pub fn set_images(&self, images: Arc<dyn ImageSource>) {
        *self.images.write() = Some(images);
    }

    /// Where agents' snapshots go. Before [`Fleet::run`].
    pub fn set_snapshots(&self, snapshots: Arc<dyn ImageSink>) {
        *self.snapshots.write() = Some(snapshots);
    }

    pub(crate) fn snapshots(&self) -> Option<Arc<dyn ImageSink>> {
        self.snapshots.read().clone()
    }

    pub(crate) fn parts(&self) -> Vec<Arc<dyn HostPart>> {
        self.parts.read().clone()
    }

    pub(crate) fn images(&self) -> Option<Arc<dyn ImageSource>> {
        self.images.read().clone()
    }

    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    pub async fn nodes(&self) -> Result<Vec<Stored<Node>>, Fault> {
        Ok(self.store.list::<Node>(Query::all()).await?)
    }

    pub async fn node(&self, id: &str) -> Result<Option<Stored<Node>>, Fault> {
        Ok(self.store.get::<Node>(id).await?)
    }

    pub async fn node_by_name(&self, name: &str) -> Result<Option<Stored<Node>>, Fault> {
        Ok(self.store.list::<Node>(Query::all().name(name).limit(1)).await?.pop())
    }

    /// The last line of defence and the only clean-up: sends wanted state, marks silent hosts down.
    pub async fn run(self: Arc<Self>, stop: watch::Receiver<bool>) {
        let follower = tokio::spawn(wanted::follow(self.clone(), stop.clone()));
        let sender = tokio::spawn(wanted::compute(self.clone(), stop.clone()));
        let watcher = tokio::spawn(node::watch_silence(self.clone(), stop.clone()));
        let reborn = tokio::spawn(follow_rebirths(self, stop));
        let _ = tokio::join!(follower, sender, watcher, reborn);
    }

    /// The gRPC routes that agents call.
    pub fn routes(self: &Arc<Self>) -> tonic::service::Routes {
        grpc::routes(self.clone())
    }

    pub(crate) fn silence(&self) -> Duration {
        self.config.silence
    }
}

/// Sessions belong to a scheduler's id; with a new one they begin anew.
async fn follow_rebirths(fleet: Arc<Fleet>, mut stop: watch::Receiver<bool>) {
    let Some(member) = fleet.member.get().cloned() else { return };
    loop {
        let reborn = member.reborn();
        tokio::select! {
            () = pilvi_kit::server::stopped(&mut stop) => return,
            () = reborn => fleet.end_sessions(),
        }
    }
}
