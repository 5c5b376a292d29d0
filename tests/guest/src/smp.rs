//! Finds the machine's processors in the MP table and wakes each by INIT and SIPI, as an operating system does.

use crate::hal::{read32, write32};
use crate::{clock, say};

const LAPIC: usize = 0xfee0_0000;
const SEARCHED: core::ops::Range<usize> = 0xf_0000..0x10_0000;
/// Where woken processors begin: vector 8, physical 0x8000.
const TRAMPOLINE: usize = 0x8000;
const COUNTER: usize = 0x8ff0;
/// 16-bit: lock inc word [0x8ff0]; cli; hlt; jmp back to hlt.
const CODE: [u8; 9] = [0xf0, 0xff, 0x06, 0xf0, 0x8f, 0xfa, 0xf4, 0xeb, 0xfd];

fn byte(address: usize) -> u8 {
    // SAFETY: addresses come from the MP table, which lies in RAM below 1 MiB, mapped one to one.
    unsafe { (address as *const u8).read_volatile() }
}

fn word16(address: usize) -> u16 {
    u16::from_le_bytes([byte(address), byte(address + 1)])
}

/// APIC ids of all usable processors.
fn processors() -> alloc::vec::Vec<u8> {
    let mut found = alloc::vec::Vec::new();
    let signature = u32::from_le_bytes(*b"_MP_");
    let Some(pointer) = SEARCHED.step_by(16).find(|at| read32(*at) == signature) else { return found };
    let table = read32(pointer + 4) as usize;
    let (length, mut at) = (word16(table + 4) as usize, table + 44);
    let sum = (0..length).fold(0u8, |sum, n| sum.wrapping_add(byte(table + n)));
    if sum != 0 {
        say!("smp bad checksum");
    }
    while at < table + length && byte(at) <= 4 {
        if byte(at) == 0 && byte(at + 3) & 1 != 0 {
            found.push(byte(at + 1));
        }
        at += if byte(at) == 0 { 20 } else { 8 };
    }
    found
}

/// Puts what woken processors do where they begin.
fn prepare() {
    for (n, value) in CODE.iter().enumerate() {
        // SAFETY: conventional memory that nothing else here uses.
        unsafe { ((TRAMPOLINE + n) as *mut u8).write_volatile(*value) };
    }
    write32(COUNTER, 0);
}

/// INIT, then SIPI.
fn call(id: u8) {
    for command in [0x4500, 0x4608] {
        write32(LAPIC + 0x310, u32::from(id) << 24);
        write32(LAPIC + 0x300, command);
    }
}

fn wait_for(count: usize) -> bool {
    let end = clock::now_ms() + 10_000;
    while (word16(COUNTER) as usize) < count && clock::now_ms() < end {
        core::hint::spin_loop();
    }
    word16(COUNTER) as usize >= count
}

/// Wakes the processor with this APIC id. Whether it came.
pub fn wake(id: u8) -> bool {
    prepare();
    call(id);
    wait_for(1)
}

/// Wakes all processors and says how many came.
pub fn wake_all() {
    let ids = processors();
    prepare();
    let own = (read32(LAPIC + 0x20) >> 24) as u8;
    ids.iter().filter(|id| **id != own).for_each(|id| call(*id));
    wait_for(ids.len().saturating_sub(1));
    say!("smp {} of {}", word16(COUNTER) + 1, ids.len());
}
