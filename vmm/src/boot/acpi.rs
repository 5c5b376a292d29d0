//! The ACPI tables: where a distribution's kernel finds processors, virtio devices, power button and power off.
//!
//! ```text
//!   RSDP 0xe0000 ─► XSDT ─┬─► FADT ─► DSDT   \_SB.V000 .. virtio slots, COM1, \_S5
//!                         └─► MADT           processors, IOAPIC
//! ```
//! Fixed hardware (`device::power`), no GPE blocks, no PM timer, no SMM. The few AML terms that are needed are encoded
//! here. Kernels without ACPI use the MP table instead.

use super::{BootError, Hardware};
use crate::device::power;
use crate::memory::Memory;
use crate::virtio::{SLOT_BYTES, SLOT_LINES, SLOTS_START};
use vm_memory::{Bytes, GuestAddress};

/// Where kernels search for the root pointer.
pub const RSDP: u64 = 0xe_0000;
/// The tables follow it, up to the MP table.
const TABLES: u64 = RSDP + 0x40;
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

mod aml {
    //! Terms of the ACPI machine language (ACPI 6.5, chapter 20).

    /// A package length counts itself; bodies here stay far below its 4 KiB of two bytes.
    fn with_length(opcode: &[u8], body: &[u8]) -> Vec<u8> {
        let mut out = opcode.to_vec();
        if body.len() < 63 {
            out.push(body.len() as u8 + 1);
        } else {
            let length = body.len() + 2;
            out.extend([0x40 | (length & 0xf) as u8, (length >> 4) as u8]);
        }
        out.extend(body);
        out
    }

    /// Three letters and digits as a compressed EISA id.
    pub fn eisa_id(id: &[u8; 7]) -> Vec<u8> {
        let letter = |n: usize| u32::from(id[n] - b'@') & 0x1f;
        let digit = |n: usize| char::from(id[n]).to_digit(16).unwrap_or(0);
        let value = letter(0) << 26
            | letter(1) << 21
            | letter(2) << 16
            | digit(3) << 12
            | digit(4) << 8
            | digit(5) << 4
            | digit(6);
        let mut out = vec![0x0c];
        out.extend(value.to_be_bytes());
        out
    }

    pub fn string(text: &str) -> Vec<u8> {
        let mut out = vec![0x0d];
        out.extend(text.as_bytes());
        out.push(0);
        out
    }

    pub fn byte(value: u8) -> Vec<u8> {
        vec![0x0a, value]
    }

    pub fn buffer(bytes: &[u8]) -> Vec<u8> {
        let mut body = byte(bytes.len() as u8);
        body.extend(bytes);
        with_length(&[0x11], &body)
    }

    pub fn package(elements: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![elements.len() as u8];
        body.extend(elements.concat());
        with_length(&[0x12], &body)
    }

    pub fn name(name: &[u8; 4], value: &[u8]) -> Vec<u8> {
        let mut out = vec![0x08];
        out.extend(name);
        out.extend(value);
        out
    }

    pub fn device(name: &[u8; 4], terms: &[Vec<u8>]) -> Vec<u8> {
        let mut body = name.to_vec();
        body.extend(terms.concat());
        with_length(&[0x5b, 0x82], &body)
    }

    pub fn system_bus(terms: &[Vec<u8>]) -> Vec<u8> {
        let mut body = b"\\_SB_".to_vec();
        body.extend(terms.concat());
        with_length(&[0x10], &body)
    }
}

/// Memory range and interrupt of a virtio slot, as a resource template.
fn slot_resources(slot: usize) -> Vec<u8> {
    let mut out = vec![0x86, 9, 0, 1];
    out.extend(((SLOTS_START + slot as u64 * SLOT_BYTES) as u32).to_le_bytes());
    out.extend((SLOT_BYTES as u32).to_le_bytes());
    // Extended interrupt: consumer, edge, high, exclusive; one line.
    out.extend([0x89, 6, 0, 0x03, 1]);
    out.extend(SLOT_LINES[slot].to_le_bytes());
    out.extend([0x79, 0]);
    out
}

/// What the PCI host bridge takes and passes on: bus 0, the ports of mechanism 1, the memory window.
fn pci_resources() -> Vec<u8> {
    let mut out = vec![0x88, 13, 0, 2, 0x0c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    out.extend([0x47, 1, 0xf8, 0x0c, 0xf8, 0x0c, 1, 8]);
    out.extend([0x87, 23, 0, 0, 0x0c, 1, 0, 0, 0, 0]);
    let (start, end) = (crate::pci::WINDOW as u32, crate::pci::WINDOW_END as u32);
    for word in [start, end - 1, 0, end - start] {
        out.extend(word.to_le_bytes());
    }
    out.extend([0x79, 0]);
    out
}

fn dsdt(slots: usize, pci: bool) -> Vec<u8> {
    let mut devices = Vec::new();
    for slot in 0..slots {
        let name = [b'V', b'0', b'0' + (slot / 10) as u8, b'0' + (slot % 10) as u8];
        let terms = [
            aml::name(b"_HID", &aml::string("LNRO0005")),
            aml::name(b"_UID", &aml::byte(slot as u8)),
            aml::name(b"_CCA", &aml::byte(1)),
            aml::name(b"_CRS", &aml::buffer(&slot_resources(slot))),
        ];
        devices.push(aml::device(&name, &terms));
    }
    let com1 = [0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8, 0x22, 0x10, 0, 0x79, 0];
    let keyboard = [0x47, 1, 0x60, 0, 0x60, 0, 1, 1, 0x47, 1, 0x64, 0, 0x64, 0, 1, 1, 0x22, 2, 0, 0x79, 0];
    let clock = [0x47, 1, 0x70, 0, 0x70, 0, 1, 2, 0x79, 0];
    for (name, id, resources) in
        [(b"COM1", b"PNP0501", &com1[..]), (b"KBD_", b"PNP0303", &keyboard[..]), (b"RTC_", b"PNP0B00", &clock[..])]
    {
        let terms = [aml::name(b"_HID", &aml::eisa_id(id)), aml::name(b"_CRS", &aml::buffer(resources))];
        devices.push(aml::device(name, &terms));
    }
    if pci {
        let terms = [
            aml::name(b"_HID", &aml::eisa_id(b"PNP0A03")),
            aml::name(b"_UID", &aml::byte(0)),
            aml::name(b"_BBN", &aml::byte(0)),
            aml::name(b"_CRS", &aml::buffer(&pci_resources())),
        ];
        devices.push(aml::device(b"PCI0", &terms));
    }
    // The name by which kernels know the panic device.
    let crash = [0x47, 1, 5, 5, 5, 5, 1, 1, 0x79, 0];
    let terms = [aml::name(b"_HID", &aml::string("QEMU0001")), aml::name(b"_CRS", &aml::buffer(&crash))];
    devices.push(aml::device(b"PEVT", &terms));
    let off = [aml::byte(power::SLEEP_OFF), aml::byte(0), aml::byte(0), aml::byte(0)];
    let mut body = aml::name(b"_S5_", &aml::package(&off));
    body.extend(aml::system_bus(&devices));
    table(b"DSDT", 2, &body)
}

fn madt(vcpus: u16) -> Vec<u8> {
    let mut body = LAPIC_ADDRESS.to_le_bytes().to_vec();
    body.extend(1u32.to_le_bytes()); // there are 8259s too
    let ids = 0..vcpus.min(254) as u8;
    for id in ids {
        body.extend([0, 8, id, id, 1, 0, 0, 0]);
    }
    body.extend([1, 12, vcpus.min(254) as u8, 0]);
    body.extend(IOAPIC_ADDRESS.to_le_bytes());
    body.extend(0u32.to_le_bytes());
    body.extend([2, 10, 0, power::LINE as u8]);
    body.extend(power::LINE.to_le_bytes());
    body.extend(EDGE_HIGH.to_le_bytes());
    body.extend([4, 6, 0xff, 0, 0, 1]); // LINT1 is NMI
    table(b"APIC", 4, &body)
}

fn fadt(dsdt: u64) -> Vec<u8> {
    // Offsets are those of the whole table, as the specification gives them.
    let mut all = [0u8; 276];
    let mut put = |at: usize, bytes: &[u8]| all[at..at + bytes.len()].copy_from_slice(bytes);
    put(40, &(dsdt as u32).to_le_bytes());
    put(46, &(power::LINE as u16).to_le_bytes());
    put(56, &u32::from(power::EVENT).to_le_bytes());
    put(64, &u32::from(power::CONTROL).to_le_bytes());
    put(88, &[4, 2]);
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
    let dsdt = place(dsdt(hardware.slots, hardware.pci))?;
    let fadt = place(fadt(dsdt))?;
    let madt = place(madt(hardware.vcpus))?;
    let xsdt = place(table(b"XSDT", 1, &[fadt.to_le_bytes(), madt.to_le_bytes()].concat()))?;
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

    #[test]
    fn every_table_of_every_size_sums_to_zero_and_fits() {
        let memory = crate::memory::map(16 << 20, false).unwrap();
        for (vcpus, slots) in [(1, 0), (2, 1), (128, 16)] {
            write(&memory, &Hardware { vcpus, slots, pci: slots == 0 }).unwrap();
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
            assert_eq!(whole(xsdt).len(), 52);
            let (fadt, madt) = (at(word(xsdt + 36)), at(word(xsdt + 44)));
            assert_eq!((&whole(fadt)[..4], whole(fadt).len(), &whole(madt)[..4]), (&b"FACP"[..], 276, &b"APIC"[..]));
            assert_eq!(&whole(at(word(fadt + 140)))[..4], b"DSDT");
            assert!(xsdt + 52 < 0x1_0000, "runs into the MP table");
        }
    }

    #[test]
    fn identifiers_and_lengths_are_encoded_as_the_specification_has_them() {
        assert_eq!(aml::eisa_id(b"PNP0501"), [0x0c, 0x41, 0xd0, 0x05, 0x01]);
        assert_eq!(aml::buffer(&[7; 3]), [0x11, 6, 0x0a, 3, 7, 7, 7]);
        let long = aml::buffer(&[0; 100]);
        assert_eq!((long.len(), &long[..3]), (1 + 2 + 2 + 100, &[0x11, 0x40 | (104 & 0xf), 104 >> 4][..]));
    }
}
