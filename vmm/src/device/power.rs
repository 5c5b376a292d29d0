//! ACPI's fixed hardware, as much of it as power needs: the power button, and sleep state S5, which is power off.
//!
//! A guest whose kernel never enabled the button cannot hear it; pressing is then refused.

use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::EventFd;

/// Status and enable registers, two bytes each.
pub const EVENT: u16 = 0x600;
/// Control register, two bytes.
pub const CONTROL: u16 = 0x604;
/// Last port.
pub const LAST: u16 = 0x605;
/// Interrupt line (the system control interrupt).
pub const LINE: u32 = 9;
/// Sleep type that `\_S5` names.
pub const SLEEP_OFF: u8 = 5;

const BUTTON: u16 = 1 << 8;
const SCI_ENABLED: u16 = 1;
const SLEEP_ENABLE: u16 = 1 << 13;
const SLEEP_TYPE_SHIFT: u16 = 10;

/// The registers in a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PowerState {
    status: u16,
    enable: u16,
    control: u16,
}

/// The registers.
#[derive(Debug)]
pub struct Power {
    interrupt: EventFd,
    status: u16,
    enable: u16,
    control: u16,
}

impl Power {
    /// After power-on, already in ACPI mode.
    pub fn new(interrupt: EventFd) -> Power {
        Power { interrupt, status: 0, enable: 0, control: SCI_ENABLED }
    }

    /// Presses the button. False when the guest does not listen.
    pub fn press(&mut self) -> bool {
        let listening = self.enable & BUTTON != 0;
        if listening {
            self.status |= BUTTON;
            self.raise();
        }
        listening
    }

    /// Writes the registers down.
    pub fn save(&self) -> PowerState {
        PowerState { status: self.status, enable: self.enable, control: self.control }
    }

    /// Takes them up.
    pub fn restore(&mut self, state: &PowerState) {
        (self.status, self.enable) = (state.status, state.enable);
        self.control = (state.control | SCI_ENABLED) & !SLEEP_ENABLE;
    }

    fn raise(&self) {
        if self.status & self.enable != 0 {
            let _ = self.interrupt.write(1);
        }
    }

    fn bytes(&self) -> [u8; 6] {
        let mut out = [0; 6];
        for (n, value) in [self.status, self.enable, self.control].iter().enumerate() {
            out[n * 2..n * 2 + 2].copy_from_slice(&value.to_le_bytes());
        }
        out
    }

    /// Reads from a port of the block on.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        let bytes = self.bytes();
        for (to, from) in data.iter_mut().zip(bytes.iter().skip(usize::from(port - EVENT))) {
            *to = *from;
        }
    }

    /// Writes from a port of the block on. True: power off.
    pub fn write(&mut self, port: u16, data: &[u8]) -> bool {
        let mut off = false;
        for (port, byte) in (port..=LAST).zip(data) {
            let shift = 8 * (port & 1);
            let (value, mask) = (u16::from(*byte) << shift, 0xff << shift);
            match (port - EVENT) / 2 {
                0 => self.status &= !value,
                1 => self.enable = (self.enable & !mask) | value,
                _ => {
                    self.control = (self.control & !mask) | value | SCI_ENABLED;
                    off |= value & SLEEP_ENABLE != 0;
                    self.control &= !SLEEP_ENABLE;
                }
            }
        }
        // What is pending and enabled, or still pending after an acknowledgement, needs a new edge.
        self.raise();
        off && (self.control >> SLEEP_TYPE_SHIFT) & 7 == u16::from(SLEEP_OFF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_button_reaches_only_a_guest_that_listens() {
        let mut power = Power::new(EventFd::new(libc::EFD_NONBLOCK).unwrap());
        assert!(!power.press());
        assert!(!power.write(EVENT + 2, &[0x00, 0x01]));
        assert!(power.press());
        assert_eq!(power.interrupt.read().unwrap(), 1);
        let mut status = [0; 2];
        power.read(EVENT, &mut status);
        assert_eq!(status, [0, 1]);
        power.write(EVENT, &status);
        power.read(EVENT, &mut status);
        assert_eq!(status, [0, 0]);
    }

    #[test]
    fn only_sleep_type_five_with_the_enable_bit_is_power_off() {
        let mut power = Power::new(EventFd::new(libc::EFD_NONBLOCK).unwrap());
        let mut control = |value: u16| power.write(CONTROL, &value.to_le_bytes());
        assert!(!control(5 << 10));
        assert!(!control(1 << 13 | 3 << 10));
        assert!(control(1 << 13 | 5 << 10 | 1));
        let mut value = [0; 2];
        power.read(CONTROL, &mut value);
        assert_eq!(value[0] & 1, 1);
    }

    #[test]
    fn accesses_beyond_the_block_stay_in_it() {
        let mut power = Power::new(EventFd::new(libc::EFD_NONBLOCK).unwrap());
        for port in EVENT..=LAST {
            power.write(port, &[0xff; 8]);
            power.read(port, &mut [0; 8]);
        }
    }
}
