//! Takes processors that come and lets go of those that are to go, by the ports that an operating system leaves to the
//! tables' control methods.

use crate::port::{self, read8, write8};
use crate::{acpi, say, serial, smp};

const SELECT: u16 = 0xcd8;
const STATUS: u16 = 0xcdc;
const COMMAND: u16 = 0xcdd;
const DATA: u16 = 0xce0;
const CAME: u8 = 1 << 1;
const TO_GO: u8 = 1 << 2;
const EJECT: u8 = 1 << 3;

/// Says what came of an event.
fn tell(event: u32, how: u32) {
    for (command, value) in [(1, event), (2, how)] {
        write8(COMMAND, command);
        port::write32(DATA, value);
    }
}

/// Until `q` is typed; `n` has it refuse to let go from then on.
pub fn serve() {
    acpi::listen_for(acpi::PROCESSOR_EVENT);
    say!("waiting for processors");
    let mut refuses = false;
    loop {
        match serial::read() {
            Some(b'q') => return,
            Some(b'n') => {
                refuses = true;
                say!("none goes any more");
            }
            _ => {}
        }
        if !acpi::take(acpi::PROCESSOR_EVENT) {
            continue;
        }
        loop {
            write8(COMMAND, 0);
            let number = port::read32(DATA);
            port::write32(SELECT, number);
            let status = read8(STATUS);
            if status & CAME != 0 {
                write8(STATUS, CAME);
                let runs = smp::wake(number as u8);
                tell(1, u32::from(!runs));
                say!("processor {number} came, runs: {runs}");
            } else if status & TO_GO != 0 {
                write8(STATUS, TO_GO);
                if refuses {
                    tell(3, 0x81);
                    say!("processor {number} stays");
                } else {
                    write8(STATUS, EJECT);
                    say!("processor {number} went");
                }
            } else {
                break;
            }
        }
    }
}
