//! Prefixes that the provider's delegating router lends to routers whose way out this host holds (DHCPv6, RFC 8415).
//!
//! ```text
//!  wanted state -> want() -> [ clients, one for each subnet ] -- frames --> edge link -> ff02::1:2
//!                                ^      |  ^                                    |
//!   kept by the caller -> keep() +      |  +-- hear() <- packet socket <- from_edge (its rate limit: a row of `live`)
//!                                       v
//!                              Delegated: what each has, for whoever waits; the caller keeps it over restarts
//! ```
//! A client speaks from its router's link-local address outside, so that neither the kernel nor anybody else has a part in it,
//! and is called by the same identifier on every host: when a way out moves, the next host asks the servers who had lent what
//! (Rebind). Nothing is given back unless that is wanted: who only lost the way out leaves the prefix to the next one.
mod client;
pub(crate) mod frame;
mod wire;

use crate::dice::Dice;
use crate::error::{Result, Step};
use crate::packet;
use crate::picture::Picture;
use crate::table::{Bytes, Table, name64, put};
use crate::v6::link_local;
use crate::wanted::{Delegation, Mac};
pub(crate) use client::Client;
use client::Lease;
use ipnet::Ipv6Net;
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;
pub(crate) use wire::Identity;

/// Frames that wait to be read; more are dropped, as a question is asked again.
const INBOX: usize = 64;

/// A prefix as it survives this process; times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub id: String,
    pub mac: Mac,
    pub prefix: Ipv6Net,
    pub server: Vec<u8>,
    pub t1: u64,
    pub t2: u64,
    /// `u64::MAX`: for ever.
    pub until: u64,
}

/// What one wanted delegation has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegated {
    pub id: String,
    /// `None`: it has no prefix.
    pub prefix: Option<Ipv6Net>,
    /// Seconds since 1970.
    pub until: u64,
    /// It was to be given back, and that is done.
    pub released: bool,
}

/// All that is known: what may be told (a client that does not know yet what it has is not in it), and what is to be kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delegations {
    pub told: Vec<Delegated>,
    pub kept: Vec<Kept>,
}

/// Where the thread, the packet socket and the passes meet.
#[derive(Default)]
pub(crate) struct Desk {
    inner: Mutex<Inner>,
    wake: Condvar,
    news: watch::Sender<Delegations>,
}

#[derive(Default)]
struct Inner {
    edge: u32,
    clients: BTreeMap<String, Asking>,
    /// Of an earlier process, until it is wanted.
    kept: BTreeMap<String, Kept>,
    inbox: VecDeque<Vec<u8>>,
    stopped: bool,
    dice: Dice,
}

struct Asking {
    mac: Mac,
    client: Client,
}

/// Milliseconds of this host's clock, and what to add to them for those since 1970.
#[derive(Clone, Copy)]
struct Time {
    now: u64,
    epoch: u64,
}

fn time() -> Time {
    use nix::time::{ClockId, clock_gettime};
    // It goes on while the host sleeps, and never back.
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |t| Duration::from(t).as_millis());
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis());
    let small = |n: u128| u64::try_from(n).unwrap_or(u64::MAX / 2);
    Time { now: small(now), epoch: small(wall).saturating_sub(small(now)) }
}

impl Time {
    /// Seconds since 1970 of a time of the clients', the nearest: two clocks are read one after the other, and what was kept is to
    /// be told as it was before.
    fn wall(self, at: u64) -> u64 {
        if at == u64::MAX { u64::MAX } else { at.saturating_add(self.epoch).saturating_add(500) / 1000 }
    }

    fn own(self, wall: u64) -> u64 {
        if wall == u64::MAX { u64::MAX } else { wall.saturating_mul(1000).saturating_sub(self.epoch) }
    }
}

/// Who a delegation's client is, wherever it runs.
fn identity(id: &str) -> Identity {
    let number = ["one", "two"].map(|half| name64(&format!("prefix delegation {half} {id}")));
    #[allow(clippy::cast_possible_truncation)]
    Identity::new(number, name64(id) as u32)
}

impl Inner {
    fn roll(&mut self) -> u32 {
        self.dice.roll()
    }

    /// Does something with a client, which may want random numbers meanwhile.
    fn with<T>(&mut self, id: &str, act: impl FnOnce(&mut Client, client::Dice<'_>) -> T) -> Option<T> {
        let mut asking = self.clients.remove(id)?;
        let done = act(&mut asking.client, &mut || self.roll());
        self.clients.insert(id.to_owned(), asking);
        Some(done)
    }

    fn want(&mut self, wanted: &[Delegation], time: Time) {
        self.clients.retain(|id, _| wanted.iter().any(|d| d.id == *id));
        for one in wanted {
            match &one.ask {
                Some(ask) => {
                    if self.clients.get(&one.id).is_some_and(|a| a.client.is_leaving()) {
                        self.clients.remove(&one.id);
                    }
                    match self.clients.get_mut(&one.id) {
                        Some(asking) => asking.mac = ask.mac,
                        None => self.begin(&one.id, ask.mac, ask.had, time),
                    }
                }
                None => self.end(&one.id, time),
            }
        }
    }

    fn begin(&mut self, id: &str, mac: Mac, had: Option<(Ipv6Net, u64)>, time: Time) {
        let who = identity(id);
        // Of what was kept and what is said the younger counts: another host may have renewed it meanwhile.
        let newer = |kept: &Kept| had.is_some_and(|(prefix, until)| prefix != kept.prefix || until > kept.until);
        let client = match (self.kept.remove(id).filter(|kept| !newer(kept)), had) {
            (Some(kept), _) => Client::resume(who, lease(&kept, time)),
            (None, Some((prefix, until))) if wire::is_for_guests(prefix) => {
                Client::take_over(who, prefix, time.own(until), time.now, &mut || self.roll())
            }
            _ => Client::new(who, time.now, &mut || self.roll()),
        };
        self.clients.insert(id.to_owned(), Asking { mac, client });
    }

    fn end(&mut self, id: &str, time: Time) {
        if !self.clients.contains_key(id) {
            let (mac, client) = match self.kept.remove(id) {
                Some(kept) => (kept.mac, Client::resume(identity(id), lease(&kept, time))),
                None => (Mac([0; 6]), Client::new(identity(id), time.now, &mut || self.roll())),
            };
            self.clients.insert(id.to_owned(), Asking { mac, client });
        }
        self.with(id, |client, dice| client.release(time.now, dice));
    }

    /// Reads what came, and gives what is to be sent.
    fn turn(&mut self, time: Time) -> Vec<Vec<u8>> {
        while let Some(frame) = self.inbox.pop_front() {
            let Some((to, message)) = frame::read(&frame) else { continue };
            let meant = |a: &Asking| link_local(a.mac) == to;
            let ids: Vec<String> = self.clients.iter().filter(|(_, a)| meant(a)).map(|(id, _)| id.clone()).collect();
            for id in ids {
                if self.with(&id, |client, dice| client.hear(message, time.now, dice)) == Some(true) {
                    break;
                }
            }
        }
        let due: Vec<(String, Mac)> = self
            .clients
            .iter()
            .filter(|(_, a)| a.client.due() <= time.now)
            .map(|(id, a)| (id.clone(), a.mac))
            .collect();
        let mut out = Vec::new();
        for (id, mac) in due {
            let message = self.with(&id, |client, dice| client.step(time.now, dice)).flatten();
            out.extend(message.map(|m| frame::write(mac, &m)));
        }
        out
    }

    fn due(&self) -> u64 {
        self.clients.values().map(|a| a.client.due()).min().unwrap_or(u64::MAX)
    }

    fn known(&self, time: Time) -> Delegations {
        let told =
            self.clients.iter().filter(|(_, a)| a.client.knows() && (!a.client.is_leaving() || a.client.is_done()));
        let told = told.map(|(id, a)| {
            let lease = a.client.lease().filter(|_| !a.client.is_done());
            let until = lease.map_or(0, |l| time.wall(l.until));
            Delegated { id: id.clone(), prefix: lease.map(|l| l.prefix), until, released: a.client.is_done() }
        });
        let kept = self.clients.iter().filter_map(|(id, a)| {
            let lease = a.client.lease().filter(|_| a.client.knows() && !a.client.is_done())?;
            let [t1, t2, until] = [lease.t1, lease.t2, lease.until].map(|at| time.wall(at));
            let server = lease.server.clone();
            Some(Kept { id: id.clone(), mac: a.mac, prefix: lease.prefix, server, t1, t2, until })
        });
        Delegations { told: told.collect(), kept: kept.chain(self.kept.values().cloned()).collect() }
    }
}

fn lease(kept: &Kept, time: Time) -> Lease {
    let [t1, t2, until] = [kept.t1, kept.t2, kept.until].map(|at| time.own(at));
    Lease { prefix: kept.prefix, server: kept.server.clone(), t1, t2, until }
}

impl Desk {
    /// What an earlier process has kept. Before the first pass: afterwards nobody asks for it.
    pub fn keep(&self, kept: Vec<Kept>) {
        self.inner.lock().kept = kept.into_iter().map(|k| (k.id.clone(), k)).collect();
    }

    /// What is to be asked for from now on, by which device.
    pub fn want(&self, edge: u32, wanted: &[Delegation]) {
        let mut inner = self.inner.lock();
        inner.edge = edge;
        inner.want(wanted, time());
        // Whatever else was kept is wanted no more.
        inner.kept.clear();
        drop(inner);
        self.wake.notify_one();
    }

    /// The device that answers come by.
    pub fn edge(&self) -> u32 {
        self.inner.lock().edge
    }

    /// A frame that came by it.
    pub fn hear(&self, frame: &[u8]) {
        let mut inner = self.inner.lock();
        if inner.inbox.len() < INBOX {
            inner.inbox.push_back(frame.to_vec());
            drop(inner);
            self.wake.notify_one();
        }
    }

    pub fn watch(&self) -> watch::Receiver<Delegations> {
        self.news.subscribe()
    }

    fn run(&self, sender: &OwnedFd) {
        let mut inner = self.inner.lock();
        while !inner.stopped {
            let time = time();
            let (frames, edge) = (inner.turn(time), inner.edge);
            let known = inner.known(time);
            self.news.send_if_modified(|old| {
                let news = !alike(old, &known);
                if news {
                    *old = known;
                }
                news
            });
            for frame in frames.iter().filter(|_| edge != 0) {
                if let Err(e) = packet::send(sender, edge, frame) {
                    tracing::debug!(error = %e, "a delegating router was not asked");
                }
            }
            match inner.due() {
                u64::MAX => self.wake.wait(&mut inner),
                due => {
                    let pause = Duration::from_millis(due.saturating_sub(self::time().now));
                    // Frames that came meanwhile have rung already.
                    if inner.inbox.is_empty() {
                        self.wake.wait_until(&mut inner, Instant::now() + pause);
                    }
                }
            }
        }
    }
}

/// The same but for the clock's own second: two clocks are read one after the other.
fn alike(a: &Delegations, b: &Delegations) -> bool {
    let near = |a: u64, b: u64| a.abs_diff(b) <= 1;
    let told = |a: &Delegated, b: &Delegated| {
        (&a.id, a.prefix, a.released) == (&b.id, b.prefix, b.released) && near(a.until, b.until)
    };
    let kept = |a: &Kept, b: &Kept| {
        (&a.id, a.mac, a.prefix, &a.server) == (&b.id, b.mac, b.prefix, &b.server)
            && near(a.t1, b.t1)
            && near(a.t2, b.t2)
            && near(a.until, b.until)
    };
    a.told.len() == b.told.len()
        && a.kept.len() == b.kept.len()
        && a.told.iter().zip(&b.told).all(|(a, b)| told(a, b))
        && a.kept.iter().zip(&b.kept).all(|(a, b)| kept(a, b))
}

/// The thread of the clients; it ends with this value.
pub(crate) struct Delegator {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

impl Delegator {
    /// Sends from the calling thread's namespace.
    pub fn start(desk: Arc<Desk>) -> Result<Self> {
        let (sender, mine) = (packet::sender()?, desk.clone());
        let thread = std::thread::Builder::new()
            .name("delegation".into())
            .spawn(move || mine.run(&sender))
            .step("start the thread of prefix delegation")?;
        Ok(Self { desk, thread: Some(thread) })
    }
}

impl Drop for Delegator {
    fn drop(&mut self) {
        self.desk.inner.lock().stopped = true;
        self.desk.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Answers from the edge link are for the agent while somebody asks; the row holds their rate limit.
pub(crate) fn draw(picture: &mut Picture<'_>, edge: u32) {
    if edge != 0 && !picture.wanted.delegations.is_empty() {
        let row = Bytes::new().raw(&vec![0; Table::Live.sizes().1]);
        put(&mut picture.tables, Table::Live, Bytes::new().u32(edge), row);
    }
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
