//! The source's side, on a thread of its own: passes while the guest runs, then the last one while it stands still.

use super::disks::{self, Leavings, Parts};
use super::stream::Stream;
use super::wire::{self, PAGE, RUN_MAX};
use super::{MigrateError, Progress, Terms};
use crate::cpu::throttle::Throttle;
use crate::memory::Memory;
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
const BUFFER: usize = 256 * 1024;
/// Pages that a part of a disk is as large as.
const PART_PAGES: u64 = PART / PAGE;

/// Where it goes, and what is known of it.
pub struct Sending {
    stream: BufWriter<Stream>,
    memory: Memory,
    vm: Arc<VmFd>,
    throttle: Arc<Throttle>,
    logs: Vec<Arc<Log>>,
    terms: Terms,
    progress: Arc<Progress>,
    /// Where the target has other files.
    disks: Option<Leavings>,
    /// Of the disks, what has been asked for and not sent.
    parts: Parts,
}

/// The machine, as far as it is sent while it runs.
pub struct Source {
    /// Guest memory.
    pub memory: Memory,
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
}

impl Sending {
    /// Over this stream. KVM's log has been turned on.
    pub fn new(stream: File, source: Source, terms: Terms, progress: Arc<Progress>) -> io::Result<Sending> {
        let stream = BufWriter::with_capacity(BUFFER, Stream::new(stream)?);
        let Source { memory, vm, throttle, logs } = source;
        Ok(Sending { stream, memory, vm, throttle, logs, terms, progress, disks: None, parts: Parts::new() })
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
    fn cancellable<T>(
        &mut self,
        cancelled: &Arc<AtomicBool>,
        step: impl FnOnce(&mut Sending) -> Result<T, MigrateError>,
    ) -> Result<T, MigrateError> {
        self.stream.get_mut().cancelled = cancelled.clone();
        step(self).map_err(|e| if cancelled.load(Ordering::Acquire) { MigrateError::Cancelled } else { e })
    }

    /// Passes until the rest is small enough to send while the guest stands still.
    pub fn pre_copy(&mut self, cancelled: &Arc<AtomicBool>) -> Result<(), MigrateError> {
        self.cancellable(cancelled, |sending| sending.passes(cancelled))
    }

    fn passes(&mut self, cancelled: &AtomicBool) -> Result<(), MigrateError> {
        wire::greet(&mut self.stream, &self.memory)?;
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
        loop {
            let pass = self.progress.passes.fetch_add(1, Ordering::Relaxed) + 1;
            let (begin, before) = (Instant::now(), self.progress.pages.load(Ordering::Relaxed));
            self.send(&wanted, cancelled)?;
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
                if self.terms.force {
                    break;
                }
                return Err(MigrateError::Busy { left, passes: pass });
            }
            self.slow_down(pass, left, sent);
        }
        // What `changed` has just taken away from the logs must not be forgotten.
        self.send(&wanted, cancelled)?;
        self.send_parts(cancelled)
    }

    /// The parts of disks that are due, and what was written since; what is written meanwhile is due next.
    fn send_parts(&mut self, cancelled: &AtomicBool) -> Result<(), MigrateError> {
        let Some(disks) = &self.disks else { return Ok(()) };
        let (mut due, progress) = (std::mem::take(&mut self.parts), &self.progress);
        disks.add_changed(&mut due);
        let sent = || {
            progress.pages.fetch_add(PART_PAGES, Ordering::Relaxed);
        };
        disks.send(&mut self.stream, &due, cancelled, sent)?;
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
        self.cancellable(cancelled, |sending| {
            let wanted = sending.changed()?;
            sending.send(&wanted, cancelled)?;
            sending.send_parts(cancelled)?;
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
            Ok(()) => Handover::Moved,
            Err(e) => Handover::Unknown(e),
        })
    }

    /// Pages that changed since the last question, a bit each, by region.
    fn changed(&self) -> Result<Vec<Vec<u64>>, MigrateError> {
        let mut out = Vec::new();
        for (slot, region) in (0u32..).zip(self.memory.iter()) {
            let guest = self.vm.get_dirty_log(slot, region.len() as usize).map_err(MigrateError::Log)?;
            let mut bits = vm_memory::MmapRegion::bitmap(region).get_and_reset();
            bits.resize(guest.len().max(bits.len()), 0);
            bits.iter_mut().zip(&guest).for_each(|(ours, theirs)| *ours |= theirs);
            out.push(bits);
        }
        self.logs.iter().for_each(|log| log.take_all(&self.memory, &mut out));
        Ok(out)
    }

    fn send(&mut self, wanted: &[Vec<u64>], cancelled: &AtomicBool) -> Result<(), MigrateError> {
        self.progress.left.store(count(wanted), Ordering::Relaxed);
        let memory = self.memory.clone();
        let mut buffer = vec![0; (u64::from(RUN_MAX) * PAGE) as usize];
        for (region, bits) in memory.iter().zip(wanted) {
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
        Ok(())
    }

    /// Neighbouring pages, those of zeroes without their contents.
    fn send_run(&mut self, address: u64, contents: &[u8]) -> Result<(), MigrateError> {
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

fn count(bits: &[Vec<u64>]) -> u64 {
    bits.iter().flatten().map(|word| u64::from(word.count_ones())).sum()
}
