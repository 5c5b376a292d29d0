//! A segment, and what a host reaches. Pure.
use serde::{Deserialize, Serialize};

/// One layer-2 domain of a network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Segment {
    pub id: String,
    pub network_id: String,
    /// Segments need no name.
    #[serde(default)]
    pub name: Option<String>,
    pub description: Option<String>,
    pub network_type: String,
    pub physical_network: Option<String>,
    pub segmentation_id: Option<u32>,
    /// Its number on hosts; the first segment has its network's.
    pub vni: u32,
    /// Made with its network, and goes with it.
    pub first: bool,
    #[serde(default)]
    pub tags: Vec<String>,
}

/// The physical networks that a host is connected to, as its agent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReach {
    /// The host's name.
    pub id: String,
    /// `None`: it does not say, so any.
    pub physical: Option<Vec<String>>,
}

impl HostReach {
    pub fn reaches(&self, physical: Option<&str>) -> bool {
        is_connected(self.physical.as_deref(), physical)
    }
}

/// Does who says to be connected to `said` reach this physical network? The overlay (`None`) reaches every host.
pub fn is_connected(said: Option<&[String]>, physical: Option<&str>) -> bool {
    let (Some(name), Some(all)) = (physical, said) else { return true };
    all.iter().any(|one| one == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_reaches_the_overlay_and_only_its_own_wires() {
        let host = |physical: Option<&[&str]>| HostReach {
            id: "h".into(),
            physical: physical.map(|all| all.iter().map(|one| (*one).to_owned()).collect()),
        };
        assert!(host(Some(&[])).reaches(None) && !host(Some(&[])).reaches(Some("rack1")));
        assert!(host(Some(&["rack1"])).reaches(Some("rack1")) && !host(Some(&["rack1"])).reaches(Some("rack2")));
        assert!(host(None).reaches(Some("rack2")));
    }
}
