//! Next hops of routers' ways out that this host holds, watched by Bidirectional Forwarding Detection (RFC 5880, single hop: RFC 5881).
//!
//! ```text
//!  wanted state -> way::hops -> [ sessions, one for each next hop ] -- frames --> agent0 -> from_agent -> edge link -> next hop
//!                                  ^        |  ^                                                                  |
//!                    their clocks -+        |  +-- hear() <- packet socket <- from_edge (a row of `watched`) -----+
//!                                           v
//!                 what is thought of each: Verdict -> the worker draws routes anew, without lost ones (way::without_lost)
//! ```
//! A session speaks from the router's address outside, which no device of the kernel has. Nothing of it outlives the process: one
//! that begins is not judged at once, and one that ends by intent says so, so that neither side takes a restart for a loss.
mod control;
pub(crate) mod frame;
mod session;
pub(crate) mod way;

use crate::dice::Dice;
use crate::error::{Result, Step};
use crate::packet;
pub(crate) use control::Control;
use nix::time::{ClockId, clock_gettime};
use parking_lot::{Condvar, Mutex, MutexGuard};
pub(crate) use session::{Session, Verdict};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use way::{Hop, Speaker};

/// Frames that wait to be read; more are dropped, as a neighbour says everything again.
const INBOX: usize = 1024;
/// Until the worker is asked once more to draw what it could not.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two looks at all sessions: with thousands of them each frame would else be a look of its own.
const TICK: Duration = Duration::from_millis(5);

/// What is known of one watched next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedHop {
    pub router: String,
    /// The router's own address outside.
    pub address: IpAddr,
    pub next_hop: IpAddr,
    /// Of the session: `down`, `init` or `up`.
    pub state: &'static str,
    /// Whether routes lead there.
    pub taken: bool,
}

/// Where the thread, the packet socket and the worker meet.
#[derive(Default)]
pub(crate) struct Desk {
    inner: Mutex<Inner>,
    wake: Condvar,
    news: watch::Sender<Vec<WatchedHop>>,
}

#[derive(Default)]
struct Inner {
    sessions: BTreeMap<Hop, Watched>,
    inbox: VecDeque<Vec<u8>>,
    /// Last words of sessions that are wanted no more.
    outbox: Vec<Vec<u8>>,
    /// Next hops that the worker was last told are lost, and when it is to be told again though nothing has changed.
    told: BTreeSet<Hop>,
    tell_again: Option<Instant>,
    /// Some session is, or is thought of, otherwise than before.
    changed: bool,
    dice: Dice,
    stopped: bool,
}

struct Watched {
    speaker: Speaker,
    mine: u32,
    session: Session,
}

/// Microseconds of a clock that goes on while the host sleeps, and never back.
fn now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |t| Duration::from(t).as_micros());
    u64::try_from(now).unwrap_or(u64::MAX / 2)
}

impl Inner {
    fn want(&mut self, wanted: BTreeMap<Hop, Speaker>, now: u64) {
        let ended: Vec<Hop> = self.sessions.keys().filter(|hop| !wanted.contains_key(*hop)).cloned().collect();
        for hop in ended {
            if let Some(old) = self.sessions.remove(&hop) {
                self.changed = true;
                tracing::info!(router = old.speaker.router, next_hop = %hop.peer, "next hop is watched no more");
                self.outbox.push(frame::write(&hop, old.speaker.mac, old.mine, &old.session.farewell().write()));
            }
        }
        for (hop, speaker) in wanted {
            match self.sessions.get_mut(&hop) {
                Some(known) => known.speaker = speaker,
                None => {
                    tracing::info!(router = speaker.router, next_hop = %hop.peer, "next hop is watched");
                    let mine = self.discriminator();
                    self.changed = true;
                    self.sessions.insert(hop, Watched { speaker, mine, session: Session::new(mine, now) });
                }
            }
        }
    }

    /// What nobody can guess and no other session has.
    fn discriminator(&mut self) -> u32 {
        loop {
            let mine = self.dice.roll();
            if mine != 0 && self.sessions.values().all(|s| s.mine != mine) {
                return mine;
            }
        }
    }

    /// Reads what came, and gives what is to be sent.
    fn turn(&mut self, now: u64) -> Vec<Vec<u8>> {
        while let Some(frame) = self.inbox.pop_front() {
            let Some((hop, message)) = frame::read(&frame) else { continue };
            if let (Some(watched), Some(said)) = (self.sessions.get_mut(&hop), Control::read(message)) {
                self.changed |= watched.change(&hop, |session| session.hear(&said, now)).1;
            }
        }
        let mut out = std::mem::take(&mut self.outbox);
        for (hop, watched) in &mut self.sessions {
            while watched.session.due() <= now {
                let roll = self.dice.roll();
                let (said, changed) = watched.change(hop, |session| session.step(now, roll));
                self.changed |= changed;
                out.extend(said.map(|said| frame::write(hop, watched.speaker.mac, watched.mine, &said.write())));
            }
        }
        out
    }

    fn due(&self) -> u64 {
        self.sessions.values().map(|w| w.session.due()).min().unwrap_or(u64::MAX)
    }

    fn lost(&self) -> BTreeSet<Hop> {
        let lost = self.sessions.iter().filter(|(_, w)| w.session.verdict() == Verdict::Lost);
        lost.map(|(hop, _)| hop.clone()).collect()
    }

    fn known(&self) -> Vec<WatchedHop> {
        let one = |(hop, watched): (&Hop, &Watched)| WatchedHop {
            router: watched.speaker.router.clone(),
            address: hop.own,
            next_hop: hop.peer,
            state: watched.session.state().name(),
            taken: watched.session.verdict() != Verdict::Lost,
        };
        self.sessions.iter().map(one).collect()
    }
}

impl Watched {
    /// Does something with the session, and says what has become of it; also whether that is anything new.
    fn change<T>(&mut self, hop: &Hop, act: impl FnOnce(&mut Session) -> T) -> (T, bool) {
        let before = (self.session.state(), self.session.verdict());
        let done = act(&mut self.session);
        let (state, verdict) = (self.session.state(), self.session.verdict());
        let (router, address, next_hop) = (&self.speaker.router, hop.own, hop.peer);
        if before.0 != state {
            let why = self.session.diagnostic().name();
            tracing::info!(router, %address, %next_hop, from = before.0.name(), to = state.name(), why, "BFD session");
        }
        if before.1 != verdict && verdict == Verdict::Lost {
            tracing::warn!(router, %address, %next_hop, "next hop is lost: no default route leads there");
        }
        (done, before != (state, verdict))
    }
}

impl Desk {
    /// What is to be watched from now on: its rows are there.
    pub fn want(&self, wanted: BTreeMap<Hop, Speaker>) {
        self.inner.lock().want(wanted, now());
        self.wake.notify_one();
    }

    /// A frame of the programs'.
    pub fn hear(&self, frame: &[u8]) {
        let mut inner = self.inner.lock();
        if inner.inbox.len() < INBOX {
            inner.inbox.push_back(frame.to_vec());
            drop(inner);
            self.wake.notify_one();
        }
    }

    /// What is thought of each next hop now.
    pub fn verdicts(&self) -> BTreeMap<Hop, Verdict> {
        self.inner.lock().sessions.iter().map(|(hop, w)| (hop.clone(), w.session.verdict())).collect()
    }

    /// The worker could not draw what it was told of.
    pub fn undrawn(&self) {
        self.inner.lock().tell_again = Some(Instant::now() + AGAIN);
        self.wake.notify_one();
    }

    pub fn watch(&self) -> watch::Receiver<Vec<WatchedHop>> {
        self.news.subscribe()
    }

    /// `redraw`: has the worker draw routes anew; `false`: it has too much to do.
    fn run(&self, sender: &OwnedFd, agent: u32, redraw: impl Fn() -> bool) {
        let mut inner = self.inner.lock();
        while !inner.stopped {
            let frames = inner.turn(now());
            send(sender, agent, &frames);
            if std::mem::take(&mut inner.changed) {
                self.news.send_replace(inner.known());
                let lost = inner.lost();
                if lost != inner.told {
                    (inner.told, inner.tell_again) = (lost, Some(Instant::now()));
                }
            }
            if inner.tell_again.is_some_and(|at| at <= Instant::now()) {
                inner.tell_again = if redraw() { None } else { Some(Instant::now() + AGAIN) };
            }
            MutexGuard::unlocked(&mut inner, || std::thread::park_timeout(TICK));
            let due = inner.due();
            let pause = (due != u64::MAX).then(|| Duration::from_micros(due.saturating_sub(now())));
            let until = pause.and_then(|pause| Instant::now().checked_add(pause));
            // Frames that came meanwhile have rung already.
            match until.into_iter().chain(inner.tell_again).min() {
                _ if inner.stopped || inner.changed || !inner.inbox.is_empty() || !inner.outbox.is_empty() => {}
                Some(until) => drop(self.wake.wait_until(&mut inner, until)),
                None => self.wake.wait(&mut inner),
            }
        }
        // Who is left hears that it is not for want of a way.
        inner.want(BTreeMap::new(), now());
        send(sender, agent, &std::mem::take(&mut inner.outbox));
    }
}

fn send(sender: &OwnedFd, agent: u32, frames: &[Vec<u8>]) {
    for frame in frames {
        if let Err(e) = packet::send(sender, agent, frame) {
            tracing::debug!(error = %e, "a next hop was not spoken to");
        }
    }
}

/// The thread of the sessions; it ends with this value.
pub(crate) struct Watcher {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Sends from the calling thread's namespace, by the host's end of `agent`.
    pub fn start(desk: Arc<Desk>, agent: u32, redraw: impl Fn() -> bool + Send + 'static) -> Result<Self> {
        let (sender, mine) = (packet::sender()?, desk.clone());
        let thread = std::thread::Builder::new()
            .name("bfd".into())
            .spawn(move || mine.run(&sender, agent, redraw))
            .step("start the thread that watches next hops")?;
        Ok(Self { desk, thread: Some(thread) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.desk.inner.lock().stopped = true;
        self.desk.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
