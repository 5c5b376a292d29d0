//! The state in which a virtual processor executes its first instruction.

use crate::boot::{BOOT_INFO, Entry, GDT, IDT, PAGE_TABLES};
use crate::memory::Memory;
use kvm_bindings::{Msrs, kvm_fpu, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress};

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const RFLAGS_RESERVED: u64 = 2;

const MSR_IA32_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRING: u64 = 1;
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
/// MTRRs on, memory is write-back unless told otherwise.
const MTRR_ENABLED_WRITE_BACK: u64 = (1 << 11) | 6;

/// Why a processor could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// An ioctl failed.
    #[error("cannot {what}: {source}")]
    Kvm {
        /// Which step.
        what: &'static str,
        /// What KVM said.
        source: kvm_ioctls::Error,
    },
    /// Descriptor tables do not fit into guest memory.
    #[error("descriptor tables do not fit: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
}

fn step(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> SetupError {
    move |source| SetupError::Kvm { what, source }
}

/// A flat segment descriptor as memory holds it.
fn descriptor(flags: u16, base: u32, limit: u32) -> u64 {
    let (flags, base, limit) = (u64::from(flags), u64::from(base), u64::from(limit));
    ((base & 0xff00_0000) << 32)
        | ((flags & 0xf0ff) << 40)
        | ((limit & 0x000f_0000) << 32)
        | ((base & 0x00ff_ffff) << 16)
        | (limit & 0xffff)
}

/// The same as KVM wants it.
fn segment(flags: u16, limit: u32, index: u16) -> kvm_segment {
    let granular = flags & 0x8000 != 0;
    kvm_segment {
        base: 0,
        limit: if granular { (limit << 12) | 0xfff } else { limit },
        selector: index * 8,
        type_: (flags & 0xf) as u8,
        s: (flags >> 4 & 1) as u8,
        dpl: (flags >> 5 & 3) as u8,
        present: (flags >> 7 & 1) as u8,
        avl: (flags >> 12 & 1) as u8,
        l: (flags >> 13 & 1) as u8,
        db: (flags >> 14 & 1) as u8,
        g: u8::from(granular),
        unusable: 0,
        padding: 0,
    }
}

/// What a processor has after power-on beyond what KVM gives it.
pub fn prepare_for_firmware(vcpu: &VcpuFd) {
    set_msr(vcpu, MSR_IA32_MISC_ENABLE, MISC_ENABLE_FAST_STRING);
}

/// Not every KVM has each of them; a processor without is as good.
fn set_msr(vcpu: &VcpuFd, index: u32, data: u64) {
    if let Ok(msrs) = Msrs::from_entries(&[kvm_msr_entry { index, data, ..Default::default() }]) {
        let _ = vcpu.set_msrs(&msrs);
    }
}

/// General and floating point registers, MSRs and interrupt lines of any processor.
pub fn prepare(vcpu: &VcpuFd) -> Result<(), SetupError> {
    let fpu = kvm_fpu { fcw: 0x37f, mxcsr: 0x1f80, ..Default::default() };
    vcpu.set_fpu(&fpu).map_err(step("set the floating point state"))?;
    set_msr(vcpu, MSR_IA32_MISC_ENABLE, MISC_ENABLE_FAST_STRING);
    set_msr(vcpu, MSR_MTRR_DEF_TYPE, MTRR_ENABLED_WRITE_BACK);
    set_local_interrupts(vcpu)
}

/// LINT0 takes the PIC, LINT1 is NMI, as the MP table says.
fn set_local_interrupts(vcpu: &VcpuFd) -> Result<(), SetupError> {
    const LVT_LINT0: usize = 0x350;
    const LVT_LINT1: usize = 0x360;
    const MODE_NMI: u8 = 4;
    const MODE_EXTINT: u8 = 7;
    let mut lapic = vcpu.get_lapic().map_err(step("read the local APIC"))?;
    for (offset, mode) in [(LVT_LINT0, MODE_EXTINT), (LVT_LINT1, MODE_NMI)] {
        // Delivery mode is bits 8 to 10; the register array is of C's `char`.
        let old = lapic.regs[offset + 1] as u8;
        lapic.regs[offset + 1] = ((old & !7) | mode) as _;
    }
    vcpu.set_lapic(&lapic).map_err(step("set the local APIC"))
}

/// Writes the descriptor tables that `start` refers to.
pub fn write_tables(memory: &Memory, entry: Entry) -> Result<(), SetupError> {
    for (n, value) in (0u64..).zip(tables(entry)) {
        memory.write_obj(value, GuestAddress(GDT + n * 8))?;
    }
    memory.write_obj(0u64, GuestAddress(IDT))?;
    Ok(())
}

const CODE_32: u16 = 0xc09b;
const CODE_64: u16 = 0xa09b;
const DATA: u16 = 0xc093;
const TSS: u16 = 0x008b;

fn tables(entry: Entry) -> [u64; 4] {
    let code = if matches!(entry, Entry::Pvh { .. }) { CODE_32 } else { CODE_64 };
    [0, descriptor(code, 0, 0xfffff), descriptor(DATA, 0, 0xfffff), descriptor(TSS, 0, 0x67)]
}

/// Puts the boot processor at the kernel's entry.
pub fn start(vcpu: &VcpuFd, entry: Entry) -> Result<(), SetupError> {
    let mut sregs: kvm_sregs = vcpu.get_sregs().map_err(step("read the special registers"))?;
    let (code, mut regs) = match entry {
        Entry::Pvh { rip } => (CODE_32, kvm_regs { rip, rbx: BOOT_INFO, ..Default::default() }),
        Entry::Linux64 { rip } => (CODE_64, kvm_regs { rip, rsi: BOOT_INFO, ..Default::default() }),
    };
    regs.rflags = RFLAGS_RESERVED;
    if matches!(entry, Entry::Linux64 { .. }) {
        regs.rsp = 0x8ff0;
        regs.rbp = 0x8ff0;
    }
    sregs.cs = segment(code, 0xfffff, 1);
    let data = segment(DATA, 0xfffff, 2);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = segment(TSS, 0x67, 3);
    sregs.gdt.base = GDT;
    sregs.gdt.limit = 4 * 8 - 1;
    sregs.idt.base = IDT;
    sregs.idt.limit = 7;
    sregs.cr0 = CR0_PE | CR0_ET;
    sregs.cr4 = 0;
    if matches!(entry, Entry::Linux64 { .. }) {
        sregs.cr3 = PAGE_TABLES;
        sregs.cr4 = CR4_PAE;
        sregs.cr0 |= CR0_PG;
        sregs.efer |= EFER_LME | EFER_LMA;
    }
    vcpu.set_sregs(&sregs).map_err(step("set the special registers"))?;
    vcpu.set_regs(&regs).map_err(step("set the registers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_in_memory_and_in_kvm_agree() {
        assert_eq!(descriptor(CODE_32, 0, 0xfffff), 0x00cf_9b00_0000_ffff);
        assert_eq!(descriptor(CODE_64, 0, 0xfffff), 0x00af_9b00_0000_ffff);
        let code = segment(CODE_64, 0xfffff, 1);
        assert_eq!((code.limit, code.selector, code.l, code.db, code.g), (0xffff_ffff, 8, 1, 0, 1));
        let tss = segment(TSS, 0x67, 3);
        assert_eq!((tss.limit, tss.type_, tss.s, tss.present), (0x67, 11, 0, 1));
    }
}
