//! The Linux 64-bit boot protocol: zero page and identity page tables.

use super::{BOOT_INFO, BootError, CMDLINE, Initramfs, PAGE_TABLES, usable};
use crate::memory::Memory;
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::{ByteValued, Bytes, GuestAddress};

const E820_RAM: u32 = 1;
const LOADER_UNDEFINED: u8 = 0xff;
const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = 0x5372_6448;

#[derive(Clone, Copy, Default)]
#[repr(transparent)]
struct ZeroPage(boot_params);
// SAFETY: a packed C structure of integers; any bytes are a value and there is no padding to leak.
unsafe impl ByteValued for ZeroPage {}

/// Writes the zero page. ELF kernels have no header of their own and get the least one that Linux accepts.
pub fn write_zero_page(
    memory: &Memory,
    header: Option<setup_header>,
    initramfs: Option<Initramfs>,
    cmdline_bytes: u32,
) -> Result<(), BootError> {
    let mut page = ZeroPage::default();
    let least = setup_header {
        boot_flag: BOOT_FLAG,
        header: HEADER_MAGIC,
        kernel_alignment: 0x0100_0000,
        ..Default::default()
    };
    let mut header = header.unwrap_or(least);
    header.type_of_loader = LOADER_UNDEFINED;
    header.cmd_line_ptr = CMDLINE as u32;
    header.cmdline_size = cmdline_bytes;
    if let Some(initramfs) = initramfs {
        // Both fit: the initramfs was placed below 4 GiB.
        header.ramdisk_image = initramfs.address as u32;
        header.ramdisk_size = initramfs.size as u32;
    }
    page.0.hdr = header;
    page.0.acpi_rsdp_addr = super::acpi::RSDP;
    let map = usable(memory);
    page.0.e820_entries = map.len() as u8;
    let mut table = page.0.e820_table;
    for (entry, (addr, size)) in table.iter_mut().zip(map) {
        *entry = boot_e820_entry { addr, size, r#type: E820_RAM };
    }
    page.0.e820_table = table;
    memory.write_obj(page, GuestAddress(BOOT_INFO))?;
    Ok(())
}

/// Maps the first GiB one to one with 2 MiB pages.
pub fn write_page_tables(memory: &Memory) -> Result<(), BootError> {
    const PRESENT_WRITABLE: u64 = 0x03;
    const LARGE: u64 = 0x80;
    memory.write_obj((PAGE_TABLES + 0x1000) | PRESENT_WRITABLE, GuestAddress(PAGE_TABLES))?;
    memory.write_obj((PAGE_TABLES + 0x2000) | PRESENT_WRITABLE, GuestAddress(PAGE_TABLES + 0x1000))?;
    for n in 0..512u64 {
        let at = GuestAddress(PAGE_TABLES + 0x2000 + n * 8);
        memory.write_obj((n << 21) | PRESENT_WRITABLE | LARGE, at)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zero_page_names_command_line_memory_and_initramfs() {
        let memory = crate::memory::map(32 << 20, false).unwrap();
        write_zero_page(&memory, None, Some(Initramfs { address: 0x180_0000, size: 77 }), 9).unwrap();
        let page: ZeroPage = memory.read_obj(GuestAddress(BOOT_INFO)).unwrap();
        let (pointer, size, image) = (page.0.hdr.cmd_line_ptr, page.0.hdr.cmdline_size, page.0.hdr.ramdisk_image);
        assert_eq!((pointer, size, image), (CMDLINE as u32, 9, 0x180_0000));
        let table = page.0.e820_table;
        let (addr, bytes) = (table[1].addr, table[1].size);
        assert_eq!((page.0.e820_entries, addr, bytes), (2, 1 << 20, 31 << 20));
    }

    #[test]
    fn page_tables_map_addresses_to_themselves() {
        let memory = crate::memory::map(16 << 20, false).unwrap();
        write_page_tables(&memory).unwrap();
        let last: u64 = memory.read_obj(GuestAddress(PAGE_TABLES + 0x2000 + 511 * 8)).unwrap();
        assert_eq!(last, (511 << 21) | 0x83);
    }
}
