//! A range of numbers, of the overlay or of a physical network's VLANs: one project's, or everybody's. Pure.
//!
//! ```text
//! a network's number:  a free one of its project's ranges, else of the shared ranges, else of the usual ones (`usual.rs`) any
//!                      that is in no other project's range
//! ```
use serde::{Deserialize, Serialize};

/// The range that is there without being made: every number.
pub const DEFAULT: &str = "5e9be37a-0000-4000-8000-000000000001";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SegmentRange {
    pub id: String,
    /// "" for ranges that are shared.
    pub project_id: String,
    pub name: String,
    pub description: Option<String>,
    pub network_type: String,
    pub physical_network: Option<String>,
    pub minimum: u32,
    pub maximum: u32,
    pub shared: bool,
    pub default: bool,
    #[serde(default)]
    pub tags: Vec<String>,
}

impl SegmentRange {
    pub fn holds(&self, number: u32) -> bool {
        (self.minimum..=self.maximum).contains(&number)
    }
    pub fn overlaps(&self, other: &Self) -> bool {
        self.network_type == other.network_type
            && self.physical_network == other.physical_network
            && self.minimum <= other.maximum
            && other.minimum <= self.maximum
    }
}

/// The ranges to take a number from, best first, and those to keep out of at last.
pub fn for_project<'r>(ranges: &'r [SegmentRange], project: &str) -> (Vec<&'r SegmentRange>, Vec<&'r SegmentRange>) {
    let made = || ranges.iter().filter(|r| !r.default);
    let mut best: Vec<_> = made().filter(|r| !r.shared && r.project_id == project).collect();
    best.extend(made().filter(|r| r.shared));
    (best, made().filter(|r| !r.shared && r.project_id != project).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_takes_from_its_own_range_first_and_never_from_anothers() {
        let range = |project: &str, minimum, shared| SegmentRange {
            id: format!("{project}-{minimum}"),
            project_id: project.into(),
            name: String::new(),
            description: None,
            network_type: "vxlan".into(),
            physical_network: None,
            minimum,
            maximum: minimum + 9,
            shared,
            default: false,
            tags: vec![],
        };
        let ranges = [range("", 50, true), range("a", 100, false), range("b", 200, false)];
        let (best, others) = for_project(&ranges, "a");
        assert_eq!(best.iter().map(|r| r.minimum).collect::<Vec<_>>(), [100, 50]);
        assert_eq!(others.iter().map(|r| r.minimum).collect::<Vec<_>>(), [200]);
        assert!(ranges[1].holds(109) && !ranges[1].holds(110));
        assert!(!ranges[1].overlaps(&ranges[2]) && ranges[1].overlaps(&range("c", 95, false)));
    }
}
