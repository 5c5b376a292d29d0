//! The verbs of segment ranges, and numbers out of them for new networks.
use super::{
    model::{DEFAULT, SegmentRange, for_project},
    usual,
};
use crate::{
    attribute::overlay,
    fault,
    list::Raw,
    network::{
        model::{OVERLAY, VLAN, VNI_MAX, VirtualNetwork},
        vlan::{self, Range, TAG_MAX},
    },
    qos::least::id_of,
    segment::model::Segment,
    tables::find,
    tap::model::TapService,
};
use pilvi_kit::Fault;
use pilvi_store::{Query, Store, Stored, Tx};
use rand::Rng;
use serde_json::{Value, json};

/// Attempts to draw a free number; with half of all in use, all fail once in 65,000 times.
const DRAWS: usize = 16;
/// Ranges of at most so many numbers are searched for a gap when draws fail.
const SEARCHED: u32 = 65_536;

fn everything() -> SegmentRange {
    SegmentRange {
        id: DEFAULT.to_owned(),
        project_id: String::new(),
        name: String::new(),
        description: Some(String::new()),
        network_type: OVERLAY.to_owned(),
        physical_network: None,
        minimum: 1,
        maximum: VNI_MAX,
        shared: true,
        default: true,
        tags: Vec::new(),
    }
}

/// What the operator's file gives networks of the overlay.
fn usual_ranges() -> impl Iterator<Item = SegmentRange> {
    usual::chosen().iter().map(|&(minimum, maximum)| {
        let id = if usual::are_all() { DEFAULT.to_owned() } else { id_of(&format!("{minimum}:{maximum}"), OVERLAY) };
        SegmentRange { id, minimum, maximum, ..everything() }
    })
}

/// A range of tags in the operator's file.
fn configured(range: &Range) -> SegmentRange {
    let text = format!("{}:{}:{}", range.physical, range.minimum, range.maximum);
    SegmentRange {
        id: id_of(&text, VLAN),
        network_type: VLAN.to_owned(),
        physical_network: Some(range.physical.clone()),
        minimum: range.minimum,
        maximum: range.maximum,
        ..everything()
    }
}

/// Ranges that nobody made by the API are records like the others once somebody looks, as long as the operator has them.
pub async fn ensure(store: &Store) -> Result<(), Fault> {
    let wanted: Vec<SegmentRange> = usual_ranges().chain(vlan::chosen().ranges.iter().map(configured)).collect();
    let there = store.list::<SegmentRange>(Query::all()).await?;
    let mut found: Vec<&str> = there.iter().filter(|r| r.default).map(|r| r.id.as_str()).collect();
    let mut ids: Vec<&str> = wanted.iter().map(|r| r.id.as_str()).collect();
    found.sort_unstable();
    ids.sort_unstable();
    if found == ids {
        return Ok(());
    }
    store
        .write(move |tx| {
            let wanted = wanted.clone();
            Box::pin(async move {
                for gone in tx.list::<SegmentRange>(Query::all()).await? {
                    if gone.default && wanted.iter().all(|r| r.id != gone.id) {
                        tx.delete::<SegmentRange>(&gone.id).await?;
                    }
                }
                for range in &wanted {
                    if tx.get::<SegmentRange>(&range.id).await?.is_none() {
                        tx.insert(range).await?;
                    }
                }
                Ok::<_, Fault>(())
            })
        })
        .await
}

/// Ranges of one kind of networks that somebody made.
pub(crate) async fn of_kind_in(tx: &mut Tx, kind: &str) -> Result<Vec<SegmentRange>, Fault> {
    let mut all = all_in(tx).await?;
    all.retain(|r| r.network_type == kind && !r.default);
    Ok(all)
}

pub(crate) fn nothing_left() -> Fault {
    Fault::unavailable("Unable to create the network. No tenant network is available for allocation.")
        .kind("NoNetworkAvailable")
}

async fn all_in(tx: &mut Tx) -> Result<Vec<SegmentRange>, Fault> {
    Ok(tx.list::<SegmentRange>(Query::all()).await?.into_iter().map(|r| r.record).collect())
}

/// A number that no network has, from the ranges that are the project's to use.
pub async fn number_in(tx: &mut Tx, project: &str) -> Result<u32, Fault> {
    let ranges = of_kind_in(tx, OVERLAY).await?;
    let (best, others) = for_project(&ranges, project);
    for range in best {
        if let Some(free) = free_of(tx, range, &[]).await? {
            return Ok(free);
        }
    }
    for range in usual_ranges() {
        if let Some(free) = free_of(tx, &range, &others).await? {
            return Ok(free);
        }
    }
    Err(nothing_left())
}

/// A number that only hosts see. Where the operator named those that networks get, it is none of them.
pub async fn unseen_in(tx: &mut Tx, project: &str) -> Result<u32, Fault> {
    if usual::are_all() { number_in(tx, project).await } else { spare_in(tx).await }
}

/// A number that no network has, and, while there are others, that no range gives to anybody's networks.
pub async fn spare_in(tx: &mut Tx) -> Result<u32, Fault> {
    let mut ranges = of_kind_in(tx, OVERLAY).await?;
    if !usual::are_all() {
        ranges.extend(usual_ranges());
    }
    let ranges: Vec<&SegmentRange> = ranges.iter().collect();
    let apart = free_of(tx, &everything(), &ranges).await?;
    let free = if apart.is_some() { apart } else { free_of(tx, &everything(), &[]).await? };
    free.ok_or_else(|| Fault::unavailable("There is no number left for it.").kind("NoNetworkAvailable"))
}

/// Has a network, a segment or a tap service this number?
pub async fn is_taken_in(tx: &mut Tx, number: u32) -> Result<bool, Fault> {
    let networks = tx.count::<VirtualNetwork>(find::vni(number)).await?;
    if tx.count::<Segment>(find::vni(number)).await? > 0 {
        return Ok(true);
    }
    Ok(networks > 0 || tx.count::<TapService>(find::vni(number)).await? > 0)
}

async fn free_of(tx: &mut Tx, range: &SegmentRange, not: &[&SegmentRange]) -> Result<Option<u32>, Fault> {
    for _ in 0..DRAWS {
        let number = rand::rng().random_range(range.minimum..=range.maximum);
        if !not.iter().any(|r| r.holds(number)) && !is_taken_in(tx, number).await? {
            return Ok(Some(number));
        }
    }
    if range.maximum - range.minimum >= SEARCHED {
        return Ok(None);
    }
    let between = || find::vni_between(range.minimum, range.maximum);
    let mut taken: Vec<u32> = tx.list::<VirtualNetwork>(between()).await?.iter().map(|n| n.vni).collect();
    taken.extend(tx.list::<Segment>(between()).await?.iter().map(|s| s.vni));
    taken.extend(tx.list::<TapService>(between()).await?.iter().map(|s| s.vni));
    let mut numbers = range.minimum..=range.maximum;
    Ok(numbers.find(|n| !not.iter().any(|r| r.holds(*n)) && !taken.contains(n)))
}

/// Whether a network's number is of the range.
fn uses(range: &SegmentRange, network: &VirtualNetwork) -> bool {
    network.network_type == range.network_type
        && network.physical_network == range.physical_network
        && network.segmentation_id.is_some_and(|number| range.holds(number))
        && (range.shared || network.project_id == range.project_id)
}

/// Where networks of the range's numbers are found.
fn users(range: &SegmentRange) -> Query {
    match &range.physical_network {
        Some(name) => find::physical_network(name),
        None => find::vni_between(range.minimum, range.maximum),
    }
}

async fn used_in(tx: &mut Tx, range: &SegmentRange) -> Result<Vec<u32>, Fault> {
    let there = tx.list::<VirtualNetwork>(users(range)).await?;
    Ok(there.iter().filter(|n| uses(range, n)).filter_map(|n| n.segmentation_id).collect())
}

/// For views: what is used, and what is free in ranges that are small enough to be listed.
pub async fn usage(store: &Store, range: &SegmentRange) -> Result<(Value, Value), Fault> {
    const LISTED: u32 = 4096;
    let there = store.list::<VirtualNetwork>(users(range)).await?;
    let number = |n: &Stored<VirtualNetwork>| Some((n.segmentation_id?.to_string(), json!(n.project_id)));
    let used: serde_json::Map<String, Value> = there.iter().filter(|n| uses(range, n)).filter_map(number).collect();
    if range.maximum - range.minimum >= LISTED {
        return Ok((json!(used), json!([])));
    }
    let has = |n: &Stored<VirtualNetwork>| match range.physical_network {
        Some(_) => n.segmentation_id.filter(|_| n.network_type == range.network_type),
        // Whatever it is of: nobody else gets the number.
        None => Some(n.vni),
    };
    let taken: Vec<u32> = there.iter().filter_map(has).collect();
    let free: Vec<u32> = (range.minimum..=range.maximum).filter(|n| !taken.contains(n)).collect();
    Ok((json!(used), json!(free)))
}

fn check(range: &SegmentRange, all: &[SegmentRange]) -> Result<(), Fault> {
    match (range.network_type.as_str(), &range.physical_network) {
        (OVERLAY, None) => {}
        (OVERLAY, Some(_)) => return Err(fault::invalid(format!("physical_network is not for {OVERLAY} ranges"))),
        (VLAN, None) => return Err(fault::invalid("physical_network is required for a VLAN segment range")),
        (VLAN, Some(_)) if range.maximum > TAG_MAX => {
            return Err(fault::invalid(format!("tags of VLANs are 1 through {TAG_MAX}")));
        }
        (VLAN, Some(_)) => {}
        (other, _) => {
            return Err(fault::invalid(format!(
                "network_type '{other}' has no ranges of numbers here; {OVERLAY} and {VLAN} have"
            )));
        }
    }
    if range.minimum > range.maximum {
        return Err(fault::invalid("the minimum of a segment range is above its maximum"));
    }
    if all.iter().any(|r| !r.default && r.id != range.id && r.overlaps(range)) {
        return Err(fault::conflict(
            "NetworkSegmentRangeOverlaps",
            format!("Network segment range overlaps with range {} to {}.", range.minimum, range.maximum),
        ));
    }
    Ok(())
}

pub async fn create_in(tx: &mut Tx, attrs: &Raw) -> Result<Stored<SegmentRange>, Fault> {
    let mut document = attrs.clone();
    document.insert("id".into(), json!(pilvi_kit::id::new()));
    document.insert("default".into(), json!(false));
    let mut range: SegmentRange = serde_json::from_value(Value::Object(document)).map_err(Fault::internal)?;
    if range.shared {
        range.project_id.clear();
    }
    range.physical_network = range.physical_network.filter(|p| !p.is_empty());
    check(&range, &all_in(tx).await?)?;
    Ok(tx.insert(&range).await?)
}

fn fixed() -> Fault {
    fault::bad(
        "NetworkSegmentRangeDefaultReadOnly",
        format!("Network Segment Range {DEFAULT} is a default segment range which could not be updated or deleted."),
    )
}

fn referenced(id: &str) -> Fault {
    fault::conflict(
        "NetworkSegmentRangeReferencedByProject",
        format!("Network Segment Range {id} is referenced by one or more tenant networks."),
    )
}

/// Networks keep their numbers, so those stay inside.
pub async fn update_in(tx: &mut Tx, mut found: Stored<SegmentRange>, changes: &Raw) -> Result<(), Fault> {
    if found.default {
        return Err(fixed());
    }
    let after: SegmentRange = overlay(&found.record, changes)?;
    check(&after, &all_in(tx).await?)?;
    if used_in(tx, &found.record).await?.iter().any(|n| !after.holds(*n)) {
        return Err(referenced(&found.id));
    }
    found.record = after;
    tx.update(&found).await?;
    Ok(())
}

pub async fn delete_in(tx: &mut Tx, found: Stored<SegmentRange>) -> Result<(), Fault> {
    if found.default {
        return Err(fixed());
    }
    if !used_in(tx, &found.record).await?.is_empty() {
        return Err(referenced(&found.id));
    }
    tx.delete::<SegmentRange>(&found.id).await?;
    Ok(())
}
