//! Baseline processors: what a machine keeps of its host's features so that it can move to any host of a level.
//!
//! The levels x86-64-v2 and -v3 are those of the System V ABI's supplement for x86-64 (section 3.1.1). Kept besides is what
//! every processor of the level has for operating systems, what KVM provides by itself, and what keeps guests safe from
//! speculation: a host without that refuses the machine. Hidden are instructions beyond the level, performance counters,
//! tracing and vector state that a host may lack.
//!
//! Vendor, model and address width stay those of the host: a level spans generations, not vendors.

use kvm_bindings::kvm_cpuid_entry2;

/// A level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Nehalem and Jaguar, 2008 and after.
    V2,
    /// Haswell and Zen, 2013 and after.
    V3,
}

const fn bits(numbers: &[u32]) -> u32 {
    let (mut out, mut n) = (0, 0);
    while n < numbers.len() {
        out |= 1 << numbers[n];
        n += 1;
    }
    out
}

/// FPU to SSE2 and what stands between for operating systems, and several processors.
const BASE_EDX: u32 = 0x178b_fbff;
/// SSE3, SSSE3, CX16, SSE4.1, SSE4.2, x2APIC, POPCNT, TSC deadline, hypervisor.
const V2_ECX: u32 = bits(&[0, 9, 13, 19, 20, 21, 23, 24, 31]);
/// FMA, MOVBE, XSAVE, its being in use, AVX, F16C.
const V3_ECX: u32 = bits(&[12, 22, 26, 27, 28, 29]);
/// FSGSBASE, BMI1, AVX2, SMEP, BMI2.
const V3_LEAF7: u32 = bits(&[0, 3, 5, 7, 8]);
/// MD_CLEAR, SPEC_CTRL, STIBP, L1D_FLUSH, ARCH_CAPABILITIES, SSBD.
const SPECULATION: u32 = bits(&[10, 26, 27, 28, 29, 31]);
/// LAHF; LZCNT.
const EXTENDED_V2: u32 = bits(&[0]);
const EXTENDED_V3: u32 = bits(&[0, 5]);
/// What AMD repeats of leaf 1, SYSCALL, NX, RDTSCP, long mode.
const EXTENDED_EDX: u32 = 0x0183_f3ff | bits(&[11, 20, 27, 29]);
/// AMD's IBPB, IBRS, STIBP, SSBD.
const EXTENDED_SPECULATION: u32 = bits(&[12, 14, 15, 24]);
/// x87, SSE and AVX state, and its size.
const VECTORS: u32 = 0b111;
const VECTOR_BYTES: u32 = 832;

/// Takes what lies beyond the level from a leaf.
pub fn keep(entry: &mut kvm_cpuid_entry2, level: Level) {
    let v3 = level == Level::V3;
    let if_v3 = |mask: u32| if v3 { mask } else { 0 };
    let and = |register: &mut u32, mask: u32| *register &= mask;
    match (entry.function, entry.index) {
        (1, _) => {
            and(&mut entry.ecx, V2_ECX | if_v3(V3_ECX));
            and(&mut entry.edx, BASE_EDX);
        }
        // Only "timer never stops".
        (6, _) => [entry.eax, entry.ebx, entry.ecx, entry.edx] = [entry.eax & 1 << 2, 0, 0, 0],
        (7, 0) => {
            entry.eax = 0;
            and(&mut entry.ebx, if_v3(V3_LEAF7));
            entry.ecx = 0;
            and(&mut entry.edx, SPECULATION);
        }
        (0xd, 0) if v3 => {
            [entry.eax, entry.edx] = [entry.eax & VECTORS, 0];
            [entry.ebx, entry.ecx] = [entry.ebx.min(VECTOR_BYTES), entry.ecx.min(VECTOR_BYTES)];
        }
        // Only XSAVEOPT.
        (0xd, 1) if v3 => [entry.eax, entry.ebx, entry.ecx, entry.edx] = [entry.eax & 1, 0, 0, 0],
        (0xd, 2) if v3 => {}
        (7 | 0xa | 0xd | 0x14 | 0x19 | 0x1d | 0x1e | 0x24 | 0x8000_0021 | 0x8000_0022, _) => {
            [entry.eax, entry.ebx, entry.ecx, entry.edx] = [0; 4];
        }
        (0x8000_0001, _) => {
            and(&mut entry.ecx, if v3 { EXTENDED_V3 } else { EXTENDED_V2 });
            and(&mut entry.edx, EXTENDED_EDX);
        }
        (0x8000_0008, _) => and(&mut entry.ebx, EXTENDED_SPECULATION),
        _ => {}
    }
}

/// Set by the guest's own doing: whether XSAVE and protection keys are in use.
const OSXSAVE: u32 = 1 << 27;
/// Set by `cpuid::table`, whatever the host is: a hypervisor, several processors.
const HYPERVISOR: u32 = 1 << 31;
const MANY: u32 = 1 << 28;
const OSPKE: u32 = 1 << 4;

/// Features of a leaf, by register; what is no feature is left out.
fn features(entry: &kvm_cpuid_entry2) -> [(&'static str, u32); 4] {
    let [eax, ebx, ecx, edx] = match (entry.function, entry.index) {
        (1, _) => [0, 0, entry.ecx & !(OSXSAVE | HYPERVISOR), entry.edx & !MANY],
        (7, 0) => [0, entry.ebx, entry.ecx & !OSPKE, entry.edx],
        (7, 1) => [entry.eax, 0, 0, entry.edx],
        (0xd, 0) => [entry.eax, 0, 0, entry.edx],
        (0xd, 1) => [entry.eax, 0, 0, 0],
        (0x8000_0001, _) => [0, 0, entry.ecx, entry.edx],
        _ => [0; 4],
    };
    [("eax", eax), ("ebx", ebx), ("ecx", ecx), ("edx", edx)]
}

/// What a machine was told that it has and this host lacks, as `leaf.index register bits`. `here` are tables that each say
/// some of what the host has.
pub fn missing(had: &[kvm_cpuid_entry2], here: &[&[kvm_cpuid_entry2]]) -> Vec<String> {
    let mut out = Vec::new();
    for entry in had {
        let same = |other: &&kvm_cpuid_entry2| (other.function, other.index) == (entry.function, entry.index);
        for (n, (register, wanted)) in features(entry).into_iter().enumerate() {
            let found = here.iter().flat_map(|table| table.iter().filter(same)).map(|other| features(other)[n].1);
            let lacking = wanted & !found.fold(0, |all, some| all | some);
            if lacking != 0 {
                out.push(format!("{:#x}.{} {register} {lacking:08x}", entry.function, entry.index));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(function: u32, index: u32) -> kvm_cpuid_entry2 {
        let all = u32::MAX;
        kvm_cpuid_entry2 { function, index, eax: all, ebx: all, ecx: all, edx: all, ..Default::default() }
    }

    fn kept(function: u32, index: u32, level: Level) -> [u32; 4] {
        let mut entry = full(function, index);
        keep(&mut entry, level);
        [entry.eax, entry.ebx, entry.ecx, entry.edx]
    }

    #[test]
    fn a_level_has_what_its_definition_names_and_not_what_the_next_one_adds() {
        for (level, avx) in [(Level::V2, 0), (Level::V3, 1)] {
            let [_, _, ecx, edx] = kept(1, 0, level);
            // CMOV, CX8, FPU, FXSR, MMX, SSE, SSE2; SSE3 to POPCNT.
            assert_eq!(edx & bits(&[15, 8, 0, 24, 23, 25, 26]), bits(&[15, 8, 0, 24, 23, 25, 26]));
            assert_eq!(ecx & bits(&[0, 9, 13, 19, 20, 23]), bits(&[0, 9, 13, 19, 20, 23]));
            for bit in [12, 22, 26, 28, 29] {
                assert_eq!(ecx >> bit & 1, avx, "{bit}");
            }
            // AES, RDRAND, PCLMULQDQ are of no level.
            assert_eq!(ecx & bits(&[1, 25, 30]), 0);
            let [_, ebx, ecx, edx] = kept(7, 0, level);
            for bit in [3, 5, 8] {
                assert_eq!(ebx >> bit & 1, avx, "{bit}");
            }
            // AVX-512 and everything after it; the guard against speculation stays.
            assert_eq!((ebx >> 16 & 1, ebx >> 29, ecx, edx), (0, 0, 0, SPECULATION));
            let [_, _, ecx, edx] = kept(0x8000_0001, 0, level);
            assert_eq!((ecx & 1, ecx >> 5 & 1, edx >> 29 & 1), (1, avx, 1));
            assert_eq!(kept(0xd, 0, level)[0], VECTORS * avx);
            assert_eq!([kept(0xd, 5, level), kept(7, 1, level), kept(0xa, 0, level)], [[0; 4]; 3]);
        }
        // Other leaves are none of its business.
        assert_eq!(kept(0, 0, Level::V2), [u32::MAX; 4]);
    }

    #[test]
    fn what_a_host_lacks_is_named() {
        let mut old = full(7, 0);
        keep(&mut old, Level::V3);
        let had = [full(7, 0), full(0xb, 0), full(1, 0)];
        let here = [old, full(1, 0)];
        let lacks = missing(&had, &[&here]);
        assert_eq!((lacks.len(), &lacks[0][..11]), (3, "0x7.0 ebx f"));
        // Whoever says it, it is there; and a level is no more than the level.
        assert!(missing(&had, &[&here, &had]).is_empty() && missing(&here, &[&here]).is_empty());
        let mut in_use = full(1, 0);
        in_use.ecx &= !OSXSAVE;
        assert!(missing(&[full(1, 0)], &[&[in_use]]).is_empty());
    }
}
