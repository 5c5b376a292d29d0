//! What a debugger makes of processors: how they are set to stop, and what they tell when they do.
//!
//! ```text
//!   at the gate: set (steps, addresses) ─► run ─► debug exit ─► told here, gate shut ─► all at the gate, the monitor hears of it
//! ```
//! A KVM that emulates privileged code may give up at an instruction that was put into memory instead of stopping there: it
//! stands at the same place, so that counts as the stop it is.

use crate::gate::lock;
use crate::gdb::command::{Point, PointKind};
use crate::gdb::session::Next;
use kvm_bindings::{
    KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_INJECT_BP, KVM_GUESTDBG_INJECT_DB,
    KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP, KVM_GUESTDBG_USE_SW_BP, kvm_debug_exit_arch, kvm_guest_debug,
};
use kvm_ioctls::VcpuFd;
use std::collections::BTreeSet;
use std::io;
use std::sync::Mutex;
use vmm_sys_util::eventfd::EventFd;

/// Exceptions that a debugger gets.
pub const DEBUG: u32 = 1;
pub const BREAKPOINT: u32 = 3;
/// DR7: the bit that is always set, and exactness.
const EXACT: u64 = 0x700;

/// A processor that stopped.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// Which.
    pub processor: u16,
    /// [`DEBUG`] or [`BREAKPOINT`].
    pub exception: u32,
    /// Where it stands.
    pub pc: u64,
    /// Which of the processor's own points it was, and whether it was a step.
    pub dr6: u64,
}

/// Where the processors of one machine tell.
pub struct Stops {
    events: Mutex<Vec<Event>>,
    planted: Mutex<BTreeSet<u64>>,
    /// Becomes readable when one has stopped.
    pub event: EventFd,
}

impl Stops {
    /// Of a machine in which nobody looks yet.
    pub fn new() -> io::Result<Stops> {
        let event = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        Ok(Stops { events: Mutex::default(), planted: Mutex::default(), event })
    }

    /// A processor has stopped; it goes to the gate, which it has shut.
    pub fn tell(&self, processor: u16, exit: &kvm_debug_exit_arch) {
        let (exception, pc, dr6) = (exit.exception, exit.pc, exit.dr6);
        lock(&self.events).push(Event { processor, exception, pc, dr6 });
        let _ = self.event.write(1);
    }

    /// Who has stopped since the last question, in that order.
    pub fn take(&self) -> Vec<Event> {
        let _ = self.event.read();
        std::mem::take(&mut *lock(&self.events))
    }

    /// Where instructions were put into memory.
    pub fn set_planted(&self, addresses: &[u64]) {
        *lock(&self.planted) = addresses.iter().copied().collect();
    }

    /// Whether one was put there.
    pub fn is_planted(&self, address: u64) -> bool {
        lock(&self.planted).contains(&address)
    }
}

/// Which points of the processor's own an event is about: their numbers, lowest first.
pub fn hit(dr6: u64) -> Option<usize> {
    let low = dr6 & 0xf;
    (low != 0).then(|| low.trailing_zeros() as usize)
}

/// DR7 for these points.
fn switches(points: &[Point]) -> u64 {
    (0..).zip(points).fold(EXACT, |all, (n, point): (u32, &Point)| {
        let what = match point.kind {
            PointKind::Software | PointKind::Hardware => 0,
            PointKind::Write => 1,
            PointKind::Access => 3,
        };
        let length = match point.length {
            2 => 1,
            4 => 3,
            8 => 2,
            _ => 0,
        };
        all | 2 << (2 * n) | (what | length << 2) << (16 + 4 * n)
    })
}

/// Sets a processor that stands at the gate.
pub fn set(fd: &VcpuFd, next: Next, points: &[Point], planted: bool) -> Result<(), kvm_ioctls::Error> {
    let mut debug = kvm_guest_debug { control: KVM_GUESTDBG_ENABLE, ..Default::default() };
    if planted {
        debug.control |= KVM_GUESTDBG_USE_SW_BP;
    }
    if !points.is_empty() {
        debug.control |= KVM_GUESTDBG_USE_HW_BP;
        for (register, point) in debug.arch.debugreg.iter_mut().zip(points) {
            *register = point.address;
        }
        debug.arch.debugreg[7] = switches(points);
    }
    if next == Next::Step {
        // An interrupt in the middle of a step would show its handler instead of the next instruction.
        debug.control |= KVM_GUESTDBG_SINGLESTEP;
        let quiet = kvm_guest_debug { control: debug.control | KVM_GUESTDBG_BLOCKIRQ, ..debug };
        if fd.set_guest_debug(&quiet).is_ok() {
            return Ok(());
        }
    }
    fd.set_guest_debug(&debug)
}

/// Leaves the processor alone.
pub fn unset(fd: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    fd.set_guest_debug(&kvm_guest_debug::default())
}

/// An exception that is the guest's own goes to the guest, with the next entry.
pub fn give(fd: &VcpuFd, exception: u32, planted: bool) -> Result<(), kvm_ioctls::Error> {
    let whose = if exception == BREAKPOINT { KVM_GUESTDBG_INJECT_BP } else { KVM_GUESTDBG_INJECT_DB };
    let control = KVM_GUESTDBG_ENABLE | whose | if planted { KVM_GUESTDBG_USE_SW_BP } else { 0 };
    fd.set_guest_debug(&kvm_guest_debug { control, ..Default::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_registers_say_what_is_watched() {
        let point = |kind, length| Point { kind, address: 0x1000, length };
        assert_eq!(switches(&[]), 0x700);
        assert_eq!(switches(&[point(PointKind::Hardware, 1)]), 0x702);
        let two = [point(PointKind::Hardware, 1), point(PointKind::Write, 8)];
        assert_eq!(switches(&two), 0x70a | 0b1001 << 20);
        assert_eq!(switches(&[point(PointKind::Access, 4)]), 0x702 | 0b1111 << 16);
        assert_eq!((hit(0xffff_0ff0), hit(0x4001), hit(0xc)), (None, Some(0), Some(2)));
    }

    #[test]
    fn stops_are_told_in_their_order_and_once() {
        let stops = Stops::new().unwrap();
        for pc in [1, 2] {
            stops.tell(pc as u16, &kvm_debug_exit_arch { exception: DEBUG, pc, ..Default::default() });
        }
        assert_eq!(stops.take().iter().map(|event| event.pc).collect::<Vec<_>>(), [1, 2]);
        assert!(stops.take().is_empty());
        stops.set_planted(&[7]);
        assert!(stops.is_planted(7) && !stops.is_planted(8));
    }
}
