//! The hostile mode: rings full of nonsense, on every device, with every turn a little different.
//!
//! Each turn brings a device up by hand, puts its rings somewhere in one arena of random bytes (the rings may overlap,
//! or lie outside memory), notifies, and resets. The numbers come from a fixed seed: a failure repeats.

use crate::hal::{Found, devices, read32, write32};
use crate::say;

const TURNS: u32 = 60;
const ARENA_BYTES: usize = 32 * 1024;

#[repr(C, align(4096))]
struct Arena([u8; ARENA_BYTES]);

static mut ARENA: Arena = Arena([0; ARENA_BYTES]);

/// xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn arena_start() -> u64 {
    (&raw const ARENA) as u64
}

fn poke<T>(address: u64, value: T) {
    // SAFETY: addresses are computed to lie inside the arena, which belongs to this module alone.
    unsafe { (address as *mut T).write_unaligned(value) };
}

/// Fills a queue-sized part of the arena with descriptors that are half plausible.
fn fill(random: &mut Random) {
    for n in 0..64u64 {
        let at = arena_start() + n * 16;
        let address = match random.below(4) {
            0 => random.next(),
            1 => 0xd000_0000 + random.below(0x3000),
            _ => arena_start() + random.below(ARENA_BYTES as u64),
        };
        let length = if random.below(3) == 0 { random.next() as u32 } else { random.below(2048) as u32 };
        poke(at, address);
        poke(at + 8, length);
        poke(at + 12, random.below(8) as u16);
        poke(at + 14, random.below(70) as u16);
    }
    for n in 0..64u64 {
        poke(arena_start() + 0x2004 + n * 2, random.below(80) as u16);
    }
    let index = if random.below(4) == 0 { random.next() } else { random.below(65) };
    poke(arena_start() + 0x2000, random.below(2) as u16);
    poke(arena_start() + 0x2002, index as u16);
}

fn turn(device: Found, random: &mut Random) -> bool {
    let register = |offset: usize, value: u32| write32(device.address + offset, value);
    register(0x70, 0);
    register(0x70, 1);
    register(0x70, 3);
    register(0x24, 1);
    register(0x20, 1);
    register(0x24, 0);
    register(0x20, if random.below(2) == 0 { 0 } else { 1 << 28 | 1 << 29 });
    register(0x70, 11);
    for queue in 0..4 {
        register(0x30, queue);
        if read32(device.address + 0x34) == 0 {
            continue;
        }
        fill(random);
        register(0x38, if random.below(8) == 0 { random.next() as u32 } else { 64 });
        for (offset, place) in [(0x80, 0u64), (0x90, 0x2000), (0xa0, 0x3000)] {
            let place = match random.below(12) {
                0 => random.next(),
                1 => arena_start(),
                _ => arena_start() + place,
            };
            register(offset, place as u32);
            register(offset + 4, if random.below(40) == 0 { random.next() as u32 } else { 0 });
        }
        register(0x44, 1);
    }
    register(0x70, 15);
    for _ in 0..3 {
        register(0x50, random.below(4) as u32);
        register((random.below(0x40) * 4) as usize, random.next() as u32);
    }
    let needs_reset = read32(device.address + 0x70) & 64 != 0;
    register(0x70, 0);
    needs_reset
}

/// Attacks every device, then leaves them reset.
pub fn run() {
    let mut random = Random(0x5eed_0123_4567_89ab);
    let mut broken = 0u32;
    for _ in 0..TURNS {
        for device in devices() {
            broken += u32::from(turn(device, &mut random));
        }
    }
    say!("garbage done, {broken} devices asked for a reset");
}
