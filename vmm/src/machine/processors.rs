//! Processors that come to and go from a running machine.
//!
//! ```text
//!   never there ──made, thread started──► there ◄──set back to power-on── parked
//!                                           └──the guest lets go, kicked──► ┘
//! ```
//! KVM makes processors at any time and cannot take one apart. So one is made when it comes first, which costs a machine
//! that could grow nothing before it does (the monitor may start threads and make processors in the jail anyway: it builds
//! machines anew); when it goes its thread is parked, and when it comes again it is used again.

use super::{Machine, MachineError, kvm_step};
use crate::cpu::{cpuid, registers};
use crate::device::events;
use crate::gate::lock;
use crate::sandbox::Threads;
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, KVM_MP_STATE_UNINITIALIZED, kvm_mp_state};
use kvm_ioctls::VcpuFd;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Longest wait for a processor to leave the guest.
const PARK_WAIT: Duration = Duration::from_secs(5);
/// Where the registers of a local APIC lie, and that it is on, after power-on.
const APIC_BASE: u64 = 0xfee0_0000 | 1 << 11;

/// What processors that come are made like: the first, as the machine began here. It may have brought that along.
pub struct Model {
    features: CpuId,
    tsc_khz: u32,
}

impl Model {
    /// Of a processor that does not run yet.
    pub fn of(vcpu: &VcpuFd) -> Result<Model, MachineError> {
        let features = vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES).map_err(kvm_step("read a processor's features"))?;
        Ok(Model { features, tsc_khz: vcpu.get_tsc_khz().unwrap_or(0) })
    }
}

impl Machine {
    /// How many processors are there.
    pub fn processors_there(&self) -> u16 {
        self.bus.presence.count()
    }

    /// Whether the guest hears of processors that come, or are to go.
    pub fn hears_of_processors(&self) -> bool {
        lock(&self.bus.events).listens(events::PROCESSORS)
    }

    /// Has this many processors be there: adds what is missing, asks the guest to let go of what is too many.
    pub fn resize_processors(&mut self, count: u16, possible: u16, threads: &Threads) -> Result<(), MachineError> {
        self.wanted_vcpus = count;
        lock(&self.bus.processors).keep(count);
        let missing = count.saturating_sub(self.processors_there());
        let absent: Vec<u16> = lock(&self.bus.processors).absent().take(missing.into()).collect();
        for number in absent {
            match self.vcpus.get(usize::from(number)) {
                Some(_) => self.set_back(number)?,
                None => self.make_processor(number, possible, threads)?,
            }
            lock(&self.bus.processors).came(number);
        }
        self.gate.nudge();
        lock(&self.bus.events).raise(events::PROCESSORS);
        Ok(())
    }

    /// Takes processors that the guest has let go of out of it.
    pub fn park_absent(&self) {
        for (number, seen) in self.seen.iter().enumerate() {
            if !self.bus.presence.has(number as u16) && !seen.parked.load(Ordering::Acquire) {
                self.kick(number);
            }
        }
    }

    /// One that was never there, like the first in all that is not its number.
    fn make_processor(&mut self, number: u16, possible: u16, threads: &Threads) -> Result<(), MachineError> {
        let Some(Model { features, tsc_khz }) = &self.model else { return Ok(()) };
        let khz = *tsc_khz;
        let vcpu = self.vm.create_vcpu(number.into()).map_err(kvm_step("make a processor"))?;
        let features = cpuid::alike(features.clone(), number as u8, possible);
        vcpu.set_cpuid2(&features).map_err(kvm_step("set the processor's features"))?;
        if khz != 0 && khz != vcpu.get_tsc_khz().unwrap_or(0) {
            vcpu.set_tsc_khz(khz).map_err(kvm_step("set the clock rate"))?;
        }
        registers::prepare(&vcpu)?;
        self.start_processor(vcpu, threads)
    }

    /// One that is parked, as after power-on: what the guest does to start it sets all else.
    fn set_back(&self, number: u16) -> Result<(), MachineError> {
        let (at, end) = (usize::from(number), Instant::now() + PARK_WAIT);
        let (Some(fd), Some(seen)) = (self.vcpus.get(at), self.seen.get(at)) else { return Ok(()) };
        while !seen.parked.load(Ordering::Acquire) {
            if Instant::now() > end {
                let text = "a processor that has gone does not come to rest";
                return Err(io::Error::new(io::ErrorKind::TimedOut, text).into());
            }
            self.park_absent();
            self.gate.rest(Duration::from_millis(1));
        }
        power_on(&lock(fd))
    }
}

fn power_on(vcpu: &VcpuFd) -> Result<(), MachineError> {
    let mut special = vcpu.get_sregs().map_err(kvm_step("read the special registers"))?;
    special.apic_base = APIC_BASE;
    vcpu.set_sregs(&special).map_err(kvm_step("set the special registers"))?;
    let state = kvm_mp_state { mp_state: KVM_MP_STATE_UNINITIALIZED };
    vcpu.set_mp_state(state).map_err(kvm_step("set the run state"))
}
