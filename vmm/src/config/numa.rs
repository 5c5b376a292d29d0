//! Nodes of the guest (NUMA): which processors and which memory are near each other, and where on the host that memory is.
//!
//! ```text
//!   memory_mib   │ node 0 │  node 1   │ node 2 │      in their order, the hole for devices left out; together it is all RAM
//!   hot memory                                │ of one node │
//! ```

use super::{Config, ConfigError, refuse};
use crate::memory::{HOLE_END, HOLE_START, NODES_MAX, Stretch};
use serde::{Deserialize, Serialize};

/// Most nodes of a guest.
pub const GUEST_NODES_MAX: usize = 16;
/// From a node to itself, and to another that nothing is said of.
const NEAR: u8 = 10;
const FAR: u8 = 20;
/// Stands for what cannot be reached.
const UNREACHABLE: u8 = 255;

/// A node of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumaNode {
    /// Numbers of its processors, of those that can come as well. Each processor is in one node.
    pub vcpus: Vec<u16>,
    /// Its memory in MiB.
    pub memory_mib: u32,
    /// Take its memory from this NUMA node of the host only.
    #[serde(default)]
    pub host_node: Option<u16>,
    /// How far each node is, from the first on: 10 itself, others more. By itself 20.
    #[serde(default)]
    pub distances: Vec<u8>,
}

/// What tables tell a guest of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Numbers of its processors.
    pub vcpus: Vec<u16>,
    /// Its RAM: first address and bytes of each range.
    pub ranges: Vec<(u64, u64)>,
    /// Where memory comes and goes that is near it.
    pub hot: Option<(u64, u64)>,
    /// To each node.
    pub distances: Vec<u8>,
}

impl Config {
    pub(super) fn validate_numa(&self) -> Result<(), ConfigError> {
        let nodes = &self.numa;
        let hot = self.memory_hotplug.map_or(0, |memory| usize::from(memory.node));
        if hot >= nodes.len().max(1) {
            return Err(refuse("memory_hotplug", "is near a node that there is not"));
        }
        if nodes.is_empty() {
            return Ok(());
        }
        let wrong = |text: &str| Err(refuse("numa", text));
        if nodes.len() > GUEST_NODES_MAX {
            return wrong(&format!("has more than {GUEST_NODES_MAX} nodes"));
        }
        let mut vcpus: Vec<u16> = nodes.iter().flat_map(|node| node.vcpus.iter().copied()).collect();
        vcpus.sort_unstable();
        if !vcpus.iter().copied().eq(0..self.possible_vcpus()) {
            return wrong("must have each processor that there can be in one node");
        }
        let memory: u64 = nodes.iter().map(|node| u64::from(node.memory_mib)).sum();
        if memory != u64::from(self.memory_mib) || nodes.iter().any(|node| node.memory_mib == 0) {
            return wrong("must share out all of `memory_mib`, some to each");
        }
        if self.hugetlb && nodes.iter().any(|node| !node.memory_mib.is_multiple_of(2)) {
            return wrong("must have whole huge pages in each node");
        }
        let hosts = || nodes.iter().filter_map(|node| node.host_node);
        if hosts().next().is_some() && (self.host_node.is_some() || self.shares_memory()) {
            return wrong("names nodes of the host beside `host_node`, or for memory that is shared");
        }
        if hosts().any(|host| host >= NODES_MAX) {
            return wrong(&format!("has a host_node that is not 0 to {}", NODES_MAX - 1));
        }
        for (number, node) in nodes.iter().enumerate().filter(|(_, node)| !node.distances.is_empty()) {
            let told = |(to, distance): (usize, &u8)| match to == number {
                true => *distance == NEAR,
                false => *distance > NEAR && *distance < UNREACHABLE,
            };
            if node.distances.len() != nodes.len() || !node.distances.iter().enumerate().all(told) {
                return wrong("must have a distance to each node: 10 to itself, 11 to 254 to others");
            }
        }
        Ok(())
    }

    /// First byte of each node's part of RAM, as if there were no hole, and its end.
    fn parts(&self) -> impl Iterator<Item = (u64, u64)> {
        let bytes = |node: &NumaNode| u64::from(node.memory_mib) << 20;
        self.numa.iter().scan(0, move |end, node| {
            let start = *end;
            *end += bytes(node);
            Some((start, *end))
        })
    }

    /// What tables tell of nodes; nothing where there are none.
    pub fn domains(&self) -> Vec<Domain> {
        let hot_node = self.memory_hotplug.map(|memory| usize::from(memory.node));
        let hot = self.hot_area().map(|area| (area.start, area.bytes));
        let domain = |(number, (node, (start, end))): (usize, (&NumaNode, (u64, u64)))| {
            let even = |to| if to == number { NEAR } else { FAR };
            let distances = match node.distances.is_empty() {
                true => (0..self.numa.len()).map(even).collect(),
                false => node.distances.clone(),
            };
            let (low, high) =
                ((start.min(HOLE_START), end.min(HOLE_START)), (start.max(HOLE_START), end.max(HOLE_START)));
            let above = HOLE_END - HOLE_START;
            let ranges = [low, (high.0 + above, high.1 + above)].into_iter().filter(|(start, end)| end > start);
            Domain {
                vcpus: node.vcpus.clone(),
                ranges: ranges.map(|(start, end)| (start, end - start)).collect(),
                hot: hot.filter(|_| hot_node == Some(number)),
                distances,
            }
        };
        self.numa.iter().zip(self.parts()).enumerate().map(domain).collect()
    }

    /// Where on the host parts of memory are to be, counted as if there were no hole.
    pub fn stretches(&self) -> Vec<Stretch> {
        let ram = self.numa.iter().zip(self.parts());
        let ram = ram.filter_map(|(node, (start, end))| node.host_node.map(|node| Stretch { start, end, node }));
        let size = self.memory_size();
        let hot = self.memory_hotplug.and_then(|memory| self.numa.get(usize::from(memory.node))?.host_node);
        let hot = hot.map(|node| Stretch { start: size.ram, end: size.ram + size.hot, node });
        ram.chain(hot).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn config(change: impl FnOnce(&mut Value)) -> Result<Config, ConfigError> {
        let mut value = json!({
            "id": "test", "vcpus": 2, "max_vcpus": 3, "memory_mib": 4096, "kernel": {"path": "k"},
            "control_socket": {"path": "c"}, "console": {"log": {"path": "l"}},
            "memory_hotplug": {"max_mib": 1024, "node": 1},
            "numa": [
                {"vcpus": [0, 2], "memory_mib": 1024, "host_node": 0},
                {"vcpus": [1], "memory_mib": 3072, "distances": [15, 10]},
            ],
        });
        change(&mut value);
        Config::parse(value.to_string().as_bytes())
    }

    #[test]
    fn nodes_share_out_memory_around_the_hole() {
        let config = config(|_| {}).unwrap();
        let domains = config.domains();
        assert_eq!(domains[0].ranges, [(0, 1 << 30)]);
        assert_eq!(domains[1].ranges, [(1 << 30, 2 << 30), (4 << 30, 1 << 30)]);
        assert_eq!((domains[0].hot, domains[1].hot.map(|(_, bytes)| bytes)), (None, Some(1 << 30)));
        assert_eq!((&domains[0].distances[..], &domains[1].distances[..]), (&[10, 20][..], &[15, 10][..]));
        assert_eq!(config.stretches(), [Stretch { start: 0, end: 1 << 30, node: 0 }]);
    }

    #[test]
    fn nodes_that_cannot_be_are_refused() {
        let problem = |change: fn(&mut Value)| config(change).unwrap_err().to_string();
        assert!(problem(|v| v["numa"][0]["vcpus"] = json!([0])).contains("each processor"));
        assert!(problem(|v| v["numa"][0]["vcpus"] = json!([0, 1, 2])).contains("each processor"));
        assert!(problem(|v| v["numa"][0]["memory_mib"] = json!(512)).contains("memory_mib"));
        assert!(problem(|v| v["numa"][1]["distances"] = json!([10, 10])).contains("distance"));
        assert!(problem(|v| v["numa"][1]["distances"] = json!([255, 10])).contains("distance"));
        assert!(problem(|v| v["numa"][1]["distances"] = json!([20])).contains("distance"));
        assert!(problem(|v| v["host_node"] = json!(0)).contains("host_node"));
        assert!(problem(|v| v["numa"][0]["host_node"] = json!(1024)).contains("host_node"));
        assert!(problem(|v| v["memory_hotplug"]["node"] = json!(2)).contains("node"));
        assert!(problem(|v| v["numa"] = json!([])).contains("node"));
        assert!(problem(|v| v["numa"] = json!(vec![json!({"vcpus": [], "memory_mib": 1}); 17])).contains("16"));
    }
}
