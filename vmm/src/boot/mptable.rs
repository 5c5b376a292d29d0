//! The Intel MultiProcessor table (version 1.4): how a kernel without ACPI learns of processors and interrupt lines.
//!
//! Lines 0 to 23 go straight through to the IOAPIC pins of the same number, edge triggered, as an ISA bus would.

use super::{BootError, MP_TABLE};
use crate::memory::Memory;
use vm_memory::{Bytes, GuestAddress};

const IOAPIC_ADDRESS: u32 = 0xfec0_0000;
const LAPIC_ADDRESS: u32 = 0xfee0_0000;
/// Interrupt lines of the IOAPIC.
const LINES: u8 = 24;
const VERSION: u8 = 0x14;
const SPEC_1_4: u8 = 4;

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)).wrapping_neg()
}

/// Floating pointer followed by the table.
pub fn build(vcpus: u16, address: u32) -> Vec<u8> {
    let mut entries = Vec::new();
    // APIC ids stay below 255 because `config::VCPUS_MAX` does.
    for id in 0..vcpus.min(254) as u8 {
        let flags = if id == 0 { 3 } else { 1 };
        entries.extend([0, id, VERSION, flags]);
        entries.extend(0x600u32.to_le_bytes());
        entries.extend(0x201u32.to_le_bytes());
        entries.extend([0; 8]);
    }
    let ioapic = vcpus.min(254) as u8;
    entries.extend([1, 0]);
    entries.extend(b"ISA   ");
    entries.extend([2, ioapic, VERSION, 1]);
    entries.extend(IOAPIC_ADDRESS.to_le_bytes());
    for line in 0..LINES {
        entries.extend([3, 0, 0, 0, 0, line, ioapic, line]);
    }
    // Local interrupts: LINT0 takes the PIC (ExtINT) on the boot processor, LINT1 is NMI everywhere.
    entries.extend([4, 3, 0, 0, 0, 0, 0, 0]);
    entries.extend([4, 1, 0, 0, 0, 0, 0xff, 1]);

    let mut table = b"PCMP".to_vec();
    table.extend(((44 + entries.len()) as u16).to_le_bytes());
    table.extend([SPEC_1_4, 0]);
    table.extend(b"PILVI   PILVI-VMM   ");
    table.extend([0; 4]);
    table.extend([0; 2]);
    table.extend((vcpus.min(254) + 2 + u16::from(LINES) + 2).to_le_bytes());
    table.extend(LAPIC_ADDRESS.to_le_bytes());
    table.extend([0; 4]);
    table.extend(entries);
    table[7] = checksum(&table);

    let mut out = b"_MP_".to_vec();
    out.extend((address + 16).to_le_bytes());
    out.extend([1, SPEC_1_4, 0, 0, 0, 0, 0, 0]);
    out[10] = checksum(&out);
    out.extend(table);
    out
}

/// Writes the table where kernels look for it.
pub fn write(memory: &Memory, vcpus: u16) -> Result<(), BootError> {
    memory.write_slice(&build(vcpus, MP_TABLE as u32), GuestAddress(MP_TABLE))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_and_counts_hold_for_every_size() {
        for vcpus in [1, 2, 254] {
            let bytes = build(vcpus, 0xf_0000);
            assert_eq!(bytes[..16].iter().fold(0u8, |s, b| s.wrapping_add(*b)), 0);
            let table = &bytes[16..];
            assert_eq!(table.iter().fold(0u8, |s, b| s.wrapping_add(*b)), 0);
            assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
            let (mut at, mut count) = (44, 0);
            while at < table.len() {
                at += if table[at] == 0 { 20 } else { 8 };
                count += 1;
            }
            assert_eq!((at, count), (table.len(), u16::from_le_bytes([table[34], table[35]])));
            assert!(bytes.len() < 0x1_0000);
        }
    }
}
