//! The table of devices (DSDT): what sits at fixed places, and the control methods by which hardware comes and goes.
//!
//! ```text
//!   event 1 ─► \_GPE._E01 ─► \_SB.PCI0.PCNT ─► Notify(\_SB.PCI0.Snn, 1 came | 3 is to go)
//!                                               guest lets go ─► Snn._EJ0 ─► register of pci::hotplug
//! ```

use super::{Hardware, aml, processors, table};
use crate::device::power;
use crate::pci::hotplug;
use crate::pci::{DEVICES, WINDOW, WINDOW_END};
use crate::virtio::{SLOT_BYTES, SLOT_LINES, SLOTS_START};

/// What `Notify` says: look again; please eject.
pub const CHECK: u8 = 1;
pub const EJECT_REQUEST: u8 = 3;

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
    let (start, end) = (WINDOW as u32, WINDOW_END as u32);
    for word in [start, end - 1, 0, end - start] {
        out.extend(word.to_le_bytes());
    }
    out.extend([0x79, 0]);
    out
}

/// A letter and two digits.
fn numbered(letter: u8, number: usize) -> [u8; 4] {
    [letter, b'0', b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]
}

/// The host bridge, and each place that a function can come to and go from.
fn pci_bridge() -> Vec<u8> {
    let mut terms = vec![
        aml::name(b"_HID", &aml::eisa_id(b"PNP0A03")),
        aml::name(b"_UID", &aml::byte(0)),
        aml::name(b"_BBN", &aml::byte(0)),
        aml::name(b"_CRS", &aml::buffer(&pci_resources())),
        aml::registers(b"PCST", hotplug::FIRST, &[b"PCIU", b"PCID", b"B0EJ", b"RMVC"]),
    ];
    let (mut notices, places) = (Vec::new(), 1..DEVICES);
    for number in places {
        let (name, bit) = (numbered(b'S', number.into()), aml::dword(1 << number));
        let eject = aml::method(b"_EJ0", 1, &[aml::store(&bit, b"B0EJ")]);
        let place =
            [aml::name(b"_SUN", &aml::byte(number)), aml::name(b"_ADR", &aml::dword(u32::from(number) << 16)), eject];
        terms.push(aml::device(&name, &place));
        let notice = aml::notify(&name, &aml::argument(1));
        notices.push(aml::when(&aml::and(&aml::argument(0), &bit), &[notice]));
    }
    terms.push(aml::method(b"DVNT", 2, &notices));
    let tell = |register: &[u8; 4], what| aml::call(b"DVNT", &[register.to_vec(), aml::byte(what)]);
    terms.push(aml::method(b"PCNT", 0, &[tell(b"PCIU", CHECK), tell(b"PCID", EJECT_REQUEST)]));
    aml::device(b"PCI0", &terms)
}

/// What is there whatever the configuration says.
fn fixed(devices: &mut Vec<Vec<u8>>) {
    let com1 = [0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8, 0x22, 0x10, 0, 0x79, 0];
    let keyboard = [0x47, 1, 0x60, 0, 0x60, 0, 1, 1, 0x47, 1, 0x64, 0, 0x64, 0, 1, 1, 0x22, 2, 0, 0x79, 0];
    let clock = [0x47, 1, 0x70, 0, 0x70, 0, 1, 2, 0x79, 0];
    for (name, id, resources) in
        [(b"COM1", b"PNP0501", &com1[..]), (b"KBD_", b"PNP0303", &keyboard[..]), (b"RTC_", b"PNP0B00", &clock[..])]
    {
        let terms = [aml::name(b"_HID", &aml::eisa_id(id)), aml::name(b"_CRS", &aml::buffer(resources))];
        devices.push(aml::device(name, &terms));
    }
    // The name by which kernels know the panic device.
    let crash = [0x47, 1, 5, 5, 5, 5, 1, 1, 0x79, 0];
    let terms = [aml::name(b"_HID", &aml::string("QEMU0001")), aml::name(b"_CRS", &aml::buffer(&crash))];
    devices.push(aml::device(b"PEVT", &terms));
}

/// The whole table.
pub fn dsdt(hardware: &Hardware) -> Vec<u8> {
    let mut devices = Vec::new();
    for slot in 0..hardware.slots {
        let terms = [
            aml::name(b"_HID", &aml::string("LNRO0005")),
            aml::name(b"_UID", &aml::byte(slot as u8)),
            aml::name(b"_CCA", &aml::byte(1)),
            aml::name(b"_CRS", &aml::buffer(&slot_resources(slot))),
        ];
        devices.push(aml::device(&numbered(b'V', slot), &terms));
    }
    fixed(&mut devices);
    let mut events = Vec::new();
    if hardware.pci {
        devices.push(pci_bridge());
        events.push(aml::method(b"_E01", 0, &[aml::path(&[b"_SB_", b"PCI0", b"PCNT"])]));
    }
    if let Some(possible) = hardware.possible {
        devices.push(processors::container(possible, &hardware.domains));
        events.push(processors::event());
    }
    let off = [aml::byte(power::SLEEP_OFF), aml::byte(0), aml::byte(0), aml::byte(0)];
    let mut body = aml::name(b"_S5_", &aml::package(&off));
    body.extend(aml::scope(b"_SB_", &devices));
    body.extend(aml::scope(b"_GPE", &events));
    table(b"DSDT", 2, &body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::numa::Domain;
    use std::process::Command;

    /// Compiled back to source by an independent reader of the language, where there is one.
    #[test]
    fn a_disassembler_reads_what_was_meant() {
        let dir = tempfile::tempdir().unwrap();
        for (slots, pci, possible) in [(0, false, None), (16, false, Some(254)), (0, true, Some(3))] {
            let near = |vcpus: std::ops::Range<u16>| Domain {
                vcpus: vcpus.collect(),
                ranges: Vec::new(),
                hot: None,
                distances: Vec::new(),
            };
            let domains = if pci { vec![near(0..2), near(2..3)] } else { Vec::new() };
            std::fs::write(dir.path().join("dsdt.aml"), dsdt(&Hardware { vcpus: 2, possible, slots, pci, domains }))
                .unwrap();
            let read = Command::new("iasl").args(["-d", "dsdt.aml"]).current_dir(&dir).output();
            let Ok(read) = read else {
                eprintln!("SKIPPED: iasl is missing (package acpica-tools)");
                return;
            };
            let said = String::from_utf8_lossy(&read.stderr).into_owned() + &String::from_utf8_lossy(&read.stdout);
            assert!(read.status.success() && !said.contains("Error"), "{said}");
            let text = std::fs::read_to_string(dir.path().join("dsdt.dsl")).unwrap();
            let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(one_line.matches("Device (V0").count(), slots);
            assert_eq!(one_line.matches("Device (S0").count() + one_line.matches("Device (S3").count() > 0, pci);
            assert_eq!(one_line.matches("_HID, \"ACPI0007\"").count(), usize::from(possible.unwrap_or(0)));
            if pci {
                for line in [
                    "OperationRegion (CPRG, SystemIO, 0x0CD8, 0x0C)",
                    "Field (CPRG, ByteAcc, NoLock, WriteAsZeros) { Offset (0x04), CPST, 8, CCMD, 8 }",
                    "Field (CPRG, DWordAcc, NoLock, WriteAsZeros) { CSEL, 32, Offset (0x08), CDAT, 32 }",
                    "CSEL = Arg0 Local0 = 0x00 If ((CPST & 0x01)) { Local0 = 0x0F }",
                    "While (Local0) { Local0 = 0x00 CCMD = 0x00 If ((CPST & 0x02)) { CTFY (CDAT, 0x01) CPST = 0x02",
                    "If ((CPST & 0x04)) { CTFY (CDAT, 0x03) CPST = 0x04 Local0 = 0x01 }",
                    "If ((Arg0 == 0x02)) { Notify (C002, Arg1) }",
                    "COST (0x02, Arg0, Arg1)",
                    "Name (_UID, 0x02) // _UID: Unique ID Name (_PXM, 0x01)",
                    "\\_SB.CPUS.CSCN ()",
                    "OperationRegion (PCST, SystemIO, 0xAE00, 0x10)",
                    "Field (PCST, DWordAcc, NoLock, WriteAsZeros) { PCIU, 32, PCID, 32, B0EJ, 32, RMVC, 32 }",
                    "Method (_EJ0, 1, Serialized) // _EJx: Eject Device, x=0-9 { B0EJ = 0x80000000 }",
                    "If ((Arg0 & 0x00000004)) { Notify (S002, Arg1) }",
                    "DVNT (PCIU, 0x01) DVNT (PCID, 0x03)",
                    "\\_SB.PCI0.PCNT ()",
                ] {
                    assert!(one_line.contains(line), "{line:?} is not in:\n{text}");
                }
            }
        }
    }
}
