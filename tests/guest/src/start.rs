//! The first instructions (PVH: 32-bit, no paging, start info in EBX), page tables, and the ways to stop.

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
    // One PML4 entry, four PDPT entries, 2048 large pages: 4 GiB one to one.
    "mov edi, offset page_tables",
    "lea eax, [edi + 0x1003]",
    "mov [edi], eax",
    "xor ecx, ecx",
    "2:",
    "mov eax, ecx",
    "shl eax, 12",
    "lea eax, [eax + edi + 0x2003]",
    "mov [edi + ecx * 8 + 0x1000], eax",
    "inc ecx",
    "cmp ecx, 4",
    "jb 2b",
    "xor ecx, ecx",
    "3:",
    "mov eax, ecx",
    "shl eax, 21",
    "or eax, 0x83",
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
    "call {main}",
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
    main = sym crate::main,
);

/// Longest command line that is read.
const LINE_BYTES_MAX: usize = 4096;

/// Reads a value that the machine left in memory.
fn peek<T: Copy>(address: u64) -> T {
    // SAFETY: the start info and what it points to lie in RAM that is mapped one to one, and nothing writes there.
    unsafe { (address as *const T).read_unaligned() }
}

/// The command line that the PVH start info points to.
pub fn command_line(start_info: u64) -> String {
    let mut line = String::new();
    if peek::<u32>(start_info) != 0x336e_c578 {
        return line;
    }
    let address: u64 = peek(start_info + 24);
    for offset in 0..LINE_BYTES_MAX as u64 {
        let byte: u8 = peek(address + offset);
        if address == 0 || byte == 0 {
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
