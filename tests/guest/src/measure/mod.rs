//! What `tests/bench/vmm` has done by every monitor alike: requests to a disk, frames to and from a card, as fast as they go
//! for a time, and how many they were. Times are taken outside.
//!
//! | word | doing |
//! | --- | --- |
//! | `disk=read:BYTES:DEPTH:MS`, `disk=write:...` | requests at random places, so many under way at once |
//! | `disk=stream:BYTES:DEPTH:MS` | reads, one place after the other |
//! | `disk=spread:BYTES:DEPTH:MS` | reads at random places, spread over all queues that the disk has (four at most) |
//! | `card=send:BYTES:DEPTH:MS` | frames to the host; so many under way at once |
//! | `card=take:BYTES:DEPTH:MS` | frames of up to so many bytes from the host; so many buffers |
//! | `card=echo:BYTES:DEPTH:MS` | sends them back |
//!
//! Each is announced by `begin` and the word, and ended by `end`, the word and a count.

mod card;
mod disk;
mod ring;

use crate::{clock, hal, say, user};
use core::ptr::NonNull;
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::transport::{DeviceType, SomeTransport, Transport};

/// Memory for data, away from all else in a machine of 128 MiB.
const DATA: usize = 32 << 20;
/// Where QEMU's `microvm` has its slots.
const OTHER_SLOTS: (usize, usize, usize) = (0xfeb0_0000, 512, 24);

/// One task, as its word has it.
pub struct Task<'a> {
    what: &'a str,
    bytes: u32,
    depth: u16,
    ms: i64,
}

fn parse(text: &str) -> Option<Task<'_>> {
    let mut parts = text.split(':');
    let what = parts.next()?;
    let mut number = || parts.next()?.parse::<u32>().ok();
    let (bytes, depth, ms) = (number()?, number()?, number()?);
    Some(Task { what, bytes, depth: depth as u16, ms: i64::from(ms) })
}

fn transport(kind: DeviceType) -> Option<SomeTransport<'static>> {
    if let Some(found) = hal::transport(kind) {
        return Some(found);
    }
    let (start, distance, count) = OTHER_SLOTS;
    for address in (0..count).map(|slot| start + slot * distance).filter(|at| hal::read32(*at) == 0x7472_6976) {
        let header = NonNull::new(address as *mut VirtIOHeader)?;
        // SAFETY: a slot that answers with the magic number is device registers for ever.
        match unsafe { MmioTransport::new(header, distance) } {
            Ok(found) if found.device_type() == kind => return Some(found.into()),
            _ => {}
        }
    }
    None
}

/// Does all tasks among the words.
pub fn run(words: &[&str]) {
    let tasks = |name: &'static str| words.iter().copied().filter(move |word| word.starts_with(name));
    if tasks("disk=").next().is_some() {
        match transport(DeviceType::Block) {
            Some(found) => {
                let mut disk = disk::Disk::new(found);
                user::enter();
                each(tasks("disk="), |task| disk.run(task));
            }
            None => say!("no disk"),
        }
    }
    if tasks("card=").next().is_some() {
        match transport(DeviceType::Network) {
            Some(found) => {
                let mut card = card::Card::new(found);
                user::enter();
                each(tasks("card="), |task| card.run(task));
            }
            None => say!("no card"),
        }
    }
    say!("measured");
}

fn each<'a>(words: impl Iterator<Item = &'a str>, mut run: impl FnMut(&Task<'_>) -> u64) {
    for word in words {
        let Some(task) = word.split_once('=').and_then(|(_, text)| parse(text)) else {
            say!("bad {word}");
            continue;
        };
        say!("begin {word}");
        let count = run(&task);
        say!("end {word} {count}");
    }
}

/// A time that is looked at now and then: looking costs little, but not nothing.
struct Until(i64);

impl Until {
    fn after(ms: i64) -> Until {
        Until(clock::now_ms() + ms)
    }

    fn is_over(&self) -> bool {
        clock::now_ms() >= self.0
    }
}
