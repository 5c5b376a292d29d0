//! The ACPI tables as firmware takes them: bytes, and orders (`etc/table-loader`) how to place and link them.
//!
//! ```text
//!   boot::acpi writes the tables at fixed addresses ─► walked from the root pointer on: each address in them becomes
//!   an offset, an order to add to it where its table went, and an order to make the sum right again
//! ```
//! So a firmware hears what a kernel that is started without one would find.

use super::fw_cfg::padded;
use crate::boot::{BootError, Hardware, acpi};
use vm_memory::{Bytes, GuestAddress};

const TABLES: &str = "etc/acpi/tables";
const ROOT: &str = "etc/acpi/rsdp";
const ORDERS: &str = "etc/table-loader";

const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;
const ANYWHERE: u8 = 1;
/// Where kernels search for the root pointer.
const FIRST_MIB: u8 = 2;
const NAME_BYTES: usize = 56;
const ORDER_BYTES: usize = 128;

/// Bytes that the tables may have, where they are written first.
const SCRATCH: u64 = 1 << 20;
const ROOT_BYTES: usize = 36;
const HEAD_BYTES: usize = 36;
/// Places in the root pointer and in the fixed table.
const ROOT_SUM: usize = 8;
const ROOT_TO_LIST: usize = 24;
const ROOT_SUM_WHOLE: usize = 32;
const FIXED_TO_DEVICES: usize = 40;
const FIXED_TO_DEVICES_WIDE: usize = 140;
const TABLE_SUM: usize = 9;

/// Names and contents.
pub fn files(hardware: &Hardware) -> Result<[(&'static str, Vec<u8>); 3], BootError> {
    let memory = crate::memory::map(SCRATCH, false).map_err(|e| BootError::Tables(e.to_string()))?;
    acpi::write(&memory, hardware)?;
    let mut all = vec![0; (SCRATCH - acpi::RSDP) as usize];
    memory.read_slice(&mut all, GuestAddress(acpi::RSDP))?;
    let tables = all.split_off((acpi::TABLES - acpi::RSDP) as usize);
    all.truncate(ROOT_BYTES);
    let mut linker = Linker { tables, end: 0, orders: Vec::new() };
    let root = linker.link(all).ok_or_else(|| BootError::Tables("they lead nowhere".into()))?;
    let Linker { mut tables, end, orders } = linker;
    tables.truncate(end);
    Ok([(TABLES, tables), (ROOT, root), (ORDERS, orders)])
}

/// Makes the address there the offset of what it points to, in the tables.
fn offset(bytes: &mut [u8], at: usize, width: usize) -> Option<usize> {
    let place = bytes.get_mut(at..at + width)?;
    let mut address = [0; 8];
    address[..width].copy_from_slice(place);
    let offset = u64::from_le_bytes(address).checked_sub(acpi::TABLES)?;
    place.copy_from_slice(&offset.to_le_bytes()[..width]);
    usize::try_from(offset).ok()
}

struct Linker {
    /// All tables but the root pointer.
    tables: Vec<u8>,
    /// End of the last table.
    end: usize,
    orders: Vec<u8>,
}

impl Linker {
    fn link(&mut self, mut root: Vec<u8>) -> Option<Vec<u8>> {
        self.allocate(TABLES, 64, ANYWHERE);
        self.allocate(ROOT, 16, FIRST_MIB);
        let list = offset(&mut root, ROOT_TO_LIST, 8)?;
        let (mut at, end) = (list + HEAD_BYTES, list + self.length(list)?);
        while at < end {
            let table = self.pointer(at, 8)?;
            if self.tables.get(table..table + 4)? == b"FACP" {
                let devices = self.pointer(table + FIXED_TO_DEVICES, 4)?;
                self.pointer(table + FIXED_TO_DEVICES_WIDE, 8)?;
                self.sum(devices)?;
            }
            self.sum(table)?;
            at += 8;
        }
        self.sum(list)?;
        self.point(ROOT, ROOT_TO_LIST, 8);
        self.checksum(ROOT, ROOT_SUM, 0, 20);
        self.checksum(ROOT, ROOT_SUM_WHOLE, 0, ROOT_BYTES);
        Some(root)
    }

    /// Length of the table there, which is seen to lie in the tables.
    fn length(&mut self, table: usize) -> Option<usize> {
        let bytes: [u8; 4] = self.tables.get(table + 4..table + 8)?.try_into().ok()?;
        let length = u32::from_le_bytes(bytes) as usize;
        self.end = self.end.max(table + length);
        (length >= HEAD_BYTES && table + length <= self.tables.len()).then_some(length)
    }

    /// The order to make a table's sum right.
    fn sum(&mut self, table: usize) -> Option<()> {
        let length = self.length(table)?;
        self.checksum(TABLES, table + TABLE_SUM, table, length);
        Some(())
    }

    /// Makes an address in the tables an offset, with the order to add their address.
    fn pointer(&mut self, at: usize, width: u8) -> Option<usize> {
        self.point(TABLES, at, width);
        offset(&mut self.tables, at, width.into())
    }

    fn order(&mut self, kind: u32, parts: &[&[u8]]) {
        let end = self.orders.len() + ORDER_BYTES;
        self.orders.extend(kind.to_le_bytes());
        parts.iter().for_each(|part| self.orders.extend_from_slice(part));
        self.orders.resize(end, 0);
    }

    fn allocate(&mut self, file: &str, align: u32, zone: u8) {
        self.order(ALLOCATE, &[&padded::<NAME_BYTES>(file), &align.to_le_bytes(), &[zone]]);
    }

    fn point(&mut self, file: &str, at: usize, width: u8) {
        let (file, to) = (padded::<NAME_BYTES>(file), padded::<NAME_BYTES>(TABLES));
        self.order(ADD_POINTER, &[&file, &to, &(at as u32).to_le_bytes(), &[width]]);
    }

    fn checksum(&mut self, file: &str, at: usize, start: usize, length: usize) {
        let numbers = [at, start, length].map(|number| (number as u32).to_le_bytes());
        self.order(ADD_CHECKSUM, &[&padded::<NAME_BYTES>(file), &numbers.concat()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(bytes: &[u8]) -> usize {
        u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize
    }

    /// What a firmware does with the orders.
    fn execute(files: &[(&'static str, Vec<u8>); 3], bases: [u64; 2]) -> [Vec<u8>; 2] {
        let mut placed = [files[0].1.clone(), files[1].1.clone()];
        let which = |name: &[u8]| usize::from(name.starts_with(ROOT.as_bytes()));
        for order in files[2].1.chunks(ORDER_BYTES) {
            match word(order) as u32 {
                ALLOCATE => {}
                ADD_POINTER => {
                    let (file, at, width) = (which(&order[4..60]), word(&order[116..]), usize::from(order[120]));
                    let mut value = [0; 8];
                    value[..width].copy_from_slice(&placed[file][at..at + width]);
                    let value = u64::from_le_bytes(value) + bases[which(&order[60..116])];
                    placed[file][at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
                }
                ADD_CHECKSUM => {
                    let (file, at) = (which(&order[4..60]), word(&order[60..]));
                    let (start, length) = (word(&order[64..]), word(&order[68..]));
                    let sum = placed[file][start..start + length].iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
                    placed[file][at] = placed[file][at].wrapping_sub(sum);
                }
                other => panic!("order {other}"),
            }
        }
        placed
    }

    #[test]
    fn tables_that_were_moved_and_linked_are_whole() {
        let files = files(&Hardware { vcpus: 2, possible: None, slots: 0, pci: true, domains: Vec::new() }).unwrap();
        assert_eq!(files[2].1.len() % ORDER_BYTES, 0);
        let base = 0x7f0_1000;
        let [tables, root] = execute(&files, [base, 0xf_5000]);
        let sums = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
        assert_eq!((sums(&root[..20]), sums(&root), root.len()), (0, 0, ROOT_BYTES));
        let table = |address: usize| {
            let at = address - base as usize;
            let table = &tables[at..at + word(&tables[at + 4..])];
            assert_eq!(sums(table), 0);
            table
        };
        let list = table(word(&root[ROOT_TO_LIST..]));
        let of_list: Vec<&[u8]> = list[HEAD_BYTES..].chunks(8).map(|entry| table(word(entry))).collect();
        let names: Vec<&[u8]> = of_list.iter().map(|table| &table[..4]).collect();
        assert!(names.contains(&&b"FACP"[..]) && names.contains(&&b"APIC"[..]), "{names:?}");
        let fixed = of_list.iter().find(|table| &table[..4] == b"FACP").unwrap();
        assert_eq!(&table(word(&fixed[FIXED_TO_DEVICES..]))[..4], b"DSDT");
        assert_eq!(word(&fixed[FIXED_TO_DEVICES..]), word(&fixed[FIXED_TO_DEVICES_WIDE..]));
    }
}
