//! MSI-X: an interrupt is a write of a word to an address that the guest has chosen.
//!
//! KVM is told address and word with each interrupt (KVM_SIGNAL_MSI): as many system calls as an eventfd, and no table of
//! routes to keep in step with what the guest writes here. An interrupt whose vector is masked waits in the pending bits.
//! Interrupts of other processes go by routes after all (`virtio/pci/direct.rs`), which ask here for what a vector stands for.
//!
//! Whoever interrupts holds the table for reading, whoever changes it for writing: queues that are served side by side do not wait
//! for each other, and after a vector was masked nothing comes by it.

use kvm_bindings::kvm_msi;
use kvm_ioctls::VmFd;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Bytes of a table entry: address (8), data (4), control (4).
pub const ENTRY: usize = 16;
/// No vector.
pub const NONE: u16 = 0xffff;

/// What interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Where it is written.
    pub address: u64,
    /// What is.
    pub data: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    address: u64,
    data: u32,
    control: u32,
}

impl Entry {
    const RESET: Entry = Entry { address: 0, data: 0, control: 1 };
}

/// Table, pending bits and switches, as a snapshot keeps them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MsixState {
    table: Vec<Entry>,
    pending: u64,
    enabled: bool,
    masked: bool,
}

struct Table {
    entries: Vec<Entry>,
    enabled: bool,
    masked: bool,
}

impl Table {
    /// What this vector stands for, when it may interrupt.
    fn open(&self, vector: usize) -> Option<Message> {
        let entry = self.entries.get(vector).filter(|entry| self.enabled && !self.masked && entry.control & 1 == 0)?;
        Some(Message { address: entry.address, data: entry.data })
    }
}

/// The interrupts of a function.
pub struct Msix {
    table: RwLock<Table>,
    pending: AtomicU64,
    /// None only where no KVM is: in tests.
    vm: Option<Arc<VmFd>>,
}

impl Msix {
    /// `vectors`, at most 64, all masked.
    pub fn new(vectors: usize, vm: Option<Arc<VmFd>>) -> Msix {
        let table = Table { entries: vec![Entry::RESET; vectors.min(64)], enabled: false, masked: false };
        Msix { table: RwLock::new(table), pending: AtomicU64::new(0), vm }
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The switches of the capability: enabled, and the whole function masked.
    pub fn switch(&self, enabled: bool, masked: bool) {
        let mut table = self.write();
        (table.enabled, table.masked) = (enabled, masked);
        self.deliver(&table);
    }

    /// Whether vectors are in use at all.
    pub fn enabled(&self) -> bool {
        self.read().enabled
    }

    /// Whether there is such a vector.
    pub fn has(&self, vector: u16) -> bool {
        usize::from(vector) < self.read().entries.len()
    }

    /// What this vector stands for, when it may interrupt now.
    pub fn message(&self, vector: u16) -> Option<Message> {
        self.read().open(usize::from(vector))
    }

    /// Interrupts by this vector.
    pub fn raise(&self, vector: u16) {
        let (table, number) = (self.read(), usize::from(vector));
        if !table.enabled || number >= table.entries.len() {
            return;
        }
        match table.open(number) {
            Some(message) => self.signal(message),
            None => drop(self.pending.fetch_or(1 << number, Ordering::SeqCst)),
        }
    }

    /// Gives what waits and may come now.
    fn deliver(&self, table: &Table) {
        let pending = self.pending.load(Ordering::SeqCst);
        for number in (0..table.entries.len()).filter(|number| pending & 1 << number != 0) {
            if let Some(message) = table.open(number) {
                self.pending.fetch_and(!(1 << number), Ordering::SeqCst);
                self.signal(message);
            }
        }
    }

    fn signal(&self, message: Message) {
        let (low, high) = (message.address as u32, (message.address >> 32) as u32);
        let msi = kvm_msi { address_lo: low, address_hi: high, data: message.data, ..Default::default() };
        if let Some(vm) = &self.vm {
            // An address that is no local APIC is the guest's own mistake.
            let _ = vm.signal_msi(msi);
        }
    }

    /// Reads the table.
    pub fn read_table(&self, offset: usize, data: &mut [u8]) {
        let bytes: Vec<u8> = match self.read().entries.get(offset / ENTRY) {
            Some(e) => [&e.address.to_le_bytes()[..], &e.data.to_le_bytes()[..], &e.control.to_le_bytes()[..]].concat(),
            None => return,
        };
        for (to, from) in data.iter_mut().zip(bytes.iter().skip(offset % ENTRY)) {
            *to = *from;
        }
    }

    /// Writes the table: whole words.
    pub fn write_table(&self, offset: usize, data: &[u8]) {
        let mut table = self.write();
        let words = data.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
        for (n, word) in words.enumerate() {
            let offset = offset + n * 4;
            let Some(entry) = table.entries.get_mut(offset / ENTRY) else { break };
            match offset % ENTRY {
                0 => entry.address = (entry.address & !0xffff_ffff) | u64::from(word & !3),
                4 => entry.address = (entry.address & 0xffff_ffff) | u64::from(word) << 32,
                8 => entry.data = word,
                12 => entry.control = word & 1,
                _ => {}
            }
        }
        self.deliver(&table);
    }

    /// The pending bits.
    pub fn pending(&self) -> u64 {
        self.pending.load(Ordering::SeqCst)
    }

    /// Back to power-on.
    pub fn reset(&self) {
        self.pending.store(0, Ordering::SeqCst);
    }

    /// Writes it down.
    pub fn save(&self) -> MsixState {
        let table = self.read();
        let (enabled, masked) = (table.enabled, table.masked);
        MsixState { table: table.entries.clone(), pending: self.pending(), enabled, masked }
    }

    /// Takes it up. False: it has another number of vectors.
    pub fn restore(&self, saved: &MsixState) -> bool {
        let mut table = self.write();
        let fits = table.entries.len() == saved.table.len();
        if fits {
            table.entries.clone_from(&saved.table);
            (table.enabled, table.masked) = (saved.enabled, saved.masked);
            self.pending.store(saved.pending, Ordering::SeqCst);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masked_interrupts_wait_and_unknown_vectors_do_nothing() {
        let msix = Msix::new(2, None);
        msix.raise(0);
        assert_eq!(msix.pending(), 0);
        msix.switch(true, false);
        msix.raise(0);
        msix.raise(7);
        msix.raise(NONE);
        assert_eq!(msix.pending(), 1);
        msix.write_table(0, &[0x03, 0, 0xe0, 0xfe, 0, 0, 0, 0, 0x31, 0, 0, 0]);
        msix.write_table(12, &[0xfe, 0xff, 0xff, 0xff]);
        assert_eq!(msix.pending(), 0);
        let mut entry = [0; 16];
        msix.read_table(0, &mut entry);
        assert_eq!(entry, [0, 0, 0xe0, 0xfe, 0, 0, 0, 0, 0x31, 0, 0, 0, 0, 0, 0, 0]);
        msix.switch(true, true);
        msix.raise(0);
        assert_eq!(msix.pending(), 1);
        msix.switch(true, false);
        assert_eq!(msix.pending(), 0);
        msix.write_table(4096, &[0; 4]);
        msix.read_table(4096, &mut [0; 4]);
        assert!(!Msix::new(3, None).restore(&msix.save()) && Msix::new(2, None).restore(&msix.save()));
    }
}
