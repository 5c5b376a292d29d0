//! Names of resource classes; pure.
use serde::{Deserialize, Serialize};

/// A class that an operator made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResourceClass {
    pub name: String,
}

/// In the order of the originals' ids.
pub const STANDARD: &[&str] = &[
    "VCPU",
    "MEMORY_MB",
    "DISK_GB",
    "PCI_DEVICE",
    "SRIOV_NET_VF",
    "NUMA_SOCKET",
    "NUMA_CORE",
    "NUMA_THREAD",
    "NUMA_MEMORY_MB",
    "IPV4_ADDRESS",
    "VGPU",
    "VGPU_DISPLAY_HEAD",
    "NET_BW_EGR_KILOBIT_PER_SEC",
    "NET_BW_IGR_KILOBIT_PER_SEC",
    "PCPU",
    "MEM_ENCRYPTION_CONTEXT",
    "FPGA",
    "PGPU",
    "NET_PACKET_RATE_KILOPACKET_PER_SEC",
    "NET_PACKET_RATE_EGR_KILOPACKET_PER_SEC",
    "NET_PACKET_RATE_IGR_KILOPACKET_PER_SEC",
];

pub fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name)
}

/// `CUSTOM_` and then capitals, digits and underscores; 255 characters at most. Also the rule for traits.
pub fn is_custom(name: &str) -> bool {
    name.strip_prefix("CUSTOM_").is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
    }) && name.len() <= 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn custom_names_are_spelled_in_capitals() {
        assert!(is_custom("CUSTOM_GPU_2"));
        assert!(!is_custom("CUSTOM_") && !is_custom("CUSTOM_a") && !is_custom("GPU") && !is_custom("CUSTOM_A B"));
        assert!(!is_custom(&format!("CUSTOM_{}", "A".repeat(255))));
        assert!(is_standard("VCPU") && !is_standard("CUSTOM_VCPU"));
    }
}
