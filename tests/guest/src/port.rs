//! Port input and output, and the way out.

use core::arch::asm;

/// Writes a byte.
pub fn write8(port: u16, value: u8) {
    // SAFETY: an `out` touches no memory; which ports exist is the machine's business, writes elsewhere are ignored.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

/// Reads a byte.
pub fn read8(port: u16) -> u8 {
    let value: u8;
    // SAFETY: as above.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes a word.
pub fn write32(port: u16, value: u32) {
    // SAFETY: as above.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags)) };
}

/// Reads a word.
pub fn read32(port: u16) -> u32 {
    let value: u32;
    // SAFETY: as above.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Ends the machine: 0 power off, 1 reset, else a failure.
pub fn exit(code: u8) -> ! {
    write8(0xf4, code);
    // QEMU's isa-debug-exit is there too; on any other machine, stay.
    crate::start::halt_for_good()
}
