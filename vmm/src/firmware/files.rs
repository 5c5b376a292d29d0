//! What fw_cfg says of a machine. Names, numbers and layouts are those of QEMU, which SeaBIOS was written for.

use super::fw_cfg::Items;
use super::loader;
use crate::boot::{BootError, Hardware};
use std::collections::BTreeMap;

const ITEM_PROCESSORS: u16 = 5;
const ITEM_PROCESSORS_MAX: u16 = 0x0f;

/// Kinds of memory.
const RAM: u32 = 1;
const RESERVED: u32 = 2;
/// The pages below the image that KVM needs for itself.
const KVM_PAGES: (u64, u64) = (0xfffb_c000, 0x4000);
/// Where the firmware's own text goes, and keys come from: COM1.
const CONSOLE_PORT: u16 = crate::device::serial::FIRST;

/// All of it. `ram`: (start, bytes); disks are the first devices on the bus.
pub fn items(hardware: &Hardware, ram: &[(u64, u64)], disks: usize) -> Result<Items, BootError> {
    let processors = hardware.vcpus.to_le_bytes().to_vec();
    let numbered = BTreeMap::from([(ITEM_PROCESSORS, processors.clone()), (ITEM_PROCESSORS_MAX, processors)]);
    let mut files = BTreeMap::from([
        ("bootorder", boot_order(disks)),
        ("etc/boot-fail-wait", u32::MAX.to_le_bytes().to_vec()),
        ("etc/e820", memory_map(ram)),
        ("etc/sercon-port", CONSOLE_PORT.to_le_bytes().to_vec()),
    ]);
    files.extend(loader::files(hardware)?);
    Ok(Items { numbered, files })
}

fn memory_map(ram: &[(u64, u64)]) -> Vec<u8> {
    let ranges = ram.iter().map(|range| (*range, RAM)).chain([(KVM_PAGES, RESERVED)]);
    let mut out = Vec::new();
    for ((start, bytes), kind) in ranges {
        out.extend(start.to_le_bytes());
        out.extend(bytes.to_le_bytes());
        out.extend(kind.to_le_bytes());
    }
    out
}

/// The disks, in their order; then whatever comes later, as the firmware likes.
fn boot_order(disks: usize) -> Vec<u8> {
    let lines = (1..=disks).map(|number| format!("/pci@i0cf8/scsi@{number:x}/disk@0,0"));
    let mut out = lines.collect::<Vec<_>>().join("\n").into_bytes();
    out.push(0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_above_the_hole_is_told_of_and_disks_keep_their_order() {
        let hardware = Hardware { vcpus: 3, possible: None, slots: 0, pci: true, domains: Vec::new() };
        let items = items(&hardware, &[(0, 3 << 30), (4 << 30, 1 << 30)], 2).unwrap();
        let map = &items.files["etc/e820"];
        assert_eq!((map.len(), &map[20..28], map[36]), (60, &(4u64 << 30).to_le_bytes()[..], 1));
        assert_eq!((&map[40..48], map[56]), (&0xfffb_c000u64.to_le_bytes()[..], 2));
        assert_eq!(items.numbered[&ITEM_PROCESSORS], [3, 0]);
        assert_eq!(items.files["bootorder"], b"/pci@i0cf8/scsi@1/disk@0,0\n/pci@i0cf8/scsi@2/disk@0,0\0");
    }
}
