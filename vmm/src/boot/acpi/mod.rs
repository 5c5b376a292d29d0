//! The ACPI tables: where a distribution's kernel finds processors, virtio devices, power button and power off.
//!
//! ```text
//!   RSDP 0xe0000 ─► XSDT ─┬─► FADT ─► DSDT   \_SB.V000 .. virtio slots, COM1, \_S5, what comes and goes (dsdt.rs)
//!                         ├─► MADT           processors, IOAPIC
//!                         └─► SRAT, SLIT     what is near what, where there are nodes (numa.rs)
//! ```
//! Fixed hardware (`device::power`), one block of general purpose events (`device::events`), no PM timer, no SMM. The few
//! AML terms that are needed are encoded in `aml`. Kernels without ACPI use the MP table instead.

mod aml;
mod dsdt;
mod numa;
mod processors;

use super::{BootError, Hardware};
use crate::config::VCPUS_MAX;
use crate::device::{events, power};
use crate::memory::Memory;
use vm_memory::{Bytes, GuestAddress};

/// Where kernels search for the root pointer.
pub const RSDP: u64 = 0xe_0000;
/// The tables follow it, up to the MP table.
pub const TABLES: u64 = RSDP + 0x40;
const IOAPIC_ADDRESS: u32 = 0xfec0_0000;
const LAPIC_ADDRESS: u32 = 0xfee0_0000;
/// Edge triggered, active high: what our interrupt descriptors do.
const EDGE_HIGH: u16 = 0x5;
const CENTURY_REGISTER: u8 = 0x32;

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)).wrapping_neg()
}

/// A system description table around its body.
fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut out = signature.to_vec();
    out.extend((36 + body.len() as u32).to_le_bytes());
    out.extend([revision, 0]);
    out.extend(b"PILVI PILVIVMM");
    out.extend(1u32.to_le_bytes());
    out.extend(b"PLVI");
    out.extend(1u32.to_le_bytes());
    out.extend(body);
    out[9] = sum(&out);
    out
}

/// Processors that are there are enabled; those that can come are named, and are not.
fn madt(vcpus: u16, possible: u16) -> Vec<u8> {
    const ENABLED: u8 = 1;
    const CAN_COME: u8 = 2;
    let mut body = LAPIC_ADDRESS.to_le_bytes().to_vec();
    body.extend(1u32.to_le_bytes()); // there are 8259s too
    let possible = possible.max(vcpus).min(VCPUS_MAX);
    for id in 0..possible as u8 {
        let flags = if u16::from(id) < vcpus { ENABLED } else { CAN_COME };
        body.extend([0, 8, id, id, flags, 0, 0, 0]);
    }
    body.extend([1, 12, possible as u8, 0]);
    body.extend(IOAPIC_ADDRESS.to_le_bytes());
    body.extend(0u32.to_le_bytes());
    body.extend([2, 10, 0, power::LINE as u8]);
    body.extend(power::LINE.to_le_bytes());
    body.extend(EDGE_HIGH.to_le_bytes());
    body.extend([4, 6, 0xff, 0, 0, 1]); // LINT1 is NMI
    table(b"APIC", 5, &body)
}

fn fadt(dsdt: u64) -> Vec<u8> {
    // Offsets are those of the whole table, as the specification gives them.
    let mut all = [0u8; 276];
    let mut put = |at: usize, bytes: &[u8]| all[at..at + bytes.len()].copy_from_slice(bytes);
    put(40, &(dsdt as u32).to_le_bytes());
    put(46, &(power::LINE as u16).to_le_bytes());
    put(56, &u32::from(power::EVENT).to_le_bytes());
    put(64, &u32::from(power::CONTROL).to_le_bytes());
    put(80, &u32::from(events::FIRST).to_le_bytes());
    put(88, &[4, 2, 0, 0, events::BYTES]);
    put(96, &[0xff, 0x0f, 0xff, 0x0f]); // no C2, no C3
    put(108, &[CENTURY_REGISTER]);
    put(109, &3u16.to_le_bytes()); // legacy devices, keyboard controller
    // WBINVD, C1, no fixed sleep button, reset register.
    put(112, &(1u32 | 1 << 2 | 1 << 5 | 1 << 10).to_le_bytes());
    // Reset: byte 0xfe to the keyboard controller.
    put(116, &[1, 8, 0, 1, 0x64, 0, 0, 0, 0, 0, 0, 0, 0xfe]);
    put(140, &dsdt.to_le_bytes());
    put(148, &[1, 32, 0, 2]);
    put(152, &u64::from(power::EVENT).to_le_bytes());
    put(172, &[1, 16, 0, 2]);
    put(176, &u64::from(power::CONTROL).to_le_bytes());
    put(220, &[1, 8 * events::BYTES, 0, 1]);
    put(224, &u64::from(events::FIRST).to_le_bytes());
    table(b"FACP", 6, &all[36..])
}

/// Writes all tables for a machine of this size.
pub fn write(memory: &Memory, hardware: &Hardware) -> Result<(), BootError> {
    let mut at = TABLES;
    let mut place = |bytes: Vec<u8>| -> Result<u64, BootError> {
        let here = at;
        memory.write_slice(&bytes, GuestAddress(here))?;
        at = (here + bytes.len() as u64).next_multiple_of(16);
        Ok(here)
    };
    let dsdt = place(dsdt::dsdt(hardware))?;
    let fadt = place(fadt(dsdt))?;
    let madt = place(madt(hardware.vcpus, hardware.possible.unwrap_or(0)))?;
    let mut list = [fadt.to_le_bytes(), madt.to_le_bytes()].concat();
    for table in numa::tables(&hardware.domains) {
        list.extend(place(table)?.to_le_bytes());
    }
    let xsdt = place(table(b"XSDT", 1, &list))?;
    let mut root = b"RSD PTR \0PILVI \x02\0\0\0\0".to_vec();
    root.extend(36u32.to_le_bytes());
    root.extend(xsdt.to_le_bytes());
    root.extend([0; 4]);
    root[8] = sum(&root[..20]);
    root[32] = sum(&root);
    memory.write_slice(&root, GuestAddress(RSDP))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::numa::Domain;

    #[test]
    fn every_table_of_every_size_sums_to_zero_and_fits() {
        let memory = crate::memory::map(16 << 20, false).unwrap();
        for (vcpus, possible, slots) in [(1, None, 0), (2, Some(254), 1), (254, Some(254), 16)] {
            // As many domains and ranges as there can be, where there are as many processors.
            let most = if slots == 16 { 16 } else { 0 };
            let domain = |number: u16| Domain {
                vcpus: (0..vcpus).filter(|vcpu| vcpu % most == number).collect(),
                ranges: vec![(0, 4096); 2],
                hot: None,
                distances: vec![10; usize::from(most)],
            };
            let domains = (0..most).map(domain).collect();
            write(&memory, &Hardware { vcpus, possible, slots, pci: slots < 2, domains }).unwrap();
            let mut area = vec![0u8; 0x1_0000];
            memory.read_slice(&mut area, GuestAddress(RSDP)).unwrap();
            assert_eq!(area[..36].iter().fold(0u8, |s, b| s.wrapping_add(*b)), 0);
            let at = |address: u64| (address - RSDP) as usize;
            let word = |from: usize| u64::from_le_bytes(area[from..from + 8].try_into().unwrap());
            let whole = |from: usize| {
                let length = u32::from_le_bytes(area[from + 4..from + 8].try_into().unwrap()) as usize;
                assert_eq!(area[from..from + length].iter().fold(0u8, |s, b| s.wrapping_add(*b)), 0);
                &area[from..from + length]
            };
            let xsdt = at(word(24));
            assert_eq!(whole(xsdt).len(), if most > 0 { 68 } else { 52 });
            for at in (xsdt + 52..xsdt + whole(xsdt).len()).step_by(8).map(|place| at(word(place))) {
                assert!([b"SRAT", b"SLIT"].map(|name| &name[..]).contains(&&whole(at)[..4]));
            }
            let (fadt, madt) = (at(word(xsdt + 36)), at(word(xsdt + 44)));
            assert_eq!((&whole(fadt)[..4], whole(fadt).len(), &whole(madt)[..4]), (&b"FACP"[..], 276, &b"APIC"[..]));
            assert_eq!(&whole(at(word(fadt + 140)))[..4], b"DSDT");
            let enabled = whole(madt)[44..].chunks(8).take_while(|entry| entry[0] == 0).filter(|entry| entry[4] == 1);
            assert_eq!(enabled.count(), usize::from(vcpus));
            assert!(xsdt + 68 < 0x1_0000, "runs into the MP table");
        }
    }
}
