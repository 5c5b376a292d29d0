//! What is near what: processors and memory by domain (SRAT), and how far domains are from each other (SLIT). A domain's number is
//! its node's in the configuration.

use super::table;
use crate::config::numa::Domain;

const ENABLED: u32 = 1;
const HOT_PLUGGABLE: u32 = 2;

/// A processor by the number of its local APIC. Those that can come are named like those that are there.
fn processor(domain: u8, vcpu: u16) -> Vec<u8> {
    let mut entry = vec![0, 16, domain, vcpu as u8];
    entry.extend(ENABLED.to_le_bytes());
    entry.resize(16, 0);
    entry
}

fn memory(domain: u8, (start, bytes): (u64, u64), flags: u32) -> Vec<u8> {
    let mut entry = vec![1, 40];
    entry.extend(u32::from(domain).to_le_bytes());
    entry.extend([0; 2]);
    entry.extend(start.to_le_bytes());
    entry.extend(bytes.to_le_bytes());
    entry.extend([0; 4]);
    entry.extend(flags.to_le_bytes());
    entry.resize(40, 0);
    entry
}

/// The system resource affinity table.
fn srat(domains: &[Domain]) -> Vec<u8> {
    let mut body = 1u32.to_le_bytes().to_vec();
    body.extend([0; 8]);
    for (number, domain) in (0u8..).zip(domains) {
        body.extend(domain.vcpus.iter().flat_map(|vcpu| processor(number, *vcpu)));
        body.extend(domain.ranges.iter().flat_map(|range| memory(number, *range, ENABLED)));
        body.extend(domain.hot.iter().flat_map(|range| memory(number, *range, ENABLED | HOT_PLUGGABLE)));
    }
    table(b"SRAT", 3, &body)
}

/// The system locality information table.
fn slit(domains: &[Domain]) -> Vec<u8> {
    let mut body = (domains.len() as u64).to_le_bytes().to_vec();
    domains.iter().for_each(|domain| body.extend(&domain.distances));
    table(b"SLIT", 1, &body)
}

/// Both tables; none where there are no domains.
pub fn tables(domains: &[Domain]) -> Vec<Vec<u8>> {
    if domains.is_empty() { Vec::new() } else { vec![srat(domains), slit(domains)] }
}

/// The domain of a processor.
pub fn domain_of(domains: &[Domain], vcpu: u16) -> Option<u8> {
    (0..).zip(domains).find(|(_, domain)| domain.vcpus.contains(&vcpu)).map(|(number, _)| number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Read by an independent program, where there is one.
    #[test]
    fn a_disassembler_reads_what_was_meant() {
        let domains = [
            Domain { vcpus: vec![0, 2], ranges: vec![(0, 1 << 30)], hot: None, distances: vec![10, 20] },
            Domain {
                vcpus: vec![1],
                ranges: vec![(1 << 30, 2 << 30), (4 << 30, 1 << 30)],
                hot: Some((6 << 30, 1 << 30)),
                distances: vec![15, 10],
            },
        ];
        assert_eq!((domain_of(&domains, 2), domain_of(&domains, 1), domain_of(&domains, 3)), (Some(0), Some(1), None));
        assert!(tables(&[]).is_empty());
        let dir = tempfile::tempdir().unwrap();
        let mut words = Vec::new();
        for (name, bytes) in ["srat", "slit"].into_iter().zip(tables(&domains)) {
            std::fs::write(dir.path().join(format!("{name}.aml")), bytes).unwrap();
            let read = Command::new("iasl").args(["-d", &format!("{name}.aml")]).current_dir(&dir).output();
            let Ok(read) = read else { return eprintln!("SKIPPED: iasl is missing (package acpica-tools)") };
            let said = String::from_utf8_lossy(&read.stderr).into_owned() + &String::from_utf8_lossy(&read.stdout);
            assert!(read.status.success() && !said.contains("Error") && !said.contains("ncorrect"), "{said}");
            let text = std::fs::read_to_string(dir.path().join(format!("{name}.dsl"))).unwrap();
            words.push(text.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        let [srat, slit] = &words[..] else { panic!() };
        let count = |text: &str| srat.matches(text).count();
        assert_eq!((count("[Processor Local APIC/SAPIC Affinity]"), count("[Memory Affinity]")), (3, 4));
        assert_eq!((count("Enabled : 1"), count("Hot Pluggable : 1")), (7, 1));
        for line in
            ["Base Address : 0000000100000000", "Address Length : 0000000040000000", "Proximity Domain : 00000001"]
        {
            assert!(srat.contains(line), "{line:?} is not in:\n{srat}");
        }
        for line in ["Localities : 0000000000000002", "Locality 0 : 0A 14", "Locality 1 : 0F 0A"] {
            assert!(slit.contains(line), "{line:?} is not in:\n{slit}");
        }
    }
}
