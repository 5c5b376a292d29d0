//! A processor's whole state, read from KVM and given back to it.
//!
//! Order matters: features first, for they decide what the rest may be; the TSC before the timer that is set in terms
//! of it; pending events last, because setting registers can drop them.

use super::cpuid;
use crate::snapshot::SnapshotError;
use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry,
    kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Kvm, VcpuFd};
use serde::{Deserialize, Serialize};

const MSR_IA32_TSC: u32 = 0x10;
const MSR_IA32_TSC_DEADLINE: u32 = 0x6e0;
/// MSRs in one call.
const CALL_MAX: usize = 200;

/// One processor.
#[derive(Serialize, Deserialize)]
pub struct ProcessorState {
    features: Vec<kvm_cpuid_entry2>,
    tsc_khz: u32,
    mp: kvm_mp_state,
    registers: kvm_regs,
    special: kvm_sregs,
    /// Floating point and vector state; None where this KVM gives none.
    extended: Option<kvm_xsave>,
    extended_control: Option<kvm_xcrs>,
    debug: kvm_debugregs,
    local_apic: kvm_lapic_state,
    model_specific: Vec<kvm_msr_entry>,
    events: kvm_vcpu_events,
}

impl std::fmt::Debug for ProcessorState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessorState").field("rip", &self.registers.rip).finish_non_exhaustive()
    }
}

impl ProcessorState {
    /// Reads it. The processor stands at the gate, its last exit completed.
    pub fn save(kvm: &Kvm, vcpu: &VcpuFd) -> Result<ProcessorState, SnapshotError> {
        let read = |what: &str| SnapshotError::kvm(format!("read a processor's {what}"));
        Ok(ProcessorState {
            features: vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES).map_err(read("features"))?.as_slice().to_vec(),
            tsc_khz: vcpu.get_tsc_khz().unwrap_or(0),
            // First of the states: reading it settles what the interrupt controllers have pending.
            mp: vcpu.get_mp_state().map_err(read("run state"))?,
            registers: vcpu.get_regs().map_err(read("registers"))?,
            special: vcpu.get_sregs().map_err(read("special registers"))?,
            extended: vcpu.get_xsave().ok(),
            extended_control: vcpu.get_xcrs().ok(),
            debug: vcpu.get_debug_regs().map_err(read("debug registers"))?,
            local_apic: vcpu.get_lapic().map_err(read("interrupt controller"))?,
            model_specific: model_specific(kvm, vcpu)?,
            events: vcpu.get_vcpu_events().map_err(read("pending events"))?,
        })
    }

    /// Sets it on a processor that has not run.
    pub fn restore(&self, kvm: &Kvm, vcpu: &VcpuFd) -> Result<(), SnapshotError> {
        cpuid::admit(kvm, vcpu, &self.features)?;
        let set = |what: &str| SnapshotError::kvm(format!("set a processor's {what}"));
        let features =
            CpuId::from_entries(&self.features).map_err(|_| SnapshotError::Malformed("too many features".into()))?;
        vcpu.set_cpuid2(&features).map_err(set("features"))?;
        let khz = vcpu.get_tsc_khz().unwrap_or(0);
        if self.tsc_khz != 0 && self.tsc_khz != khz {
            // Another host: its KVM can scale, or the guest would see time run wrong.
            vcpu.set_tsc_khz(self.tsc_khz).map_err(set("clock rate"))?;
        }
        vcpu.set_mp_state(self.mp).map_err(set("run state"))?;
        vcpu.set_regs(&self.registers).map_err(set("registers"))?;
        vcpu.set_sregs(&self.special).map_err(set("special registers"))?;
        if let Some(extended) = &self.extended {
            // SAFETY: the state has the size that this call reads, because no feature was asked for that makes the
            // area larger than one page; KVM checks the contents.
            unsafe { vcpu.set_xsave(extended) }.map_err(set("vector registers"))?;
        }
        if let Some(control) = &self.extended_control {
            vcpu.set_xcrs(control).map_err(set("extended control registers"))?;
        }
        vcpu.set_debug_regs(&self.debug).map_err(set("debug registers"))?;
        vcpu.set_lapic(&self.local_apic).map_err(set("interrupt controller"))?;
        self.set_model_specific(vcpu)?;
        vcpu.set_vcpu_events(&self.events).map_err(set("pending events"))
    }

    fn set_model_specific(&self, vcpu: &VcpuFd) -> Result<(), SnapshotError> {
        let mut rest = &self.model_specific[..];
        while !rest.is_empty() {
            let part = &rest[..rest.len().min(CALL_MAX)];
            let msrs = Msrs::from_entries(part).map_err(|_| SnapshotError::Malformed("too many MSRs".into()))?;
            let done = vcpu.set_msrs(&msrs).map_err(SnapshotError::kvm("set a processor's MSRs"))?;
            let Some(refused) = part.get(done) else {
                rest = &rest[part.len()..];
                continue;
            };
            // Some can be read but not written; that is well as long as the value is there already.
            if read_one(vcpu, refused.index) != Some(refused.data) {
                let text = format!("MSR {:#x} cannot become {:#x} here", refused.index, refused.data);
                return Err(SnapshotError::Mismatch(text));
            }
            rest = &rest[done + 1..];
        }
        Ok(())
    }
}

fn read_one(vcpu: &VcpuFd, index: u32) -> Option<u64> {
    let mut one = Msrs::from_entries(&[kvm_msr_entry { index, ..Default::default() }]).ok()?;
    (vcpu.get_msrs(&mut one).ok()? == 1).then(|| one.as_slice()[0].data)
}

/// All MSRs that KVM says are part of a processor's state and then really gives.
fn model_specific(kvm: &Kvm, vcpu: &VcpuFd) -> Result<Vec<kvm_msr_entry>, SnapshotError> {
    let list = kvm.get_msr_index_list().map_err(SnapshotError::kvm("list MSRs"))?;
    let mut wanted: Vec<u32> = list.as_slice().to_vec();
    wanted.sort_by_key(|index| match *index {
        MSR_IA32_TSC => 0,
        MSR_IA32_TSC_DEADLINE => 2,
        _ => 1,
    });
    let (mut out, mut rest) = (Vec::new(), &wanted[..]);
    while !rest.is_empty() {
        let part = &rest[..rest.len().min(CALL_MAX)];
        let entries: Vec<_> = part.iter().map(|index| kvm_msr_entry { index: *index, ..Default::default() }).collect();
        let mut msrs = Msrs::from_entries(&entries).map_err(|_| SnapshotError::Malformed("too many MSRs".into()))?;
        let done = vcpu.get_msrs(&mut msrs).map_err(SnapshotError::kvm("read a processor's MSRs"))?;
        out.extend_from_slice(&msrs.as_slice()[..done]);
        // The one at which it stopped does not exist on this processor.
        rest = &rest[(done + usize::from(done < part.len())).min(rest.len())..];
    }
    Ok(out)
}
