//! How a network or a segment is realised (`provider:` attributes), settled once when it is made.
//!
//! ```text
//!   vxlan   a number of the overlay: wished, or out of the project's ranges
//!   flat    a whole physical network; one network or segment has it without a tag
//!   vlan    a physical network and a tag there: both wished, or a free tag out of ranges (`vlan.rs`)
//! ```
//! Whatever it is, hosts know it by a number of the overlay (`vni`).
use super::{
    model::{FLAT, OVERLAY, VLAN, VirtualNetwork},
    vlan,
};
use crate::{fault, segment::model::Segment, segment_range, tables::find};
use pilvi_kit::Fault;
use pilvi_store::Tx;

/// What is wished.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    pub kind: Option<String>,
    pub physical: Option<String>,
    pub number: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Provided {
    pub kind: String,
    pub physical: Option<String>,
    /// `provider:segmentation_id`.
    pub number: Option<u32>,
    pub vni: u32,
}

/// Settles where something of this project's is.
pub(crate) async fn settle_in(tx: &mut Tx, project: &str, wish: Wish) -> Result<Provided, Fault> {
    if let Wish { kind: None, physical: None, number: None } = wish {
        return usual_in(tx, project).await;
    }
    let kind = wish.kind.clone().unwrap_or_else(|| OVERLAY.to_owned());
    check(&kind, wish.physical.as_deref(), wish.number)?;
    let (physical, number) = match kind.as_str() {
        VLAN => {
            let (physical, tag) = vlan::take_in(tx, project, wish.physical.as_deref(), wish.number).await?;
            (Some(physical), Some(tag))
        }
        FLAT => {
            refuse_flat_in(tx, wish.physical.as_deref().unwrap_or_default()).await?;
            (wish.physical, None)
        }
        _ => {
            let vni = free_vni(tx, project, wish.number).await?;
            return Ok(Provided { kind, physical: None, number: Some(vni), vni });
        }
    };
    let vni = segment_range::ops::unseen_in(tx, project).await?;
    Ok(Provided { kind, physical, number, vni })
}

/// What projects get that wish nothing: the first of the operator's kinds that has something left.
async fn usual_in(tx: &mut Tx, project: &str) -> Result<Provided, Fault> {
    let kinds = &vlan::chosen().tenant_kinds;
    let (last, others) = kinds.split_last().ok_or_else(segment_range::ops::nothing_left)?;
    for kind in others {
        let wish = Wish { kind: Some(kind.clone()), ..Wish::default() };
        match Box::pin(settle_in(tx, project, wish)).await {
            Err(fault) if fault.code() == 503 => {}
            settled => return settled,
        }
    }
    Box::pin(settle_in(tx, project, Wish { kind: Some(last.clone()), ..Wish::default() })).await
}

fn check(kind: &str, physical: Option<&str>, number: Option<u32>) -> Result<(), Fault> {
    match (kind, physical, number) {
        (FLAT, None, _) => Err(fault::invalid("physical_network required for flat provider network")),
        (FLAT, _, Some(_)) => Err(fault::invalid("segmentation_id prohibited for flat provider network")),
        (OVERLAY, Some(_), _) => Err(fault::invalid("provider:physical_network specified for a vxlan network")),
        (VLAN, _, number) => vlan::check(physical, number),
        (FLAT | OVERLAY, ..) => Ok(()),
        _ => {
            let all = [OVERLAY, VLAN, FLAT].join(", ");
            Err(fault::invalid(format!("network_type value '{kind}' not supported; this cloud has: {all}")))
        }
    }
}

/// The wished number if it is free, or one of the project's ranges.
async fn free_vni(tx: &mut Tx, project: &str, wanted: Option<u32>) -> Result<u32, Fault> {
    let Some(vni) = wanted else { return segment_range::ops::number_in(tx, project).await };
    match segment_range::ops::is_taken_in(tx, vni).await? {
        false => Ok(vni),
        true => Err(fault::conflict(
            "TunnelIdInUse",
            format!("Unable to create the network. The tunnel ID {vni} is in use."),
        )),
    }
}

/// A wire without tags is one network's, or one segment's.
async fn refuse_flat_in(tx: &mut Tx, name: &str) -> Result<(), Fault> {
    let networks = tx.list::<VirtualNetwork>(find::physical_network(name)).await?;
    let segments = tx.list::<Segment>(find::physical_network(name)).await?;
    if networks.iter().any(|n| n.network_type == FLAT) || segments.iter().any(|s| s.network_type == FLAT) {
        return Err(fault::conflict(
            "FlatNetworkInUse",
            format!("Unable to create the flat network. Physical network {name} is in use."),
        ));
    }
    Ok(())
}
