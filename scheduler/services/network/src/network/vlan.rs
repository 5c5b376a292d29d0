//! VLANs: which tags of which physical networks there are, and which are free.
//!
//! ```text
//!   with a tag      an operator's wish: it must be free, whatever ranges say
//!   without one     a free tag of the project's ranges, else of shared ranges, else of those in the configuration,
//!                   on the physical network that was named or on any
//! ```
//! Physical networks that the configuration or a range names are known; while neither names any, every name is.
use super::model::{OVERLAY, VLAN, VirtualNetwork};
use crate::{
    fault,
    segment::model::Segment,
    segment_range::{
        self,
        model::{SegmentRange, for_project},
    },
    tables::find,
};
use pilvi_kit::Fault;
use pilvi_store::Tx;
use std::collections::BTreeSet;
use std::sync::OnceLock;

/// Tags that name a network (IEEE 802.1Q).
pub const TAG_MAX: u32 = 4094;

/// Some tags of a physical network that the operator's file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub physical: String,
    pub minimum: u32,
    pub maximum: u32,
}

/// What the operator says of networks that projects make.
#[derive(Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Physical networks that may carry VLANs, with or without ranges.
    pub physical: BTreeSet<String>,
    pub ranges: Vec<Range>,
    /// Kinds of networks that nobody wishes otherwise, in order.
    pub tenant_kinds: Vec<String>,
}

static CHOSEN: OnceLock<Chosen> = OnceLock::new();

pub fn chosen() -> &'static Chosen {
    CHOSEN.get_or_init(|| Chosen {
        physical: BTreeSet::new(),
        ranges: Vec::new(),
        tenant_kinds: vec![OVERLAY.to_owned()],
    })
}

/// Takes the operator's word, once, before any network is made: `PHYSICAL` or `PHYSICAL:FIRST:LAST`, and kinds of networks.
///
/// # Errors
/// Text that is neither, tags that are none, a kind that projects cannot have.
pub fn choose(ranges: &[String], tenant_kinds: &[String]) -> Result<(), String> {
    let parsed = parse(ranges, tenant_kinds)?;
    // Who comes second in a process (a test) finds what the first has chosen.
    let _ = CHOSEN.set(parsed);
    Ok(())
}

fn parse(ranges: &[String], tenant_kinds: &[String]) -> Result<Chosen, String> {
    let mut chosen = Chosen { physical: BTreeSet::new(), ranges: Vec::new(), tenant_kinds: tenant_kinds.to_vec() };
    for text in ranges {
        let mut parts = text.split(':');
        let physical = parts.next().unwrap_or_default().trim().to_owned();
        if physical.is_empty() || physical.len() > 64 {
            return Err(format!("{text:?} names no physical network"));
        }
        let ends: Vec<Option<u32>> = parts.map(|end| end.trim().parse().ok()).collect();
        match ends.as_slice() {
            [] => {}
            [Some(minimum), Some(maximum)] if (1..=*maximum).contains(minimum) && *maximum <= TAG_MAX => {
                let range = Range { physical: physical.clone(), minimum: *minimum, maximum: *maximum };
                let meets = |r: &Range| {
                    r.physical == range.physical && r.minimum <= range.maximum && range.minimum <= r.maximum
                };
                if chosen.ranges.iter().any(meets) {
                    return Err(format!("{text:?} overlaps another range"));
                }
                chosen.ranges.push(range);
            }
            _ => return Err(format!("{text:?} is not PHYSICAL:FIRST:LAST with tags from 1 to {TAG_MAX}")),
        }
        chosen.physical.insert(physical);
    }
    if chosen.tenant_kinds.is_empty() {
        chosen.tenant_kinds.push(OVERLAY.to_owned());
    }
    match chosen.tenant_kinds.iter().find(|kind| ![OVERLAY, VLAN].contains(&kind.as_str())) {
        Some(kind) => Err(format!("projects' networks cannot be of type {kind:?}; they can be {OVERLAY} or {VLAN}")),
        None => Ok(chosen),
    }
}

/// What can be said of a wish without a look at what is there.
pub(crate) fn check(physical: Option<&str>, tag: Option<u32>) -> Result<(), Fault> {
    match (physical, tag) {
        (None, Some(_)) => Err(fault::invalid("segmentation_id requires physical_network for VLAN provider network")),
        (_, Some(tag)) if !(1..=TAG_MAX).contains(&tag) => {
            Err(fault::invalid(format!("segmentation_id out of range (1 through {TAG_MAX})")))
        }
        _ => Ok(()),
    }
}

/// The physical network and the tag that something of the project's gets.
pub(crate) async fn take_in(
    tx: &mut Tx,
    project: &str,
    physical: Option<&str>,
    tag: Option<u32>,
) -> Result<(String, u32), Fault> {
    let ranges = segment_range::ops::of_kind_in(tx, VLAN).await?;
    let named = |r: &SegmentRange| r.physical_network.clone();
    let known: BTreeSet<String> = ranges.iter().filter_map(named).chain(chosen().physical.iter().cloned()).collect();
    if let Some(name) = physical
        && !known.is_empty()
        && !known.contains(name)
    {
        return Err(fault::invalid(format!("physical_network '{name}' unknown for VLAN provider network")));
    }
    if let (Some(name), Some(tag)) = (physical, tag) {
        if taken_in(tx, name).await?.contains(&tag) {
            return Err(fault::conflict(
                "VlanIdInUse",
                format!("Unable to create the network. The VLAN {tag} on physical network {name} is in use."),
            ));
        }
        return Ok((name.to_owned(), tag));
    }
    let (best, others) = for_project(&ranges, project);
    let best = best.into_iter().filter_map(|r| Some((r.physical_network.clone()?, r.minimum, r.maximum)));
    let usual = chosen().ranges.iter().map(|r| (r.physical.clone(), r.minimum, r.maximum));
    let candidates: Vec<(String, u32, u32, bool)> =
        best.map(|(p, a, b)| (p, a, b, false)).chain(usual.map(|(p, a, b)| (p, a, b, true))).collect();
    for (name, first, last, apart) in candidates {
        if physical.is_some_and(|wished| wished != name) {
            continue;
        }
        let taken = taken_in(tx, &name).await?;
        // What is set aside for another project is not everybody's.
        let aside =
            |tag: u32| apart && others.iter().any(|r| r.physical_network.as_ref() == Some(&name) && r.holds(tag));
        if let Some(tag) = (first..=last).find(|tag| !taken.contains(tag) && !aside(*tag)) {
            return Ok((name, tag));
        }
    }
    Err(segment_range::ops::nothing_left())
}

/// Tags of a physical network that networks and segments have.
pub(crate) async fn taken_in(tx: &mut Tx, physical: &str) -> Result<BTreeSet<u32>, Fault> {
    let networks = tx.list::<VirtualNetwork>(find::physical_network(physical)).await?;
    let segments = tx.list::<Segment>(find::physical_network(physical)).await?;
    let of_networks = networks.iter().filter(|n| n.network_type == VLAN).filter_map(|n| n.segmentation_id);
    let of_segments = segments.iter().filter(|s| s.network_type == VLAN).filter_map(|s| s.segmentation_id);
    Ok(of_networks.chain(of_segments).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(all: &[&str]) -> Vec<String> {
        all.iter().map(|one| (*one).to_owned()).collect()
    }

    #[test]
    fn ranges_are_read_or_refused_with_the_reason() {
        let said = parse(&words(&["a:100:199", "a:300:300", "b"]), &words(&["vlan", "vxlan"])).unwrap();
        assert_eq!(said.physical, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
        assert_eq!(said.ranges[1], Range { physical: "a".into(), minimum: 300, maximum: 300 });
        assert_eq!(parse(&[], &[]).unwrap().tenant_kinds, ["vxlan"]);
        for bad in ["", ":1:2", "a:1", "a:0:5", "a:9:5", "a:1:4095", "a:1:2:3", "a:x:y"] {
            assert!(parse(&words(&[bad]), &[]).is_err(), "{bad}");
        }
        assert!(parse(&words(&["a:1:9", "a:9:20"]), &[]).unwrap_err().contains("overlaps"));
        assert!(parse(&words(&["a:1:9", "b:1:9"]), &[]).is_ok());
        assert!(parse(&[], &words(&["flat"])).unwrap_err().contains("flat"));
    }

    #[test]
    fn a_tag_is_a_tag_of_something() {
        assert!(check(Some("a"), Some(4094)).is_ok() && check(None, None).is_ok() && check(Some("a"), None).is_ok());
        for (physical, tag) in [(None, Some(5)), (Some("a"), Some(4095)), (Some("a"), Some(0))] {
            assert_eq!(check(physical, tag).unwrap_err().code(), 400, "{physical:?} {tag:?}");
        }
    }
}
