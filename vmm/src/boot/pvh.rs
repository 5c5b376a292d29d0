//! The PVH start info: what a kernel entered through its Xen note finds behind EBX.

use super::{BOOT_INFO, BootError, CMDLINE, Initramfs, usable};
use crate::memory::Memory;
use linux_loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::{ByteValued, Bytes, GuestAddress};

const MAGIC: u32 = 0x336e_c578;
const RAM: u32 = 1;
const MODULES: u64 = BOOT_INFO + 0x100;
const MEMORY_MAP: u64 = BOOT_INFO + 0x200;

#[derive(Clone, Copy, Default)]
#[repr(transparent)]
struct Plain<T>(T);
// SAFETY: each is a C structure of integers without padding (the crate asserts their sizes), so any bytes are a value.
unsafe impl ByteValued for Plain<hvm_start_info> {}
// SAFETY: as above.
unsafe impl ByteValued for Plain<hvm_modlist_entry> {}
// SAFETY: as above.
unsafe impl ByteValued for Plain<hvm_memmap_table_entry> {}

/// Writes start info, module list and memory map.
pub fn write_start_info(memory: &Memory, initramfs: Option<Initramfs>) -> Result<(), BootError> {
    let map = usable(memory);
    let info = hvm_start_info {
        magic: MAGIC,
        version: 1,
        nr_modules: u32::from(initramfs.is_some()),
        modlist_paddr: MODULES,
        cmdline_paddr: CMDLINE,
        rsdp_paddr: super::acpi::RSDP,
        memmap_paddr: MEMORY_MAP,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    memory.write_obj(Plain(info), GuestAddress(BOOT_INFO))?;
    if let Some(initramfs) = initramfs {
        let module = hvm_modlist_entry { paddr: initramfs.address, size: initramfs.size, ..Default::default() };
        memory.write_obj(Plain(module), GuestAddress(MODULES))?;
    }
    for (n, (addr, size)) in (0u64..).zip(map) {
        let entry = hvm_memmap_table_entry { addr, size, type_: RAM, reserved: 0 };
        memory.write_obj(Plain(entry), GuestAddress(MEMORY_MAP + n * 24))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_info_names_memory_and_module() {
        let memory = crate::memory::map(32 << 20, false).unwrap();
        write_start_info(&memory, Some(Initramfs { address: 0x100_0000, size: 5 })).unwrap();
        let info: Plain<hvm_start_info> = memory.read_obj(GuestAddress(BOOT_INFO)).unwrap();
        assert_eq!((info.0.magic, info.0.nr_modules, info.0.memmap_entries), (MAGIC, 1, 2));
        let high: Plain<hvm_memmap_table_entry> = memory.read_obj(GuestAddress(MEMORY_MAP + 24)).unwrap();
        assert_eq!((high.0.addr, high.0.size), (1 << 20, 31 << 20));
        let module: Plain<hvm_modlist_entry> = memory.read_obj(GuestAddress(info.0.modlist_paddr)).unwrap();
        assert_eq!((module.0.paddr, module.0.size), (0x100_0000, 5));
    }
}
