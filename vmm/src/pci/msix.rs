//! MSI-X: an interrupt is a write of a word to an address that the guest has chosen.
//!
//! KVM is told address and word with each interrupt (KVM_SIGNAL_MSI): as many system calls as an eventfd, and no table of
//! routes to keep in step with what the guest writes here. An interrupt whose vector is masked waits in the pending bits.

use crate::gate::lock;
use kvm_bindings::kvm_msi;
use kvm_ioctls::VmFd;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex};

/// Bytes of a table entry: address (8), data (4), control (4).
pub const ENTRY: usize = 16;
/// No vector.
pub const NONE: u16 = 0xffff;

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

/// The interrupts of a function.
pub struct Msix {
    state: Mutex<MsixState>,
    /// None only where no KVM is: in tests.
    vm: Option<Arc<VmFd>>,
}

impl Msix {
    /// `vectors`, at most 64, all masked.
    pub fn new(vectors: usize, vm: Option<Arc<VmFd>>) -> Msix {
        let table = vec![Entry::RESET; vectors.min(64)];
        Msix { state: Mutex::new(MsixState { table, pending: 0, enabled: false, masked: false }), vm }
    }

    /// The switches of the capability: enabled, and the whole function masked.
    pub fn switch(&self, enabled: bool, masked: bool) {
        let mut state = lock(&self.state);
        (state.enabled, state.masked) = (enabled, masked);
        self.deliver(&mut state);
    }

    /// Whether vectors are in use at all.
    pub fn enabled(&self) -> bool {
        lock(&self.state).enabled
    }

    /// Whether there is such a vector.
    pub fn has(&self, vector: u16) -> bool {
        usize::from(vector) < lock(&self.state).table.len()
    }

    /// Interrupts by this vector.
    pub fn raise(&self, vector: u16) {
        let mut state = lock(&self.state);
        if state.enabled && usize::from(vector) < state.table.len() {
            state.pending |= 1 << vector;
            self.deliver(&mut state);
        }
    }

    /// Sends what is pending and not masked.
    fn deliver(&self, state: &mut MsixState) {
        if !state.enabled || state.masked {
            return;
        }
        for (n, entry) in state.table.iter().enumerate() {
            if state.pending & (1 << n) != 0 && entry.control & 1 == 0 {
                state.pending &= !(1 << n);
                let (low, high) = (entry.address as u32, (entry.address >> 32) as u32);
                let msi = kvm_msi { address_lo: low, address_hi: high, data: entry.data, ..Default::default() };
                if let Some(vm) = &self.vm {
                    // An address that is no local APIC is the guest's own mistake.
                    let _ = vm.signal_msi(msi);
                }
            }
        }
    }

    /// Reads the table.
    pub fn read_table(&self, offset: usize, data: &mut [u8]) {
        let state = lock(&self.state);
        let bytes: Vec<u8> = match state.table.get(offset / ENTRY) {
            Some(e) => [&e.address.to_le_bytes()[..], &e.data.to_le_bytes()[..], &e.control.to_le_bytes()[..]].concat(),
            None => return,
        };
        for (to, from) in data.iter_mut().zip(bytes.iter().skip(offset % ENTRY)) {
            *to = *from;
        }
    }

    /// Writes the table: whole words.
    pub fn write_table(&self, offset: usize, data: &[u8]) {
        let mut state = lock(&self.state);
        let words = data.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
        for (n, word) in words.enumerate() {
            let offset = offset + n * 4;
            let Some(entry) = state.table.get_mut(offset / ENTRY) else { break };
            match offset % ENTRY {
                0 => entry.address = (entry.address & !0xffff_ffff) | u64::from(word & !3),
                4 => entry.address = (entry.address & 0xffff_ffff) | u64::from(word) << 32,
                8 => entry.data = word,
                12 => entry.control = word & 1,
                _ => {}
            }
        }
        self.deliver(&mut state);
    }

    /// The pending bits.
    pub fn pending(&self) -> u64 {
        lock(&self.state).pending
    }

    /// Back to power-on.
    pub fn reset(&self) {
        lock(&self.state).pending = 0;
    }

    /// Writes it down.
    pub fn save(&self) -> MsixState {
        lock(&self.state).clone()
    }

    /// Takes it up. False: it has another number of vectors.
    pub fn restore(&self, saved: &MsixState) -> bool {
        let mut state = lock(&self.state);
        let fits = state.table.len() == saved.table.len();
        if fits {
            state.clone_from(saved);
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
