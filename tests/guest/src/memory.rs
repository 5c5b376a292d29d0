//! Takes and gives back memory as the memory device asks (virtio-mem), on a slot, with registers and a ring by hand; and
//! looks whether each block holds what was put there, and the others nothing.

use crate::hal::{devices, read32, write32};
use crate::{say, serial, start};

const KIND: u32 = 24;
const SIZE: u16 = 8;
const CONFIG: usize = 0x100;
const NEXT: u16 = 1;
const WRITE: u16 = 2;

const PLUG: u16 = 0;
const UNPLUG: u16 = 1;
const STATE: u16 = 3;

/// Descriptors, available ring at 0x400, used ring at 0x800, request at 0xc00, answer at 0xc40.
#[repr(C, align(4096))]
struct Page([u8; 4096]);

static mut PAGE: Page = Page([0; 4096]);

fn page(offset: u64) -> u64 {
    (&raw const PAGE) as u64 + offset
}

fn poke<T>(address: u64, value: T) {
    // SAFETY: the page above, or a block of the area that is plugged and mapped.
    unsafe { (address as *mut T).write_volatile(value) };
}

fn peek<T>(address: u64) -> T {
    // SAFETY: as above; where nothing is plugged the bus answers.
    unsafe { (address as *const T).read_volatile() }
}

struct Device {
    registers: usize,
    asked: u16,
    block: u64,
    area: u64,
}

impl Device {
    fn find() -> Option<Device> {
        let registers = devices().iter().find(|device| device.kind == KIND)?.address;
        let register = |offset: usize, value: u32| write32(registers + offset, value);
        for status in [0, 1, 3] {
            register(0x70, status);
        }
        // Version 1, and that what is not plugged is left alone.
        for (half, bits) in [(1, 1), (0, 2)] {
            register(0x24, half);
            register(0x20, bits);
        }
        register(0x70, 11);
        register(0x30, 0);
        register(0x38, SIZE.into());
        for (offset, place) in [(0x80, 0), (0x90, 0x400), (0xa0, 0x800)] {
            register(offset, page(place) as u32);
            register(offset + 4, 0);
        }
        register(0x44, 1);
        register(0x70, 15);
        let mut device = Device { registers, asked: 0, block: 0, area: 0 };
        (device.block, device.area) = (device.value(0), device.value(16));
        Some(device)
    }

    /// Of configuration space.
    fn value(&self, offset: usize) -> u64 {
        let word = |offset: usize| u64::from(read32(self.registers + CONFIG + offset));
        word(offset) | word(offset + 4) << 32
    }

    /// Code and state of the answer.
    fn ask(&mut self, kind: u16, block: u64, count: u16) -> (u16, u16) {
        poke(page(0xc00), u64::from(kind));
        poke(page(0xc08), self.at(block));
        poke(page(0xc10), u64::from(count));
        for (n, offset, length, flags) in [(0, 0xc00, 24u32, NEXT), (1, 0xc40, 10, WRITE)] {
            poke(page(n * 16), page(offset));
            poke(page(n * 16 + 8), length);
            poke(page(n * 16 + 12), u32::from(flags) | 1 << 16);
        }
        poke(page(0x404 + u64::from(self.asked % SIZE) * 2), 0u16);
        self.asked = self.asked.wrapping_add(1);
        poke(page(0x402), self.asked);
        write32(self.registers + 0x50, 0);
        while peek::<u16>(page(0x802)) != self.asked {
            core::hint::spin_loop();
        }
        (peek(page(0xc40)), peek(page(0xc48)))
    }

    fn at(&self, block: u64) -> u64 {
        self.area + block * self.block
    }

    fn holds(&self, block: u64) -> bool {
        let at = self.at(block);
        peek::<u64>(at) == block + 1 && peek::<u64>(at + self.block - 8) == !block
    }

    fn fill(&self, block: u64) {
        poke(self.at(block), block + 1);
        poke(self.at(block) + self.block - 8, !block);
    }
}

/// Until `q` is typed; `v` has it look at all that it has.
pub fn serve() {
    let Some(mut device) = Device::find() else {
        say!("memory none");
        return;
    };
    start::map_gib(device.area >> 30);
    say!("memory of {:#x} in blocks of {:#x} at {:#x}", device.value(24), device.block, device.area);
    let mut have = device.value(40) / device.block;
    loop {
        match serial::read() {
            Some(b'q') => return,
            Some(b'v') => {
                let all = (0..have).filter(|block| device.holds(*block)).count();
                let state = device.ask(STATE, 0, have.max(1) as u16);
                let beyond = peek::<u64>(device.at(have));
                say!("memory holds {all} of {have} blocks, state {state:?}, beyond {beyond:#x}");
            }
            _ => {}
        }
        let wanted = device.value(48) / device.block;
        if have < wanted {
            let before = peek::<u64>(device.at(have));
            let answer = device.ask(PLUG, have, 1);
            let empty = peek::<u64>(device.at(have));
            device.fill(have);
            have += 1;
            say!("memory plugged {have}: {answer:?}, {before:#x} became {empty:#x}");
        } else if have > wanted {
            have -= 1;
            let held = device.holds(have);
            let answer = device.ask(UNPLUG, have, 1);
            let after = peek::<u64>(device.at(have));
            say!("memory unplugged, {have} left: {answer:?}, held: {held}, reads {after:#x}");
        }
    }
}
