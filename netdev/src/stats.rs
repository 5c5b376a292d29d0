//! Counters, and the sweep that ends idle flows and recounts them.
use crate::bpf::Map;
use crate::error::{Result, Step};
use crate::loader::open_side_table;
use crate::table::Table;
use nix::time::{ClockId, clock_gettime};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Names of `enum reason` in `bpf/frame.h`, same order.
pub const REASONS: [&str; 32] = [
    "malformed",
    "no-port",
    "port-down",
    "spoofed-mac",
    "spoofed-ip",
    "spoofed-arp",
    "arp-unknown",
    "family",
    "multicast",
    "unknown-station",
    "group-out",
    "group-in",
    "flow-cap",
    "dhcp",
    "metadata",
    "ttl",
    "no-route",
    "no-host",
    "no-edge",
    "nat",
    "vtep",
    "overlay",
    "edge",
    "fragment",
    "stack",
    "reserved",
    "too-big",
    "rate",
    "scope",
    "firewall",
    "neighbour",
    "copy",
];

const SECOND: u64 = 1_000_000_000;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
const LIMIT: usize = 1 << 18;

/// What the packet path did since it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Dropped frames by reason (see [`REASONS`]).
    pub drops: BTreeMap<String, u64>,
    /// Tracked flows of all ports.
    pub flows: u64,
    /// By port id.
    pub ports: BTreeMap<String, PortStats>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortStats {
    pub drops: BTreeMap<String, u64>,
    pub flows: u64,
    /// Frames and bytes from the guest.
    pub received: (u64, u64),
    /// Frames and bytes towards the guest.
    pub sent: (u64, u64),
}

/// What a label has counted since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Metered {
    pub packets: u64,
    pub bytes: u64,
}

/// Tables that the programs write.
pub(crate) struct Counters {
    drops: Map,
    live: Map,
    flows: Map,
    flows6: Map,
    firewall_flows: Map,
    sweeps: Map,
    nats: Map,
    tans: Map,
    forwarded: Map,
    met: Map,
    meters: Map,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk::<4>()).map_or(0, |b| u32::from_ne_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk::<8>()).map_or(0, |b| u64::from_ne_bytes(*b))
}

/// The clock that the programs read, ns.
pub(crate) fn now() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)
        .map_or(0, |t| t.tv_sec().cast_unsigned().saturating_mul(SECOND).saturating_add(t.tv_nsec().cast_unsigned()))
}

/// How long a flow lives without packets, ns: `lifetime` of `bpf/filter.h`.
fn lifetime(protocol: u8, state: u8) -> u64 {
    let (replied, fin, reset, cut) = (state & 1 != 0, state & 6 != 0, state & 8 != 0, state & 16 != 0);
    SECOND
        * match protocol {
            TCP if cut => 300,
            _ if cut => 30,
            TCP if reset => 10,
            TCP if fin => 120,
            TCP if replied => 432_000,
            TCP => 60,
            UDP if replied => 180,
            UDP | ICMP | ICMP6 => 30,
            _ => 600,
        }
}

impl Counters {
    pub fn open(bpffs: &Path) -> Result<Self> {
        Ok(Self {
            drops: open_side_table(bpffs, "drops", 8, 8, true)?,
            live: {
                let (key, value) = Table::Live.sizes();
                open_side_table(bpffs, "live", key, value, false)?
            },
            flows: open_side_table(bpffs, "flows", 20, 16, false)?,
            flows6: open_side_table(bpffs, "flows6", 44, 16, false)?,
            firewall_flows: open_side_table(bpffs, "firewall_flows", 56, 16, false)?,
            sweeps: open_side_table(bpffs, "sweeps", 4, 8, false)?,
            nats: open_side_table(bpffs, "nats", 24, 16, false)?,
            tans: open_side_table(bpffs, "tans", 16, 24, false)?,
            met: open_side_table(bpffs, "met", 24, 16, false)?,
            forwarded: open_side_table(bpffs, "forwarded", 24, 16, false)?,
            meters: open_side_table(bpffs, "meters", 8, 16, false)?,
        })
    }

    /// Reads the counters; `ports` names the interfaces.
    pub fn read(&self, ports: &HashMap<u32, String>) -> Result<Stats> {
        let mut stats = Stats::default();
        for name in ports.values() {
            stats.ports.insert(name.clone(), PortStats::default());
        }
        for key in self.drops.keys(LIMIT).step("list drops")? {
            let Some(value) = self.drops.get(&key).step("read drops")? else { continue };
            let count: u64 = (0..value.len() / 8).map(|cpu| u64_at(&value, cpu * 8)).sum();
            let reason = usize::try_from(u32_at(&key, 4)).ok().and_then(|r| REASONS.get(r)).unwrap_or(&"other");
            *stats.drops.entry((*reason).to_owned()).or_default() += count;
            if let Some(port) = ports.get(&u32_at(&key, 0)).and_then(|p| stats.ports.get_mut(p)) {
                *port.drops.entry((*reason).to_owned()).or_default() += count;
            }
        }
        for key in self.live.keys(LIMIT).step("list live")? {
            let Some(value) = self.live.get(&key).step("read live")? else { continue };
            stats.flows += u64_at(&value, 8);
            if let Some(port) = ports.get(&u32_at(&key, 0)).and_then(|p| stats.ports.get_mut(p)) {
                port.flows = u64_at(&value, 8);
            }
        }
        Ok(stats)
    }

    /// What the labels of these names have counted.
    pub fn meters(&self, labels: &BTreeMap<String, u64>) -> Result<BTreeMap<String, Metered>> {
        let mut out = BTreeMap::new();
        for (id, name) in labels {
            if let Some(value) = self.meters.get(&name.to_ne_bytes()).step("read meters")? {
                out.insert(id.clone(), Metered { packets: u64_at(&value, 0), bytes: u64_at(&value, 8) });
            }
        }
        Ok(out)
    }

    /// Ends what has been idle for its lifetime, and tells the programs how many flows each port has left.
    pub fn sweep(&self) -> Result<()> {
        let now = now();
        let old = |seen: u64, limit: u64| now.saturating_sub(seen) > limit;
        let mut count: HashMap<u32, u64> = HashMap::new();
        for (map, protocol_at) in [(&self.flows, 16), (&self.flows6, 40), (&self.firewall_flows, 5)] {
            for key in map.keys(LIMIT).step("list flows")? {
                let Some(flow) = map.get(&key).step("read flows")? else { continue };
                let protocol = key.get(protocol_at).copied().unwrap_or(0);
                if old(u64_at(&flow, 0), lifetime(protocol, flow.get(13).copied().unwrap_or(0))) {
                    map.delete(&key).step("end a flow")?;
                } else {
                    *count.entry(u32_at(&key, 0)).or_default() += 1;
                }
            }
        }
        for (map, protocol_at) in [(&self.nats, 20), (&self.tans, 12), (&self.forwarded, 20), (&self.met, 20)] {
            for key in map.keys(LIMIT).step("list translations")? {
                let Some(entry) = map.get(&key).step("read translations")? else { continue };
                // Both halves are refreshed together, so both go together.
                let limit = match key.get(protocol_at) {
                    Some(&TCP) => 7_440,
                    Some(&UDP) => 300,
                    _ => 60,
                };
                if old(u64_at(&entry, 0), limit * SECOND) {
                    map.delete(&key).step("end a translation")?;
                }
            }
        }
        for key in self.live.keys(LIMIT).step("list live")? {
            if let Some(mut value) = self.live.get(&key).step("read live")? {
                let flows = count.get(&u32_at(&key, 0)).copied().unwrap_or(0);
                value.get_mut(8..16).unwrap_or_default().copy_from_slice(&flows.to_ne_bytes());
                self.live.put(&key, &value).step("count flows")?;
            }
        }
        self.sweeps.put(&0u32.to_ne_bytes(), &now.to_ne_bytes()).step("note the sweep")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_those_of_the_programs() {
        let source = include_str!("../bpf/frame.h");
        let (_, rest) = source.split_once("enum reason {").unwrap();
        let (body, _) = rest.split_once("};").unwrap();
        let names: Vec<String> = body
            .lines()
            .filter_map(|l| l.trim().strip_prefix("DROP_"))
            .filter_map(|l| l.split(',').next())
            .map(|n| n.to_lowercase().replace('_', "-"))
            .collect();
        assert_eq!(names, REASONS);
    }

    #[test]
    fn lifetimes_follow_the_state() {
        assert_eq!(lifetime(TCP, 0), 60 * SECOND);
        assert_eq!(lifetime(TCP, 1), 432_000 * SECOND);
        assert_eq!(lifetime(TCP, 1 | 2), 120 * SECOND);
        assert_eq!(lifetime(TCP, 1 | 8), 10 * SECOND);
        assert_eq!(lifetime(UDP, 0), 30 * SECOND);
    }
}
