//! The target's side: waits for one source, takes memory and state, and runs the machine when the source says so.

use super::disks::Landing;
use super::{MigrateError, wire};
use crate::memory::Memory;
use crate::snapshot::MachineState;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

/// Where a source may come in.
pub struct Incoming {
    /// The listening socket.
    pub listener: UnixListener,
    /// Readable when this process is asked to end: waiting ends with it.
    pub interrupt: OwnedFd,
}

/// A machine that has arrived and does not run yet.
pub struct Arrival {
    stream: Stream,
}

/// Reads that end when the process is asked to end.
struct Stream {
    stream: UnixStream,
    interrupt: OwnedFd,
}

/// Waits until `fd` is readable. An error when the interrupt comes first.
fn wait(fd: i32, interrupt: &OwnedFd) -> io::Result<()> {
    let want = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut both = [want(interrupt.as_raw_fd()), want(fd)];
    loop {
        // SAFETY: the pointer is to two live pollfds.
        let ready = unsafe { libc::poll(both.as_mut_ptr(), 2, -1) };
        if both[0].revents != 0 {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "asked to end before the machine had arrived"));
        }
        if ready > 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        wait(self.stream.as_raw_fd(), &self.interrupt).map_err(|e| io::Error::other(e.to_string()))?;
        self.stream.read(bytes)
    }
}

impl Incoming {
    /// Waits for a source and takes all that it sends up to the state.
    pub fn receive(self, memory: &Memory, disks: &mut [Landing]) -> Result<(Arrival, MachineState), MigrateError> {
        wait(self.listener.as_raw_fd(), &self.interrupt)?;
        let (stream, _) = self.listener.accept()?;
        stream.set_nonblocking(false)?;
        let mut input = io::BufReader::with_capacity(256 * 1024, Stream { stream, interrupt: self.interrupt });
        let state = wire::receive(&mut input, memory, disks)?;
        // The source says nothing more before it is answered, so nothing is left in the buffer.
        Ok((Arrival { stream: input.into_inner() }, state))
    }
}

impl Arrival {
    /// The machine is built and the disks are ours: tells the source, and waits for its word.
    pub fn ready(&mut self) -> Result<(), MigrateError> {
        self.stream.stream.write_all(&[wire::READY])?;
        wire::expect(&mut self.stream, wire::GO)
    }

    /// The machine runs. Whether the source hears it changes nothing here.
    pub fn running(mut self) {
        let _ = self.stream.stream.write_all(&[wire::RUNNING]);
    }
}
