//! Which parts of a disk were written since somebody asked last, for a machine that moves away from its disks.
//!
//! A part is marked once its write has ended: whoever copied it before copies it again. At the gate no write is under way,
//! so what is asked there is all there is.

use super::file::{Backing, Transfer, Way};
use crate::memory::Memory;
use crate::virtio::chain;
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use vm_memory::bitmap::AtomicBitmap;

/// Bytes of a part.
pub const PART: u64 = 64 * 1024;

/// What was written.
#[derive(Debug)]
pub struct Changes {
    watched: AtomicBool,
    parts: RwLock<AtomicBitmap>,
}

fn parts(bytes: u64) -> AtomicBitmap {
    const SIZE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(PART as usize - 1);
    AtomicBitmap::new(usize::try_from(bytes).unwrap_or(usize::MAX), SIZE)
}

impl Changes {
    /// Of a disk of this size; nobody watches yet.
    pub fn new(bytes: u64) -> Arc<Changes> {
        Arc::new(Changes { watched: AtomicBool::new(false), parts: RwLock::new(parts(bytes)) })
    }

    fn parts(&self) -> RwLockReadGuard<'_, AtomicBitmap> {
        self.parts.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk has grown. Nobody watches: a disk does not grow while its machine moves.
    pub fn grow(&self, bytes: u64) {
        *self.parts.write().unwrap_or_else(PoisonError::into_inner) = parts(bytes);
    }

    /// From here on every write is remembered, or none.
    pub fn watch(&self, on: bool) {
        self.watched.store(on, Ordering::SeqCst);
        self.parts().reset();
    }

    /// What was written since the last question, a bit for each part.
    pub fn take(&self) -> Vec<u64> {
        self.parts().get_and_reset()
    }

    fn written(&self, offset: u64, bytes: u64) {
        if self.watched.load(Ordering::SeqCst) {
            self.parts().set_addr_range(offset as usize, bytes as usize);
        }
    }
}

/// A disk whose writes are remembered.
pub struct Watched {
    backing: Box<dyn Backing>,
    changes: Arc<Changes>,
}

impl Watched {
    /// Remembers what this backing writes.
    pub fn new(backing: Box<dyn Backing>, changes: Arc<Changes>) -> Watched {
        Watched { backing, changes }
    }
}

impl Backing for Watched {
    fn run(&mut self, transfers: &[Transfer], memory: &Memory) -> Vec<io::Result<()>> {
        let results = self.backing.run(transfers, memory);
        // Failed ones too: they may have written some of it.
        for write in transfers.iter().filter(|t| t.way == Way::Write) {
            self.changes.written(write.offset, chain::length(&write.pieces));
        }
        results
    }

    fn flush(&mut self) -> io::Result<()> {
        self.backing.flush()
    }

    fn zero(&mut self, offset: u64, bytes: u64, discard: bool) -> io::Result<()> {
        let result = self.backing.zero(offset, bytes, discard);
        self.changes.written(offset, bytes);
        result
    }

    fn is_away(&mut self, renew: bool) -> bool {
        self.backing.is_away(renew)
    }

    fn is_remote(&self) -> bool {
        self.backing.is_remote()
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::RawFile;
    use super::*;
    use crate::virtio::chain::Piece;
    use vm_memory::GuestAddress;

    #[test]
    fn writes_are_remembered_while_somebody_watches() {
        let memory = crate::memory::map(1 << 20, false).unwrap();
        let changes = Changes::new(3 * PART + 512);
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 * PART + 512).unwrap();
        let mut disk = Watched::new(Box::new(RawFile::new(file)), changes.clone());
        let mut go = |way, offset, length| {
            let pieces = vec![Piece { address: GuestAddress(0), length }];
            disk.run(&[Transfer { way, offset, pieces }], &memory).remove(0).unwrap();
        };
        go(Way::Write, 0, 512);
        assert_eq!(changes.take(), [0], "nobody watched");
        changes.watch(true);
        go(Way::Read, 0, 512);
        go(Way::Write, PART - 512, 1024);
        go(Way::Write, 3 * PART, 512);
        assert_eq!(changes.take(), [0b1011]);
        assert_eq!(changes.take(), [0]);
        disk.zero(2 * PART, 512, false).unwrap();
        assert_eq!(changes.take(), [0b100]);
        changes.grow(100 * PART);
        disk.zero(99 * PART, 512, false).unwrap();
        assert_eq!(changes.take(), [0, 1 << 35]);
        changes.watch(false);
        disk.zero(0, 512, false).unwrap();
        assert_eq!(changes.take(), [0, 0]);
    }
}
