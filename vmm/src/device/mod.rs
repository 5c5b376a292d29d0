//! What a guest reaches through ports and MMIO addresses.
//!
//! ```text
//!   port 0x60,0x64  keyboard controller (reset, Ctrl-Alt-Del)    0x70,0x71  clock
//!   port 0x600..     power button, power off (ACPI)
//!   port 0xf4       exit port (see exit_port)                    0x3f8..    serial console
//!   port 0x610..     events of what comes and goes (ACPI)         0xae00..   what came to, is to go from PCI
//!   port 0xcd8..     what processors came, are to go (ACPI)
//!   port 0x505      panic device                                 0x441,0x443 watchdog
//!   port 0x510..     what a firmware asks, with 0x92, 0xcf9 (firmware)
//!   0xd0000000 + n * 0x1000   virtio slot n                      0xcf8..    PCI, where the machine has it
//! ```
//! Timer, PIC, IOAPIC and LAPIC are in the kernel. Everything else reads as all ones and swallows writes, as an empty
//! bus does; such accesses are counted.

pub mod clock;
pub mod console;
pub mod events;
pub mod exit_port;
pub mod keyboard;
pub mod panic;
pub mod power;
pub mod processors;
pub mod serial;
pub mod watchdog;

use crate::firmware::{Firmware, FirmwareState};
use crate::gate::lock;
use crate::pci;
use crate::snapshot::SnapshotError;
use crate::state::StopReason;
use crate::virtio::mmio::Mmio;
use crate::virtio::{SLOT_BYTES, SLOTS_START};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Whether the processor goes on after an access.
#[derive(Debug, PartialEq, Eq)]
pub enum Flow {
    /// Back into the guest.
    Go,
    /// The machine ends here.
    Stop(StopReason),
}

/// All devices of a machine.
pub struct Bus {
    /// COM1.
    pub serial: Mutex<serial::SerialPort>,
    /// Keyboard controller.
    pub keyboard: Mutex<keyboard::Keyboard>,
    /// Power button and power off.
    pub power: Mutex<power::Power>,
    /// How the guest is told to look at what comes and goes.
    pub events: Mutex<events::Events>,
    /// Which processors are there.
    pub processors: Mutex<processors::Processors>,
    /// The same, to be read without a lock.
    pub presence: Arc<processors::Presence>,
    /// CMOS clock.
    pub clock: Mutex<clock::Clock>,
    /// How a kernel says that it crashed.
    pub panic: panic::Panic,
    /// Only where the configuration has one.
    pub watchdog: Option<Mutex<watchdog::Watchdog>>,
    /// Where virtio devices are on PCI.
    pub pci: Option<pci::Root>,
    /// Only where a firmware starts the machine.
    pub firmware: Option<Firmware>,
    /// virtio devices by MMIO slot.
    pub slots: Vec<Mmio>,
    /// Accesses that no device answers.
    pub unclaimed: AtomicU64,
}

/// Everything on ports, in a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PortsState {
    serial: serial::SerialState,
    keyboard: keyboard::KeyboardState,
    power: power::PowerState,
    clock: clock::Clock,
    watchdog: Option<watchdog::Watchdog>,
    pci_register: Option<u32>,
    /// Missing where the machine was written down by a version that had none.
    #[serde(default)]
    events: events::EventsState,
    #[serde(default)]
    hotplug: pci::hotplug::HotplugState,
    #[serde(default)]
    firmware: Option<FirmwareState>,
    /// Missing as well where they are all there.
    #[serde(default)]
    processors: Option<processors::ProcessorsState>,
}

impl Bus {
    /// Writes down what sits on ports. All processors stand still.
    pub fn save_ports(&self) -> PortsState {
        PortsState {
            serial: lock(&self.serial).save(),
            keyboard: lock(&self.keyboard).save(),
            power: lock(&self.power).save(),
            clock: lock(&self.clock).clone(),
            watchdog: self.watchdog.as_ref().map(|watchdog| lock(watchdog).clone()),
            pci_register: self.pci.as_ref().map(pci::Root::selected),
            events: lock(&self.events).save(),
            hotplug: self.pci.as_ref().map(|pci| lock(&pci.hotplug).save()).unwrap_or_default(),
            firmware: self.firmware.as_ref().map(Firmware::save),
            processors: Some(lock(&self.processors).save()),
        }
    }

    /// Takes it up again, before a processor runs. Functions on the PCI bus are back already.
    pub fn restore_ports(&self, state: &PortsState) -> Result<(), SnapshotError> {
        lock(&self.serial).restore(&state.serial)?;
        lock(&self.keyboard).restore(&state.keyboard);
        lock(&self.power).restore(&state.power);
        lock(&self.events).restore(state.events);
        if state.processors.is_some_and(|state| !lock(&self.processors).restore(state)) {
            return Err(SnapshotError::Mismatch("other processors were there than this machine can have".into()));
        }
        lock(&self.clock).clone_from(&state.clock);
        match (&self.pci, state.pci_register) {
            (Some(pci), Some(register)) => {
                pci.select(register);
                let let_go = lock(&pci.hotplug).restore(state.hotplug);
                let_go.for_each(|number| {
                    pci.remove(number);
                });
            }
            (None, None) => {}
            _ => return Err(SnapshotError::Mismatch("one has a PCI bus, the other has none".into())),
        }
        match (&self.watchdog, &state.watchdog) {
            (Some(watchdog), Some(state)) => lock(watchdog).clone_from(state),
            (None, None) => {}
            _ => return Err(SnapshotError::Mismatch("one has a watchdog, the other has none".into())),
        }
        match (&self.firmware, &state.firmware) {
            (Some(firmware), Some(state)) => firmware.restore(state),
            (None, Some(state)) if state.is_in_use() => {
                return Err(SnapshotError::Mismatch("it was started by a firmware, this has none".into()));
            }
            // One that nobody asks can come and go.
            _ => {}
        }
        Ok(())
    }

    fn slot(&self, address: u64) -> Option<(&Mmio, u64)> {
        let offset = address.checked_sub(SLOTS_START)?;
        let slot = self.slots.get(usize::try_from(offset / SLOT_BYTES).ok()?)?;
        Some((slot, offset % SLOT_BYTES))
    }

    fn firmware(&self, port: u16) -> Option<&Firmware> {
        self.firmware.as_ref().filter(|firmware| firmware.has(port))
    }

    fn miss(&self) -> Flow {
        self.unclaimed.fetch_add(1, Ordering::Relaxed);
        Flow::Go
    }

    /// A write to memory that is no RAM.
    pub fn mmio_write(&self, address: u64, data: &[u8]) -> Flow {
        match (self.slot(address), &self.pci) {
            (Some((slot, offset)), _) => slot.write(offset, data),
            (None, Some(pci)) if pci.memory(|function| function.memory_write(address, data)) => {}
            _ => return self.miss(),
        }
        Flow::Go
    }

    /// A read from memory that is no RAM.
    pub fn mmio_read(&self, address: u64, data: &mut [u8]) -> Flow {
        data.fill(0xff);
        match (self.slot(address), &self.pci) {
            (Some((slot, offset)), _) => slot.read(offset, data),
            (None, Some(pci)) if pci.memory(|function| function.memory_read(address, data)) => {}
            _ => return self.miss(),
        }
        Flow::Go
    }

    /// A port write. Repeated string writes arrive as one slice.
    pub fn port_write(&self, port: u16, data: &[u8]) -> Flow {
        if let Some(firmware) = self.firmware(port) {
            return firmware.write(port, data);
        }
        match port {
            serial::FIRST..=serial::LAST => {
                let mut serial = lock(&self.serial);
                data.iter().for_each(|byte| serial.write((port - serial::FIRST) as u8, *byte));
            }
            keyboard::DATA | keyboard::COMMAND => {
                let mut keyboard = lock(&self.keyboard);
                for byte in data {
                    if keyboard.write(port, *byte) {
                        return Flow::Stop(StopReason::Reset);
                    }
                }
            }
            clock::INDEX => lock(&self.clock).select(data.first().copied().unwrap_or(0)),
            power::EVENT..=power::LAST => {
                if lock(&self.power).write(port, data) {
                    return Flow::Stop(StopReason::PoweredOff);
                }
            }
            events::FIRST..=events::LAST => lock(&self.events).write(port, data),
            processors::FIRST..=processors::LAST => lock(&self.processors).write(port, data),
            pci::ADDRESS..=pci::DATA_LAST | pci::hotplug::FIRST..=pci::hotplug::LAST => match &self.pci {
                Some(pci) => pci.write(port, data),
                None => return self.miss(),
            },
            panic::PORT => {
                if self.panic.write(data.first().copied().unwrap_or(0)) {
                    return Flow::Stop(StopReason::Crashed { detail: "the guest's kernel panicked".into() });
                }
            }
            watchdog::START | watchdog::STOP => {
                let Some(watchdog) = &self.watchdog else { return self.miss() };
                match data {
                    [value, ..] if port == watchdog::START => lock(watchdog).start(*value),
                    _ => lock(watchdog).stop(),
                }
            }
            exit_port::PORT => return Flow::Stop(exit_port::reason(data)),
            _ => return self.miss(),
        }
        Flow::Go
    }

    /// A port read.
    pub fn port_read(&self, port: u16, data: &mut [u8]) -> Flow {
        data.fill(0xff);
        if let Some(firmware) = self.firmware(port) {
            return firmware.read(port, data);
        }
        match port {
            serial::FIRST..=serial::LAST => {
                let mut serial = lock(&self.serial);
                data.iter_mut().for_each(|byte| *byte = serial.read((port - serial::FIRST) as u8));
            }
            keyboard::DATA | keyboard::COMMAND => {
                let mut keyboard = lock(&self.keyboard);
                data.iter_mut().for_each(|byte| *byte = keyboard.read(port));
            }
            power::EVENT..=power::LAST => lock(&self.power).read(port, data),
            events::FIRST..=events::LAST => lock(&self.events).read(port, data),
            processors::FIRST..=processors::LAST => lock(&self.processors).read(port, data),
            pci::ADDRESS..=pci::DATA_LAST | pci::hotplug::FIRST..=pci::hotplug::LAST => match &self.pci {
                Some(pci) => pci.read(port, data),
                None => return self.miss(),
            },
            panic::PORT => data.fill(self.panic.read()),
            clock::DATA => {
                let clock = lock(&self.clock);
                data.iter_mut().for_each(|byte| *byte = clock.read());
            }
            _ => return self.miss(),
        }
        Flow::Go
    }
}
