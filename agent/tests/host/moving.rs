//! What every runtime must do whose guests move from one host to another while they run.
//!
//! ```text
//!  here: a guest that counts --streams, maybe slow--> there: another folder, another runtime
//! ```
//! The guest writes each number to its disk, then says it: what both consoles have together tells whether it stood
//! still, ran twice or began anew, and the disk there must hold what was said.
use crate::contract::{Case, QEMU, Subject};
use crate::guest;
use async_trait::async_trait;
use nix::sys::signal::Signal;
use pilvi_agent::process;
use pilvi_agent::runtime::{Machine, Run, RuntimeError, Wires};
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

/// Streams to the doors of the other case.
struct Streams<'a> {
    to: &'a Case,
    /// Bytes a second through each; none: as fast as they go.
    pace: Option<u64>,
    fault: Option<Fault>,
    /// The fault is there.
    struck: Arc<Notify>,
}

/// What goes wrong with the stream to a door.
#[derive(Clone, Copy)]
struct Fault {
    door: &'static str,
    /// Bytes that get through: on the way there, and back.
    there: usize,
    back: usize,
    /// The stream ends then; else it stands still.
    ends: bool,
}

impl<'a> Streams<'a> {
    fn fast(to: &'a Case) -> Self {
        Self { to, pace: None, fault: None, struck: Arc::default() }
    }

    /// The disks alone take two seconds.
    fn slow(to: &'a Case) -> Self {
        Self { pace: Some(6 << 20), ..Self::fast(to) }
    }

    /// To be disturbed in the middle of the disks, or at a fault.
    fn until(to: &'a Case, fault: Option<Fault>) -> Self {
        fault.map_or_else(|| Self::slow(to), |fault| Self::with(to, fault))
    }

    fn with(to: &'a Case, fault: Fault) -> Self {
        Self { fault: Some(fault), ..Self::fast(to) }
    }
}

#[async_trait]
impl Wires for Streams<'_> {
    async fn open(&self, door: &str) -> io::Result<UnixStream> {
        let path = self.to.runtime.door(&self.to.guest, door).ok_or(io::ErrorKind::NotFound)?;
        let (there_in, there_out) = tokio::net::UnixStream::connect(path).await?.into_split();
        let (given, here) = UnixStream::pair()?;
        here.set_nonblocking(true)?;
        let (here_in, here_out) = tokio::net::UnixStream::from_std(here)?.into_split();
        let fault = self.fault.filter(|fault| fault.door == door);
        let limit = |get: fn(&Fault) -> usize| fault.as_ref().map_or(usize::MAX, get);
        let (limit_there, limit_back) = (limit(|fault| fault.there), limit(|fault| fault.back));
        let (pace, struck) = (self.pace, self.struck.clone());
        tokio::spawn(async move {
            let (mut here_out, mut there_out) = (here_out, there_out);
            let (mut here_in, mut there_in) = (here_in, there_in);
            let broke = tokio::select! {
                broke = relay(&mut here_in, &mut there_out, pace, limit_there) => broke,
                broke = relay(&mut there_in, &mut here_out, None, limit_back) => broke,
            };
            if broke {
                struck.notify_one();
                if fault.is_some_and(|fault| !fault.ends) {
                    std::future::pending::<()>().await;
                }
            }
            // Both directions end together, as they do when a host is gone.
        });
        Ok(given)
    }
}

/// Carries bytes until the stream ends, or `limit` of them are through: then it returns true.
async fn relay(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, pace: Option<u64>, limit: usize) -> bool {
    let mut buffer = vec![0; 32 << 10];
    let mut passed = 0;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let through = count.min(limit - passed);
        if to.write_all(&buffer[..through]).await.is_err() {
            break;
        }
        passed += through;
        if through < count {
            return true;
        }
        if let Some(pace) = pace {
            tokio::time::sleep(Duration::from_micros(count as u64 * 1_000_000 / pace)).await;
        }
    }
    false
}

/// What came of a move: of sending, and of arriving.
type Went = (Result<(), RuntimeError>, Result<(), RuntimeError>);

/// A guest that runs here and is awaited there.
struct Pair {
    here: Case,
    there: Case,
    machine: fn(&Path) -> Machine,
}

impl Pair {
    async fn new(subject: &'static Subject) -> Self {
        let machine = subject.counts.unwrap();
        let pair = Self { here: Case::new(subject), there: Case::new(subject), machine };
        pair.here.runtime.start(&pair.here.guest, machine(&pair.here.guest.dir)).await.unwrap();
        pair.until_counted(&pair.here, 3).await;
        pair.receive().await;
        assert_eq!(pair.there.status().await.run, Run::Arriving);
        pair
    }

    /// The other host makes empty disks of the same sizes; what nobody writes to it has.
    async fn receive(&self) {
        let machine = (self.machine)(&self.here.guest.dir);
        let there = |disk: &std::path::Path| self.there.guest.dir.join(disk.file_name().unwrap());
        let mut coming = machine;
        for disk in &mut coming.disks {
            let path = there(&disk.path);
            if disk.read_only {
                fs::copy(&disk.path, &path).unwrap();
            } else {
                let size = fs::metadata(&disk.path).unwrap().len();
                fs::OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(&path)
                    .unwrap()
                    .set_len(size)
                    .unwrap();
            }
            disk.path = path;
        }
        self.there.runtime.receive(&self.there.guest, coming).await.unwrap();
    }

    /// Sends the guest; whether either side is content.
    async fn go(&self, wires: &Streams<'_>) -> Went {
        let send = self.here.runtime.send(&self.here.guest, wires);
        tokio::join!(send, self.there.runtime.arrive(&self.there.guest))
    }

    /// As [`Self::go`], and does something in the middle: when the fault strikes, else while the disks are sent.
    async fn go_and(&self, wires: &Streams<'_>, during: impl Future<Output = ()>) -> Went {
        let disturb = async {
            match wires.fault {
                Some(_) => wires.struck.notified().await,
                None => tokio::time::sleep(Duration::from_millis(900)).await,
            }
            during.await;
        };
        let (went, ()) = tokio::join!(self.go(wires), disturb);
        went
    }

    async fn until_counted(&self, case: &Case, more: usize) {
        let before = numbers(&case.console().await).len();
        for _ in 0..600 {
            if numbers(&case.console().await).len() >= before + more {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it does not count: {:?} {:?}", case.status().await, case.console().await);
    }

    /// The guest goes on here as if nothing had been, and was never anywhere else.
    async fn goes_on_here(self) {
        assert_eq!(self.here.status().await.run, Run::Running);
        self.until_counted(&self.here, 5).await;
        self.here.runtime.pause(&self.here.guest).await.unwrap();
        self.here.until(Run::Paused).await;
        self.here.runtime.resume(&self.here.guest).await.unwrap();
        self.until_counted(&self.here, 5).await;
        self.there.until(Run::Absent).await;
        assert!(self.there.console().await.is_empty());
        self.here.runtime.kill(&self.here.guest).await.unwrap();
        counted_through(&self.here.console().await);
        self.nothing_is_left().await;
    }

    /// The guest goes on there where it was, with its disks.
    async fn goes_on_there(self) {
        assert_eq!(self.here.status().await.run, Run::Moved);
        assert_eq!(self.there.status().await.run, Run::Running);
        self.until_counted(&self.there, 5).await;
        let (here, there) = (&self.here, &self.there);
        assert!(here.runtime.resume(&here.guest).await.is_err(), "it would run twice");
        assert_eq!(here.status().await.run, Run::Moved);
        there.runtime.arrive(&there.guest).await.unwrap();
        there.runtime.pause(&there.guest).await.unwrap();
        there.until(Run::Paused).await;
        for case in [here, there] {
            case.runtime.kill(&case.guest).await.unwrap();
        }
        let last = counted_through(&(here.console().await + &there.console().await));
        let disk = fs::File::open(there.guest.dir.join("root")).unwrap();
        for number in last.saturating_sub(guest::COUNTED - 1).max(1)..=last {
            let mut sector = [0; 512];
            disk.read_exact_at(&mut sector, 512 * (1 + number % guest::COUNTED)).unwrap();
            let words = sector.chunks(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap())));
            // One that was written and not yet said may be there already.
            assert!(
                words.into_iter().all(|word| word == number || word == number + guest::COUNTED),
                "{number} is lost"
            );
        }
        let data = |case: &Case| fs::read(case.guest.dir.join("data")).unwrap();
        assert!(data(here) == data(there), "the disk did not come over whole");
        self.nothing_is_left().await;
    }

    async fn nothing_is_left(self) {
        for case in [self.here, self.there] {
            case.runtime.kill(&case.guest).await.unwrap();
            let names = fs::read_dir(&case.guest.dir).unwrap().map(|entry| entry.unwrap().file_name());
            let names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
            let odd = ["door-", "arriving", "told", "moved", "qmp"];
            assert!(!names.iter().any(|name| odd.iter().any(|odd| name.starts_with(odd))), "{names:?}");
            case.end().await;
        }
    }
}

/// The numbers that a console says.
fn numbers(text: &str) -> Vec<u64> {
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.filter_map(|line| u64::from_str_radix(line.trim(), 16).ok()).collect()
}

/// It began once, and counted without a gap; the last number.
fn counted_through(text: &str) -> u64 {
    let numbers = numbers(text);
    let last = numbers.len() as u64;
    assert!(numbers.iter().copied().eq(1..=last), "not a count: {text:?}");
    assert_eq!(text.matches("up").count(), 1, "it began anew: {text:?}");
    last
}

async fn moves_while_it_runs(subject: &'static Subject) {
    let pair = Pair::new(subject).await;
    let before = numbers(&pair.here.console().await).len();
    let (sent, arrived) = pair.go(&Streams::slow(&pair.there)).await;
    sent.unwrap();
    arrived.unwrap();
    let during = numbers(&pair.here.console().await).len() - before;
    assert!(during >= 10, "it wrote only {during} times during the move");
    pair.here.runtime.send(&pair.here.guest, &Streams::fast(&pair.there)).await.unwrap();
    pair.goes_on_there().await;
}

/// In the middle of the memory: what comes after that is never there.
const MEMORY: Fault = Fault { door: "state", there: 100 << 10, back: usize::MAX, ends: false };
/// Where a move is disturbed.
const MIDDLES: [Option<Fault>; 2] = [None, Some(MEMORY)];
/// All is there, and the word that lets it run gets no further.
const WORD: Fault = Fault { door: "word", there: 0, back: usize::MAX, ends: true };

async fn a_cancelled_move_leaves_it_running(subject: &'static Subject) {
    for middle in MIDDLES {
        let pair = Pair::new(subject).await;
        pair.here.runtime.cancel_send(&pair.here.guest).await.unwrap();
        let during = async {
            let refused = pair.here.runtime.pause(&pair.here.guest).await;
            assert!(refused.is_err(), "it would arrive running");
            assert_eq!(pair.here.status().await.run, Run::Running);
            pair.here.runtime.cancel_send(&pair.here.guest).await.unwrap();
        };
        let (sent, arrived) = pair.go_and(&Streams::until(&pair.there, middle), during).await;
        assert!(sent.is_err() && arrived.is_err());
        pair.here.runtime.cancel_send(&pair.here.guest).await.unwrap();
        pair.goes_on_here().await;
    }
}

async fn a_move_of_an_earlier_agent_is_given_up(subject: &'static Subject) {
    for middle in MIDDLES {
        let mut pair = Pair::new(subject).await;
        let sent = {
            let wires = Streams::until(&pair.there, middle);
            let send = pair.here.runtime.send(&pair.here.guest, &wires);
            tokio::time::timeout(Duration::from_millis(1500), send).await
        };
        assert!(sent.is_err(), "it was not under way: {sent:?}");
        pair.here.restart_agent();
        assert_eq!(pair.here.status().await.run, Run::Running);
        pair.here.runtime.cancel_send(&pair.here.guest).await.unwrap();
        assert!(pair.there.runtime.arrive(&pair.there.guest).await.is_err());
        pair.goes_on_here().await;
    }
}

async fn moves_after_a_move_was_given_up(subject: &'static Subject) {
    let pair = Pair::new(subject).await;
    let cancel = async { pair.here.runtime.cancel_send(&pair.here.guest).await.unwrap() };
    let (sent, arrived) = pair.go_and(&Streams::slow(&pair.there), cancel).await;
    assert!(sent.is_err() && arrived.is_err());
    pair.receive().await;
    let (sent, arrived) = pair.go(&Streams::fast(&pair.there)).await;
    sent.unwrap();
    arrived.unwrap();
    pair.goes_on_there().await;
}

async fn a_target_that_dies_leaves_it_running(subject: &'static Subject) {
    for middle in MIDDLES {
        let pair = Pair::new(subject).await;
        let (sent, arrived) = pair.go_and(&Streams::until(&pair.there, middle), async { kill(&pair.there) }).await;
        assert!(sent.is_err() && arrived.is_err());
        pair.goes_on_here().await;
    }
}

async fn a_source_that_dies_never_arrives(subject: &'static Subject) {
    for middle in MIDDLES {
        let pair = Pair::new(subject).await;
        let (sent, arrived) = pair.go_and(&Streams::until(&pair.there, middle), async { kill(&pair.here) }).await;
        assert!(sent.is_err() && arrived.is_err());
        pair.there.until(Run::Absent).await;
        pair.here.until(Run::Absent).await;
        assert!(pair.there.console().await.is_empty());
        pair.nothing_is_left().await;
    }
}

/// The guest stands still on both sides, and only the other one could know whether it was told: it did not hear it.
async fn a_lost_word_leaves_it_stopped(subject: &'static Subject) {
    let pair = Pair::new(subject).await;
    let (sent, arrived) = pair.go(&Streams::with(&pair.there, WORD)).await;
    assert!(sent.is_err() && arrived.is_err());
    assert_eq!(pair.here.status().await.run, Run::Paused);
    pair.here.runtime.cancel_send(&pair.here.guest).await.unwrap();
    assert_eq!(pair.here.status().await.run, Run::Paused, "what may have been told cannot be taken back");
    pair.there.until(Run::Absent).await;
    // Whoever asked the other side knows now.
    pair.here.runtime.resume(&pair.here.guest).await.unwrap();
    pair.goes_on_here().await;
}

/// The other side runs it, and cannot say so.
async fn a_lost_answer_leaves_it_stopped(subject: &'static Subject) {
    let pair = Pair::new(subject).await;
    let fault = Fault { there: usize::MAX, back: 0, ..WORD };
    let (sent, arrived) = pair.go(&Streams::with(&pair.there, fault)).await;
    arrived.unwrap();
    assert!(sent.is_err());
    assert_eq!(pair.here.status().await.run, Run::Paused);
    assert_eq!(pair.there.status().await.run, Run::Running);
    pair.until_counted(&pair.there, 5).await;
    pair.here.runtime.kill(&pair.here.guest).await.unwrap();
    pair.there.runtime.kill(&pair.there.guest).await.unwrap();
    counted_through(&(pair.here.console().await + &pair.there.console().await));
    pair.nothing_is_left().await;
}

async fn a_second_receive_takes_up_the_first(subject: &'static Subject) {
    let mut pair = Pair::new(subject).await;
    let first = pair.there.status().await;
    pair.receive().await;
    assert_eq!(pair.there.status().await, first);
    assert!(pair.there.runtime.resume(&pair.there.guest).await.is_err(), "there is nothing to run yet");
    pair.there.restart_agent();
    pair.receive().await;
    assert_eq!(pair.there.status().await, first);
    assert_eq!(pair.there.processes(), 1);
    let (sent, arrived) = pair.go(&Streams::fast(&pair.there)).await;
    sent.unwrap();
    arrived.unwrap();
    assert_eq!(pair.there.status().await, pilvi_agent::runtime::Status { run: Run::Running, ..first });
    pair.receive().await;
    pair.goes_on_there().await;
}

fn kill(case: &Case) {
    process::recall(&case.guest.dir).unwrap().signal(Signal::SIGKILL).unwrap();
}

macro_rules! moves {
    ($name:ident, $subject:expr, $there:expr) => {
        mod $name {
            use super::*;
            moves!(@each $subject, $there,
                moves_while_it_runs, a_cancelled_move_leaves_it_running, a_move_of_an_earlier_agent_is_given_up,
                moves_after_a_move_was_given_up, a_target_that_dies_leaves_it_running,
                a_source_that_dies_never_arrives, a_lost_word_leaves_it_stopped, a_lost_answer_leaves_it_stopped,
                a_second_receive_takes_up_the_first);
        }
    };
    (@each $subject:expr, $there:expr, $($test:ident),+) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            if $there {
                super::$test(&$subject).await;
            }
        }
    )+};
}
moves!(qemu, QEMU, guest::qemu());

/// An agent ends between hearing that the guest shall run and letting it: the next one does.
#[tokio::test(flavor = "multi_thread")]
async fn qemu_runs_what_an_earlier_agent_was_told_to_run() {
    if !guest::qemu() {
        return;
    }
    let mut pair = Pair::new(&QEMU).await;
    let fault = Fault { ends: false, ..WORD };
    {
        let wires = Streams::with(&pair.there, fault);
        tokio::select! {
            went = pair.go(&wires) => panic!("{went:?}"),
            () = wires.struck.notified() => {}
        }
    }
    assert_eq!(pair.here.status().await.run, Run::Paused);
    assert_eq!(pair.there.status().await.run, Run::Arriving);
    fs::rename(pair.there.guest.dir.join("arriving"), pair.there.guest.dir.join("told")).unwrap();
    pair.there.restart_agent();
    assert_eq!(pair.there.status().await.run, Run::Arriving);
    pair.there.runtime.arrive(&pair.there.guest).await.unwrap();
    assert_eq!(pair.there.status().await.run, Run::Running);
    pair.until_counted(&pair.there, 5).await;
    pair.nothing_is_left().await;
}

/// How long the guest stands still: from the source's STOP to the target's RESUME, by the clock that both have.
#[tokio::test(flavor = "current_thread")]
async fn qemu_stands_still_for_a_moment() {
    if !guest::qemu() {
        return;
    }
    let said = Said::default();
    let events = said.clone();
    let only = "pilvi_agent::runtime::qemu=debug";
    let listener = tracing_subscriber::fmt().with_env_filter(only).with_ansi(false);
    // Of this thread alone: other tests' guests stop and go on as well.
    let _listening = tracing::subscriber::set_default(listener.with_writer(move || events.clone()).finish());
    let pair = Pair::new(&QEMU).await;
    let (sent, arrived) = pair.go(&Streams::fast(&pair.there)).await;
    sent.unwrap();
    arrived.unwrap();
    let text = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
    let at = |event: &str| {
        let line = text.lines().rfind(|line| line.contains(&format!("event=\"{event}\""))).expect(event);
        line.rsplit_once("at_us=").unwrap().1.parse::<u64>().unwrap()
    };
    let stopped = at("RESUME") - at("STOP");
    eprintln!("a guest of 32 MiB that moves stands still for {:.1} ms", stopped as f64 / 1000.0);
    pair.goes_on_there().await;
}

/// What was logged.
#[derive(Clone, Default)]
struct Said(Arc<std::sync::Mutex<Vec<u8>>>);

impl io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
