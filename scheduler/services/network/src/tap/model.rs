//! A tap service is a port that looks; a tap flow is a port that is looked at; a tap mirror is one that a collector outside
//! looks at. Pure.
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};

/// Largest key of GRE.
pub const KEY_MAX: i64 = u32::MAX as i64;
/// Largest session of ERSPAN, which has ten bits for it.
pub const SESSION_MAX: u32 = 0x3ff;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TapService {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub description: Option<String>,
    pub port_id: String,
    /// What copies from other hosts come by.
    pub vni: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Way {
    In,
    Out,
    Both,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TapFlow {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub description: Option<String>,
    pub tap_service_id: String,
    pub source_port: String,
    pub direction: Way,
}

impl Way {
    /// What the port gets.
    pub fn ingress(self) -> bool {
        self != Way::Out
    }
    /// What it sends.
    pub fn egress(self) -> bool {
        self != Way::In
    }
}

/// What copies are sent as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MirrorType {
    #[serde(rename = "gre")]
    Gre,
    /// Type II, which is called version 1 on the wire.
    #[serde(rename = "erspanv1")]
    Erspan,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TapMirror {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub description: Option<String>,
    pub port_id: String,
    /// Key of GRE or session of ERSPAN, no two alike in a project.
    pub directions: BTreeMap<Way, u32>,
    pub remote_ip: IpAddr,
    pub mirror_type: MirrorType,
}

/// How often one frame is copied each way.
pub fn copies(flows: &[TapFlow], mirrors: &[TapMirror]) -> [usize; 2] {
    let ways = || flows.iter().map(|f| f.direction).chain(mirrors.iter().flat_map(|m| m.directions.keys().copied()));
    [ways().filter(|w| w.ingress()).count(), ways().filter(|w| w.egress()).count()]
}
