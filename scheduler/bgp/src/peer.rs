//! One peering, driven: dials, speaks, keeps the times, tells differences, and tries again.
//!
//! ```text
//!  reader: socket --frames--> session --> steps ----.
//!  wanted routes (watched) --differences--> queue --+--> channel --> writer: socket
//!  clock: KEEPALIVE at a third of the hold time ----'
//! ```
//! The writer is a task of its own, so that two sides that both write never wait for each other. Differences are made
//! only when the former ones have gone: what a slow peer has not been told yet is told once, as it is by then.
use crate::{
    Peering, Routes, Shown, Sign,
    connect::connect,
    frame::{self, Kind},
    notification::Notification,
    open,
    rib::Told,
    session::{Ended, Session, State, Step},
    update,
};
use bytes::BytesMut;
use rand::Rng;
use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

/// How a peering ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    Run,
    /// The peer is told, and lets go of the routes.
    Cease(Notification),
    /// Without a word: who comes next, here or elsewhere, has the same routes, and the peer keeps them as long.
    Leave,
}

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// From our OPEN to the session, and for a last word.
const HANDSHAKE: Duration = Duration::from_secs(30);
const LAST_WORD: Duration = Duration::from_secs(2);
/// Messages on their way to the writer.
const QUEUE: usize = 16;
/// Read at once.
const READ: usize = 16 * 1024;

/// What a peering is driven by.
pub struct Drive {
    pub peering: Peering,
    pub wanted: watch::Receiver<Arc<Routes>>,
    pub stop: watch::Receiver<Stop>,
    pub shown: watch::Sender<Shown>,
    pub sign: Option<Sign>,
    /// No session yet since this speaker began.
    pub fresh: AtomicBool,
}

/// Why a conversation is over.
enum Over {
    Stopped,
    Failed(String),
}

/// What a session waits for.
enum Event {
    Stop(Stop),
    /// The writer takes one more message.
    Room,
    Closed,
    Wanted,
    Read(io::Result<usize>),
    Keepalive,
    Silence,
}

impl From<io::Error> for Over {
    fn from(error: io::Error) -> Self {
        Over::Failed(error.to_string())
    }
}

impl Drive {
    pub async fn run(mut self) {
        let mut wait = RETRY_FIRST;
        loop {
            let mut stop = self.stop.clone();
            self.show(State::Connect);
            let tried = tokio::select! {
                _ = stopped(&mut stop) => return,
                tried = connect(&self.peering, self.sign) => tried,
            };
            let over = match tried {
                Ok(stream) => self.converse(stream).await,
                Err(error) => error.into(),
            };
            let was_up = self.shown.borrow().state == State::Established;
            let Over::Failed(why) = over else {
                self.show(State::Idle);
                return;
            };
            if was_up {
                wait = RETRY_FIRST;
            }
            self.failed(&why, was_up);
            let jittered = wait.mul_f64(rand::rng().random_range(0.75..1.25));
            tokio::select! {
                _ = stopped(&mut stop) => return,
                () = sleep(jittered) => {}
            }
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    fn show(&self, state: State) {
        self.shown.send_if_modified(|shown| std::mem::replace(&mut shown.state, state) != state);
    }

    fn failed(&self, why: &str, was_up: bool) {
        let peer = self.peering.peer;
        let again = self.shown.borrow().trouble == why;
        self.shown.send_modify(|shown| {
            shown.state = State::Idle;
            shown.routes = 0;
            why.clone_into(&mut shown.trouble);
        });
        if was_up {
            tracing::warn!(%peer, why, "the BGP session is down");
        } else if !again {
            tracing::warn!(%peer, why, "no BGP session");
        }
    }

    /// From the first OPEN to the end.
    async fn converse(&mut self, stream: TcpStream) -> Over {
        let (reading, writing) = stream.into_split();
        let (out, queue) = mpsc::channel(QUEUE);
        let patience = Duration::from_secs(self.peering.hold.max(30).into());
        let writer = tokio::spawn(write(writing, queue, patience));
        let restarted = self.fresh.load(Ordering::Relaxed);
        let mut talk = Talk {
            reading,
            read: BytesMut::with_capacity(READ),
            out,
            session: Session::new(self.peering.clone()),
            told: Told::default(),
            pending: VecDeque::from([open::encode(&self.peering, restarted)]),
            repeat: false,
            heard: Instant::now(),
            spoke: Instant::now(),
        };
        self.show(State::OpenSent);
        let over = self.speak(&mut talk).await;
        // What waits for the writer is dropped with the channel, but for a last word.
        let Talk { reading, out, .. } = talk;
        drop(out);
        finish(writer).await;
        drop(reading);
        over
    }

    async fn speak(&mut self, talk: &mut Talk) -> Over {
        let mut stop = self.stop.clone();
        let out = talk.out.clone();
        loop {
            talk.repeat_if_asked();
            let (waiting, keepalive, silent) = (!talk.pending.is_empty(), talk.keepalive_at(), talk.silent_at());
            let quiet = talk.session.state() == State::Established && !waiting;
            let event = tokio::select! {
                stop = stopped(&mut stop) => Event::Stop(stop),
                room = out.reserve(), if waiting => if room.is_ok() { Event::Room } else { Event::Closed },
                () = out.closed() => Event::Closed,
                // Whoever wants nothing any more has said how it is to end.
                Ok(()) = self.wanted.changed(), if quiet => Event::Wanted,
                read = talk.reading.read_buf(&mut talk.read) => Event::Read(read),
                () = sleep_until(keepalive) => Event::Keepalive,
                () = sleep_until(silent) => Event::Silence,
            };
            match event {
                Event::Stop(stop) => {
                    if let Stop::Cease(notification) = stop {
                        talk.last_word(&notification).await;
                    }
                    return Over::Stopped;
                }
                Event::Closed => return Over::Failed("the connection does not take what is written".into()),
                Event::Room => talk.send_one(),
                Event::Wanted => self.tell(talk),
                Event::Read(Ok(0)) => return Over::Failed("the peer closed the connection".into()),
                Event::Read(Err(error)) => return error.into(),
                Event::Read(Ok(_)) => {
                    if let Err(ended) = self.heard(talk) {
                        return talk.end(ended).await;
                    }
                }
                Event::Keepalive => {
                    talk.pending.push_back(frame::put(Kind::Keepalive, &[]));
                    talk.spoke = Instant::now();
                }
                Event::Silence => return talk.end(Notification::SILENCE.into()).await,
            }
        }
    }

    /// Takes all whole messages that were read.
    fn heard(&mut self, talk: &mut Talk) -> Result<(), Ended> {
        while let Some(frame) = frame::take(&mut talk.read)? {
            talk.heard = Instant::now();
            match talk.session.take(&frame)? {
                Step::Nothing => {}
                Step::Send(message) => talk.pending.push_back(message),
                Step::Establish => self.established(talk),
                Step::Repeat => talk.repeat = true,
            }
        }
        Ok(())
    }

    fn established(&mut self, talk: &mut Talk) {
        self.fresh.store(false, Ordering::Relaxed);
        self.tell(talk);
        talk.pending.push_back(update::end_of_rib(self.peering.family));
        self.shown.send_modify(|shown| {
            shown.state = State::Established;
            shown.trouble.clear();
        });
        tracing::info!(peer = %self.peering.peer, remote_as = self.peering.remote_as, routes = talk.told.count(),
            "the BGP session is up");
    }

    fn tell(&mut self, talk: &mut Talk) {
        let wanted = self.wanted.borrow_and_update().clone();
        let messages = talk.told.follow(&talk.session.style(), &wanted);
        talk.pending.extend(messages);
        let count = talk.told.count();
        self.shown.send_modify(|shown| shown.routes = count);
    }
}

/// One connection.
struct Talk {
    reading: OwnedReadHalf,
    read: BytesMut,
    out: mpsc::Sender<Vec<u8>>,
    session: Session,
    told: Told,
    pending: VecDeque<Vec<u8>>,
    /// The peer wants all of it once more.
    repeat: bool,
    heard: Instant,
    spoke: Instant,
}

const FAR: Duration = Duration::from_secs(24 * 3600);

impl Talk {
    fn hold(&self) -> Option<Duration> {
        let seconds = self.session.hold();
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }

    fn keepalive_at(&self) -> Instant {
        let speaks = matches!(self.session.state(), State::OpenConfirm | State::Established);
        self.spoke + self.hold().filter(|_| speaks).map_or(FAR, |hold| hold / 3)
    }

    fn silent_at(&self) -> Instant {
        match self.session.state() {
            State::OpenConfirm | State::Established => self.heard + self.hold().unwrap_or(FAR),
            _ => self.heard + HANDSHAKE,
        }
    }

    /// There is room for it, as nobody else sends.
    fn send_one(&mut self) {
        if let Some(message) = self.pending.pop_front()
            && self.out.try_send(message).is_ok()
        {
            self.spoke = Instant::now();
        }
    }

    /// Once, however often it was asked meanwhile.
    fn repeat_if_asked(&mut self) {
        if self.pending.is_empty() && std::mem::take(&mut self.repeat) {
            let style = self.session.style();
            self.pending = self.told.repeat(&style);
            self.pending.push_back(update::end_of_rib(style.family));
        }
    }

    async fn end(&mut self, ended: Ended) -> Over {
        match ended {
            Ended::Told(notification) => Over::Failed(format!("the peer says: {notification}")),
            Ended::Tell(notification) => {
                self.last_word(&notification).await;
                Over::Failed(format!("we say: {notification}"))
            }
        }
    }

    async fn last_word(&mut self, notification: &Notification) {
        let _ = timeout(LAST_WORD, self.out.send(notification.encode())).await;
    }
}

/// Returns when the peering is no longer wanted, with how it is to end.
async fn stopped(stop: &mut watch::Receiver<Stop>) -> Stop {
    stop.wait_for(|s| *s != Stop::Run).await.map_or(Stop::Leave, |s| s.clone())
}

/// Writes what comes; ends with the channel, or when the peer takes nothing for too long.
async fn write(mut writing: OwnedWriteHalf, mut queue: mpsc::Receiver<Vec<u8>>, patience: Duration) {
    while let Some(message) = queue.recv().await {
        match timeout(patience, writing.write_all(&message)).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    }
}

async fn finish(mut writer: JoinHandle<()>) {
    if timeout(LAST_WORD, &mut writer).await.is_err() {
        writer.abort();
    }
}
