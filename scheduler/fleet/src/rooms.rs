//! What several hosts are told alike: the endpoints of networks, each told to the hosts whose wanted state names it.
//!
//! ```text
//!  wanted state names a network --> the session listens --> all endpoints, unless the agent said that it has them
//!  endpoints changed            --> news to each session that listens and has what the news are about
//!                                   all endpoints to one that has not
//!  no session listens           --> the service forgets the room
//! ```
use crate::{Fleet, part::HostPart, session::Session};
use parking_lot::Mutex;
use pilvi_agent_api::v1::{self, scheduler_message::Body};
use pilvi_kit::Fault;
use pilvi_store::Change;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Weak},
};

/// Sessions by the networks whose endpoints they are told.
#[derive(Debug, Default)]
pub(crate) struct Rooms(Mutex<HashMap<String, HashMap<String, Weak<Session>>>>);

impl Rooms {
    /// Adds and removes a session; gives the networks that nobody listens to any more.
    fn settle(&self, session: &Arc<Session>, networks: &BTreeSet<String>, former: &BTreeSet<String>) -> Vec<String> {
        let mut rooms = self.0.lock();
        for network in networks.difference(former) {
            rooms.entry(network.clone()).or_default().insert(session.id.clone(), Arc::downgrade(session));
        }
        let mut empty = Vec::new();
        for network in former.difference(networks) {
            let Some(listeners) = rooms.get_mut(network) else { continue };
            listeners.remove(&session.id);
            if listeners.is_empty() {
                rooms.remove(network);
                empty.push(network.clone());
            }
        }
        empty
    }

    fn listeners(&self, network: &str) -> Vec<Arc<Session>> {
        self.0.lock().get(network).map(|l| l.values().filter_map(Weak::upgrade).collect()).unwrap_or_default()
    }
}

impl Fleet {
    /// Has a session listen to exactly these networks, and tells it what it does not know of them.
    pub(crate) async fn listen(&self, session: &Arc<Session>, networks: BTreeSet<String>) -> Result<(), Fault> {
        let former = session.listens();
        let empty = self.rooms.settle(session, &networks, &former);
        for part in self.parts() {
            empty.iter().for_each(|network| part.leave(network));
        }
        session.listen(&networks);
        for network in &networks {
            self.tell_whole(session, network).await?;
        }
        Ok(())
    }

    /// Tells all endpoints of a network, unless the agent has just these.
    pub(crate) async fn tell_whole(&self, session: &Session, network: &str) -> Result<(), Fault> {
        for part in self.parts() {
            if let Some(whole) = part.neighbours(network, session.knows(network)).await? {
                session.tell(whole);
            }
        }
        Ok(())
    }

    /// Tells those who listen what changed.
    pub(crate) async fn spread(&self, changes: &[Change]) {
        for part in self.parts() {
            let news = match part.news(changes).await {
                Ok(news) => news,
                Err(fault) => {
                    tracing::warn!(%fault, "who is where could not be read: it is told anew");
                    self.unsure(&*part);
                    return;
                }
            };
            for news in news {
                self.tell(news).await;
            }
        }
    }

    async fn tell(&self, news: v1::Neighbours) {
        for session in self.rooms.listeners(&news.network_id) {
            if session.knows(&news.network_id) == Some(news.before) {
                session.tell(news.clone());
            } else if let Err(fault) = self.tell_whole(&session, &news.network_id).await {
                tracing::warn!(host = session.host, %fault, "a host is told later who its neighbours are");
                self.touch(&session.host);
            }
        }
    }

    /// Something may have been missed: all is compared again.
    pub(crate) fn unsure(&self, part: &dyn HostPart) {
        part.forget();
        self.touch_all();
    }

    /// A session is over.
    pub(crate) fn stop_listening(&self, session: &Arc<Session>) {
        let empty = self.rooms.settle(session, &BTreeSet::new(), &session.listens());
        for part in self.parts() {
            empty.iter().for_each(|network| part.leave(network));
        }
    }
}

impl Session {
    /// Says it, and remembers that the agent has it then. What a full queue does not take is said anew, and whole, with
    /// the next news or when everything is compared.
    fn tell(&self, news: v1::Neighbours) {
        let (network, after) = (news.network_id.clone(), news.after);
        let said = self.send(Body::Neighbours(news));
        self.learn(&network, said.then_some(after));
    }
}
