//! What this host has: read from the kernel at start, told to the scheduler in Hello.
use crate::config::{Config, External};
use crate::runtime::Kind;
use crate::runtime::choose::Offer;
use nix::sys::statvfs::statvfs;
use pilvi_agent_api::v1::{self, Inventory, Runtime};
use std::collections::BTreeSet;
use std::fs;

/// Takes stock of the host.
#[must_use]
pub fn take(config: &Config, offers: &[Offer]) -> Inventory {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let (mut vcpus, mut memory_mib, mut disk_gib) = match &config.capacity {
        Some(said) => (said.vcpus, said.memory_mib, said.disk_gib),
        None => (processors(&cpuinfo), memory_mib(), disk_gib(config)),
    };
    vcpus = vcpus.saturating_sub(config.reserved.vcpus);
    memory_mib = memory_mib.saturating_sub(config.reserved.memory_mib);
    disk_gib = disk_gib.saturating_sub(config.reserved.disk_gib);
    let runtimes = offers.iter().map(|offer| Runtime {
        name: offer.kind.word().into(),
        usable: offer.usable,
        reason: offer.reason.clone(),
    });
    let address = config.underlay.as_ref().map(|underlay| underlay.address.to_string());
    Inventory {
        vcpus,
        memory_mib,
        disk_gib,
        cpu_model: field(&cpuinfo, "model name").to_owned(),
        cpu_arch: std::env::consts::ARCH.into(),
        traits: traits(field(&cpuinfo, "flags"), offers),
        runtimes: runtimes.collect(),
        vtep: address.clone().unwrap_or_default(),
        hypervisor_version: offers
            .iter()
            .find(|o| o.kind == Kind::Qemu && o.usable)
            .map(|o| o.reason.clone())
            .unwrap_or_default(),
        host_ip: address.unwrap_or_else(|| "127.0.0.1".into()),
        kernel: read_trimmed("/proc/sys/kernel/osrelease"),
        link: config.link.map(|link| v1::Link {
            egress_kbps: link.egress_kbps,
            ingress_kbps: link.ingress_kbps,
            kpps: link.kpps,
            egress_kpps: link.egress_kpps,
            ingress_kpps: link.ingress_kpps,
        }),
        physical: physical(config),
        zone: config.zone.clone(),
        // Known once the packet path is open.
        wireguard: None,
        overlay_error: String::new(),
    }
}

/// Without a way to the outside there is no physical network; with one it is any, unless the operator names them.
fn physical(config: &Config) -> Option<v1::Physical> {
    let names = match (&config.external, &config.physical_networks) {
        (External::None, _) => Vec::new(),
        (_, Some(names)) => names.clone(),
        (_, None) => return None,
    };
    Some(v1::Physical { names })
}

fn read_trimmed(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().to_owned()
}

fn field<'a>(cpuinfo: &'a str, name: &str) -> &'a str {
    let line = cpuinfo.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or("", |(_, value)| value.trim())
}

fn processors(cpuinfo: &str) -> u32 {
    let count = cpuinfo.lines().filter(|l| l.starts_with("processor")).count();
    u32::try_from(count).unwrap_or(1).max(1)
}

fn memory_mib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = field(&text, "MemTotal").split(' ').next();
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn disk_gib(config: &Config) -> u64 {
    statvfs(&config.state_dir).map_or(0, |stat| stat.blocks().saturating_mul(stat.fragment_size()) >> 30)
}

/// Flags of /proc/cpuinfo that Placement has a trait for, as os-traits spells them.
const CPU_TRAITS: [(&str, &str); 18] = [
    ("sse", "HW_CPU_X86_SSE"),
    ("sse2", "HW_CPU_X86_SSE2"),
    ("pni", "HW_CPU_X86_SSE3"),
    ("ssse3", "HW_CPU_X86_SSSE3"),
    ("sse4_1", "HW_CPU_X86_SSE41"),
    ("sse4_2", "HW_CPU_X86_SSE42"),
    ("aes", "HW_CPU_X86_AESNI"),
    ("avx", "HW_CPU_X86_AVX"),
    ("avx2", "HW_CPU_X86_AVX2"),
    ("avx512f", "HW_CPU_X86_AVX512F"),
    ("bmi1", "HW_CPU_X86_BMI"),
    ("bmi2", "HW_CPU_X86_BMI2"),
    ("f16c", "HW_CPU_X86_F16C"),
    ("fma", "HW_CPU_X86_FMA3"),
    ("mmx", "HW_CPU_X86_MMX"),
    ("sha_ni", "HW_CPU_X86_SHA"),
    ("vmx", "HW_CPU_X86_VMX"),
    ("svm", "HW_CPU_X86_SVM"),
];

fn traits(flags: &str, offers: &[Offer]) -> Vec<String> {
    let flags: BTreeSet<&str> = flags.split(' ').collect();
    let mut traits: BTreeSet<String> =
        CPU_TRAITS.iter().filter(|(flag, _)| flags.contains(flag)).map(|(_, name)| (*name).to_owned()).collect();
    let always = [
        "COMPUTE_NODE",
        "COMPUTE_IMAGE_TYPE_RAW",
        "COMPUTE_IMAGE_TYPE_QCOW2",
        "COMPUTE_IMAGE_TYPE_AKI",
        "COMPUTE_IMAGE_TYPE_ARI",
    ];
    traits.extend(always.iter().map(|name| (*name).to_owned()));
    for offer in offers.iter().filter(|offer| offer.usable) {
        let word = offer.kind.word().to_ascii_uppercase();
        traits.insert(format!("CUSTOM_PILVI_RUNTIME_{word}"));
        match (offer.kind, offer.ordinary) {
            (Kind::Kvm, true) => traits.insert("CUSTOM_PILVI_KVM_REAL".into()),
            (Kind::Kvm, false) => traits.insert("CUSTOM_PILVI_KVM_EMULATED".into()),
            _ => true,
        };
    }
    traits.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_host_has_something() {
        let config = Config { state_dir: "/".into(), ..Config::default() };
        let found = take(&config, &[]);
        assert!(found.vcpus > 0 && found.memory_mib > 0 && found.disk_gib > 0);
        let said = crate::config::Capacity { vcpus: 64, memory_mib: 1 << 20, disk_gib: 10 };
        let reserved = crate::config::Reserved { vcpus: 4, memory_mib: 1024, disk_gib: 20 };
        let config = Config { capacity: Some(said), reserved, ..config };
        let found = take(&config, &[]);
        assert_eq!((found.vcpus, found.memory_mib, found.disk_gib), (60, (1 << 20) - 1024, 0));
    }

    #[test]
    fn emulated_kvm_is_told() {
        let offer = |kind, ordinary| Offer { kind, usable: true, ordinary, reason: String::new() };
        let told = traits("sse avx2", &[offer(Kind::Kvm, false), offer(Kind::Qemu, true)]);
        for name in ["CUSTOM_PILVI_KVM_EMULATED", "CUSTOM_PILVI_RUNTIME_QEMU", "HW_CPU_X86_AVX2"] {
            assert!(told.iter().any(|t| t == name), "{name}");
        }
        assert!(!told.iter().any(|t| t == "CUSTOM_PILVI_KVM_REAL"));
    }
}
