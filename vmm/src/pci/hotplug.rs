//! The hot-plug controller of the bus: how a guest with ACPI learns which functions came and which are to go, and says that
//! it has let go of one.
//!
//! | port | what (32 bits, one a device number) |
//! | --- | --- |
//! | 0xae00 | came; reading forgets |
//! | 0xae04 | is to go; reading forgets |
//! | 0xae08 | written: let go of (`_EJ0`); read: nothing |
//! | 0xae0c | can go |
//!
//! The block is that of QEMU's "ACPI PCI hot-plug interface" (its `docs/specs/acpi_pci_hotplug`), for the one bus there
//! is. Guests reach it through the control methods of `boot::acpi::dsdt` only, after the general purpose event that
//! `device::events` names. A function that the guest has let go of is off the bus at once and for the guest's good; what is
//! behind it stays until the monitor is asked to remove it, or until the next start puts it back.

use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::EventFd;

/// First port.
pub const FIRST: u16 = 0xae00;
/// Last port.
pub const LAST: u16 = FIRST + BYTES - 1;
/// Ports of the block.
pub const BYTES: u16 = 16;
const UP: u16 = 0;
const DOWN: u16 = 4;
const EJECT: u16 = 8;
const REMOVABLE: u16 = 12;

/// The registers, as a snapshot keeps them: a bit a device number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HotplugState {
    up: u32,
    down: u32,
    ejected: u32,
}

/// The controller.
#[derive(Debug)]
pub struct Hotplug {
    state: HotplugState,
    /// Becomes readable when the guest has let go of something.
    pub let_go: EventFd,
}

fn bit(number: u8) -> u32 {
    1u32.checked_shl(number.into()).unwrap_or(0)
}

impl Hotplug {
    /// After power-on.
    pub fn new(let_go: EventFd) -> Hotplug {
        Hotplug { state: HotplugState::default(), let_go }
    }

    /// A function is there.
    pub fn came(&mut self, number: u8) {
        self.state.up |= bit(number);
        self.gone(number);
    }

    /// A function is to go.
    pub fn ask(&mut self, number: u8) {
        self.state.down |= bit(number);
    }

    /// Whether the guest has let go of the function.
    pub fn has_let_go(&self, number: u8) -> bool {
        self.state.ejected & bit(number) != 0
    }

    /// The number is free again.
    pub fn gone(&mut self, number: u8) {
        self.state.ejected &= !bit(number);
        self.state.down &= !bit(number);
    }

    /// Reads a register. Accesses that are no whole register read as zeroes.
    pub fn read(&mut self, port: u16, data: &mut [u8]) {
        data.fill(0);
        let value = match port - FIRST {
            UP => std::mem::take(&mut self.state.up),
            DOWN => std::mem::take(&mut self.state.down),
            REMOVABLE => !1,
            _ => 0,
        };
        if data.len() == 4 {
            data.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Writes a register: the device numbers that the guest lets go of.
    pub fn write(&mut self, port: u16, data: &[u8]) -> impl Iterator<Item = u8> + use<> {
        let value = match <[u8; 4]>::try_from(data) {
            Ok(word) if port == FIRST + EJECT => u32::from_le_bytes(word) & !1,
            _ => 0,
        };
        self.state.ejected |= value;
        (0..32).filter(move |number| value & bit(*number) != 0)
    }

    /// Writes the registers down.
    pub fn save(&self) -> HotplugState {
        self.state
    }

    /// Takes them up; the device numbers that the guest has let go of.
    pub fn restore(&mut self, state: HotplugState) -> impl Iterator<Item = u8> + use<> {
        self.state = state;
        (0..32).filter(move |number| state.ejected & bit(*number) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hotplug() -> Hotplug {
        Hotplug::new(EventFd::new(libc::EFD_NONBLOCK).unwrap())
    }

    fn read(hotplug: &mut Hotplug, at: u16) -> u32 {
        let mut word = [9; 4];
        hotplug.read(FIRST + at, &mut word);
        u32::from_le_bytes(word)
    }

    #[test]
    fn what_came_and_what_is_to_go_is_told_once() {
        let mut hotplug = hotplug();
        hotplug.came(3);
        hotplug.ask(5);
        assert_eq!([UP, UP, DOWN, DOWN].map(|at| read(&mut hotplug, at)), [1 << 3, 0, 1 << 5, 0]);
        assert_eq!((read(&mut hotplug, EJECT), read(&mut hotplug, REMOVABLE)), (0, !1));
        hotplug.came(200);
        assert_eq!(read(&mut hotplug, UP), 0);
    }

    #[test]
    fn the_bridge_cannot_go_and_a_number_is_free_again_when_its_function_is_gone() {
        let mut hotplug = hotplug();
        assert_eq!(hotplug.write(FIRST + EJECT, &u32::MAX.to_le_bytes()).count(), 31);
        assert!(hotplug.has_let_go(31) && !hotplug.has_let_go(0));
        let saved = hotplug.save();
        assert_eq!(self::hotplug().restore(saved).next(), Some(1));
        hotplug.gone(31);
        assert!(!hotplug.has_let_go(31));
        for port in FIRST..=LAST {
            assert_eq!(hotplug.write(port, &[0xff; 3]).count(), 0);
            hotplug.read(port, &mut [0; 8]);
        }
    }
}
