//! A disk behind an NBD server: a volume that lies on another host, or in a store that only another program can read.
//!
//! ```text
//!   connected ──it breaks, or is silent in the middle of something──► away ──another connection is handed over──► connected
//!       │ a batch of requests at once, replies in any order              │ nothing is taken from the queues; what was
//!       ▼                                                                ▼ under way is asked again, for nobody has answered it
//! ```
//! The jail lets this process connect to nobody: every connection comes as a descriptor, the first with the configuration
//! or the request that adds the disk, later ones by `reconnect_disk`. Until then the guest waits: an error would make its file
//! systems read-only for good. A machine whose disk is away is not written down and does not move: what it has asked is
//! nowhere but here. It can be paused, and its disk can be taken away.
//!
//! A machine that is reset keeps its connection: it is put back into the link, and only its end says goodbye.
//!
//! Reading and writing twice does no harm. A disk never becomes shorter, so a server that comes back with less is refused; with
//! more, the disk can grow (`resize_disk`).

pub mod wire;

use super::file::{Backing, Transfer, Way};
use crate::gate::lock;
use crate::memory::Memory;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use vm_memory::Bytes;
use wire::{Command, Export, Wire, nonsense, reply, request};

/// Largest piece of one request, which every server takes.
const PIECE: u32 = 1 << 20;
/// Requests under way at once.
const AT_ONCE: usize = 64;

/// What connects a disk to its server: the monitor puts connections in, the disk's worker uses them.
#[derive(Debug)]
pub struct Link {
    name: String,
    /// As long as the server said last; never less.
    bytes: AtomicU64,
    /// Of the machine before this one, or of the negotiation.
    idle: Mutex<Option<(Wire, Export)>>,
    next: Mutex<Option<OwnedFd>>,
    connected: AtomicBool,
}

impl Link {
    /// Comes to terms with a server about the export of this name: blocks, at most some seconds each step.
    pub fn open(socket: OwnedFd, name: &str, read_only: bool) -> io::Result<Arc<Link>> {
        let wire = Wire::new(socket);
        let export = wire.negotiate(name)?;
        if export.read_only() && !read_only {
            return Err(io::Error::new(ErrorKind::PermissionDenied, "the server refuses writes to this disk"));
        }
        Ok(Arc::new(Link {
            name: name.to_owned(),
            bytes: AtomicU64::new(export.bytes),
            idle: Mutex::new(Some((wire, export))),
            next: Mutex::new(None),
            connected: AtomicBool::new(true),
        }))
    }

    /// Bytes of the disk.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// Another connection, to be used as soon as the one before has broken.
    pub fn give(&self, socket: OwnedFd) {
        *lock(&self.next) = Some(socket);
    }

    /// Whether requests can be served.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some((wire, _)) = lock(&self.idle).take() {
            let _ = wire.send(&request(Command::Disconnect, 0, 0, 0), |_| Err(ErrorKind::BrokenPipe.into()));
        }
    }
}

/// The disk's end.
#[derive(Debug)]
pub struct Nbd {
    link: Arc<Link>,
    wire: Option<(Wire, Export)>,
    cookie: u64,
}

/// One request on its way: what it belongs to, and where its bytes go.
struct Asked {
    transfer: usize,
    at: u64,
    read: Vec<u8>,
}

impl Nbd {
    /// A disk over this link; there is one at a time.
    pub fn new(link: Arc<Link>) -> Nbd {
        let wire = lock(&link.idle).take();
        Nbd { link, wire, cookie: 0 }
    }

    /// The connection in use; made of the next one where there is none.
    fn wire(&mut self) -> io::Result<(&Wire, Export)> {
        if self.wire.is_none() {
            let socket = lock(&self.link.next).take().ok_or(ErrorKind::NotConnected)?;
            let wire = Wire::new(socket);
            let export = wire.negotiate(&self.link.name)?;
            if export.bytes < self.link.bytes() {
                return Err(nonsense("the disk has become shorter"));
            }
            self.link.bytes.store(export.bytes, Ordering::Release);
            self.wire = Some((wire, export));
            self.link.connected.store(true, Ordering::Release);
        }
        self.wire.as_ref().map(|(wire, export)| (wire, *export)).ok_or_else(|| ErrorKind::NotConnected.into())
    }

    fn lose(&mut self) {
        self.wire = None;
        self.link.connected.store(false, Ordering::Release);
    }

    /// One request without bytes, to its end. A broken connection is told by the kind of the error.
    fn simple(&mut self, command: Command, offset: u64, bytes: u32) -> io::Result<()> {
        self.cookie += 1;
        let cookie = self.cookie;
        let (wire, _) = self.wire()?;
        let asked = || {
            wire.send(&request(command, cookie, offset, bytes), |_| Err(nonsense("a reply to nothing")))?;
            let mut head = [0; 16];
            wire.receive(&mut head)?;
            match reply(&head)? {
                (theirs, error) if theirs == cookie => Ok(error),
                _ => Err(nonsense("a reply to another request")),
            }
        };
        match asked() {
            Ok(0) => Ok(()),
            Ok(error) => Err(refusal(error)),
            Err(_) => {
                self.lose();
                Err(ErrorKind::NotConnected.into())
            }
        }
    }

    /// Asks for all of it and takes the replies; an error is one of the connection.
    fn exchange(&mut self, transfers: &[Transfer], memory: &Memory, out: &mut [io::Result<()>]) -> io::Result<()> {
        let mut cookie = self.cookie;
        let (wire, _) = self.wire()?;
        let mut asked: BTreeMap<u64, Asked> = BTreeMap::new();
        for (number, transfer) in transfers.iter().enumerate() {
            let length: u64 = transfer.pieces.iter().map(|piece| u64::from(piece.length)).sum();
            let mut at = 0;
            while at < length {
                let bytes = (length - at).min(u64::from(PIECE));
                cookie += 1;
                let (offset, count) = (transfer.offset + at, bytes as u32);
                let mut part = vec![0; bytes as usize];
                let mut message = match transfer.way {
                    Way::Read => request(Command::Read, cookie, offset, count).to_vec(),
                    Way::Write => request(Command::Write, cookie, offset, count).to_vec(),
                };
                if transfer.way == Way::Write {
                    gather(transfer, at, &mut part, memory)?;
                    message.append(&mut part);
                }
                asked.insert(cookie, Asked { transfer: number, at, read: part });
                wire.send(&message, |wire| take_reply(wire, &mut asked, transfers, memory, out))?;
                while asked.len() >= AT_ONCE {
                    take_reply(wire, &mut asked, transfers, memory, out)?;
                }
                at += bytes;
            }
        }
        while !asked.is_empty() {
            take_reply(wire, &mut asked, transfers, memory, out)?;
        }
        self.cookie = cookie;
        Ok(())
    }
}

/// Takes one reply, whosever it is.
fn take_reply(
    wire: &Wire,
    asked: &mut BTreeMap<u64, Asked>,
    transfers: &[Transfer],
    memory: &Memory,
    out: &mut [io::Result<()>],
) -> io::Result<()> {
    let mut head = [0; 16];
    wire.receive(&mut head)?;
    let (cookie, error) = reply(&head)?;
    let mut one = asked.remove(&cookie).ok_or_else(|| nonsense("a reply to nothing"))?;
    if error != 0 {
        out[one.transfer] = Err(refusal(error));
        return Ok(());
    }
    wire.receive(&mut one.read)?;
    scatter(&transfers[one.transfer], one.at, &one.read, memory)
}

/// What the server could not do; never taken for a broken connection.
fn refusal(error: u32) -> io::Error {
    io::Error::other(format!("the server could not do it (error {error})"))
}

/// From a transfer's place in guest memory.
fn gather(transfer: &Transfer, at: u64, bytes: &mut [u8], memory: &Memory) -> io::Result<()> {
    each(transfer, at, bytes.len(), |address, range| memory.read_slice(&mut bytes[range], address))
}

/// To a transfer's place in guest memory.
fn scatter(transfer: &Transfer, at: u64, bytes: &[u8], memory: &Memory) -> io::Result<()> {
    each(transfer, at, bytes.len(), |address, range| memory.write_slice(&bytes[range], address))
}

/// Walks through the guest memory of a part of a transfer.
fn each(
    transfer: &Transfer,
    mut skip: u64,
    length: usize,
    mut copy: impl FnMut(vm_memory::GuestAddress, std::ops::Range<usize>) -> Result<(), vm_memory::GuestMemoryError>,
) -> io::Result<()> {
    let mut done = 0;
    for piece in &transfer.pieces {
        let own = u64::from(piece.length);
        if skip >= own {
            skip -= own;
            continue;
        }
        let count = ((own - skip) as usize).min(length - done);
        let address = vm_memory::GuestAddress(piece.address.0.saturating_add(skip));
        copy(address, done..done + count).map_err(io::Error::other)?;
        (done, skip) = (done + count, 0);
        if done == length {
            break;
        }
    }
    Ok(())
}

impl Backing for Nbd {
    fn run(&mut self, transfers: &[Transfer], memory: &Memory) -> Vec<io::Result<()>> {
        let mut out: Vec<io::Result<()>> = transfers.iter().map(|_| Ok(())).collect();
        if self.exchange(transfers, memory, &mut out).is_err() {
            self.lose();
            // All of it once more, with the next connection: nobody can tell how far it came.
            return transfers.iter().map(|_| Err(ErrorKind::NotConnected.into())).collect();
        }
        out
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.wire()?.1.flushes() { self.simple(Command::Flush, 0, 0) } else { Ok(()) }
    }

    fn zero(&mut self, offset: u64, bytes: u64, discard: bool) -> io::Result<()> {
        let export = self.wire()?.1;
        let count = u32::try_from(bytes).map_err(io::Error::other)?;
        match discard {
            true if export.trims() => self.simple(Command::Trim, offset, count),
            true => Err(ErrorKind::Unsupported.into()),
            false if export.zeroes() => self.simple(Command::WriteZeroes, offset, count),
            false => self.write_zeroes(offset, bytes),
        }
    }

    fn is_away(&mut self, renew: bool) -> bool {
        if renew {
            // What comes of it is seen below.
            let _ = self.wire();
        }
        self.wire.is_none()
    }

    fn is_remote(&self) -> bool {
        true
    }
}

impl Nbd {
    fn write_zeroes(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
        let mut at = 0;
        while at < bytes {
            let count = (bytes - at).min(u64::from(PIECE));
            self.cookie += 1;
            let cookie = self.cookie;
            let (wire, _) = self.wire()?;
            let asked = || {
                let mut message = request(Command::Write, cookie, offset + at, count as u32).to_vec();
                message.resize(message.len() + count as usize, 0);
                wire.send(&message, |_| Err(nonsense("a reply to nothing")))?;
                let mut head = [0; 16];
                wire.receive(&mut head)?;
                reply(&head)
            };
            match asked() {
                Ok((theirs, 0)) if theirs == cookie => at += count,
                Ok((theirs, error)) if theirs == cookie => return Err(refusal(error)),
                _ => {
                    self.lose();
                    return Err(ErrorKind::NotConnected.into());
                }
            }
        }
        Ok(())
    }
}

impl Drop for Nbd {
    fn drop(&mut self) {
        *lock(&self.link.idle) = self.wire.take();
    }
}

#[cfg(test)]
mod tests;
