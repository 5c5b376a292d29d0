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

pub use parts::{CardEnd, OpenDisk, OpenTap, Parts, open_share};
pub use plug::Leave;

use crate::boot::{self, BootError, Hardware};
use crate::config::{Config, Transport};
use crate::cpu::debug::Stops;
use crate::cpu::run_loop::{self, Processor, Seen};
use crate::cpu::state::ProcessorState;
use crate::cpu::throttle::Throttle;
use crate::cpu::{self, cpuid, registers};
use crate::device::Bus;
use crate::gate::{Gate, lock};
use crate::memory::{self, Memory, MemoryError};
use crate::migrate::MigrateError;
use crate::migrate::receive::Arrival;
use crate::pci::DEVICES;
use crate::sandbox::Threads;
use crate::snapshot::chips::Chips;
use crate::snapshot::{MachineState, SnapshotError};
use crate::state::StopReason;
use crate::virtio::pci::{Pci, PciState};
use crate::virtio::transport::Slot;
use crate::virtio::worker::Worker;
use crate::virtio::{SLOT_BYTES, SLOT_LINES, SLOTS_START};
pub use devices::{Builder, card, elsewhere};
use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
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

/// A device that is served.
struct Serving {
    slot: Arc<Slot>,
    /// Brings its worker to the gate.
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
    /// What can be seen of the processors, by number.
    pub seen: Vec<Arc<Seen>>,
    /// How slow they are to be.
    pub throttle: Arc<Throttle>,
    /// Where they tell what a debugger is to hear.
    pub stops: Arc<Stops>,
    processors: Vec<JoinHandle<()>>,
    workers: Vec<Serving>,
    pci: Vec<Arc<Pci>>,
    vcpus: Vec<Arc<Mutex<VcpuFd>>>,
    // Kept until the threads have ended: they use both.
    /// The KVM side.
    pub vm: Arc<VmFd>,
    /// Guest memory.
    pub memory: Memory,
}

fn event() -> io::Result<EventFd> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
}

impl Machine {
    /// Builds the machine. On return every thread waits at the gate; `start` opens it.
    pub fn build(config: &Config, parts: &mut Parts, threads: &Threads) -> Result<Machine, MachineError> {
        let vm = Arc::new(parts.kvm.create_vm().map_err(kvm_step("make a machine"))?);
        vm.set_tss_address(TSS_ADDRESS).map_err(kvm_step("set the TSS address"))?;
        vm.set_identity_map_address(IDENTITY_MAP_ADDRESS).map_err(kvm_step("set the identity map"))?;
        vm.create_irq_chip().map_err(kvm_step("make the interrupt chips"))?;
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        vm.create_pit2(pit).map_err(kvm_step("make the timer"))?;

        let (memory, restored, arrival) = match (parts.restore.take(), parts.incoming.take()) {
            (Some(from), _) => {
                let (memory, state) = from.open(config)?;
                parts.shared = config.shares_memory().then(|| memory.clone());
                (memory, Some(state), None)
            }
            (None, Some(from)) => {
                let memory = parts.memory(config)?;
                let (arrival, state) = from.receive(&memory, &mut parts.land_disks()?)?;
                (memory, Some(state), Some(arrival))
            }
            (None, None) => (parts.memory(config)?, None, None),
        };
        memory::attach(&vm, &memory)?;

        let stop = Stop::new(Arc::new(Gate::new_shut()))?;
        let all = Builder { threads, stop: &stop }.parts(config, parts)?;
        let (slots, functions) = match config.transport {
            Transport::Mmio => (devices::connect_mmio(&vm, &memory, all)?, Vec::new()),
            Transport::Pci => (Vec::new(), all),
        };
        let bus = Arc::new(devices::bus(config, slots, &vm, parts)?);
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
        let vcpus = match restored {
            Some(state) => restore((config, parts), &vm, &bus, &pci, &state)?,
            None => prepare(config, parts, &vm, &memory, bus.slots.len())?,
        };
        let mut machine = Machine::spawn(config, (vm, memory), bus, vcpus, threads, stop)?;
        (machine.arrival, machine.pci) = (arrival, pci);
        for slot in machine.slots() {
            machine.serve(slot, threads)?;
        }
        Ok(machine)
    }

    fn spawn(
        config: &Config,
        (vm, memory): (Arc<VmFd>, Memory),
        bus: Arc<Bus>,
        vcpus: Vec<VcpuFd>,
        threads: &Threads,
        stop: Arc<Stop>,
    ) -> Result<Machine, MachineError> {
        let gate = stop.gate.clone();
        let mut machine = Machine {
            bus: bus.clone(),
            gate: gate.clone(),
            stop: stop.clone(),
            arrival: None,
            seen: Vec::new(),
            throttle: Arc::default(),
            stops: Arc::new(Stops::new()?),
            processors: Vec::new(),
            workers: Vec::new(),
            pci: Vec::new(),
            vcpus: vcpus.into_iter().map(|vcpu| Arc::new(Mutex::new(vcpu))).collect(),
            memory,
            vm,
        };
        for (number, fd) in (0..config.vcpus).zip(machine.vcpus.clone()) {
            let seen = Arc::new(Seen::default());
            machine.seen.push(seen.clone());
            let (bus, gate) = (bus.clone(), gate.clone());
            let (throttle, stops) = (machine.throttle.clone(), machine.stops.clone());
            let processor = Processor { number, fd, bus, gate, stop: stop.clone(), seen, throttle, stops };
            let name = format!("vcpu-{number}");
            let run = move || run_loop::run(processor);
            machine.processors.push(threads.spawn(&name, Threads::PROCESSOR, stop.clone(), run)?);
        }
        Ok(machine)
    }

    /// Starts the worker of a device.
    fn serve(&mut self, slot: Arc<Slot>, threads: &Threads) -> Result<(), MachineError> {
        let wake = event()?;
        let kind = match slot.has_connections() {
            _ if slot.is_served_elsewhere() => Threads::BACKEND_WORKER,
            true => Threads::SOCKET_WORKER,
            false => Threads::WORKER,
        };
        let worker = Worker::new(slot.clone(), self.gate.clone(), wake.try_clone()?)?;
        let thread = threads.spawn(&slot.name, kind, self.stop.clone(), move || worker.run())?;
        self.workers.push(Serving { slot, wake, thread });
        Ok(())
    }

    /// The virtio devices, in the order of the configuration.
    pub fn slots(&self) -> Vec<Arc<Slot>> {
        let mmio = self.bus.slots.iter().map(|mmio| mmio.slot.clone());
        mmio.chain(self.pci.iter().map(|pci| pci.slot.clone())).collect()
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
            memory_mib: config.memory_mib,
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

    /// Ends all threads. Guest memory and the VM go after them.
    pub fn end(mut self) {
        self.gate.quit();
        self.kick_all();
        for thread in self.processors.drain(..).chain(self.workers.drain(..).map(|serving| serving.thread)) {
            // A thread that panicked has already given its reason.
            let _ = thread.join();
        }
    }
}

/// Kernel in memory, boot processor at its entry.
fn prepare(
    config: &Config,
    parts: &mut Parts,
    vm: &VmFd,
    memory: &Memory,
    slots: usize,
) -> Result<Vec<VcpuFd>, MachineError> {
    let mut found = match (&parts.kernel, parts.disks.first()) {
        (None, Some(disk)) => Some(disk.find_kernel()?),
        _ => None,
    };
    let cmdline = command_line(config, found.as_ref().map_or("", |found| &found.cmdline), slots);
    let (kernel, initramfs) = match &mut found {
        Some(found) => (Some(&mut found.kernel), found.initramfs.as_mut()),
        None => (parts.kernel.as_mut(), parts.initramfs.as_mut()),
    };
    let Some(kernel) = kernel else { return Err(BootError::Kernel("there is none".into()).into()) };
    let hardware = Hardware { vcpus: config.vcpus, slots, pci: config.transport == Transport::Pci };
    let entry = boot::load(memory, kernel, initramfs, &cmdline, &hardware)?;
    registers::write_tables(memory, entry)?;
    let mut vcpus = Vec::new();
    for number in 0..config.vcpus {
        let vcpu = vm.create_vcpu(u64::from(number)).map_err(kvm_step("make a processor"))?;
        let table = cpuid::table(&parts.kvm, number as u8, config.vcpus, &config.cpu_mask);
        let table = table.map_err(kvm_step("say what processors it supports"))?;
        vcpu.set_cpuid2(&table).map_err(kvm_step("set the processor's features"))?;
        registers::prepare(&vcpu)?;
        if number == 0 {
            report_cpuid(config, &vcpu, &table);
            registers::start(&vcpu, entry)?;
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
    state.fits(config.vcpus, config.memory_mib, bus.slots.len() + pci.len())?;
    bus.restore_ports(&state.ports)?;
    for (slot, saved) in bus.slots.iter().zip(&state.slots) {
        slot.restore(saved)?;
    }
    let names: Vec<&str> = pci.iter().map(|device| device.slot.name.as_str()).collect();
    for (device, saved) in pci.iter().zip(PciState::in_order_of(&state.pci, &names)?) {
        device.restore(saved)?;
    }
    let mut vcpus = Vec::new();
    for number in 0..config.vcpus {
        vcpus.push(vm.create_vcpu(u64::from(number)).map_err(kvm_step("make a processor"))?);
    }
    for (vcpu, saved) in vcpus.iter().zip(&state.processors) {
        saved.restore(&parts.kvm, vcpu)?;
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
