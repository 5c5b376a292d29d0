//! The life of one virtual processor: run, serve the exit, pass the gate, run again.
//!
//! ```text
//!   gate ──► KVM_RUN ──► exit ──► bus ──┐
//!    ▲          │ EINTR (kicked)        │
//!    └─ settle ◄┴───────────────────────┘      shutdown, reset, internal error ──► stop
//! ```
//! KVM finishes the instruction behind an exit only when it is entered again. So a processor that is called to the gate
//! first enters once more without running guest code (`settle`): only then are its registers whole.
//!
//! A processor that the guest has let go of (`device::processors`) is parked: it runs no guest code until it comes again.
//!
//! Kicking is a signal whose handler sets `immediate_exit` of this thread's `kvm_run`: a signal that comes just before
//! KVM_RUN is therefore not lost.

use crate::cpu::debug::{BREAKPOINT, Stops};
use crate::cpu::throttle::Throttle;
use crate::device::{Bus, Flow};
use crate::gate::{Gate, Pass, lock};
use crate::machine::Stop;
use crate::state::StopReason;
use kvm_bindings::{
    KVM_MP_STATE_HALTED, KVM_MP_STATE_UNINITIALIZED, KVM_SYSTEM_EVENT_RESET, kvm_debug_exit_arch, kvm_run,
};
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::cell::Cell;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Between two looks of a processor that a debugger holds.
const HELD: Duration = Duration::from_secs(60);
/// The interrupt flag in RFLAGS.
const RFLAGS_IF: u64 = 1 << 9;

thread_local! {
    /// What the signal handler of this thread may touch; null outside `run`.
    static RUN: Cell<*mut kvm_run> = const { Cell::new(std::ptr::null_mut()) };
}

/// What other threads see of a processor.
#[derive(Debug, Default)]
pub struct Seen {
    /// Exits to user space since the start.
    pub exits: AtomicU64,
    /// Set to have the processor look whether it can ever wake up again.
    pub inspect: AtomicBool,
    /// Found halted with interrupts off (or never started) at the last inspection.
    pub dead: AtomicBool,
    /// A debugger looks at another processor: this one stands still. Changes only while all stand at the gate.
    pub held: AtomicBool,
    /// The guest has let go of it, and it stands still, its last exit completed.
    pub parked: AtomicBool,
}

/// Everything the loop needs.
pub struct Processor {
    /// Number, from 0.
    pub number: u16,
    /// The KVM side. Held while the guest runs; whoever wants it waits until the processor stands at the gate.
    pub fd: Arc<Mutex<VcpuFd>>,
    /// Ports and MMIO.
    pub bus: Arc<Bus>,
    /// Pause and quit.
    pub gate: Arc<Gate>,
    /// How the machine ends.
    pub stop: Arc<Stop>,
    /// For status and halt detection.
    pub seen: Arc<Seen>,
    /// How slow it is to be.
    pub throttle: Arc<Throttle>,
    /// Where it tells what a debugger is to hear.
    pub stops: Arc<Stops>,
}

extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let run = RUN.get();
    if !run.is_null() {
        // SAFETY: the pointer is this thread's own kvm_run mapping, set and cleared by `run` around its life; a byte
        // store is all that happens, which is allowed in a signal handler.
        unsafe { (&raw mut (*run).immediate_exit).write_volatile(1) };
    }
}

/// The signal that kicks a processor out of the guest.
pub fn kick_signal() -> libc::c_int {
    vmm_sys_util::signal::SIGRTMIN()
}

/// Installs the handler, once a process.
pub fn install_kick() -> Result<(), std::io::Error> {
    vmm_sys_util::signal::register_signal_handler(kick_signal(), on_kick)
        .map_err(|e| std::io::Error::from_raw_os_error(e.errno()))
}

/// Clears the pointer however the loop ends.
struct Registered;

impl Drop for Registered {
    fn drop(&mut self) {
        RUN.set(std::ptr::null_mut());
    }
}

/// Runs until the gate says quit or the machine stops.
pub fn run(processor: Processor) {
    RUN.set(&raw mut *lock(&processor.fd).get_kvm_run());
    let _registered = Registered;
    let mut began = Instant::now();
    loop {
        if processor.gate.is_calling() {
            if let Some(reason) = settle(&processor) {
                processor.stop.set(reason);
            }
            if processor.gate.pass() == Pass::Quit {
                return;
            }
        }
        if processor.seen.held.load(Ordering::Acquire) {
            // Until the gate calls.
            processor.gate.rest(HELD);
            continue;
        }
        if !processor.bus.presence.has(processor.number) {
            if let Some(reason) = park(&processor) {
                processor.stop.set(reason);
            }
            continue;
        }
        if processor.seen.parked.load(Ordering::Relaxed) {
            processor.seen.parked.store(false, Ordering::Release);
        }
        match step(&processor) {
            Next::Again => {}
            Next::Interrupted => {
                if let Some(time) = processor.throttle.rest_after(began.elapsed()) {
                    processor.gate.rest(time);
                    began = Instant::now();
                }
            }
            Next::Inspect => inspect(&processor),
            Next::Park(reason) => {
                // This sends all home through the gate: no guest instruction runs on this processor after it.
                processor.stop.set(reason);
                return;
            }
        }
    }
}

/// Completes the last exit and stops before the next guest instruction. A reason: the machine ends instead.
fn settle(processor: &Processor) -> Option<StopReason> {
    loop {
        lock(&processor.fd).set_kvm_immediate_exit(1);
        match step(processor) {
            Next::Again => {}
            Next::Interrupted | Next::Inspect => return None,
            Next::Park(reason) => return Some(reason),
        }
    }
}

/// Stands still until the processor is there again, or the gate calls. A reason: the machine ends.
fn park(processor: &Processor) -> Option<StopReason> {
    if !processor.seen.parked.load(Ordering::Acquire) {
        let reason = settle(processor);
        processor.seen.parked.store(true, Ordering::Release);
        return reason;
    }
    processor.gate.rest_while(HELD, || !processor.bus.presence.has(processor.number));
    None
}

enum Next {
    Again,
    Interrupted,
    Inspect,
    Park(StopReason),
}

fn crashed(detail: impl Into<String>) -> Next {
    Next::Park(StopReason::Crashed { detail: detail.into() })
}

fn step(processor: &Processor) -> Next {
    let bus = &processor.bus;
    let mut fd = lock(&processor.fd);
    let exit = match fd.run() {
        Ok(exit) => exit,
        Err(e) if e.errno() == libc::EINTR => {
            fd.set_kvm_immediate_exit(0);
            return if processor.seen.inspect.load(Ordering::Acquire) { Next::Inspect } else { Next::Interrupted };
        }
        Err(e) if e.errno() == libc::EAGAIN => return Next::Again,
        Err(e) => {
            let text = format!("KVM_RUN of processor {} failed: {e}; {}", processor.number, dump(&fd));
            return crashed(text);
        }
    };
    processor.seen.exits.fetch_add(1, Ordering::Relaxed);
    let flow = match exit {
        VcpuExit::MmioWrite(address, data) => bus.mmio_write(address, data),
        VcpuExit::MmioRead(address, data) => bus.mmio_read(address, data),
        VcpuExit::IoOut(port, data) => bus.port_write(port, data),
        VcpuExit::IoIn(port, data) => bus.port_read(port, data),
        VcpuExit::Hlt | VcpuExit::Intr | VcpuExit::IrqWindowOpen | VcpuExit::IoapicEoi(_) => Flow::Go,
        VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _) | VcpuExit::Shutdown => Flow::Stop(StopReason::Reset),
        VcpuExit::SystemEvent(_, _) => Flow::Stop(StopReason::PoweredOff),
        VcpuExit::Debug(exit) => {
            processor.stops.tell(processor.number, &exit);
            processor.gate.shut();
            return Next::Again;
        }
        VcpuExit::InternalError => {
            let stopped = stands_at_point(processor, &fd);
            return if stopped { Next::Again } else { crashed(internal_error(processor.number, &mut fd)) };
        }
        other => {
            let what = format!("{other:?}");
            return crashed(format!("processor {}: {what}; {}", processor.number, dump(&fd)));
        }
    };
    match flow {
        Flow::Go => Next::Again,
        Flow::Stop(reason) => Next::Park(reason),
    }
}

/// Whether KVM gave up at an instruction of a debugger's: then that hears of it.
fn stands_at_point(processor: &Processor, fd: &VcpuFd) -> bool {
    let at = fd.get_regs().map(|registers| registers.rip);
    let Some(pc) = at.ok().filter(|pc| processor.stops.is_planted(*pc)) else { return false };
    processor.stops.tell(processor.number, &kvm_debug_exit_arch { exception: BREAKPOINT, pc, ..Default::default() });
    processor.gate.shut();
    true
}

/// Can anything wake this processor? No NMI source exists here, so halted with interrupts off is final.
fn inspect(processor: &Processor) {
    let fd = lock(&processor.fd);
    let state = fd.get_mp_state().map(|s| s.mp_state);
    let dead = match state {
        Ok(KVM_MP_STATE_UNINITIALIZED) => processor.number != 0,
        Ok(KVM_MP_STATE_HALTED) => fd.get_regs().is_ok_and(|r| r.rflags & RFLAGS_IF == 0),
        _ => false,
    };
    processor.seen.dead.store(dead, Ordering::Release);
    processor.seen.inspect.store(false, Ordering::Release);
}

fn internal_error(number: u16, fd: &mut VcpuFd) -> String {
    // SAFETY: the exit reason says that KVM filled this member of the union, all of it plain integers.
    let error = unsafe { fd.get_kvm_run().__bindgen_anon_1.internal };
    let count = (error.ndata as usize).min(error.data.len());
    let mut text = format!("KVM internal error on processor {number}, suberror {}", error.suberror);
    for value in &error.data[..count] {
        let _ = write!(text, " {value:#x}");
    }
    let _ = write!(text, "; {}", dump(fd));
    text
}

/// The registers that tell where a guest died. Guest memory is not in it.
pub fn dump(fd: &VcpuFd) -> String {
    let (Ok(r), Ok(s)) = (fd.get_regs(), fd.get_sregs()) else { return "registers unreadable".into() };
    format!(
        "rip={:#x} rsp={:#x} rflags={:#x} rax={:#x} rbx={:#x} rcx={:#x} rdx={:#x} rsi={:#x} rdi={:#x} rbp={:#x} \
         cr0={:#x} cr2={:#x} cr3={:#x} cr4={:#x} efer={:#x} cs={:#x} ss={:#x}",
        r.rip,
        r.rsp,
        r.rflags,
        r.rax,
        r.rbx,
        r.rcx,
        r.rdx,
        r.rsi,
        r.rdi,
        r.rbp,
        s.cr0,
        s.cr2,
        s.cr3,
        s.cr4,
        s.efer,
        s.cs.selector,
        s.ss.selector
    )
}
