//! Disks that move with their machine, because the target has other files: copied while the guest writes, then again
//! what it wrote meanwhile, and the last of it while it stands still.
//!
//! ```text
//!   source   all parts ─► what changed ─► ... ─► (guest stands still) what changed ─► sync
//!   target   writes them into its own files, and lets no machine run before they are durable
//! ```
//! Only disks that can be written go over: what is read-only there, whoever starts the target has to provide.

use super::{MigrateError, wire};
use crate::virtio::block::changes::{Changes, PART};
use crate::virtio::block::file::{Backing, RawFile};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A disk of the source.
pub struct Leaving {
    /// By which the target knows it.
    pub name: String,
    /// Its file.
    pub file: File,
    /// Its size.
    pub bytes: u64,
    /// What the guest writes meanwhile.
    pub changes: Arc<Changes>,
}

/// All that can be written, by their numbers in the configuration. Watched while this lives.
pub struct Leavings(Vec<(u16, Leaving)>);

/// Parts of each disk, a bit each.
pub type Parts = Vec<Vec<u64>>;

impl Leavings {
    /// From here on every write is remembered.
    pub fn watch(disks: Vec<(u16, Leaving)>) -> Leavings {
        disks.iter().for_each(|(_, disk)| disk.changes.watch(true));
        Leavings(disks)
    }

    /// Every part of every disk.
    pub fn all(&self) -> Parts {
        let words = |disk: &Leaving| disk.bytes.div_ceil(PART).div_ceil(64) as usize;
        self.0.iter().map(|(_, disk)| vec![u64::MAX; words(disk)]).collect()
    }

    /// Tells which disks they are.
    pub fn announce(&self, out: &mut impl Write) -> Result<(), MigrateError> {
        self.0.iter().try_for_each(|(number, disk)| wire::send_disk(out, *number, disk.bytes, &disk.name))
    }

    /// What was written since the last question.
    pub fn changed(&self) -> Parts {
        self.0.iter().map(|(_, disk)| disk.changes.take()).collect()
    }

    /// The same, added to parts that are due anyway.
    pub fn add_changed(&self, due: &mut Parts) {
        due.resize(self.0.len(), Vec::new());
        for (due, changed) in due.iter_mut().zip(self.changed()) {
            due.resize(due.len().max(changed.len()), 0);
            due.iter_mut().zip(&changed).for_each(|(due, changed)| *due |= changed);
        }
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|(_, disk)| disk.bytes).sum()
    }

    /// Sends these parts as they are now; `sent` hears how long each was, and whether it had contents.
    pub fn send(
        &self,
        out: &mut impl Write,
        wanted: &Parts,
        cancelled: &AtomicBool,
        mut sent: impl FnMut(u64, bool),
    ) -> Result<(), MigrateError> {
        let (mut buffer, zeroes) = (vec![0; PART as usize], vec![0; PART as usize]);
        for ((number, disk), bits) in self.0.iter().zip(wanted) {
            let mut empty = Empty::default();
            for part in (0..disk.bytes.div_ceil(PART)).filter(|part| is_set(bits, *part)) {
                if cancelled.load(Ordering::Acquire) {
                    return Err(MigrateError::Cancelled);
                }
                let offset = part * PART;
                let contents = &mut buffer[..PART.min(disk.bytes - offset) as usize];
                disk.file.read_exact_at(contents, offset)?;
                // As one comparison: a disk is mostly empty, and this is done for all of it.
                if *contents == zeroes[..contents.len()] {
                    empty.add(out, *number, offset, contents.len() as u64)?;
                    sent(contents.len() as u64, false);
                    continue;
                }
                empty.flush(out, *number)?;
                wire::send_part(out, *number, offset, contents)?;
                sent(contents.len() as u64, true);
            }
            empty.flush(out, *number)?;
        }
        wire::send_sync(out)?;
        out.flush()?;
        Ok(())
    }
}

impl Drop for Leavings {
    fn drop(&mut self) {
        self.0.iter().for_each(|(_, disk)| disk.changes.watch(false));
    }
}

/// How many parts these are.
pub fn count(parts: &Parts) -> u64 {
    parts.iter().flatten().map(|word| u64::from(word.count_ones())).sum()
}

fn is_set(bits: &[u64], part: u64) -> bool {
    bits.get((part / 64) as usize).is_some_and(|word| word >> (part % 64) & 1 != 0)
}

/// A run of zeroes that has not been told yet.
#[derive(Default)]
struct Empty {
    offset: u64,
    bytes: u64,
}

impl Empty {
    fn add(&mut self, out: &mut impl Write, disk: u16, offset: u64, bytes: u64) -> Result<(), MigrateError> {
        if self.offset + self.bytes != offset || self.bytes + bytes > wire::EMPTY_MAX {
            self.flush(out, disk)?;
            self.offset = offset;
        }
        self.bytes += bytes;
        Ok(())
    }

    fn flush(&mut self, out: &mut impl Write, disk: u16) -> Result<(), MigrateError> {
        if self.bytes > 0 {
            wire::send_empty(out, disk, self.offset, self.bytes)?;
        }
        *self = Empty::default();
        Ok(())
    }
}

/// A disk of the target, in which what comes is written.
pub struct Landing {
    name: String,
    file: RawFile,
    bytes: u64,
}

/// Which of the target's disks the source's numbers mean.
pub(super) struct Landings<'d> {
    disks: &'d mut [Landing],
    announced: BTreeMap<u16, usize>,
}

impl<'d> Landings<'d> {
    pub(super) fn new(disks: &'d mut [Landing]) -> Landings<'d> {
        Landings { disks, announced: BTreeMap::new() }
    }

    /// The source calls the disk of this name by this number. Each is announced once.
    pub(super) fn announce(&mut self, number: u16, bytes: u64, name: &str) -> Result<(), MigrateError> {
        let at = self.disks.iter().position(|disk| disk.name == name);
        let at = at.ok_or(MigrateError::Nonsense("a disk that is not there"))?;
        if self.disks[at].bytes < bytes {
            return Err(MigrateError::Nonsense("a disk for which there is no room"));
        }
        if self.announced.values().any(|other| *other == at) || self.announced.insert(number, at).is_some() {
            return Err(MigrateError::Nonsense("a disk that was announced twice"));
        }
        Ok(())
    }

    /// The disk of this number.
    pub(super) fn get(&mut self, number: u16) -> Result<&mut Landing, MigrateError> {
        let at = self.announced.get(&number).copied();
        let disk = at.and_then(|at| self.disks.get_mut(at));
        disk.ok_or(MigrateError::Nonsense("a disk that was not announced"))
    }

    pub(super) fn sync(&mut self) -> Result<(), MigrateError> {
        self.disks.iter_mut().try_for_each(Landing::sync)
    }
}

impl Landing {
    /// In this file, of this size.
    pub fn new(name: &str, file: &File, bytes: u64) -> io::Result<Landing> {
        Ok(Landing { name: name.to_owned(), file: RawFile::new(file.try_clone()?), bytes })
    }

    /// Refuses what lies outside.
    pub(super) fn check(&self, offset: u64, bytes: u64) -> Result<(), MigrateError> {
        match offset.checked_add(bytes) {
            Some(end) if end <= self.bytes => Ok(()),
            _ => Err(MigrateError::Nonsense("a part outside its disk")),
        }
    }

    pub(super) fn write(&self, offset: u64, contents: &[u8]) -> Result<(), MigrateError> {
        Ok(self.file.write(offset, contents)?)
    }

    pub(super) fn empty(&mut self, offset: u64, bytes: u64) -> Result<(), MigrateError> {
        let punched = self.file.zero(offset, bytes, true);
        Ok(punched.or_else(|_| self.file.zero(offset, bytes, false))?)
    }

    pub(super) fn sync(&mut self) -> Result<(), MigrateError> {
        Ok(self.file.flush()?)
    }
}

#[cfg(test)]
mod tests;
