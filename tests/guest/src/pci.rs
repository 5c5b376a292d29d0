//! The PCI bus through configuration mechanism 1.

use crate::hal::Direct;
use crate::port::{read32, write32};
use crate::say;
use virtio_drivers::transport::pci::bus::{Command, ConfigurationAccess, DeviceFunction, PciRoot};
use virtio_drivers::transport::pci::{PciTransport, virtio_device_type};
use virtio_drivers::transport::{DeviceType, Transport};

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;

struct Ports;

impl Ports {
    fn select(at: DeviceFunction, register: u8) {
        let place = u32::from(at.bus) << 16 | u32::from(at.device) << 11 | u32::from(at.function) << 8;
        write32(ADDRESS, 1 << 31 | place | u32::from(register & 0xfc));
    }
}

impl ConfigurationAccess for Ports {
    fn read_word(&self, at: DeviceFunction, register: u8) -> u32 {
        Ports::select(at, register);
        read32(DATA)
    }

    fn write_word(&mut self, at: DeviceFunction, register: u8, data: u32) {
        Ports::select(at, register);
        write32(DATA, data);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Ports
    }
}

/// Prints what is on the bus.
pub fn list() {
    for (at, info) in PciRoot::new(Ports).enumerate_bus(0) {
        say!("pci {at} {:04x}:{:04x}", info.vendor_id, info.device_id);
    }
}

/// The first device of a kind.
pub fn transport(kind: DeviceType) -> Option<PciTransport> {
    let mut root = PciRoot::new(Ports);
    for (at, info) in root.enumerate_bus(0) {
        if virtio_device_type(&info) != Some(kind) {
            continue;
        }
        root.set_command(at, Command::MEMORY_SPACE | Command::BUS_MASTER);
        match PciTransport::new::<Direct, _>(&mut root, at) {
            Ok(transport) if transport.device_type() == kind => return Some(transport),
            Ok(_) => {}
            Err(e) => say!("pci error {e:?}"),
        }
    }
    None
}
