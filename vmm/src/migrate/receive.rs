//! The target's side: waits for one source, takes memory and state, and runs the machine when the source says so.

use super::disks::Landing;
use super::post::fetch::{Begun, Fetch};
use super::post::wire::{CAN, CANNOT};
use super::wire::Kind;
use super::{MigrateError, handed, wire};
use crate::fault::Pager;
use crate::fault::uffd::Uffd;
use crate::machine::Stop;
use crate::memory::Memory;
use crate::sandbox::Threads;
use crate::snapshot::MachineState;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

/// Where a source may come in.
pub struct Incoming {
    /// The listening socket.
    pub listener: UnixListener,
    /// Readable when this process is asked to end: waiting ends with it.
    pub interrupt: OwnedFd,
    /// With which the machine can run before all of its memory is there.
    pub uffd: Option<Uffd>,
}

/// What takes the machine in.
pub struct House<'a> {
    /// Its name, for the journal.
    pub id: &'a str,
    /// For those that bring memory later.
    pub threads: &'a Threads,
    /// How they end the machine.
    pub stop: &'a Arc<Stop>,
}

/// A machine that has arrived and does not run yet.
pub struct Arrival {
    way: Way,
}

/// The machine itself.
pub struct Arrived {
    /// Its memory.
    pub memory: Memory,
    /// Everything else.
    pub state: MachineState,
    /// Brings what is missing of the memory.
    pub pager: Option<Pager>,
}

enum Way {
    /// All is here.
    Whole(Stream),
    /// Memory is missing. The descriptor is the interrupt.
    Fetched(Fetch, OwnedFd),
}

/// Reads that end when the process is asked to end.
pub struct Stream {
    /// The other side.
    pub stream: UnixStream,
    /// Readable when nobody wants to wait any more.
    pub interrupt: OwnedFd,
    /// Longest silence.
    pub patience: Option<Duration>,
}

/// Waits until `fd` is readable. An error when the interrupt comes first.
fn wait(fd: i32, interrupt: &OwnedFd, patience: Option<Duration>) -> io::Result<()> {
    let want = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut both = [want(interrupt.as_raw_fd()), want(fd)];
    loop {
        // SAFETY: the pointer is to two live pollfds.
        let ready = unsafe { libc::poll(both.as_mut_ptr(), 2, patience.map_or(-1, |time| time.as_millis() as i32)) };
        if both[0].revents != 0 {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "asked to end before the machine had arrived"));
        }
        if ready > 0 {
            return Ok(());
        }
        if ready == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        wait(self.stream.as_raw_fd(), &self.interrupt, self.patience).map_err(|e| io::Error::other(e.to_string()))?;
        self.stream.read(bytes)
    }
}

impl Incoming {
    /// Waits for a source and takes all that it sends up to the state, into this memory or instead of it.
    pub fn receive(
        self,
        mut memory: Memory,
        disks: &mut [Landing],
        house: &House,
    ) -> Result<(Arrival, Arrived), MigrateError> {
        wait(self.listener.as_raw_fd(), &self.interrupt, None)?;
        let (mut stream, _) = self.listener.accept()?;
        stream.set_nonblocking(false)?;
        let interrupt = self.interrupt.try_clone()?;
        let mut own = Stream { stream: stream.try_clone()?, interrupt: self.interrupt, patience: None };
        wait(stream.as_raw_fd(), &interrupt, None)?;
        let (words, handed) = handed::first_words(&mut stream, |rest| own.read_exact(rest))?;
        match wire::welcome(&mut &words[..], &memory)? {
            Kind::Copied => {}
            Kind::MaybeLate => stream.write_all(&[if self.uffd.is_some() { CAN } else { CANNOT }])?,
            Kind::Handed => {
                memory = handed::take(&memory, handed)?;
                stream.write_all(&[CAN])?;
            }
        }
        let mut input = io::BufReader::with_capacity(256 * 1024, own);
        let received = wire::receive(&mut input, &memory, disks)?;
        let state = received.state;
        let Some((identity, missing)) = received.missing else {
            // The source says nothing more before it is answered, so nothing is left in the buffer.
            let arrival = Arrival { way: Way::Whole(input.into_inner()) };
            return Ok((arrival, Arrived { memory, state, pager: None }));
        };
        let uffd = self.uffd.ok_or(MigrateError::Nonsense("pages are missing, and nobody can bring them here"))?;
        let begun = Begun { id: house.id.to_owned(), uffd, listener: self.listener, input, identity, missing };
        let (fetch, pager) = Fetch::start(begun, &memory, house.threads, house.stop)?;
        Ok((Arrival { way: Way::Fetched(fetch, interrupt) }, Arrived { memory, state, pager: Some(pager) }))
    }
}

impl Arrival {
    /// The machine is built and the disks are ours: tells the source, and waits for its word.
    pub fn ready(&mut self) -> Result<(), MigrateError> {
        match &mut self.way {
            Way::Whole(stream) => {
                stream.stream.write_all(&[wire::READY])?;
                wire::expect(stream, wire::GO)
            }
            Way::Fetched(fetch, interrupt) => fetch.ready(|| is_readable(interrupt)),
        }
    }

    /// The machine runs. Whether the source hears it changes nothing here.
    pub fn running(self) {
        match self.way {
            Way::Whole(mut stream) => drop(stream.stream.write_all(&[wire::RUNNING])),
            Way::Fetched(fetch, _) => fetch.running(),
        }
    }
}

fn is_readable(fd: &OwnedFd) -> bool {
    let mut one = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the pointer is to one live pollfd.
    unsafe { libc::poll(&raw mut one, 1, 0) > 0 }
}
