//! From the configuration to devices, and from devices to slots that KVM knows.

use super::parts::{CardEnd, OpenDisk, OpenTap, Parts, Store};
use super::{MachineError, Stop, event, kvm_step};
use crate::config::{Config, Disk, Engine, Nic, Transport};
use crate::device::{Bus, clock, events, keyboard, panic, power, processors, serial, watchdog};
use crate::memory::Memory;
use crate::memory::hot::Hot;
use crate::pci::Root;
use crate::sandbox::Threads;
use crate::snapshot::SnapshotError;
use crate::virtio::balloon::{Balloon, Target};
use crate::virtio::block::changes::Watched;
use crate::virtio::block::file::{Backing, RawFile};
use crate::virtio::block::nbd::Nbd;
use crate::virtio::block::pool::Pool;
use crate::virtio::block::qcow2::Image;
use crate::virtio::block::ring::Ring;
use crate::virtio::block::{Block, Geometry};
use crate::virtio::console::{Input, Terminal};
use crate::virtio::counters::Counters;
use crate::virtio::handle::Handle;
use crate::virtio::limit::Setting;
use crate::virtio::memory::{MemoryDevice, Wanted};
use crate::virtio::mmio::{Mmio, QUEUE_NOTIFY};
use crate::virtio::net::{Net, tap::Tap};
use crate::virtio::pci::Pci;
use crate::virtio::rng::Rng;
use crate::virtio::transport::Part;
use crate::virtio::vhost::{Link, VhostUser};
use crate::virtio::vsock::Vsock;
use crate::virtio::{SLOT_BYTES, SLOT_LINES, SLOTS_START};
use kvm_ioctls::{IoEventAddress, VmFd};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use vmm_sys_util::eventfd::EventFd;

/// What devices are built with.
pub struct Builder<'a> {
    /// For those that need threads of their own.
    pub threads: &'a Threads,
    /// How these end the machine.
    pub stop: &'a Arc<Stop>,
}

impl Builder<'_> {
    /// All devices of a configuration, in slot order.
    pub fn parts(&self, config: &Config, parts: &Parts, hot: Option<Arc<Hot>>) -> Result<Vec<Part>, MachineError> {
        let mut out = Vec::new();
        for (disk, open) in config.disks.iter().zip(&parts.disks) {
            out.push(self.disk(disk, open)?);
        }
        for (nic, open) in config.nics.iter().zip(&parts.taps) {
            out.push(card(nic, open)?);
        }
        let mut add = |name: &str, handle: Handle, device: Box<dyn crate::virtio::Device>, counters: Arc<Counters>| {
            out.push(Part { name: name.into(), device, counters, handle });
        };
        if config.rng {
            let counters = Arc::new(Counters::default());
            add("rng", Handle::Fixed, Box::new(Rng::new(counters.clone())), counters);
        }
        if let Some(balloon) = &config.balloon {
            let (counters, target) = (Arc::new(Counters::default()), Arc::new(Target::default()));
            let device = Balloon::new(target.clone(), balloon.reporting, counters.clone());
            add("balloon", Handle::Balloon(target), Box::new(device), counters);
        }
        if config.virtio_console {
            let (counters, input) = (Arc::new(Counters::default()), Arc::new(Input::new()?));
            let device = Terminal::new(input.clone(), parts.console.clone(), counters.clone());
            add("console", Handle::Console(input), Box::new(device), counters);
        }
        if let (Some(vsock), Some(listener)) = (&config.vsock, &parts.vsock) {
            let counters = Arc::new(Counters::default());
            let device = Vsock::new(vsock.cid, listener.try_clone()?, counters.clone())?;
            add("vsock", Handle::Fixed, Box::new(device), counters);
        }
        if let (Some(memory), Some(hot)) = (&config.memory_hotplug, hot) {
            let requested = AtomicU64::new(u64::from(memory.requested_mib) << 20);
            let (counters, wanted) =
                (Arc::new(Counters::default()), Arc::new(Wanted { requested, hot, changed: event()? }));
            let device = MemoryDevice::new(wanted.clone(), counters.clone());
            add("memory", Handle::Memory(wanted), Box::new(device), counters);
        }
        for link in &parts.shares {
            out.push(elsewhere(link)?);
        }
        Ok(out)
    }

    /// What serves a disk's requests.
    fn backing(&self, disk: &Disk, open: &OpenDisk, name: &str) -> Result<Box<dyn Backing>, MachineError> {
        let file = match &open.store {
            Store::Nbd(link) => return Ok(Box::new(Nbd::new(link.clone()))),
            Store::Qcow2(file) => return Ok(Box::new(Image::new(file, disk.read_only)?)),
            Store::Raw(file) => || file.try_clone().map(RawFile::new),
            Store::Vhost(_) => return Err(std::io::Error::other("this disk's requests are served elsewhere").into()),
        };
        let pool = || Pool::new(file()?, name, self.threads, self.stop);
        Ok(match disk.engine {
            Engine::Plain => Box::new(file()?),
            Engine::Auto => match Ring::new(file()?) {
                Ok(ring) => Box::new(ring),
                Err(_) => Box::new(pool()?),
            },
            Engine::Threads | Engine::Qcow2 | Engine::Nbd | Engine::VhostUser => Box::new(pool()?),
        })
    }

    /// A disk.
    pub fn disk(&self, disk: &Disk, open: &OpenDisk) -> Result<Part, MachineError> {
        if let Some(link) = open.backend() {
            return elsewhere(link);
        }
        let (name, counters) = (open.name.clone(), Arc::new(Counters::default()));
        let rate = Arc::new(Setting::new(disk.rate));
        let geometry = Geometry {
            bytes: open.bytes,
            read_only: disk.read_only,
            serial: disk.serial.clone().unwrap_or_else(|| name.clone()),
            queues: disk.queues,
            block_size: open.block_size(),
        };
        let backing = self.backing(disk, open, &name)?;
        let backing = Box::new(Watched::new(backing, open.changes.clone()));
        let device = Box::new(Block::new(backing, &geometry, rate.clone(), counters.clone()));
        let handle = Handle::Disk { rate, sectors: device.length() };
        Ok(Part { name, device, counters, handle })
    }
}

/// A device whose queues a backend serves.
pub fn elsewhere(link: &Arc<Link>) -> Result<Part, MachineError> {
    let counters = Arc::new(Counters::default());
    let device = Box::new(VhostUser::new(link.clone(), counters.clone())?);
    Ok(Part { name: link.name.clone(), device, counters, handle: Handle::Backend(link.clone()) })
}

/// A network card.
pub fn card(nic: &Nic, open: &OpenTap) -> Result<Part, MachineError> {
    let tap = match &open.end {
        CardEnd::Vhost(link) => return elsewhere(link),
        CardEnd::Tap(tap) => tap,
    };
    let counters = Arc::new(Counters::default());
    let wire = Box::new(Tap::from_fd(tap.try_clone()?));
    let mac = nic.mac_bytes().unwrap_or([2, 0, 0, 0, 0, 1]);
    let (transmit, receive) = (Arc::new(Setting::new(nic.transmit)), Arc::new(Setting::new(nic.receive)));
    let device = Box::new(Net::new(wire, mac, nic.mtu, (transmit.clone(), receive.clone()), counters.clone()));
    Ok(Part { name: open.name.clone(), device, counters, handle: Handle::Card { transmit, receive } })
}

/// Puts devices into MMIO slots: an interrupt line each, a notification for each queue.
pub fn connect_mmio(vm: &VmFd, memory: &Memory, parts: Vec<Part>) -> Result<Vec<Mmio>, MachineError> {
    let mut slots = Vec::new();
    for (n, part) in parts.into_iter().enumerate() {
        let line = event()?;
        vm.register_irqfd(&line, SLOT_LINES[n]).map_err(kvm_step("connect an interrupt line"))?;
        let slot = Mmio::new(part, memory.clone(), line)?;
        let address = IoEventAddress::Mmio(SLOTS_START + n as u64 * SLOT_BYTES + QUEUE_NOTIFY);
        for (queue, notify) in (0u32..).zip(&slot.slot.notify) {
            vm.register_ioevent(notify, &address, queue).map_err(kvm_step("connect a notification"))?;
        }
        slots.push(slot);
    }
    Ok(slots)
}

/// Puts devices on the bus, at these numbers.
pub fn connect_pci(
    vm: &Arc<VmFd>,
    memory: &Memory,
    root: &Root,
    parts: Vec<Part>,
    numbers: impl IntoIterator<Item = u8>,
) -> Result<Vec<Arc<Pci>>, MachineError> {
    let mut out = Vec::new();
    for (part, number) in parts.into_iter().zip(numbers) {
        let device = Arc::new(Pci::new(part, memory.clone(), number, Some(vm.clone()))?);
        if !root.add(number, device.clone()) {
            return Err(SnapshotError::Malformed(format!("no place {number} on the PCI bus")).into());
        }
        out.push(device);
    }
    Ok(out)
}

fn pci_root(config: &Config) -> Result<Option<Root>, MachineError> {
    if config.transport != Transport::Pci {
        return Ok(None);
    }
    let mut root = Root::new(event()?);
    if config.firmware.is_some() {
        root.expect_firmware();
    }
    Ok(Some(root))
}

/// Everything that the guest reaches through ports and addresses.
pub fn bus(config: &Config, slots: Vec<Mmio>, vm: &VmFd, parts: &Parts) -> Result<Bus, MachineError> {
    let line = |number| -> Result<EventFd, MachineError> {
        let event = event()?;
        vm.register_irqfd(&event, number).map_err(kvm_step("connect an interrupt line"))?;
        Ok(event)
    };
    let processors = processors::Processors::new(config.vcpus, config.possible_vcpus(), event()?);
    Ok(Bus {
        presence: processors.presence(),
        processors: Mutex::new(processors),
        serial: Mutex::new(serial::SerialPort::new(line(serial::LINE)?, parts.console.clone())?),
        keyboard: Mutex::new(keyboard::Keyboard::new(line(1)?)),
        power: Mutex::new(power::Power::new(line(power::LINE)?)),
        events: Mutex::new(events::Events::new(line(power::LINE)?)),
        clock: Mutex::new(clock::Clock::default()),
        panic: panic::Panic::default(),
        watchdog: config.watchdog.then(|| Mutex::new(watchdog::Watchdog::default())),
        pci: pci_root(config)?,
        firmware: None,
        slots,
        unclaimed: AtomicU64::new(0),
    })
}
