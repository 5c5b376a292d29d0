//! The start of a machine, top to bottom, and its end.
//!
//! ```text
//!   VM ─► interrupt chips ─► memory ─► devices ─► kernel ─► processors ─► workers ─► (gate opens) running
//! ```
//! A restored machine takes the same way, only that its memory, devices and processors come from a snapshot and no kernel
//! is loaded. A machine is built whole for every start, a reset included: nothing of the guest before can be left over. What stays
//! across a reset are the descriptors in `Parts`, because the jail lets nothing be opened later.

mod devices;
mod parts;
mod plug;
mod processors;

pub use parts::{CardEnd, OpenDisk, OpenTap, Parts, open_share};
pub use plug::Leave;

use crate::boot::disk::Found;
use crate::boot::{self, BootError, Entry, Hardware};
use crate::config::{Config, Transport};
use crate::cpu::debug::Stops;
use crate::cpu::run_loop::{self, Processor, Seen};
use crate::cpu::state::ProcessorState;
use crate::cpu::throttle::Throttle;
use crate::cpu::{self, cpuid, registers};
use crate::device::Bus;
use crate::fault::Pager;
use crate::firmware::Firmware;
use crate::gate::{Gate, lock};
use crate::memory::hot::Hot;
use crate::memory::{self, Memory, MemoryError};
use crate::migrate::MigrateError;
use crate::migrate::receive::{Arrival, House};
use crate::pci::DEVICES;
use crate::sandbox::Threads;
use crate::snapshot::chips::Chips;
use crate::snapshot::{MachineState, SnapshotError};
use crate::state::StopReason;
use crate::virtio::handle::Handle;
use crate::virtio::memory::Wanted;
use crate::virtio::pci::{Pci, PciState};
use crate::virtio::transport::Slot;
use crate::virtio::worker::{Share, Worker};
use crate::virtio::{SLOT_BYTES, SLOT_LINES, SLOTS_START};
pub use devices::{Builder, card, elsewhere};
use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::signal::Killable;

/// Three pages that Intel processors need for themselves, in the device hole.
const TSS_ADDRESS: usize = 0xfffb_d000;
const IDENTITY_MAP_ADDRESS: u64 = 0xfffb_c000;

/// Why a machine did not start.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A file, socket or tap of the configuration.
    #[error("cannot open {what}: {source}")]
    Open {
        /// Which part.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// KVM.
    #[error("KVM cannot {what}: {source}")]
    Kvm {
        /// Which step.
        what: &'static str,
        /// What it said.
        source: kvm_ioctls::Error,
    },
    /// More than this KVM can have.
    #[error("this host's KVM has at most {most} processors for a machine, {wanted} are asked for")]
    Processors {
        /// What it says.
        most: usize,
        /// By the configuration.
        wanted: u16,
    },
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Kernel and initramfs.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Registers.
    #[error(transparent)]
    Setup(#[from] registers::SetupError),
    /// A snapshot that cannot be gone on from.
    #[error("cannot restore: {0}")]
    Restore(#[from] SnapshotError),
    /// A machine that did not arrive.
    #[error("cannot take the machine over: {0}")]
    Arrive(#[from] MigrateError),
    /// Threads and events.
    #[error("cannot make a thread or an event: {0}")]
    System(#[from] io::Error),
}

fn kvm_step(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> MachineError {
    move |source| MachineError::Kvm { what, source }
}

/// How a machine ends: the first reason wins, everybody is sent home, the monitor hears of it.
pub struct Stop {
    reason: Mutex<Option<StopReason>>,
    gate: Arc<Gate>,
    /// Becomes readable when there is a reason.
    pub event: EventFd,
}

impl Stop {
    fn new(gate: Arc<Gate>) -> io::Result<Arc<Stop>> {
        Ok(Arc::new(Stop { reason: Mutex::new(None), gate, event: event()? }))
    }

    /// Of no machine: for tests of what needs one.
    pub fn alone() -> io::Result<Arc<Stop>> {
        Stop::new(Arc::new(Gate::new_shut()))
    }

    /// Ends the machine.
    pub fn set(&self, reason: StopReason) {
        lock(&self.reason).get_or_insert(reason);
        self.gate.quit();
        let _ = self.event.write(1);
    }

    /// Why, once it has ended.
    pub fn reason(&self) -> Option<StopReason> {
        lock(&self.reason).clone()
    }
}

/// A worker, and what it serves.
struct Serving {
    slot: Arc<Slot>,
    /// Brings it to the gate.
    wake: EventFd,
    thread: JoinHandle<()>,
}

/// A machine that has been built, its threads at the shut gate.
pub struct Machine {
    /// The ports and slots.
    pub bus: Arc<Bus>,
    /// Pause and quit.
    pub gate: Arc<Gate>,
    /// How it ends.
    pub stop: Arc<Stop>,
    /// It has moved in and waits for its source's word.
    pub arrival: Option<Arrival>,
    /// Processors that are to be there: by the configuration, or as it was when the machine was written down.
    pub wanted_vcpus: u16,
    /// What can be seen of the processors, by number; as many as have ever been there.
    pub seen: Vec<Arc<Seen>>,
    /// How slow they are to be.
    pub throttle: Arc<Throttle>,
    /// Where they tell what a debugger is to hear.
    pub stops: Arc<Stops>,
    processors: Vec<JoinHandle<()>>,
    workers: Vec<Serving>,
    pci: Vec<Arc<Pci>>,
    vcpus: Vec<Arc<Mutex<VcpuFd>>>,
    model: Option<processors::Model>,
    // Kept until the threads have ended: they use both.
    /// Brings memory that is missing.
    pub pager: Option<Pager>,
    /// The KVM side.
    pub vm: Arc<VmFd>,
    /// Guest memory.
    pub memory: Memory,
    /// Memory that comes and goes.
    pub hot: Option<Arc<Hot>>,
}

fn event() -> io::Result<EventFd> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
}

impl Machine {
    /// Builds the machine. On return every thread waits at the gate; `start` opens it.
    pub fn build(config: &Config, parts: &mut Parts, threads: &Threads) -> Result<Machine, MachineError> {
        let most = parts.kvm.get_max_vcpus();
        if usize::from(config.possible_vcpus()) > most {
            return Err(MachineError::Processors { most, wanted: config.possible_vcpus() });
        }
        let vm = Arc::new(parts.kvm.create_vm().map_err(kvm_step("make a machine"))?);
        vm.set_tss_address(TSS_ADDRESS).map_err(kvm_step("set the TSS address"))?;
        vm.set_identity_map_address(IDENTITY_MAP_ADDRESS).map_err(kvm_step("set the identity map"))?;
        vm.create_irq_chip().map_err(kvm_step("make the interrupt chips"))?;
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        vm.create_pit2(pit).map_err(kvm_step("make the timer"))?;

        let stop = Stop::new(Arc::new(Gate::new_shut()))?;
        let (mut arrival, mut pager) = (None, None);
        let house = House { id: &config.id, threads, stop: &stop };
        let (memory, restored) = match (parts.restore.take(), parts.incoming.take()) {
            (Some(from), _) => {
                let (memory, state, lazy) = from.open(config, &house)?;
                pager = lazy;
                (memory, Some(state))
            }
            (None, Some(from)) => {
                let memory = parts.memory(config)?;
                let (arriving, arrived) = from.receive(memory, &mut parts.land_disks()?, &house)?;
                (arrival, pager) = (Some(arriving), arrived.pager);
                (arrived.memory, Some(arrived.state))
            }
            (None, None) => (parts.memory(config)?, None),
        };
        parts.shared = config.shares_memory().then(|| memory.clone());
        memory::attach(&vm, &memory)?;

        let hot = config.hot_area().map(|area| Arc::new(Hot::new(Some(vm.clone()), memory.clone(), area)));
        let all = Builder { threads, stop: &stop }.parts(config, parts, hot.clone(), restored.as_ref())?;
        let (slots, functions) = match config.transport {
            Transport::Mmio => (devices::connect_mmio(&vm, &memory, all)?, Vec::new()),
            Transport::Pci => (Vec::new(), all),
        };
        let mut bus = devices::bus(config, slots, &vm, parts)?;
        if let Some(rom) = &parts.firmware {
            rom.attach(&vm)?;
            bus.firmware = Some(Firmware::new(config, &hardware(config, 0), rom.clone(), &memory)?);
        }
        let bus = Arc::new(bus);
        let numbers: Vec<u8> = match &restored {
            Some(state) if bus.pci.is_some() => {
                let names: Vec<&str> = functions.iter().map(|part| part.name.as_str()).collect();
                PciState::in_order_of(&state.pci, &names)?.into_iter().map(PciState::number).collect()
            }
            _ => (1..DEVICES).collect(),
        };
        let pci = match &bus.pci {
            Some(root) => devices::connect_pci(&vm, &memory, root, functions, numbers)?,
            None => Vec::new(),
        };
        let wanted_vcpus = restored.as_ref().map_or(config.vcpus, |state| state.vcpus);
        let vcpus = match restored {
            Some(state) => restore((config, parts), &vm, &bus, &pci, &state)?,
            None => prepare(config, parts, &vm, &memory, bus.slots.len())?,
        };
        let mut machine = Machine::spawn((vm, memory), bus, vcpus, threads, stop)?;
        (machine.arrival, machine.pager, machine.pci) = (arrival, pager, pci);
        (machine.wanted_vcpus, machine.hot) = (wanted_vcpus, hot);
        for slot in machine.slots() {
            machine.serve(slot, threads)?;
        }
        Ok(machine)
    }

    fn spawn(
        (vm, memory): (Arc<VmFd>, Memory),
        bus: Arc<Bus>,
        vcpus: Vec<VcpuFd>,
        threads: &Threads,
        stop: Arc<Stop>,
    ) -> Result<Machine, MachineError> {
        let mut machine = Machine {
            bus,
            gate: stop.gate.clone(),
            stop,
            arrival: None,
            hot: None,
            wanted_vcpus: 0,
            seen: Vec::new(),
            throttle: Arc::default(),
            stops: Arc::new(Stops::new()?),
            processors: Vec::new(),
            workers: Vec::new(),
            pci: Vec::new(),
            pager: None,
            vcpus: Vec::new(),
            model: vcpus.first().map(processors::Model::of).transpose()?,
            memory,
            vm,
        };
        vcpus.into_iter().try_for_each(|vcpu| machine.start_processor(vcpu, threads))?;
        Ok(machine)
    }

    /// Starts the thread of the next processor.
    fn start_processor(&mut self, vcpu: VcpuFd, threads: &Threads) -> Result<(), MachineError> {
        let number = self.processors.len() as u16;
        let (fd, seen, stop) = (Arc::new(Mutex::new(vcpu)), Arc::new(Seen::default()), self.stop.clone());
        let (bus, gate) = (self.bus.clone(), self.gate.clone());
        let (throttle, stops) = (self.throttle.clone(), self.stops.clone());
        let processor =
            Processor { number, fd: fd.clone(), bus, gate, stop: stop.clone(), seen: seen.clone(), throttle, stops };
        let run = move || run_loop::run(processor);
        self.processors.push(threads.spawn(&format!("vcpu-{number}"), Threads::PROCESSOR, stop, run)?);
        self.vcpus.push(fd);
        self.seen.push(seen);
        Ok(())
    }

    /// Starts the workers of a device: one, or one for each queue.
    fn serve(&mut self, slot: Arc<Slot>, threads: &Threads) -> Result<(), MachineError> {
        match slot.lanes() {
            0 => self.start_worker(&slot, &slot.name, Share::All, threads),
            1 => self.start_worker(&slot, &slot.name, Share::Queue(0), threads),
            lanes => (0..lanes).try_for_each(|queue| {
                self.start_worker(&slot, &format!("{}-q{queue}", slot.name), Share::Queue(queue), threads)
            }),
        }
    }

    fn start_worker(
        &mut self,
        slot: &Arc<Slot>,
        name: &str,
        share: Share,
        threads: &Threads,
    ) -> Result<(), MachineError> {
        let wake = event()?;
        let kind = match &slot.handle {
            Handle::Memory(_) => Threads::MEMORY_WORKER,
            _ if slot.is_served_elsewhere() => Threads::BACKEND_WORKER,
            _ if slot.has_connections() => Threads::SOCKET_WORKER,
            _ => Threads::WORKER,
        };
        let worker = Worker::new(slot.clone(), share, self.gate.clone(), wake.try_clone()?)?;
        let thread = threads.spawn(name, kind, self.stop.clone(), move || worker.run())?;
        self.workers.push(Serving { slot: slot.clone(), wake, thread });
        Ok(())
    }

    /// The virtio devices, in the order of the configuration.
    pub fn slots(&self) -> Vec<Arc<Slot>> {
        let mmio = self.bus.slots.iter().map(|mmio| mmio.slot.clone());
        mmio.chain(self.pci.iter().map(|pci| pci.slot.clone())).collect()
    }

    /// The memory device, with what is wanted of it.
    pub fn memory_wanted(&self) -> Option<(Arc<Slot>, Arc<Wanted>)> {
        self.slots().into_iter().find_map(|slot| match &slot.handle {
            Handle::Memory(wanted) => Some((slot.clone(), wanted.clone())),
            _ => None,
        })
    }

    /// Has KVM note which pages the guest writes from now on, or no longer.
    pub fn log_writes(&self, on: bool) -> Result<(), MemoryError> {
        memory::log_writes(&self.vm, &self.memory, on)?;
        match self.hot.as_ref().is_none_or(|hot| hot.log_writes(on)) {
            true => Ok(()),
            false => Err(MemoryError::Log),
        }
    }

    /// Threads that pass the gate.
    pub fn threads(&self) -> usize {
        self.processors.len() + self.workers.len()
    }

    /// Brings every thread to the gate.
    pub fn kick_all(&self) {
        for number in 0..self.processors.len() {
            self.kick(number);
        }
        self.workers.iter().for_each(|serving| drop(serving.wake.write(1)));
    }

    /// The KVM side of a processor: free while it stands at the gate.
    pub fn processor(&self, number: usize) -> Option<&Mutex<VcpuFd>> {
        self.vcpus.get(number).map(AsRef::as_ref)
    }

    /// Takes one processor out of the guest for a moment.
    pub fn kick(&self, number: usize) {
        if let Some(thread) = self.processors.get(number).filter(|t| !t.is_finished()) {
            let _ = thread.kill(run_loop::kick_signal());
        }
    }

    /// Processor time that a processor has used, in nanoseconds.
    pub fn cpu_time_ns(&self, number: usize) -> Option<u64> {
        let used = cpu::time_of(self.processors.get(number)?)?;
        u64::try_from(used.as_nanos()).ok()
    }

    /// Writes down everything but guest memory. Every thread stands at the gate.
    pub fn capture(&self, kvm: &Kvm, config: &Config) -> Result<MachineState, SnapshotError> {
        let vcpus = self.vcpus.iter().map(|vcpu| ProcessorState::save(kvm, &lock(vcpu)));
        let processors = vcpus.collect::<Result<_, _>>()?;
        Ok(MachineState {
            vcpus: config.vcpus,
            max_vcpus: config.possible_vcpus(),
            memory_mib: config.memory_mib,
            max_hot_mib: config.max_hot_mib(),
            chips: Chips::save(&self.vm)?,
            processors,
            ports: self.bus.save_ports(),
            slots: self.bus.slots.iter().map(|slot| slot.save()).collect::<Result<_, _>>()?,
            pci: self.pci.iter().map(|device| device.save()).collect::<Result<_, _>>()?,
        })
    }

    /// Tells guests that look after their watchdogs that they stood still. Those without a KVM clock cannot be told.
    pub fn tell_of_pause(&self) {
        for vcpu in &self.vcpus {
            let _ = lock(vcpu).kvmclock_ctrl();
        }
    }

    /// Ends all threads. Guest memory and the VM go after them. Threads that wait for memory which cannot be brought end
    /// with the process: woken without it they would go on with what was never there.
    pub fn end(mut self) {
        self.gate.quit();
        self.kick_all();
        while self.pager.is_some() && !self.is_home() {
            if self.is_stuck() {
                return std::mem::forget(self);
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        for thread in self.processors.drain(..).chain(self.workers.drain(..).map(|serving| serving.thread)) {
            // A thread that panicked has already given its reason.
            let _ = thread.join();
        }
    }
}

impl Machine {
    /// The gate is about to open for the first time.
    pub fn may_begin(&self) {
        if let Some(pager) = &self.pager {
            pager.seen.began.store(true, Ordering::Release);
        }
    }

    /// Threads may wait for memory that cannot be brought.
    pub fn is_stuck(&self) -> bool {
        self.pager.as_ref().is_some_and(|pager| pager.seen.is_stuck())
    }

    fn is_home(&self) -> bool {
        let workers = self.workers.iter().map(|serving| &serving.thread);
        self.processors.iter().chain(workers).all(JoinHandle::is_finished)
    }
}

/// What tables tell of.
fn hardware(config: &Config, slots: usize) -> Hardware {
    let (vcpus, possible, domains) = (config.vcpus, config.max_vcpus, config.domains());
    Hardware { vcpus, possible, slots, pci: config.transport == Transport::Pci, domains }
}

/// Kernel in memory. Returns its entry.
fn load(
    config: &Config,
    parts: &mut Parts,
    memory: &Memory,
    slots: usize,
    mut found: Option<Found>,
) -> Result<Entry, MachineError> {
    let cmdline = command_line(config, found.as_ref().map_or("", |found| &found.cmdline), slots);
    let (kernel, initramfs) = match &mut found {
        Some(found) => (Some(&mut found.kernel), found.initramfs.as_mut()),
        None => (parts.kernel.as_mut(), parts.initramfs.as_mut()),
    };
    let Some(kernel) = kernel else { return Err(BootError::Kernel("there is none".into()).into()) };
    let entry = boot::load(memory, kernel, initramfs, &cmdline, &hardware(config, slots))?;
    registers::write_tables(memory, entry)?;
    Ok(entry)
}

/// The kernel's entry; none where a firmware looks for something to start.
fn begin(config: &Config, parts: &mut Parts, memory: &Memory, slots: usize) -> Result<Option<Entry>, MachineError> {
    let looks = parts.kernel.is_none() && (parts.firmware.is_none() || config.kernel_first);
    let found = parts.disks.first().filter(|_| looks).map(OpenDisk::find_kernel);
    match (&parts.firmware, found) {
        (Some(rom), None | Some(Err(_))) => rom.shadow(memory).map(|()| None).map_err(MachineError::from),
        (_, found) => load(config, parts, memory, slots, found.transpose()?).map(Some),
    }
}

/// Kernel in memory and the boot processor at its entry, or a firmware and all processors as after power-on.
fn prepare(
    config: &Config,
    parts: &mut Parts,
    vm: &VmFd,
    memory: &Memory,
    slots: usize,
) -> Result<Vec<VcpuFd>, MachineError> {
    let entry = begin(config, parts, memory, slots)?;
    let mut vcpus = Vec::new();
    for number in 0..config.vcpus {
        let vcpu = vm.create_vcpu(u64::from(number)).map_err(kvm_step("make a processor"))?;
        let table =
            cpuid::table(&parts.kvm, number as u8, config.possible_vcpus(), config.numa.len() > 1, &config.cpu_mask);
        let table = table.map_err(kvm_step("say what processors it supports"))?;
        vcpu.set_cpuid2(&table).map_err(kvm_step("set the processor's features"))?;
        if number == 0 {
            report_cpuid(config, &vcpu, &table);
        }
        match entry {
            Some(entry) => {
                registers::prepare(&vcpu)?;
                if number == 0 {
                    registers::start(&vcpu, entry)?;
                }
            }
            // As KVM made it, at the reset vector; the firmware wakes the others.
            None => registers::prepare_for_firmware(&vcpu),
        }
        vcpus.push(vcpu);
    }
    Ok(vcpus)
}

/// Devices and processors as they were.
fn restore(
    (config, parts): (&Config, &Parts),
    vm: &VmFd,
    bus: &Bus,
    pci: &[Arc<Pci>],
    state: &MachineState,
) -> Result<Vec<VcpuFd>, MachineError> {
    state.fits(config.possible_vcpus(), (config.memory_mib, config.max_hot_mib()), bus.slots.len() + pci.len())?;
    bus.restore_ports(&state.ports)?;
    for (slot, saved) in bus.slots.iter().zip(&state.slots) {
        slot.restore(saved)?;
    }
    let names: Vec<&str> = pci.iter().map(|device| device.slot.name.as_str()).collect();
    for (device, saved) in pci.iter().zip(PciState::in_order_of(&state.pci, &names)?) {
        device.restore(saved)?;
    }
    let mut vcpus = Vec::new();
    for number in 0..state.processors.len() {
        vcpus.push(vm.create_vcpu(number as u64).map_err(kvm_step("make a processor"))?);
    }
    for (vcpu, saved) in vcpus.iter().zip(&state.processors) {
        saved.restore(&parts.kvm, vcpu)?;
    }
    if (vcpus.len() as u16..config.possible_vcpus()).any(|number| bus.presence.has(number)) {
        return Err(SnapshotError::Malformed("a processor without a state".into()).into());
    }
    state.chips.restore(vm)?;
    Ok(vcpus)
}

/// Says once a process what KVM made of the mask: guests can cause restarts, and must not fill the journal by them.
fn report_cpuid(config: &Config, vcpu: &VcpuFd, table: &kvm_bindings::CpuId) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if config.cpu_mask.is_empty() || SAID.swap(true, Ordering::Relaxed) {
        return;
    }
    let difference = cpuid::difference(vcpu, table);
    if !difference.is_empty() {
        let text = difference.join(", ");
        crate::journal::line(&config.id, format_args!("this KVM changes cpuid leaves (set/seen): {text}"));
    }
}

/// The disk's command line, the configured one, and where the devices are.
fn command_line(config: &Config, of_disk: &str, slots: usize) -> String {
    let mut line = format!("{of_disk} {}", config.cmdline.trim()).trim().to_owned();
    for (n, irq) in SLOT_LINES.iter().enumerate().take(slots) {
        let address = SLOTS_START + n as u64 * SLOT_BYTES;
        let space = if line.is_empty() { "" } else { " " };
        line.push_str(&format!("{space}virtio_mmio.device=4K@{address:#x}:{irq}"));
    }
    line
}
