//! What the guest's `cpuid` instruction says: what KVM supports, plus our topology, minus what the configuration hides.
//!
//! Every virtual processor is one core of one package; where the guest has several nodes (NUMA) they share no cache, as kernels take
//! those that do for near each other. Some KVMs put bits back that user space left out; `difference`
//! tells which, so that the journal can say what the guest really sees.

use super::level::{self, Level};
use crate::config::CpuFeature;
use crate::snapshot::SnapshotError;
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Kvm, VcpuFd};

/// Takes a feature, or several, from a leaf.
fn hide(entry: &mut kvm_cpuid_entry2, feature: CpuFeature) {
    let mut take = |bits: u32| {
        if (entry.function, entry.index) == (1, 0) {
            entry.ecx &= !bits;
        }
    };
    match feature {
        CpuFeature::Cx16 => take(1 << 13),
        CpuFeature::X2apic => take(1 << 21),
        CpuFeature::TscDeadline => take(1 << 24),
        CpuFeature::AboveV2 => level::keep(entry, Level::V2),
        CpuFeature::AboveV3 => level::keep(entry, Level::V3),
    }
}

/// The table for the processor with this number.
pub fn table(kvm: &Kvm, number: u8, vcpus: u16, apart: bool, mask: &[CpuFeature]) -> Result<CpuId, kvm_ioctls::Error> {
    let mut table = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    adjust(&mut table, number, vcpus, apart, mask);
    Ok(table)
}

/// The table of another processor of the same machine, made from this one's: a machine that moved here goes on with the
/// features that it came with.
pub fn alike(mut table: CpuId, number: u8, possible: u16) -> CpuId {
    let last = table.as_slice().iter().find(|entry| entry.function == 4 && is_last(entry));
    let apart = possible > 1 && last.is_some_and(|entry| entry.eax & SHARED == 0);
    adjust(&mut table, number, possible, apart, &[]);
    table
}

/// In a leaf of deterministic caches: by how many processors it is shared.
const SHARED: u32 = 0xfff << 14;

/// Whether a leaf of deterministic caches is of one that processors share.
fn is_last(entry: &kvm_cpuid_entry2) -> bool {
    entry.eax & 0x1f != 0 && (entry.eax >> 5) & 7 >= 3
}

/// Topology and mask. `apart`: no cache is shared.
fn adjust(table: &mut CpuId, number: u8, vcpus: u16, apart: bool, mask: &[CpuFeature]) {
    let count = u32::from(vcpus);
    // Bits of an APIC id that tell cores of one package apart.
    let core_bits = count.next_power_of_two().trailing_zeros();
    for entry in table.as_mut_slice() {
        match entry.function {
            0x1 => {
                entry.ecx |= 1 << 31; // a hypervisor is present
                entry.ebx = (entry.ebx & 0x0000_ffff) | (u32::from(number) << 24) | (count.min(255) << 16);
                entry.edx = if count > 1 { entry.edx | 1 << 28 } else { entry.edx & !(1 << 28) };
            }
            // Deterministic caches: private to the core up to level 2, the last one shared by all.
            0x4 if entry.eax & 0x1f != 0 => {
                let shared = if is_last(entry) && !apart { count - 1 } else { 0 };
                entry.eax = (entry.eax & 0x3fff) | (shared.min(0xfff) << 14) | ((count - 1).min(0x3f) << 26);
            }
            0xb | 0x1f => {
                let (shift, logical, kind) = match entry.index {
                    0 => (0, 1, 1),
                    1 => (core_bits, count, 2),
                    _ => (0, 0, 0),
                };
                entry.eax = shift;
                entry.ebx = logical;
                entry.ecx = entry.index | (kind << 8);
                entry.edx = u32::from(number);
            }
            0x8000_0008 => entry.ecx = (core_bits << 12) | (count - 1).min(255),
            0x8000_001e => {
                entry.eax = u32::from(number);
                entry.ebx = u32::from(number);
                entry.ecx = 0;
            }
            _ => {}
        }
        mask.iter().for_each(|feature| hide(entry, *feature));
    }
}

/// Refuses a processor whose guest was told of features that this host lacks.
pub fn admit(kvm: &Kvm, vcpu: &VcpuFd, had: &[kvm_cpuid_entry2]) -> Result<(), SnapshotError> {
    let asked = SnapshotError::kvm("say what processors it supports");
    let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(asked)?;
    // Some give more than they say that they support.
    vcpu.set_cpuid2(&supported).map_err(SnapshotError::kvm("set a processor's features"))?;
    let given = vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES).map_err(SnapshotError::kvm("read a processor's features"))?;
    let lacking = level::missing(had, &[supported.as_slice(), given.as_slice()]);
    match lacking.is_empty() {
        true => Ok(()),
        false => Err(SnapshotError::Mismatch(format!("this host lacks features that it had: {}", lacking.join(", ")))),
    }
}

/// Leaves that KVM gives the guest otherwise than they were set, as `leaf.index reg set/seen`. Empty when it cannot be
/// asked.
pub fn difference(vcpu: &VcpuFd, set: &CpuId) -> Vec<String> {
    let Ok(seen) = vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES) else { return Vec::new() };
    let mut out = Vec::new();
    for want in set.as_slice() {
        let found = seen.as_slice().iter().find(|e| e.function == want.function && e.index == want.index);
        let Some(found) = found else { continue };
        let pairs = [("ebx", want.ebx, found.ebx), ("ecx", want.ecx, found.ecx), ("edx", want.edx, found.edx)];
        for (name, a, b) in pairs.into_iter().filter(|(_, a, b)| a != b) {
            out.push(format!("{:#x}.{} {name} {a:08x}/{b:08x}", want.function, want.index));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, index, ecx: u32::MAX, eax: 0x121, ..Default::default() }
    }

    #[test]
    fn topology_is_one_package_of_single_threaded_cores() {
        let mut table = CpuId::from_entries(&[entry(1, 0), entry(0xb, 0), entry(0xb, 1), entry(4, 0)]).unwrap();
        adjust(&mut table, 2, 3, false, &[]);
        let [one, threads, cores, cache] = table.as_slice() else { panic!() };
        assert_eq!((one.ebx >> 24, (one.ebx >> 16) & 0xff, one.edx >> 28 & 1), (2, 3, 1));
        assert_eq!((threads.eax, threads.ebx, threads.edx), (0, 1, 2));
        assert_eq!((cores.eax, cores.ebx, (cores.ecx >> 8) & 0xff), (2, 3, 2));
        assert_eq!(cache.eax >> 26, 2);
    }

    #[test]
    fn processors_of_several_nodes_share_no_cache_nor_do_those_that_come() {
        let last = kvm_cpuid_entry2 { function: 4, index: 3, eax: 3 << 5 | 1, ..Default::default() };
        for apart in [false, true] {
            let mut table = CpuId::from_entries(&[last]).unwrap();
            adjust(&mut table, 0, 3, apart, &[]);
            let shared = |table: &CpuId| (table.as_slice()[0].eax & SHARED) >> 14;
            let expected = if apart { 0 } else { 2 };
            assert_eq!((shared(&table), shared(&alike(table.clone(), 2, 3))), (expected, expected));
        }
    }

    #[test]
    fn masked_features_are_gone_and_no_others() {
        let mut table = CpuId::from_entries(&[entry(1, 0)]).unwrap();
        adjust(&mut table, 0, 1, false, &[CpuFeature::Cx16]);
        assert_eq!(table.as_slice()[0].ecx, !(1 << 13));
        let mut table = CpuId::from_entries(&[entry(1, 0), entry(7, 0)]).unwrap();
        adjust(&mut table, 0, 1, false, &[CpuFeature::AboveV2]);
        // AVX is gone, SSE4.2 is not; nor is the topology.
        let [one, seven] = table.as_slice() else { panic!() };
        assert_eq!((one.ecx >> 28 & 1, one.ecx >> 20 & 1, one.ebx >> 16 & 0xff, seven.ecx), (0, 1, 1, 0));
    }
}
