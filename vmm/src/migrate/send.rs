//! The source's side, on a thread of its own: passes while the guest runs, then the last one while it stands still.

use super::disks::{self, Leavings, Parts};
use super::post::Served;
use super::stream::Stream;
use super::wire::{self, PAGE, RUN_MAX};
use super::{MigrateError, Progress, Terms};
use crate::cpu::throttle::Throttle;
use crate::fault::Bits;
use crate::journal;
use crate::memory::Memory;
use crate::memory::hot::{Hot, is_ram};
use crate::snapshot::MachineState;
use crate::virtio::block::changes::PART;
use crate::virtio::vhost::log::Log;
use kvm_ioctls::VmFd;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

/// How long the target has to say that it runs the machine.
const ANSWER: Duration = Duration::from_secs(30);
/// How much a guest is slowed down at first, and then more each time, in percent.
const SLOW_FIRST: u32 = 20;
const SLOW_MORE: u32 = 15;
/// Bytes that go to the stream together.
pub(super) const BUFFER: usize = 256 * 1024;
/// Pages that a part of a disk is as large as.
const PART_PAGES: u64 = PART / PAGE;

/// Where it goes, and what is known of it.
pub struct Sending {
    pub(super) id: String,
    pub(super) stream: BufWriter<Stream>,
    pub(super) memory: Memory,
    hot: Option<Arc<Hot>>,
    vm: Arc<VmFd>,
    throttle: Arc<Throttle>,
    logs: Vec<Arc<Log>>,
    pub(super) terms: Terms,
    pub(super) progress: Arc<Progress>,
    /// Where the target has other files.
    disks: Option<Leavings>,
    /// Of the disks, what has been asked for and not sent.
    parts: Parts,
    /// Memory goes over as it is.
    pub(super) handed: bool,
    /// Since when the machine stands still.
    pub(super) still: Instant,
    /// Pages that are to go over when the target runs the machine.
    late: Option<Bits>,
    /// What the target still misses.
    pub(super) served: Option<Served>,
}

/// The machine, as far as it is sent while it runs.
pub struct Source {
    /// Its name, for the journal.
    pub id: String,
    /// Guest memory.
    pub memory: Memory,
    /// The part of it whose blocks come and go.
    pub hot: Option<Arc<Hot>>,
    /// Which keeps the log.
    pub vm: Arc<VmFd>,
    /// For a guest that is too fast.
    pub throttle: Arc<Throttle>,
    /// Of other processes that write guest memory.
    pub logs: Vec<Arc<Log>>,
}

/// What became of the last step.
pub enum Handover {
    /// The target runs the machine.
    Moved,
    /// The target was told to run it and said nothing more.
    Unknown(MigrateError),
    /// The target was told to run it, and the stream broke before it had all memory.
    Torn {
        /// It has said that it runs.
        ran: bool,
        /// How it broke.
        reason: MigrateError,
    },
}

impl Sending {
    /// Over this stream. KVM's log has been turned on.
    pub fn new(stream: File, source: Source, terms: Terms, progress: Arc<Progress>) -> io::Result<Sending> {
        let stream = BufWriter::with_capacity(BUFFER, Stream::new(stream)?);
        let Source { id, memory, hot, vm, throttle, logs } = source;
        Ok(Sending {
            id,
            stream,
            memory,
            hot,
            vm,
            throttle,
            logs,
            terms,
            progress,
            disks: None,
            parts: Parts::new(),
            handed: false,
            still: Instant::now(),
            late: None,
            served: None,
        })
    }

    /// From here on.
    pub fn stands_still(&mut self) {
        self.still = Instant::now();
    }

    /// These disks go over as well.
    pub fn take_along(&mut self, disks: Leavings) {
        self.parts = disks.all();
        self.disks = Some(disks);
    }

    /// Whether the target has files of its own.
    pub fn takes_disks(&self) -> bool {
        self.disks.is_some()
    }

    /// A step that can be cancelled; whatever breaks then, it was that.
    pub(super) fn cancellable<T>(
        &mut self,
        cancelled: &Arc<AtomicBool>,
        step: impl FnOnce(&mut Sending) -> Result<T, MigrateError>,
    ) -> Result<T, MigrateError> {
        self.stream.get_mut().cancelled = cancelled.clone();
        step(self).map_err(|e| if cancelled.load(Ordering::Acquire) { MigrateError::Cancelled } else { e })
    }

    /// Passes until the rest is small enough to send while the guest stands still.
    pub fn pre_copy(&mut self, cancelled: &Arc<AtomicBool>) -> Result<(), MigrateError> {
        self.cancellable(
            cancelled,
            |sending| if sending.handed { sending.hand_memory() } else { sending.passes(cancelled) },
        )
    }

    fn passes(&mut self, cancelled: &AtomicBool) -> Result<(), MigrateError> {
        self.greet()?;
        if let Some(disks) = &self.disks {
            disks.announce(&mut self.stream)?;
        }
        // Disks are the most: what the guest does to its memory meanwhile goes over in the first pass anyway.
        self.send_parts(cancelled)?;
        // Nothing before this moment counts: all pages go over now.
        drop(self.changed()?);
        let all: Vec<Vec<u64>> =
            self.memory.iter().map(|region| vec![u64::MAX; (region.len() / PAGE).div_ceil(64) as usize]).collect();
        let mut wanted = all;
        if let (Some(hot), Some(bits)) = (&self.hot, wanted.last_mut()) {
            // Blocks that are not plugged hold nothing.
            hot.only_plugged(bits);
        }
        loop {
            let pass = self.progress.passes.fetch_add(1, Ordering::Relaxed) + 1;
            let (begin, before) = (Instant::now(), self.progress.pages.load(Ordering::Relaxed));
            if let Some(rest) = self.send(&wanted, cancelled)? {
                self.late = Some(rest);
                return Ok(());
            }
            self.send_parts(cancelled)?;
            let sent = self.progress.pages.load(Ordering::Relaxed) - before;
            let per_ms = sent as f64 / (begin.elapsed().as_secs_f64() * 1e3).max(0.001);
            wanted = self.changed()?;
            let left = count(&wanted) + disks::count(&self.parts) * PART_PAGES;
            if left as f64 <= (per_ms * f64::from(self.terms.pause_ms)).max(64.0) {
                break;
            }
            if self.progress.hurry.load(Ordering::Acquire) {
                break;
            }
            if pass >= u64::from(self.terms.passes.max(1)) {
                if self.progress.can_post_copy.load(Ordering::Acquire) {
                    self.progress.post_copy.store(true, Ordering::Release);
                    self.late = Some(wanted);
                    return Ok(());
                }
                if self.terms.force {
                    break;
                }
                return Err(MigrateError::Busy { left, passes: pass });
            }
            self.slow_down(pass, left, sent);
        }
        // What `changed` has just taken away from the logs must not be forgotten.
        self.late = self.send(&wanted, cancelled)?;
        self.send_parts(cancelled)
    }

    /// The parts of disks that are due, and what was written since; what is written meanwhile is due next.
    pub(super) fn send_parts(&mut self, cancelled: &AtomicBool) -> Result<(), MigrateError> {
        let Some(disks) = &self.disks else { return Ok(()) };
        let (mut due, progress) = (std::mem::take(&mut self.parts), &self.progress);
        disks.add_changed(&mut due);
        let total = disks.bytes();
        progress.disk_bytes.store(total, Ordering::Relaxed);
        // The last word of a disk's bits may name parts that it does not have.
        progress.disk_left.store((disks::count(&due) * PART).min(total), Ordering::Relaxed);
        let sent = |bytes, contents| {
            if contents {
                progress.pages.fetch_add(PART_PAGES, Ordering::Relaxed);
            }
            progress.disk_sent.fetch_add(bytes, Ordering::Relaxed);
            progress.disk_left.fetch_sub(bytes.min(progress.disk_left.load(Ordering::Relaxed)), Ordering::Relaxed);
        };
        disks.send(&mut self.stream, &due, cancelled, sent)?;
        progress.disk_left.store(0, Ordering::Relaxed);
        self.parts = disks.changed();
        Ok(())
    }

    /// Slows the guest down when the pass took no more than half away of what there was to send.
    fn slow_down(&self, pass: u64, left: u64, sent: u64) {
        if self.terms.converge && pass > 1 && left > sent / 2 {
            let percent = self.throttle.percent();
            self.throttle.set(if percent == 0 { SLOW_FIRST } else { percent + SLOW_MORE });
            self.progress.slowed.store(self.throttle.percent().into(), Ordering::Relaxed);
        }
    }

    /// The rest and the state, while the guest stands still. An error: the target has not been told to run it.
    pub fn hand_over(&mut self, state: &MachineState, cancelled: &Arc<AtomicBool>) -> Result<Handover, MigrateError> {
        if let Some(late) = self.late.take() {
            return self.post_copy(state, late, cancelled);
        }
        // Too late to be asked for anything else.
        self.progress.can_post_copy.store(false, Ordering::Release);
        self.progress.post_copy.store(false, Ordering::Release);
        self.cancellable(cancelled, |sending| {
            if !sending.handed {
                let wanted = sending.changed()?;
                sending.send(&wanted, cancelled)?;
                sending.send_parts(cancelled)?;
            }
            wire::send_state(&mut sending.stream, state)?;
            sending.stream.flush()?;
            wire::expect(sending.stream.get_mut(), wire::READY)?;
            if cancelled.load(Ordering::Acquire) { Err(MigrateError::Cancelled) } else { Ok(()) }
        })?;
        self.stream.get_mut().commit(ANSWER);
        let told = self.stream.write_all(&[wire::GO]).and_then(|()| self.stream.flush());
        // From here on a failure says nothing about the other side.
        let answer = told.map_err(MigrateError::from).and_then(|()| wire::expect(self.stream.get_mut(), wire::RUNNING));
        Ok(match answer {
            Ok(()) => {
                let (still, handed) = (self.still.elapsed(), if self.handed { ", memory was handed over" } else { "" });
                journal::line(
                    &self.id,
                    format_args!("it runs there after {:.1} ms{handed}", still.as_secs_f64() * 1e3),
                );
                Handover::Moved
            }
            Err(e) => Handover::Unknown(e),
        })
    }

    /// Pages that changed since the last question, a bit each, by region.
    pub(super) fn changed(&self) -> Result<Vec<Vec<u64>>, MigrateError> {
        let mut out = Vec::new();
        for (slot, region) in (0u32..).zip(self.memory.iter()) {
            if let (Some(hot), false) = (&self.hot, is_ram(region.start_addr())) {
                let mut bits = vm_memory::MmapRegion::bitmap(region).get_and_reset();
                hot.changed(&mut bits).map_err(MigrateError::Log)?;
                out.push(bits);
                continue;
            }
            let guest = self.vm.get_dirty_log(slot, region.len() as usize).map_err(MigrateError::Log)?;
            let mut bits = vm_memory::MmapRegion::bitmap(region).get_and_reset();
            bits.resize(guest.len().max(bits.len()), 0);
            bits.iter_mut().zip(&guest).for_each(|(ours, theirs)| *ours |= theirs);
            out.push(bits);
        }
        self.logs.iter().for_each(|log| log.take_all(&self.memory, &mut out));
        Ok(out)
    }

    /// Sends these pages. What is left of them when the target is to run the machine without.
    fn send(&mut self, wanted: &[Vec<u64>], cancelled: &AtomicBool) -> Result<Option<Bits>, MigrateError> {
        self.progress.left.store(count(wanted), Ordering::Relaxed);
        let memory = self.memory.clone();
        let mut buffer = vec![0; (u64::from(RUN_MAX) * PAGE) as usize];
        for (number, (region, bits)) in memory.iter().zip(wanted).enumerate() {
            let pages = region.len() / PAGE;
            let is_wanted = |page: u64| bits.get((page / 64) as usize).is_some_and(|word| word >> (page % 64) & 1 != 0);
            let mut page = 0;
            while page < pages {
                if bits.get((page / 64) as usize) == Some(&0) {
                    page = (page / 64 + 1) * 64;
                    continue;
                }
                if !is_wanted(page) {
                    page += 1;
                    continue;
                }
                if cancelled.load(Ordering::Acquire) {
                    return Err(MigrateError::Cancelled);
                }
                if self.progress.post_copy.load(Ordering::Acquire) {
                    self.stream.flush()?;
                    return Ok(Some(rest(wanted, number, page)));
                }
                let end = pages.min(page + u64::from(RUN_MAX));
                let run = (page..end).take_while(|page| is_wanted(*page)).count() as u64;
                let part = &mut buffer[..(run * PAGE) as usize];
                let address = wire::page_address(region, page);
                memory.read_slice(part, GuestAddress(address))?;
                self.send_run(address, part)?;
                self.progress.left.fetch_sub(run.min(self.progress.left.load(Ordering::Relaxed)), Ordering::Relaxed);
                page += run;
            }
        }
        self.stream.flush()?;
        Ok(None)
    }

    /// Neighbouring pages, those of zeroes without their contents.
    pub(super) fn send_run(&mut self, address: u64, contents: &[u8]) -> Result<(), MigrateError> {
        const ZEROES: [u8; PAGE as usize] = [0; PAGE as usize];
        let kinds: Vec<bool> = contents.chunks(PAGE as usize).map(|page| page == ZEROES).collect();
        let mut first = 0;
        while first < kinds.len() {
            let count = kinds[first..].iter().take_while(|zero| **zero == kinds[first]).count();
            let at = address + first as u64 * PAGE;
            if kinds[first] {
                wire::send_zeroes(&mut self.stream, at, count as u32)?;
            } else {
                let bytes = PAGE as usize;
                wire::send_pages(&mut self.stream, at, &contents[first * bytes..(first + count) * bytes])?;
                self.progress.pages.fetch_add(count as u64, Ordering::Relaxed);
            }
            first += count;
        }
        Ok(())
    }
}

/// What is wanted from this page of this region on.
fn rest(wanted: &[Vec<u64>], region: usize, page: u64) -> Bits {
    let mut rest = wanted.to_vec();
    rest.iter_mut().take(region).for_each(Vec::clear);
    if let Some(bits) = rest.get_mut(region) {
        let word = ((page / 64) as usize).min(bits.len());
        bits[..word].fill(0);
        bits.iter_mut().skip(word).take(1).for_each(|bits| *bits &= u64::MAX << (page % 64));
    }
    rest
}

fn count(bits: &[Vec<u64>]) -> u64 {
    bits.iter().flatten().map(|word| u64::from(word.count_ones())).sum()
}
