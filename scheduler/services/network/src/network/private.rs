//! Private networks (PVLAN): which part a port is in, and the parts' numbers. A part gets its number with its first port
//! and keeps it.
use super::model::VirtualNetwork;
use crate::{fault, port::model::Port, segment_range};
use pilvi_kit::Fault;
use pilvi_store::{Stored, Tx};

/// The part of ports that see none of their kind.
pub const ISOLATED: &str = "isolated";
pub const PROMISCUOUS: &str = "promiscuous";
const COMMUNITY: &str = "community";
/// Parts of one network: each is a network on every host that has a port of it.
const PARTS_MAX: usize = 64;

/// What a port is in a private network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Role {
    pub kind: Option<String>,
    pub community: Option<String>,
}

/// The name of the part that a port is in; `None`: it is promiscuous, or its network is not private.
pub fn part_of(port: &Port) -> Option<String> {
    match port.pvlan_type.as_deref() {
        Some(ISOLATED) => Some(ISOLATED.to_owned()),
        Some(COMMUNITY) => Some(format!("{COMMUNITY}/{}", port.pvlan_community.as_deref().unwrap_or_default())),
        _ => None,
    }
}

/// What a port of this network is, from what was wished.
fn settle(network: &VirtualNetwork, wished: Role) -> Result<Role, Fault> {
    if !network.pvlan {
        return match wished {
            Role { kind: None, community: None } => Ok(Role::default()),
            _ => Err(fault::invalid(format!("Network {} is not a PVLAN network", network.id))),
        };
    }
    let kind = wished.kind.unwrap_or_else(|| PROMISCUOUS.to_owned());
    match (kind.as_str(), &wished.community) {
        (COMMUNITY, None) => Err(fault::invalid("pvlan_community is required of a community port")),
        (PROMISCUOUS | ISOLATED, Some(_)) => {
            Err(fault::invalid(format!("pvlan_community is of community ports, not of {kind} ones")))
        }
        _ => Ok(Role { kind: Some(kind), community: wished.community }),
    }
}

/// Checks a port's wish and makes its part, if it is the first in it.
pub async fn role_in(tx: &mut Tx, network: &mut Stored<VirtualNetwork>, wished: Role) -> Result<Role, Fault> {
    let role = settle(network, wished)?;
    let part = match (role.kind.as_deref(), &role.community) {
        (Some(ISOLATED), _) => ISOLATED.to_owned(),
        (Some(COMMUNITY), Some(name)) => format!("{COMMUNITY}/{name}"),
        _ => return Ok(role),
    };
    if network.parts.contains_key(&part) {
        return Ok(role);
    }
    if network.parts.len() >= PARTS_MAX {
        return Err(Fault::conflict(format!("A PVLAN network has at most {PARTS_MAX} communities.")));
    }
    let project = network.project_id.clone();
    let number = segment_range::ops::unseen_in(tx, &project).await?;
    network.record.parts.insert(part, number);
    *network = tx.update(network).await?;
    Ok(role)
}
