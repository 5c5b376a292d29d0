//! Waiting without burning the host: interrupts of the PIC wake a `hlt`, a 50 Hz timer makes sure of it.
//!
//! Interrupts are on only during that `hlt`, so no other code ever runs concurrently with a handler.

use crate::port::{read8, write8};
use crate::serial;
use core::arch::{asm, global_asm};

global_asm!(
    "interrupt_any:",
    "push rax",
    "mov al, 0x20",
    "out 0xa0, al",
    "out 0x20, al",
    "pop rax",
    "iretq",
    ".pushsection .data.idt, \"aw\"",
    ".balign 16",
    ".globl idt",
    "idt:",
    ".skip 0x30 * 16",
    ".popsection",
);

unsafe extern "C" {
    static interrupt_any: u8;
    static mut idt: [u64; 0x60];
}

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

/// Sets up interrupt table, PIC, timer, and interrupts of serial line and keyboard.
pub fn init() {
    // SAFETY: the symbol is code; only its address is taken.
    let handler = (&raw const interrupt_any) as u64;
    let table = (&raw mut idt).cast::<u64>();
    for vector in 0x20..0x30usize {
        let low = (handler & 0xffff) | 8 << 16 | 0x8e << 40 | ((handler >> 16) & 0xffff) << 48;
        // SAFETY: the table has 0x30 entries of two words and nothing else uses it.
        unsafe {
            table.add(vector * 2).write(low);
            table.add(vector * 2 + 1).write(handler >> 32);
        }
    }
    let pointer = Pointer { limit: 0x30 * 16 - 1, base: table as u64 };
    // SAFETY: the table lives for ever.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack)) };
    // Both PICs: vectors 0x20 and 0x28, cascade on line 2, everything unmasked.
    for (port, value) in [(0x20, 0x11), (0xa0, 0x11), (0x21, 0x20), (0xa1, 0x28), (0x21, 4), (0xa1, 2)] {
        write8(port, value);
    }
    for (port, value) in [(0x21, 1), (0xa1, 1), (0x21, 0), (0xa1, 0)] {
        write8(port, value);
    }
    // Timer channel 0, rate generator, 1193182 Hz / 23864.
    for (port, value) in [(0x43, 0x34), (0x40, 0x38), (0x40, 0x5d)] {
        write8(port, value);
    }
    serial::enable_interrupt();
    write8(0x64, 0x60);
    write8(0x60, 0x01);
}

/// Sleeps until the next interrupt.
pub fn wait() {
    // SAFETY: the handler saves what it uses; no red zone is live here.
    unsafe { asm!("sti", "hlt", "cli", options(nomem)) };
}

/// Looks at serial line and keyboard.
pub fn asked_to_end() -> bool {
    let mut end = crate::acpi::pressed();
    while let Some(byte) = serial::read() {
        match byte {
            b'q' => end = true,
            other => crate::say!("typed {:?}", char::from(other)),
        }
    }
    while read8(0x64) & 1 != 0 {
        if read8(0x60) == 0x53 {
            crate::say!("ctrl-alt-del");
            end = true;
        }
    }
    end
}
