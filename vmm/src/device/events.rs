//! ACPI's general purpose events: how hardware that comes and goes has the guest look at it.
//!
//! A device sets the bit of its event; where the guest has enabled it, the system control interrupt follows, and the guest
//! runs the control method of that number (`boot::acpi::dsdt`), which asks the device what there is.

use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::EventFd;

/// Status bytes, then as many enable bytes.
pub const FIRST: u16 = 0x610;
/// Last port.
pub const LAST: u16 = FIRST + BYTES as u16 - 1;
/// Bytes of the block.
pub const BYTES: u8 = 4;
/// Functions on the PCI bus.
pub const PCI: u16 = 1 << 1;
/// Processors.
pub const PROCESSORS: u16 = 1 << 2;

/// The registers, as a snapshot keeps them.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct EventsState {
    status: u16,
    enable: u16,
    /// Events that the guest has enabled at any time since the start: it disables each while it serves it.
    heard: u16,
}

/// The events.
#[derive(Debug)]
pub struct Events {
    interrupt: EventFd,
    state: EventsState,
}

impl Events {
    /// After power-on: nobody listens.
    pub fn new(interrupt: EventFd) -> Events {
        Events { interrupt, state: EventsState::default() }
    }

    /// Has the guest look. What it has not enabled stays pending.
    pub fn raise(&mut self, event: u16) {
        self.state.status |= event;
        self.interrupt();
    }

    /// Whether the guest serves this event.
    pub fn listens(&self, event: u16) -> bool {
        self.state.heard & event != 0
    }

    /// Writes the registers down.
    pub fn save(&self) -> EventsState {
        self.state
    }

    /// Takes them up.
    pub fn restore(&mut self, state: EventsState) {
        self.state = state;
    }

    fn interrupt(&self) {
        if self.state.status & self.state.enable != 0 {
            let _ = self.interrupt.write(1);
        }
    }

    /// Reads from a port of the block on.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        let [a, b] = self.state.status.to_le_bytes();
        let [c, d] = self.state.enable.to_le_bytes();
        for (to, from) in data.iter_mut().zip([a, b, c, d].iter().skip(usize::from(port - FIRST))) {
            *to = *from;
        }
    }

    /// Writes from a port of the block on: ones acknowledge events, and enable them.
    pub fn write(&mut self, port: u16, data: &[u8]) {
        for (port, byte) in (port..=LAST).zip(data) {
            let at = port - FIRST;
            let shift = 8 * (at & 1);
            let (value, mask) = (u16::from(*byte) << shift, 0xff << shift);
            if at < 2 {
                self.state.status &= !value;
            } else {
                self.state.enable = (self.state.enable & !mask) | value;
                self.state.heard |= value;
            }
        }
        // The line is edge triggered: what is still, or now, pending and enabled needs a new edge.
        self.interrupt();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> Events {
        Events::new(EventFd::new(libc::EFD_NONBLOCK).unwrap())
    }

    #[test]
    fn an_event_waits_until_it_is_enabled_and_goes_when_it_is_acknowledged() {
        let mut events = events();
        events.raise(PCI);
        assert!(events.interrupt.read().is_err() && !events.listens(PCI));
        events.write(FIRST + 2, &PCI.to_le_bytes());
        assert_eq!(events.interrupt.read().unwrap(), 1);
        let mut all = [0; 4];
        events.read(FIRST, &mut all);
        assert_eq!(all, [2, 0, 2, 0]);
        // Disabled while it is served.
        events.write(FIRST + 2, &[0]);
        assert!(events.listens(PCI));
        events.write(FIRST, &[2]);
        events.write(FIRST + 2, &[2]);
        assert!(events.interrupt.read().is_err());
        let saved = events.save();
        let mut other = self::events();
        other.restore(saved);
        assert!(other.listens(PCI));
    }

    #[test]
    fn accesses_beyond_the_block_stay_in_it() {
        let mut events = events();
        for port in FIRST..=LAST {
            events.write(port, &[0xff; 8]);
            events.read(port, &mut [0; 8]);
        }
    }
}
