//! The target of a machine that came without all of its memory: asks for what is touched, takes what comes.
//!
//! ```text
//!   "faults"   userfaultfd ─► is the page missing? ─┬─ yes ─► asks the source, once
//!                                                   └─ no ──► zeroes: it was given back to the host since
//!   "pages"    stream ─► page ─► into its place, who waits goes on ─► none missing: says complete
//!                 └─ broken ─► before `go`: the machine did not come. After it: waits for another stream
//! ```
//! The map of missing pages is locked while a page is put into its place, so a page is missing or there, never both.

use super::super::receive::Stream;
use super::super::wire::{PAGE, READY, RUN_MAX, RUNNING};
use super::super::{MigrateError, post::wire};
use super::wire::{Identity, Record};
use crate::fault::uffd::{Uffd, wait};
use crate::fault::{Bits, Missing, Pager, Seen};
use crate::gate::lock;
use crate::journal;
use crate::machine::Stop;
use crate::memory::Memory;
use crate::sandbox::Threads;
use std::io::{self, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How long a question, or somebody who says that he is the source, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether anybody still wants to wait.
const LOOK: Duration = Duration::from_millis(50);
const BUFFER: usize = 256 * 1024;

/// How far the two sides are.
enum Word {
    Awaited,
    Go,
    Running,
    Failed(MigrateError),
}

struct Shared {
    id: String,
    memory: Memory,
    uffd: Uffd,
    listener: UnixListener,
    identity: Identity,
    missing: Mutex<Missing>,
    /// Where questions go; none while the source is lost.
    link: Mutex<Option<UnixStream>>,
    word: Mutex<Word>,
    told: Condvar,
    seen: Arc<Seen>,
}

/// What has come up to the state.
pub struct Begun {
    /// Of the machine, for the journal.
    pub id: String,
    /// Sees who touches what.
    pub uffd: Uffd,
    /// Where the source came in, and may come in again.
    pub listener: UnixListener,
    /// What more comes.
    pub input: BufReader<Stream>,
    /// What the source calls this move.
    pub identity: Identity,
    /// What is missing.
    pub missing: Bits,
}

/// The machine whose memory is on its way.
pub struct Fetch(Arc<Shared>);

fn stop_of(seen: &Seen) -> io::Result<OwnedFd> {
    let stop = seen.stop.try_clone()?;
    // SAFETY: a descriptor that its owner has just given away.
    Ok(unsafe { OwnedFd::from_raw_fd(stop.into_raw_fd()) })
}

impl Fetch {
    /// From here on what is missing is brought when it is touched. Nothing of the guest runs.
    pub fn start(
        mut begun: Begun,
        memory: &Memory,
        threads: &Threads,
        stop: &Arc<Stop>,
    ) -> Result<(Fetch, Pager), MigrateError> {
        let missing = Missing::new(memory, begun.missing);
        for (at, bytes) in missing.holes() {
            // What came of these pages before is no longer true.
            // SAFETY: the range lies inside a region's mapping, which only loses its contents; nobody has seen them yet.
            if unsafe { libc::madvise(at as *mut libc::c_void, bytes as usize, libc::MADV_DONTNEED) } < 0 {
                return Err(io::Error::last_os_error().into());
            }
        }
        begun.uffd.watch(memory)?;
        let seen = Arc::new(Seen::new(missing.left(), true)?);
        let stream = begun.input.get_ref().stream.try_clone()?;
        stream.set_write_timeout(Some(PATIENCE))?;
        begun.input.get_mut().interrupt = stop_of(&seen)?;
        let shared = Arc::new(Shared {
            id: begun.id,
            memory: memory.clone(),
            uffd: begun.uffd,
            listener: begun.listener,
            identity: begun.identity,
            missing: Mutex::new(missing),
            link: Mutex::new(Some(stream)),
            word: Mutex::new(Word::Awaited),
            told: Condvar::new(),
            seen: seen.clone(),
        });
        let (asking, taking, input) = (shared.clone(), shared.clone(), begun.input);
        let faults = threads.spawn("faults", Threads::PAGER, stop.clone(), move || asking.ask())?;
        let mut pager = Pager::new(seen, vec![faults]);
        pager.add(threads.spawn("pages", Threads::PAGER, stop.clone(), move || taking.take(input))?);
        Ok((Fetch(shared), pager))
    }

    /// The machine is built and the disks are ours: tells the source, and waits for its word.
    pub fn ready(&self, is_ending: impl Fn() -> bool) -> Result<(), MigrateError> {
        self.0.say(&[READY])?;
        let mut word = lock(&self.0.word);
        loop {
            match std::mem::replace(&mut *word, Word::Awaited) {
                Word::Awaited if is_ending() => return Err(MigrateError::Cancelled),
                Word::Awaited => {}
                Word::Failed(e) => return Err(e),
                went => {
                    *word = went;
                    return Ok(());
                }
            }
            word = self.0.told.wait_timeout(word, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The machine runs.
    pub fn running(&self) {
        let _ = self.0.say(&[RUNNING]);
        self.0.set(Word::Running);
    }
}

impl Shared {
    fn say(&self, bytes: &[u8]) -> io::Result<()> {
        match &mut *lock(&self.link) {
            Some(stream) => stream.write_all(bytes),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn set(&self, word: Word) {
        *lock(&self.word) = word;
        self.told.notify_all();
    }

    fn is_ending(&self) -> bool {
        let mut stop = libc::pollfd { fd: self.seen.stop.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: the pointer is to one live pollfd.
        unsafe { libc::poll(&raw mut stop, 1, 0) > 0 }
    }

    /// The thread that hears who waits for a page.
    fn ask(&self) {
        while let Ok([_, false]) = wait([self.uffd.as_raw_fd(), self.seen.stop.as_raw_fd()]) {
            let mut pages = Vec::new();
            while let Ok(Some(host)) = self.uffd.next() {
                pages.extend(self.fault(host));
            }
            // When the stream is broken they are asked for over the next.
            if let Some(stream) = &mut *lock(&self.link) {
                let _ = pages.iter().try_for_each(|page| wire::send_ask(stream, *page));
            }
        }
        // The machine has ended before all was there, or all is there.
        if let Some(stream) = lock(&self.link).take() {
            if matches!(*lock(&self.word), Word::Running) {
                let _ = (&stream).write_all(&[wire::COMPLETE]);
            }
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// The page to ask for, if it is missing and nobody has asked.
    fn fault(&self, host: u64) -> Option<u64> {
        self.seen.faults.fetch_add(1, Ordering::Relaxed);
        let mut missing = lock(&self.missing);
        let page = missing.guest_page(host)?;
        if missing.is_due(page) {
            return missing.ask(page).then_some(page);
        }
        let _ = self.uffd.zero(host, PAGE);
        None
    }

    /// The thread that takes what comes.
    fn take(&self, mut input: BufReader<Stream>) {
        let mut buffer = vec![0; (u64::from(RUN_MAX) * PAGE) as usize];
        loop {
            let error = match self.records(&mut input, &mut buffer) {
                Ok(()) => return self.complete(),
                Err(_) if self.is_ending() => return,
                Err(e) => e,
            };
            if matches!(*lock(&self.word), Word::Awaited) {
                // Whoever builds the machine shall not wait for what does not come; it will not run.
                self.uffd.forget(&self.memory);
                return self.set(Word::Failed(error));
            }
            self.lose(&error);
            match self.another() {
                Some(next) => input = next,
                None => return,
            }
        }
    }

    /// Takes records until nothing is missing.
    fn records(&self, input: &mut BufReader<Stream>, buffer: &mut [u8]) -> Result<(), MigrateError> {
        loop {
            if lock(&self.missing).left() == 0 && !matches!(*lock(&self.word), Word::Awaited) {
                return self.await_running();
            }
            match wire::take_record(input, &self.memory, buffer)? {
                Record::Pages { address, bytes } => self.put(address, bytes as u64, Some(buffer))?,
                Record::Zeroes { address, bytes } => self.put(address, bytes as u64, None)?,
                Record::Go if matches!(*lock(&self.word), Word::Awaited) => self.set(Word::Go),
                Record::Go => return Err(MigrateError::Nonsense("a second word to go")),
            }
        }
    }

    fn await_running(&self) -> Result<(), MigrateError> {
        let mut word = lock(&self.word);
        while !matches!(*word, Word::Running) {
            if self.is_ending() {
                return Err(MigrateError::Cancelled);
            }
            word = self.told.wait_timeout(word, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Puts what is missing of this run into its place.
    fn put(&self, address: u64, bytes: u64, contents: Option<&[u8]>) -> Result<(), MigrateError> {
        let mut missing = lock(&self.missing);
        let (mut at, end) = (address, address + bytes);
        while at < end {
            let Some(host) = missing.host(at).filter(|_| missing.is_due(at)) else {
                at += PAGE;
                continue;
            };
            let mut next = at + PAGE;
            while next < end && missing.is_due(next) && missing.host(next) == Some(host + (next - at)) {
                next += PAGE;
            }
            match contents {
                Some(all) => self.uffd.copy(host, &all[(at - address) as usize..(next - address) as usize])?,
                None => self.uffd.zero(host, next - at)?,
            }
            while at < next {
                missing.arrived(at);
                at += PAGE;
            }
        }
        self.seen.left.store(missing.left(), Ordering::Release);
        Ok(())
    }

    fn complete(&self) {
        self.uffd.forget(&self.memory);
        let _ = self.say(&[wire::COMPLETE]);
        *lock(&self.link) = None;
        let _ = self.seen.stop.write(1);
        let faults = self.seen.faults.load(Ordering::Relaxed);
        journal::line(&self.id, format_args!("all of its memory is here; {faults} times it was waited for"));
    }

    fn lose(&self, error: &MigrateError) {
        self.seen.stuck.store(true, Ordering::Release);
        // So that a source which is there and makes no sense hears of it, too.
        if let Some(stream) = lock(&self.link).take() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let left = lock(&self.missing).left();
        let text =
            "the source was lost before all memory had come; what touches the rest waits for another stream of it";
        journal::line(&self.id, format_args!("{text} ({error}; {left} pages are missing)"));
    }

    /// Waits for another stream of the source. None: the machine ends.
    fn another(&self) -> Option<BufReader<Stream>> {
        loop {
            let Ok([_, false]) = wait([self.listener.as_raw_fd(), self.seen.stop.as_raw_fd()]) else { return None };
            match self.shake_hands() {
                Ok(input) => {
                    self.seen.stuck.store(false, Ordering::Release);
                    journal::line(&self.id, format_args!("the source is there again"));
                    return Some(input);
                }
                Err(e) => journal::line(&self.id, format_args!("a stream was refused: {e}")),
            }
        }
    }

    fn shake_hands(&self) -> Result<BufReader<Stream>, MigrateError> {
        let (stream, _) = self.listener.accept()?;
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut out = stream.try_clone()?;
        let own = Stream { stream, interrupt: stop_of(&self.seen)?, patience: Some(PATIENCE) };
        let mut input = BufReader::with_capacity(BUFFER, own);
        wire::welcome_again(&mut input, &self.identity)?;
        input.get_mut().patience = None;
        // Whoever asks meanwhile asks over the new stream, maybe twice.
        let mut link = lock(&self.link);
        let (bits, asked) = {
            let missing = lock(&self.missing);
            (missing.bits(), missing.asked())
        };
        wire::send_missing(&mut out, &self.identity, &bits)?;
        asked.iter().try_for_each(|page| wire::send_ask(&mut out, *page))?;
        *link = Some(out);
        Ok(input)
    }
}
