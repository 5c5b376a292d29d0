//! From the configuration to devices, and from devices to slots that KVM knows.

use super::parts::{CardEnd, OpenDisk, OpenTap, Parts, Store};
use super::{MachineError, Stop, event, kvm_step};
use crate::config::{Config, DISK_QUEUES_MAX, Disk, Engine, Nic, Transport};
use crate::device::{Bus, clock, events, keyboard, panic, power, processors, serial, watchdog};
use crate::memory::Memory;
use crate::memory::hot::Hot;
use crate::pci::Root;
use crate::sandbox::Threads;
use crate::snapshot::{MachineState, SnapshotError};
use crate::virtio::balloon::{Balloon, Target};
use crate::virtio::block::changes::Watched;
use crate::virtio::block::file::{Backing, RawFile};
use crate::virtio::block::nbd::Nbd;
use crate::virtio::block::pool::Pool;
use crate::virtio::block::qcow2::Image;
use crate::virtio::block::ring::Ring;
use crate::virtio::block::shared::Shared;
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
    /// All devices of a configuration, in slot order. A disk that was not told how many queues it has goes on with as many as it
    /// had, where the machine was written down or comes from elsewhere: by a version, it may be, that gave it others.
    pub fn parts(
        &self,
        config: &Config,
        parts: &Parts,
        hot: Option<Arc<Hot>>,
        restored: Option<&MachineState>,
    ) -> Result<Vec<Part>, MachineError> {
        let mut out = Vec::new();
        for (disk, open) in config.disks.iter().zip(&parts.disks) {
            let had = restored.filter(|_| disk.queues.is_none()).and_then(|state| state.queues_of(&open.name));
            let had = had.and_then(|had| u16::try_from(had).ok()).filter(|had| (1..=DISK_QUEUES_MAX).contains(had));
            out.push(self.disk(disk, open, had.unwrap_or_else(|| config.disk_queues(disk)))?);
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
            let node = (!config.numa.is_empty()).then_some(memory.node);
            let requested = AtomicU64::new(u64::from(memory.requested_mib) << 20);
            let (counters, wanted) =
                (Arc::new(Counters::default()), Arc::new(Wanted { requested, hot, changed: event()? }));
            let device = MemoryDevice::new(wanted.clone(), node, counters.clone());
            add("memory", Handle::Memory(wanted), Box::new(device), counters);
        }
        for link in &parts.shares {
            out.push(elsewhere(link)?);
        }
        Ok(out)
    }

    /// What serves a disk's requests, for each of its queues.
    fn backings(&self, disk: &Disk, open: &OpenDisk, queues: u16) -> Result<Vec<Box<dyn Backing>>, MachineError> {
        let file = match &open.store {
            Store::Nbd(link) => return Ok(vec![Box::new(Nbd::new(link.clone()))]),
            Store::Qcow2(file) => return Ok(alike(Shared::new(Image::new(file, disk.read_only)?), queues)),
            Store::Raw(file) => RawFile::new(file.try_clone()?),
            Store::Vhost(_) => return Err(std::io::Error::other("this disk's requests are served elsewhere").into()),
        };
        if disk.engine == Engine::Plain {
            return Ok(alike(file, queues));
        }
        if disk.engine == Engine::Auto {
            let rings = (0..queues).map(|_| Ring::new(file.clone()).map(|ring| Box::new(ring) as Box<dyn Backing>));
            if let Ok(rings) = rings.collect() {
                return Ok(rings);
            }
        }
        Ok(alike(Pool::new(file, &open.name, self.threads, self.stop)?, queues))
    }

    /// A disk with so many queues, where it is not another process that has them.
    pub fn disk(&self, disk: &Disk, open: &OpenDisk, queues: u16) -> Result<Part, MachineError> {
        if let Some(link) = open.backend() {
            return elsewhere(link);
        }
        let (name, counters) = (open.name.clone(), Arc::new(Counters::default()));
        let rate = Arc::new(Setting::new(disk.rate));
        let geometry = Geometry {
            bytes: open.bytes,
            read_only: disk.read_only,
            serial: disk.serial.clone().unwrap_or_else(|| name.clone()),
            block_size: open.block_size(),
        };
        let watched = |backing| Box::new(Watched::new(backing, open.changes.clone())) as Box<dyn Backing>;
        let backings = self.backings(disk, open, queues)?.into_iter().map(watched).collect();
        let device = Box::new(Block::new(backings, &geometry, rate.clone(), counters.clone()));
        let handle = Handle::Disk { rate, sectors: device.length() };
        Ok(Part { name, device, counters, handle })
    }
}

/// The same way to the bytes for each queue.
fn alike<B: Backing + Clone + 'static>(backing: B, queues: u16) -> Vec<Box<dyn Backing>> {
    (0..queues).map(|_| Box::new(backing.clone()) as Box<dyn Backing>).collect()
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
        let device = Arc::new(Pci::new(part, memory.clone(), number, Some((vm.clone(), root.routes.clone())))?);
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
