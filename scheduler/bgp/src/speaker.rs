//! All peerings of this process, kept equal to what is wanted of them.
use crate::{
    Peering, Routes, Sign, State,
    notification::Notification,
    peer::{Drive, Stop},
};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

/// What a last word and a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(5);

/// How a peering is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    pub state: State,
    /// That the peer has been told.
    pub routes: usize,
    /// Why there is no session; empty while there is one.
    pub trouble: String,
}

struct Running {
    peering: Peering,
    wanted: watch::Sender<Arc<Routes>>,
    stop: watch::Sender<Stop>,
    shown: watch::Receiver<Shown>,
    task: JoinHandle<()>,
}

/// (speaker, peer)
type Name = (String, String);

/// The speakers of this process; cheap to share behind an `Arc`.
pub struct Speakers {
    sign: Option<Sign>,
    running: Mutex<BTreeMap<Name, Running>>,
}

impl std::fmt::Debug for Speakers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Speakers")
    }
}

impl Speakers {
    /// `sign`: how sockets are told keys; without it peerings with a key do not come up.
    pub fn new(sign: Option<Sign>) -> Self {
        Speakers { sign, running: Mutex::default() }
    }

    /// Makes the peerings of a speaker these, by names of the caller's, and their routes the given ones. What is not named is ended.
    /// Within a runtime.
    pub fn set(&self, speaker: &str, peerings: BTreeMap<String, Peering>, routes: &Arc<Routes>) {
        let mut running = self.running.lock();
        for (name, one) in running.iter().filter(|((s, _), _)| s == speaker) {
            if !peerings.contains_key(&name.1) {
                let _ = one.stop.send(Stop::Cease(Notification::GONE));
            }
        }
        running.retain(|name, _| name.0 != speaker || peerings.contains_key(&name.1));
        for (peer, peering) in peerings {
            let name = (speaker.to_owned(), peer);
            match running.get(&name) {
                Some(one) if one.peering == peering => {
                    one.wanted.send_if_modified(|known| {
                        let other = **known != **routes;
                        known.clone_from(routes);
                        other
                    });
                }
                _ => {
                    let former = running.remove(&name).map(|one| {
                        let _ = one.stop.send(Stop::Cease(Notification::CHANGED));
                        one.task
                    });
                    running.insert(name, self.start(peering, routes.clone(), former));
                }
            }
        }
    }

    fn start(&self, peering: Peering, routes: Arc<Routes>, former: Option<JoinHandle<()>>) -> Running {
        let (wanted, wants) = watch::channel(routes);
        let (stop, stops) = watch::channel(Stop::Run);
        let (shows, shown) = watch::channel(Shown::default());
        let drive = Drive {
            peering: peering.clone(),
            wanted: wants,
            stop: stops,
            shown: shows,
            sign: self.sign,
            fresh: AtomicBool::new(true),
        };
        let task = tokio::spawn(async move {
            // Two connections of one name would be one too many for the peer.
            if let Some(former) = former {
                let _ = timeout(GOODBYE, former).await;
            }
            drive.run().await;
        });
        Running { peering, wanted, stop, shown, task }
    }

    /// Speakers that have peerings.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.running.lock().keys().map(|(speaker, _)| speaker.clone()).collect();
        names.dedup();
        names
    }

    /// How each peering of a speaker is, by name.
    pub fn shown(&self, speaker: &str) -> BTreeMap<String, Shown> {
        let running = self.running.lock();
        let own = running.iter().filter(|((s, _), _)| s == speaker);
        own.map(|((_, peer), one)| (peer.clone(), one.shown.borrow().clone())).collect()
    }

    /// Ends all connections without a word: peers keep the routes for whoever comes next.
    pub async fn leave(&self) {
        let all = std::mem::take(&mut *self.running.lock());
        for one in all.values() {
            let _ = one.stop.send(Stop::Leave);
        }
        for one in all.into_values() {
            let _ = timeout(GOODBYE, one.task).await;
        }
    }
}
