//! One connection to a backend: coming to terms, setting queues up, stopping them.
//!
//! ```text
//!   open: features, owner, protocol features, queues, configuration
//!     └─► start: features agreed, memory, notes of requests, log, then each queue: size, place, base, interrupt, kick, on
//!           └─► stop (GET_VRING_BASE): nothing is under way any more; how far the queue was read ─► start again
//! ```
//! Memory is named to the backend by guest addresses moved up by `MOVED`, never by our own; so it must stay the same memory
//! as long as the connection (`Parts::shared`): backends take what has the same name for the same. Every step has an end
//! in time; after an error the connection is of no use any more.

use super::log::Log;
use super::message::{self, Ask, F_LOG_ALL, F_PROTOCOL, long, longs, words};
use super::shape::Shape;
use super::wire::{Channel, Wire, nonsense};
use crate::memory::{self, Memory};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

/// For coming to terms, for a start, for a question.
const PATIENCE: Duration = Duration::from_secs(5);
/// For a stop: the backend ends what it has begun.
pub const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// Regions of memory that every backend takes.
const REGIONS_MAX: usize = 8;
/// What lies between a guest's address and its name for the backend: no address here, and not zero.
const MOVED: u64 = 1 << 44;
/// Parts of a queue's notes in the file for requests under way are small; nobody needs more.
const INFLIGHT_MAX: u64 = 64 << 20;
/// Status of a device whose driver is ready: acknowledged, driver, features, all.
const STATUS_LIVE: u64 = 1 | 2 | 8 | 4;

/// Where the backend notes requests under way. We never map it: it goes back to the next backend as it is.
#[derive(Debug)]
pub struct Inflight {
    file: File,
    place: [u64; 2],
}

/// A connection, after coming to terms.
#[derive(Debug)]
pub struct Backend {
    wire: Wire,
    /// The backend's own requests.
    pub channel: Option<Channel>,
    /// What it offers.
    pub features: u64,
    protocol: u64,
}

/// A queue that is to be started.
pub struct Start<'a> {
    /// Its number.
    pub number: u32,
    /// Its rings and where it is read next.
    pub queue: &'a Queue,
    /// The guest's notifications.
    pub kick: &'a EventFd,
    /// The backend's interrupts.
    pub call: &'a EventFd,
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

impl AsRawFd for Backend {
    fn as_raw_fd(&self) -> RawFd {
        self.wire.as_raw_fd()
    }
}

impl Backend {
    /// Comes to terms with whoever is at the other end; its part of the configuration space.
    pub fn open(socket: OwnedFd, shape: &Shape) -> io::Result<(Backend, Vec<u8>)> {
        let mut backend = Backend { wire: Wire::new(socket)?, channel: None, features: 0, protocol: 0 };
        let end = soon();
        backend.features = backend.get(Ask::GetFeatures, end)?;
        backend.set(Ask::SetOwner, &[], &[], end)?;
        if backend.features & F_PROTOCOL == 0 {
            return Err(io::Error::new(ErrorKind::Unsupported, "the backend has no protocol features"));
        }
        let ours = message::P_MQ
            | message::P_LOG_SHMFD
            | message::P_REPLY_ACK
            | message::P_BACKEND_REQ
            | message::P_CONFIG
            | message::P_INFLIGHT
            | message::P_RESET_DEVICE
            | message::P_STATUS;
        let agreed = backend.get(Ask::GetProtocolFeatures, end)? & ours;
        backend.set(Ask::SetProtocolFeatures, &longs(&[agreed]), &[], end)?;
        backend.protocol = agreed;
        shape.check(backend.features, agreed)?;
        if agreed & message::P_MQ != 0 {
            let (most, wanted) = (backend.get(Ask::GetQueueNum, end)?, shape.queue_sizes().len() as u64);
            // Cards count pairs.
            let wanted = if shape.number() == 1 { wanted / 2 } else { wanted };
            if most < wanted {
                let text = format!("the backend has {most} queues, not {wanted}");
                return Err(io::Error::new(ErrorKind::Unsupported, text));
            }
        }
        if agreed & message::P_BACKEND_REQ != 0 && agreed & message::P_CONFIG != 0 {
            let (channel, theirs) = Channel::new()?;
            backend.set(Ask::SetBackendReqFd, &[], &[theirs.as_raw_fd()], end)?;
            backend.channel = Some(channel);
        }
        let config = backend.config(shape.asks())?;
        Ok((backend, config))
    }

    fn has(&self, protocol: u64) -> bool {
        self.protocol & protocol != 0
    }

    /// Whether it can say what it writes.
    pub fn can_log(&self) -> bool {
        self.has(message::P_LOG_SHMFD) && self.features & F_LOG_ALL != 0
    }

    fn get(&self, ask: Ask, end: Instant) -> io::Result<u64> {
        self.wire.send(&message::message(ask, false, &[]), &[], end)?;
        long(&self.wire.answer(ask, end)?).ok_or_else(|| nonsense("a short answer"))
    }

    /// Tells something. Where the backend can answer, it has done it when this returns.
    fn set(&self, ask: Ask, body: &[u8], files: &[RawFd], end: Instant) -> io::Result<()> {
        let ack = self.has(message::P_REPLY_ACK);
        self.wire.send(&message::message(ask, ack, body), files, end)?;
        match ack {
            true => match long(&self.wire.answer(ask, end)?) {
                Some(0) => Ok(()),
                Some(_) => Err(io::Error::other(format!("the backend refuses {ask:?}"))),
                None => Err(nonsense("a short answer")),
            },
            false => Ok(()),
        }
    }

    /// The first bytes of its configuration space.
    pub fn config(&self, bytes: usize) -> io::Result<Vec<u8>> {
        if bytes == 0 || !self.has(message::P_CONFIG) {
            return Ok(Vec::new());
        }
        let (end, mut body) = (soon(), words(&[0, bytes as u32, 0]));
        body.resize(12 + bytes, 0);
        self.wire.send(&message::message(Ask::GetConfig, false, &body), &[], end)?;
        let answer = self.wire.answer(Ask::GetConfig, end)?;
        // An answer without a body is how backends refuse.
        answer.get(12..12 + bytes).map(<[u8]>::to_vec).ok_or_else(|| nonsense("no configuration"))
    }

    /// The driver writes the configuration space.
    pub fn write_config(&self, offset: u32, data: &[u8]) -> io::Result<()> {
        let mut body = words(&[offset, data.len() as u32, 0]);
        body.extend(data);
        self.set(Ask::SetConfig, &body, &[], soon())
    }

    /// A new file for the notes of requests under way; None where the backend keeps none.
    pub fn inflight(&self, queues: u16, size: u16) -> io::Result<Option<Inflight>> {
        if !self.has(message::P_INFLIGHT) {
            return Ok(None);
        }
        let (end, mut body) = (soon(), longs(&[0, 0]));
        body.extend(queues.to_le_bytes());
        body.extend(size.to_le_bytes());
        // The structure of the specification ends at a multiple of eight in the backends that there are.
        body.resize(24, 0);
        self.wire.send(&message::message(Ask::GetInflightFd, false, &body), &[], end)?;
        let (answer, file) = self.wire.answer_with_file(Ask::GetInflightFd, end)?;
        let place = [long(&answer), answer.get(8..).and_then(long)];
        match (place, file) {
            ([Some(bytes), Some(offset)], Some(file)) if bytes <= INFLIGHT_MAX && offset <= INFLIGHT_MAX => {
                Ok(Some(Inflight { file, place: [bytes, offset] }))
            }
            _ => Err(nonsense("no file for requests under way")),
        }
    }

    /// Features, memory, and what belongs to all queues.
    pub fn prepare(
        &self,
        features: u64,
        memory: &Memory,
        inflight: Option<(&Inflight, u16, u16)>,
        log: Option<&Log>,
    ) -> io::Result<()> {
        let end = soon();
        self.agree(features, log.is_some(), end)?;
        self.share(memory, end)?;
        if let Some((inflight, queues, size)) = inflight.filter(|_| self.has(message::P_INFLIGHT)) {
            let mut body = longs(&inflight.place);
            body.extend(queues.to_le_bytes());
            body.extend(size.to_le_bytes());
            body.resize(24, 0);
            self.set(Ask::SetInflightFd, &body, &[inflight.file.as_raw_fd()], end)?;
        }
        log.map_or(Ok(()), |log| self.lend(log, end))
    }

    fn agree(&self, features: u64, logging: bool, end: Instant) -> io::Result<()> {
        let log = if logging { F_LOG_ALL } else { 0 };
        self.set(Ask::SetFeatures, &longs(&[features & self.features & !F_LOG_ALL | F_PROTOCOL | log]), &[], end)
    }

    fn share(&self, memory: &Memory, end: Instant) -> io::Result<()> {
        let regions: Vec<_> = memory.iter().collect();
        let (mut body, mut files) = (words(&[regions.len() as u32, 0]), Vec::new());
        for region in &regions {
            let start = region.start_addr().raw_value();
            let Some(file) = region.file_offset().filter(|_| memory::is_shared(memory)) else {
                return Err(io::Error::other("this machine's memory is not shared"));
            };
            body.extend(longs(&[start, region.len(), start + MOVED, file.start()]));
            files.push(file.file().as_raw_fd());
        }
        if regions.len() > REGIONS_MAX {
            return Err(io::Error::other("this machine's memory is in too many pieces"));
        }
        self.set(Ask::SetMemTable, &body, &files, end)
    }

    fn lend(&self, log: &Log, end: Instant) -> io::Result<()> {
        let body = longs(&[log.bytes(), 0]);
        self.wire.send(&message::message(Ask::SetLogBase, false, &body), &[log.file()], end)?;
        self.wire.answer(Ask::SetLogBase, end).map(drop)
    }

    fn place(&self, number: u32, queue: &Queue, logging: bool, end: Instant) -> io::Result<()> {
        let mut body = words(&[number, u32::from(logging)]);
        let rings = [queue.desc_table(), queue.used_ring(), queue.avail_ring()];
        body.extend(longs(&rings.map(|at| at + MOVED)));
        body.extend(longs(&[queue.used_ring()]));
        self.set(Ask::SetVringAddr, &body, &[], end)
    }

    /// Has the backend write down what it writes into guest memory, or no longer.
    pub fn log(&self, features: u64, queues: &[(u32, &Queue)], log: Option<&Log>) -> io::Result<()> {
        let end = soon();
        log.map_or(Ok(()), |log| self.lend(log, end))?;
        self.agree(features, log.is_some(), end)?;
        queues.iter().try_for_each(|(number, queue)| self.place(*number, queue, log.is_some(), end))
    }

    /// Hands queues over.
    pub fn start(&self, starts: &[Start<'_>], logging: bool) -> io::Result<()> {
        let end = soon();
        for Start { number, queue, kick, call } in starts {
            self.set(Ask::SetVringNum, &words(&[*number, u32::from(queue.size())]), &[], end)?;
            self.set(Ask::SetVringBase, &words(&[*number, u32::from(queue.next_avail())]), &[], end)?;
            self.place(*number, queue, logging, end)?;
            let which = longs(&[u64::from(*number)]);
            self.set(Ask::SetVringCall, &which, &[call.as_raw_fd()], end)?;
            self.set(Ask::SetVringKick, &which, &[kick.as_raw_fd()], end)?;
        }
        for start in starts {
            self.set(Ask::SetVringEnable, &words(&[start.number, 1]), &[], end)?;
        }
        if self.has(message::P_STATUS) {
            self.set(Ask::SetStatus, &longs(&[STATUS_LIVE]), &[], end)?;
        }
        // Where nothing was answered: when this is, all of it was heard.
        if self.has(message::P_REPLY_ACK) { Ok(()) } else { self.get(Ask::GetFeatures, end).map(drop) }
    }

    /// Takes a queue back: how far the backend has read it. All that it had begun is done.
    pub fn stop(&self, number: u32, end: Instant) -> io::Result<u16> {
        self.wire.send(&message::message(Ask::GetVringBase, false, &words(&[number, 0])), &[], end)?;
        let answer = long(&self.wire.answer(Ask::GetVringBase, end)?);
        match answer {
            Some(pair) if pair as u32 == number => Ok((pair >> 32) as u16),
            _ => Err(nonsense("another queue has stopped")),
        }
    }

    /// The driver has reset the device; its queues have been taken back.
    pub fn reset(&self) -> io::Result<()> {
        if self.has(message::P_STATUS) {
            return self.set(Ask::SetStatus, &longs(&[0]), &[], soon());
        }
        if self.has(message::P_RESET_DEVICE) { self.set(Ask::ResetDevice, &[], &[], soon()) } else { Ok(()) }
    }
}
