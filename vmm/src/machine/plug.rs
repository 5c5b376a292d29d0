//! Devices that come to and go from the PCI bus of a running machine, and how its guest is told.

use super::{Machine, MachineError, devices};
use crate::device::events;
use crate::gate::lock;
use crate::pci::DEVICES;
use crate::sandbox::Threads;
use crate::snapshot::SnapshotError;
use crate::virtio::transport::Part;

/// How a device can leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// There is no such device on the bus.
    Unknown,
    /// The guest has let go of it, or has nobody to be told and does not use it.
    Free,
    /// The guest can be asked to let go of it.
    Ask,
    /// The guest uses it, and does not listen.
    Used,
}

impl Machine {
    /// Puts a device on the bus; the guest is told.
    pub fn add(&mut self, part: Part, threads: &Threads) -> Result<(), MachineError> {
        let taken: Vec<u8> = self.pci.iter().map(|device| device.number).collect();
        let number = (1..DEVICES).find(|number| !taken.contains(number));
        let (Some(root), Some(number)) = (&self.bus.pci, number) else {
            let text = "only a machine with a PCI bus that has room takes devices while it runs";
            return Err(SnapshotError::Mismatch(text.into()).into());
        };
        let added = devices::connect_pci(&self.vm, &self.memory, root, vec![part], [number])?;
        self.pci.extend(added.iter().cloned());
        added.into_iter().try_for_each(|device| self.serve(device.slot.clone(), threads))?;
        if let Some(root) = &self.bus.pci {
            lock(&root.hotplug).came(number);
            lock(&self.bus.events).raise(events::PCI);
        }
        Ok(())
    }

    /// The device number of that name on the PCI bus.
    pub fn number_of(&self, name: &str) -> Option<u8> {
        self.pci.iter().find(|device| device.slot.name == name).map(|device| device.number)
    }

    /// How the device of that name can leave now.
    pub fn can_leave(&self, name: &str) -> Leave {
        let device = self.pci.iter().find(|device| device.slot.name == name);
        let (Some(device), Some(root)) = (device, &self.bus.pci) else { return Leave::Unknown };
        if lock(&root.hotplug).has_let_go(device.number) {
            return Leave::Free;
        }
        let (used, _) = device.slot.driver_state();
        match lock(&self.bus.events).listens(events::PCI) {
            true => Leave::Ask,
            false if used => Leave::Used,
            false => Leave::Free,
        }
    }

    /// Asks the guest to let go of the device.
    pub fn ask_to_leave(&self, name: &str) {
        if let (Some(device), Some(root)) = (self.pci.iter().find(|device| device.slot.name == name), &self.bus.pci) {
            lock(&root.hotplug).ask(device.number);
            lock(&self.bus.events).raise(events::PCI);
        }
    }

    /// Takes a device off the bus, whatever the guest thinks of that.
    pub fn remove(&mut self, name: &str) {
        let Some(at) = self.pci.iter().position(|device| device.slot.name == name) else { return };
        let device = self.pci.remove(at);
        if let Some(root) = &self.bus.pci {
            root.remove(device.number);
            lock(&root.hotplug).gone(device.number);
        }
        device.slot.retire();
        let gone: Vec<_> = self.workers.extract_if(.., |serving| serving.slot.name == name).collect();
        gone.iter().for_each(|serving| drop(serving.wake.write(1)));
        for serving in gone {
            // One that panicked has ended the machine already.
            let _ = serving.thread.join();
        }
    }
}
