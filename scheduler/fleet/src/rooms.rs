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
use pilvi_agent_api::{neighbours::News, v1::scheduler_message::Body};
use pilvi_kit::Fault;
use pilvi_store::Change;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Weak},
};

/// Networks whose endpoints sessions are told.
#[derive(Debug, Default)]
pub(crate) struct Rooms(Mutex<HashMap<String, Room>>);

#[derive(Debug, Default)]
struct Room {
    listeners: HashMap<String, Weak<Session>>,
    /// All endpoints, as they were told last.
    whole: Option<News>,
}

impl Rooms {
    /// Adds and removes a session. What nobody listens to any more is left before anybody else can begin to listen.
    fn settle(&self, session: &Arc<Session>, networks: &BTreeSet<String>, parts: &[Arc<dyn HostPart>]) {
        let former = &session.listens();
        let mut rooms = self.0.lock();
        for network in networks.difference(former) {
            let room = rooms.entry(network.clone()).or_default();
            room.listeners.insert(session.id.clone(), Arc::downgrade(session));
        }
        for network in former.difference(networks) {
            let Some(room) = rooms.get_mut(network) else { continue };
            room.listeners.remove(&session.id);
            if room.listeners.is_empty() {
                rooms.remove(network);
                parts.iter().for_each(|part| part.leave(network));
            }
        }
    }

    fn listeners(&self, network: &str) -> Vec<Arc<Session>> {
        let rooms = self.0.lock();
        rooms.get(network).map(|r| r.listeners.values().filter_map(Weak::upgrade).collect()).unwrap_or_default()
    }

    fn whole(&self, network: &str) -> Option<News> {
        self.0.lock().get(network)?.whole.clone()
    }

    fn keep(&self, whole: &News) {
        if let Some(room) = self.0.lock().get_mut(&whole.network_id) {
            room.whole = Some(whole.clone());
        }
    }
}

impl Fleet {
    /// Has a session listen to exactly these networks, and tells it what it does not know of them.
    pub(crate) async fn listen(&self, session: &Arc<Session>, networks: BTreeSet<String>) -> Result<(), Fault> {
        self.rooms.settle(session, &networks, &self.parts());
        session.listen(&networks);
        for network in &networks {
            self.tell_whole(session, network).await?;
        }
        Ok(())
    }

    /// Tells all endpoints of a network, unless the agent has just these.
    pub(crate) async fn tell_whole(&self, session: &Session, network: &str) -> Result<(), Fault> {
        let _telling = session.telling.lock().await;
        self.tell_lacking(session, network).await
    }

    async fn tell_lacking(&self, session: &Session, network: &str) -> Result<(), Fault> {
        // Most hosts lack the same: what was told last is made anew only when it is not true any more.
        let mut whole = self.rooms.whole(network);
        for part in self.parts() {
            if let Some(newer) = part.neighbours(network, whole.as_ref().map(|w| w.after)).await? {
                self.rooms.keep(&newer);
                whole = Some(newer);
            }
        }
        if let Some(whole) = whole.filter(|whole| session.knows(network) != Some(whole.after)) {
            session.tell(&whole);
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
                self.tell(&news).await;
            }
        }
    }

    async fn tell(&self, news: &News) {
        // Whoever is being told something else comes last: nobody waits for another's turn.
        let mut later = Vec::new();
        for session in self.rooms.listeners(&news.network_id) {
            let told = session.telling.try_lock().is_ok_and(|_telling| session.tell_next(news));
            if !told {
                later.push(session);
            }
        }
        for session in later {
            let _telling = session.telling.lock().await;
            if !session.tell_next(news)
                && let Err(fault) = self.tell_lacking(&session, &news.network_id).await
            {
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
        self.rooms.settle(session, &BTreeSet::new(), &self.parts());
    }
}

impl Session {
    /// False when the agent has not what the news are about.
    fn tell_next(&self, news: &News) -> bool {
        let fits = news.before.is_some() && self.knows(&news.network_id) == news.before;
        if fits {
            self.tell(news);
        }
        fits
    }

    /// Says it, and remembers that the agent has it then. What a full queue does not take is said anew, and whole, with
    /// the next news or when everything is compared.
    fn tell(&self, news: &News) {
        let said = self.send(Body::Neighbours(news.message.clone()));
        self.learn(&news.network_id, said.then_some(news.after));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // as in any test
    use super::*;
    use crate::{Affected, Authority, Config, Part, session::Outgoing};
    use async_trait::async_trait;
    use pilvi_agent_api::{neighbours::Room, v1};
    use pilvi_store::Store;
    use prost::Message;
    use tokio::sync::mpsc;

    /// A network service that knows of one network, `n`, and names it to every host.
    #[derive(Default)]
    struct One {
        room: Mutex<Room>,
        news: Mutex<Vec<News>>,
        left: Mutex<Vec<String>>,
    }

    impl One {
        fn set(&self, port: &str) {
            let mut room = self.room.lock();
            let remote = v1::Remote { port_id: port.into(), ..v1::Remote::default() };
            let before = room.version();
            room.set(remote.clone());
            let news = v1::Neighbours {
                network_id: "n".into(),
                whole: false,
                before,
                after: room.version(),
                changed: vec![remote],
                gone: Vec::new(),
            };
            self.news.lock().push(news.into());
        }
    }

    #[async_trait]
    impl HostPart for One {
        async fn wanted(&self, _host: &str) -> Result<Part, Fault> {
            let network = v1::L2 { id: "n".into(), neighbours: true, ..v1::L2::default() };
            let network = v1::HostNetwork { networks: vec![network], ..v1::HostNetwork::default() };
            Ok(Part { network: Some(network), ..Part::default() })
        }
        async fn affected(&self, _changes: &[Change]) -> Affected {
            Affected::Hosts(BTreeSet::new())
        }
        async fn observed(&self, _host: &str, _observed: &v1::Observed) -> Result<(), Fault> {
            Ok(())
        }
        async fn neighbours(&self, network: &str, known: Option<u64>) -> Result<Option<News>, Fault> {
            let room = self.room.lock();
            Ok((known != Some(room.version())).then(|| room.whole(network).into()))
        }
        async fn news(&self, _changes: &[Change]) -> Result<Vec<News>, Fault> {
            Ok(std::mem::take(&mut *self.news.lock()))
        }
        fn leave(&self, network: &str) {
            self.left.lock().push(network.to_owned());
        }
    }

    /// What an agent makes of all that it was sent so far: true for each message that was whole.
    fn read(queue: &mut mpsc::Receiver<Outgoing>, agent: &mut Room) -> Vec<bool> {
        let mut kinds = Vec::new();
        while let Ok(Ok(message)) = queue.try_recv() {
            if let Some(Body::Neighbours(news)) = message.body {
                let news = v1::Neighbours::decode(news).unwrap();
                kinds.push(news.whole);
                agent.apply(news).unwrap();
            }
        }
        kinds
    }

    fn networks(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[tokio::test]
    async fn each_session_is_told_what_its_agent_lacks() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open("sqlite::memory:", crate::kinds()).await.unwrap();
        let fleet = Fleet::new(store, Authority::open(folder.path()).unwrap(), Config::default());
        let service = Arc::new(One::default());
        fleet.add_part(service.clone());
        service.set("a");
        service.news.lock().clear();
        let session = |size| {
            let (send, queue) = mpsc::channel(size);
            (Arc::new(Session::new("h".into(), send)), queue, Room::default())
        };
        let (first, mut first_queue, mut first_room) = session(8);
        fleet.listen(&first, networks(&["n"])).await.unwrap();
        assert_eq!(read(&mut first_queue, &mut first_room), [true]);
        // One whose agent has it already is told nothing.
        let (second, mut second_queue, _) = session(8);
        let mut second_room = first_room.clone();
        second.greeted.lock().insert("n".into(), second_room.version());
        fleet.listen(&second, networks(&["n"])).await.unwrap();
        assert_eq!(read(&mut second_queue, &mut second_room), [] as [bool; 0]);
        // One that does not read misses news, and is told the whole later.
        let (slow, mut slow_queue, mut slow_room) = session(1);
        fleet.listen(&slow, networks(&["n"])).await.unwrap();
        service.set("b");
        fleet.spread(&[]).await;
        assert_eq!(read(&mut first_queue, &mut first_room), [false]);
        assert_eq!(read(&mut second_queue, &mut second_room), [false]);
        assert_eq!(read(&mut slow_queue, &mut slow_room), [true]);
        service.set("c");
        fleet.spread(&[]).await;
        assert_eq!(read(&mut slow_queue, &mut slow_room), [true]);
        assert_eq!(read(&mut first_queue, &mut first_room), [false]);
        assert!(first_room == slow_room && first_room == *service.room.lock());
        // The room is left when the last session is gone.
        fleet.listen(&first, BTreeSet::new()).await.unwrap();
        fleet.stop_listening(&second);
        assert!(service.left.lock().is_empty());
        fleet.stop_listening(&slow);
        assert_eq!(*service.left.lock(), ["n"]);
    }
}
