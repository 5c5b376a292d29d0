//! The first instructions, page tables, and the ways to stop.
//!
//! There are two entries: `start32` by the PVH note (32-bit, no paging, start info in EBX), and `start_linux64` by the
//! ELF header or 0x200 into a bzImage (64-bit, the first GiB mapped, Linux's zero page in RSI).

use alloc::string::String;
use core::arch::{asm, global_asm};

global_asm!(
    ".pushsection .note.pvh, \"a\", @note",
    ".balign 4",
    ".long 4, 4, 18", // name and descriptor size; XEN_ELFNOTE_PHYS32_ENTRY
    ".asciz \"Xen\"",
    ".long start32",
    ".popsection",
    ".pushsection .text.start, \"ax\"",
    ".code32",
    ".globl start32",
    "start32:",
    "cld",
    "mov esp, offset stack_top",
    "mov dx, 0x3f8", // the first sign of life, for those who wait for it outside
    "mov al, 10",
    "out dx, al",
    // One PML4 entry, four PDPT entries, 2048 large pages: 4 GiB one to one, for programs, too (`user`).
    "mov edi, offset page_tables",
    "lea eax, [edi + 0x1007]",
    "mov [edi], eax",
    "xor ecx, ecx",
    "2:",
    "mov eax, ecx",
    "shl eax, 12",
    "lea eax, [eax + edi + 0x2007]",
    "mov [edi + ecx * 8 + 0x1000], eax",
    "inc ecx",
    "cmp ecx, 4",
    "jb 2b",
    "xor ecx, ecx",
    "3:",
    "mov eax, ecx",
    "shl eax, 21",
    "or eax, 0x87",
    "mov [edi + ecx * 8 + 0x2000], eax",
    "inc ecx",
    "cmp ecx, 2048",
    "jb 3b",
    "mov cr3, edi",
    "mov eax, cr4",
    "or eax, 0x620", // PAE, and SSE state for builds that use it
    "mov cr4, eax",
    "mov ecx, 0xc0000080",
    "rdmsr",
    "or eax, 0x100", // long mode
    "wrmsr",
    "mov eax, cr0",
    "or eax, 0x80000003", // paging, protection, monitor coprocessor
    "and eax, 0xfffffffb", // no emulation
    "mov cr0, eax",
    "lgdt [gdt_pointer]",
    "push 8",
    "mov eax, offset start64",
    "push eax",
    "retf",
    ".code64",
    "start64:",
    "mov ax, 16",
    "mov ds, ax",
    "mov es, ax",
    "mov ss, ax",
    "xor eax, eax",
    "mov fs, ax",
    "mov gs, ax",
    "mov edi, ebx",
    "call {pvh}",
    "ud2",
    ".balign 8",
    "gdt:",
    ".quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff",
    "gdt_pointer:",
    ".word 23",
    ".long gdt",
    ".long 0",
    ".popsection",
    ".pushsection .bss.start, \"aw\", @nobits",
    ".balign 4096",
    "page_tables:",
    ".skip 0x6000",
    "stack:",
    ".skip 0x10000",
    "stack_top:",
    ".popsection",
    ".pushsection .text.linux64, \"ax\"",
    ".globl start_linux64",
    "start_linux64:",
    "lea rsp, [rip + stack_top]",
    "mov rdi, rsi",
    "call {linux}",
    "ud2",
    ".popsection",
    pvh = sym from_pvh,
    linux = sym from_linux64,
);

#[repr(C, align(4096))]
struct Table([u64; 512]);

static mut MORE: Table = Table([0; 512]);

/// Maps one more GiB beyond the first four one to one; there is a table for one such only.
pub fn map_gib(gib: u64) {
    let (tables, more) = ((&raw mut page_tables).cast::<u64>(), (&raw mut MORE).cast::<u64>());
    // SAFETY: the entry is not present, so no address that anything uses changes; the table is used here alone.
    unsafe {
        for n in 0..512usize {
            more.add(n).write((gib << 30) | ((n as u64) << 21) | 0x83);
        }
        tables.add(512 + gib as usize % 512).write(more as u64 | 3);
    }
}

unsafe extern "C" {
    static mut page_tables: [u64; 6 * 512];
}

extern "C" fn from_pvh(start_info: u64) -> ! {
    let known = peek::<u32>(start_info) == 0x336e_c578;
    crate::main("pvh", if known { peek(start_info + 24) } else { 0 })
}

extern "C" fn from_linux64(zero_page: u64) -> ! {
    let tables = (&raw mut page_tables).cast::<u64>();
    // SAFETY: the same tables as `start32` builds, in memory that nothing uses on this way in; the code that runs is
    // mapped at the same place before and after.
    unsafe {
        tables.write(tables as u64 + 0x1007);
        for n in 0..4usize {
            tables.add(512 + n).write(tables as u64 + 0x2007 + (n as u64) * 0x1000);
        }
        for n in 0..2048usize {
            tables.add(1024 + n).write(((n as u64) << 21) | 0x87);
        }
        asm!("mov cr3, {}", in(reg) tables, options(nostack));
    }
    crate::main("linux64", u64::from(peek::<u32>(zero_page + 0x228)))
}

/// Longest command line that is read.
const LINE_BYTES_MAX: usize = 4096;

/// Reads a value that the machine left in memory.
fn peek<T: Copy>(address: u64) -> T {
    // SAFETY: the start info and what it points to lie in RAM that is mapped one to one, and nothing writes there.
    unsafe { (address as *const T).read_unaligned() }
}

/// The command line at this address; none at 0.
pub fn command_line(address: u64) -> String {
    let mut line = String::new();
    for offset in 0..LINE_BYTES_MAX as u64 {
        let byte: u8 = if address == 0 { 0 } else { peek(address + offset) };
        if byte == 0 {
            break;
        }
        line.push(char::from(byte));
    }
    line
}

/// Halts with interrupts off: nothing wakes this processor again.
pub fn halt_for_good() -> ! {
    loop {
        // SAFETY: stops the processor; nothing is touched.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// Raises an exception while there is no interrupt table at all.
pub fn triple_fault() -> ! {
    let none = [0u64; 2];
    // SAFETY: the machine ends here; that is the purpose.
    unsafe { asm!("lidt [{}]", "ud2", in(reg) &raw const none, options(noreturn)) }
}
