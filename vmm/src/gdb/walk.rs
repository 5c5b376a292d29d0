//! From a guest's virtual address to where it is in guest memory, by the guest's own page tables. Pure but for `read`.
//!
//! KVM can be asked the same, but not every KVM answers while a processor stands in the kernel's address space. The tables
//! are a guest's: whatever they say leads to an address that is looked up in guest memory, or to nothing.
use kvm_bindings::kvm_sregs;

const CR0_PAGING: u64 = 1 << 31;
const CR4_LONG_TABLES: u64 = 1 << 12;
const EFER_LONG: u64 = 1 << 10;
const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
/// Bits 12 to 51.
const FRAME: u64 = 0x000f_ffff_ffff_f000;
/// Of 32-bit code nobody needs more than what is before paging.
const LOW: u64 = 0xffff_ffff;

/// Where `address` is, and how many bytes follow it there; none where the guest has nothing.
pub fn find(special: &kvm_sregs, address: u64, read: &dyn Fn(u64) -> Option<u64>) -> Option<(u64, u64)> {
    if special.cr0 & CR0_PAGING == 0 {
        return Some((address & LOW, 0x1000 - (address & 0xfff)));
    }
    if special.efer & EFER_LONG == 0 {
        return None;
    }
    let levels = if special.cr4 & CR4_LONG_TABLES == 0 { 4 } else { 5 };
    let unused = 64 - (12 + 9 * levels);
    // Canonical: the unused bits repeat the last used one.
    if ((address << unused) as i64 >> unused) as u64 != address {
        return None;
    }
    let mut table = special.cr3 & FRAME;
    for level in (0..levels).rev() {
        let shift = 12 + 9 * level;
        let entry = read(table + (address >> shift & 0x1ff) * 8)?;
        if entry & PRESENT == 0 {
            return None;
        }
        if level == 0 || level < 3 && entry & LARGE != 0 {
            let offset = address & ((1 << shift) - 1);
            return Some((entry & FRAME & !((1 << shift) - 1) | offset, (1 << shift) - offset));
        }
        table = entry & FRAME;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn long(cr4: u64) -> kvm_sregs {
        kvm_sregs { cr0: CR0_PAGING, cr3: 0x1000, cr4, efer: EFER_LONG, ..Default::default() }
    }

    #[test]
    fn pages_of_every_size_are_found() {
        let kernel = 0xffff_ffff_8123_4567;
        let tables = BTreeMap::from([
            (0x1000 + 511 * 8, 0x2001),
            (0x2000 + 510 * 8, 0x3001),
            (0x3000 + 9 * 8, 0x4001 | 1 << 63),
            (0x4000 + 0x34 * 8, 0x7_7001),
            (0x1000, 0x5001),
            (0x5000 + 8, 0x4000_0081),
            (0x5000, 0x6001),
            (0x6000 + 8, 0x20_0081),
        ]);
        let read = |at: u64| tables.get(&at).copied();
        let found = |address| find(&long(0), address, &read);
        assert_eq!(found(kernel), Some((0x7_7567, 0x1000 - 0x567)));
        assert_eq!(found(0x4000_1234), Some((0x4000_1234, (1 << 30) - 0x1234)), "1 GiB");
        assert_eq!(found(0x20_0010), Some((0x20_0010, (2 << 20) - 0x10)), "2 MiB");
        for nowhere in [0x40_0000, 0x8000_0000_0000, 0xffff_ffff_8123_5000, 1 << 63] {
            assert_eq!(found(nowhere), None, "{nowhere:#x}");
        }
        let five = |at: u64| if at == 0x1000 { Some(0x8001) } else { (at == 0x8000).then_some(0x5001) };
        let both = |at: u64| five(at).or_else(|| tables.get(&at).copied().filter(|_| at >= 0x5000));
        assert_eq!(find(&long(CR4_LONG_TABLES), 0x20_0010, &both), Some((0x20_0010, (2 << 20) - 0x10)));
    }

    #[test]
    fn tables_that_lead_to_themselves_end() {
        let read = |_: u64| Some(0x1001);
        assert_eq!(find(&long(0), 0, &read), Some((0x1000, 0x1000)));
        assert_eq!(find(&kvm_sregs { cr0: 0, ..long(0) }, 0x1_0000_1234, &read), Some((0x1234, 0xdcc)));
        assert_eq!(find(&kvm_sregs { efer: 0, ..long(0) }, 0, &read), None);
    }
}
