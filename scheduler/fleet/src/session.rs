//! One connected agent: what goes out to it, and the questions that wait for its answers.
use crate::{Fleet, Node};
use parking_lot::Mutex;
use pilvi_agent_api::v1;
use pilvi_kit::{Fault, clock};
use pilvi_store::Stored;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Notify, mpsc, oneshot};

pub(crate) type Outgoing = Result<v1::SchedulerMessage, tonic::Status>;

/// Messages to an agent that waits; more means that it does not read, and the session ends.
pub(crate) const OUTGOING_MAX: usize = 256;
const QUESTIONS_MAX: usize = 256;
const ANSWER_SECONDS: u64 = 10;

pub(crate) struct Session {
    pub host: String,
    /// Tells sessions of one host apart.
    pub id: String,
    /// Under which name the host's lease is held; `None` before Hello and after the end.
    pub holder: Mutex<Option<String>>,
    ended: Notify,
    outgoing: mpsc::Sender<Outgoing>,
    questions: Mutex<HashMap<u64, oneshot::Sender<v1::Answer>>>,
    next: AtomicU64,
    /// Microseconds since 1970 of the last word from the agent.
    heard_us: AtomicI64,
    /// The host's record, until it changes.
    pub node: Mutex<Option<Arc<Stored<Node>>>>,
    /// It has not changed since it was asked for.
    node_expected: AtomicBool,
    /// What was sent last in this session.
    pub sent: Mutex<Option<Sent>>,
    /// What the agent said last in this session.
    pub reported: Mutex<Option<Reported>>,
    /// Held while it is told of neighbours: what is sent and what it is known to have change together.
    pub telling: tokio::sync::Mutex<()>,
    /// Versions that the agent had when it came.
    pub greeted: Mutex<BTreeMap<String, u64>>,
    /// Networks whose endpoints it is told, each with the version that the agent has.
    rooms: Mutex<BTreeMap<String, Option<u64>>>,
}

/// A wanted state, as far as it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub hash: [u8; 32],
    pub generation: u64,
    /// Ids of instances and volumes.
    pub things: HashSet<String>,
}

/// An observation, as far as it is compared or may be needed again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reported {
    pub generation: u64,
    /// Ids of instances and volumes.
    pub things: HashSet<String>,
    pub ports: Arc<[v1::ObservedPort]>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({})", self.host)
    }
}

impl Session {
    pub fn new(host: String, outgoing: mpsc::Sender<Outgoing>) -> Self {
        Session {
            host,
            id: pilvi_kit::id::hex(),
            holder: Mutex::default(),
            ended: Notify::new(),
            outgoing,
            questions: Mutex::default(),
            next: AtomicU64::new(1),
            heard_us: AtomicI64::new(clock::now_us()),
            node: Mutex::default(),
            node_expected: AtomicBool::new(false),
            sent: Mutex::default(),
            reported: Mutex::default(),
            telling: tokio::sync::Mutex::default(),
            greeted: Mutex::default(),
            rooms: Mutex::default(),
        }
    }

    /// The networks whose endpoints it is told.
    pub fn listens(&self) -> BTreeSet<String> {
        self.rooms.lock().keys().cloned().collect()
    }

    /// It is told of exactly these from now on. What the agent said that it has is worth something only now.
    pub fn listen(&self, networks: &BTreeSet<String>) {
        let greeted = std::mem::take(&mut *self.greeted.lock());
        let mut rooms = self.rooms.lock();
        rooms.retain(|network, _| networks.contains(network));
        for network in networks {
            rooms.entry(network.clone()).or_insert_with(|| greeted.get(network).copied());
        }
    }

    /// The version that the agent has.
    pub fn knows(&self, network: &str) -> Option<u64> {
        self.rooms.lock().get(network).copied().flatten()
    }

    pub fn learn(&self, network: &str, version: Option<u64>) {
        if let Some(known) = self.rooms.lock().get_mut(network) {
            *known = version;
        }
    }

    /// The host's record is about to be read.
    pub fn expect_node(&self) {
        self.node_expected.store(true, Ordering::SeqCst);
    }

    /// It was read, and is kept unless it has changed meanwhile.
    pub fn keep_node(&self, node: &Arc<Stored<Node>>) {
        let mut kept = self.node.lock();
        *kept = self.node_expected.load(Ordering::SeqCst).then(|| node.clone());
    }

    /// The host's record has changed.
    pub fn forget_node(&self) {
        let mut kept = self.node.lock();
        self.node_expected.store(false, Ordering::SeqCst);
        *kept = None;
    }

    /// Ends it from our side.
    pub fn end(&self) {
        self.ended.notify_one();
    }

    /// Returns when [`Session::end`] was called.
    pub async fn over(&self) {
        self.ended.notified().await;
    }

    pub fn heard(&self) {
        self.heard_us.store(clock::now_us(), Ordering::Relaxed);
    }

    pub fn heard_us(&self) -> i64 {
        self.heard_us.load(Ordering::Relaxed)
    }

    pub fn heard_of(&self, observed: &v1::Observed) {
        let instances = observed.instances.iter().map(|i| &i.id);
        let things = instances.chain(observed.volumes.iter().map(|v| &v.id)).cloned().collect();
        let ports = observed.ports.clone().into();
        *self.reported.lock() = Some(Reported { generation: observed.generation, things, ports });
    }

    /// What the agent said of its ports, if that was about what was sent last: it says nothing again when nothing changes.
    pub fn still_reported(&self) -> Option<Arc<[v1::ObservedPort]>> {
        let sent = self.sent.lock().as_ref().map(|sent| sent.generation)?;
        let reported = self.reported.lock();
        reported.as_ref().filter(|reported| reported.generation >= sent).map(|reported| reported.ports.clone())
    }

    /// False when the agent is gone or does not read.
    pub fn send(&self, body: v1::scheduler_message::Body) -> bool {
        self.outgoing.try_send(Ok(v1::SchedulerMessage { body: Some(body) })).is_ok()
    }

    pub async fn ask(&self, body: v1::question::Body) -> Result<Vec<u8>, Fault> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        {
            let mut questions = self.questions.lock();
            if questions.len() >= QUESTIONS_MAX {
                return Err(Fault::unavailable("Too many questions to this host at once."));
            }
            questions.insert(id, sender);
        }
        let question = v1::Question { id, body: Some(body) };
        if !self.send(v1::scheduler_message::Body::Question(question)) {
            self.questions.lock().remove(&id);
            return Err(Fault::unavailable("The host is not connected."));
        }
        let answer = tokio::time::timeout(Duration::from_secs(ANSWER_SECONDS), receiver).await;
        self.questions.lock().remove(&id);
        match answer {
            Ok(Ok(answer)) if answer.error.is_empty() => Ok(answer.data),
            Ok(Ok(answer)) => Err(Fault::conflict(answer.error)),
            Ok(Err(_)) => Err(Fault::unavailable("The host went away.")),
            Err(_) => Err(Fault::new(504, "The host did not answer in time.")),
        }
    }

    pub fn answered(&self, answer: v1::Answer) {
        if let Some(waiting) = self.questions.lock().remove(&answer.id) {
            let _ = waiting.send(answer);
        }
    }
}

impl Fleet {
    pub(crate) fn session(&self, node: &str) -> Option<std::sync::Arc<Session>> {
        self.sessions.get(node)
    }

    /// Has the host taken up a wanted state without this instance or volume, and does it have it no more?
    /// False when that is not known, as after a reconnection: then the next observation tells.
    pub fn confirmed_gone(&self, host: &str, thing: &str) -> bool {
        let Some(session) = self.sessions.of_host(host).map(|(_, session)| session) else { return false };
        let (sent, reported) = (session.sent.lock().clone(), session.reported.lock().clone());
        let (Some(sent), Some(reported)) = (sent, reported) else { return false };
        !sent.things.contains(thing) && reported.generation >= sent.generation && !reported.things.contains(thing)
    }

    pub(crate) fn last_heard(&self, node: &str) -> Option<i64> {
        self.sessions.get(node).map(|s| s.heard_us())
    }
}
