//! The verbs of segments; the only writer of the record. A network's first segment is made and goes with it.
use super::model::Segment;
use crate::{
    attribute::overlay,
    fault,
    list::Raw,
    network::{
        model::VirtualNetwork,
        ops::check_tags,
        provider::{self, Wish},
    },
    port::model::FixedIp,
    subnet::model::Subnet,
    tables::{Once, find},
};
use pilvi_kit::Fault;
use pilvi_store::{Query, Store, Stored, Tx};
use serde_json::{Value, json};

/// Segments of one network: each is a network on every host that has a port of it.
const SEGMENTS_MAX: u64 = 64;
/// Networks of earlier releases have been given their first segments.
const FIRST: &str = "first segments";

pub fn missing(id: &str) -> Fault {
    fault::missing("SegmentNotFound", "Segment", id)
}

fn in_use(id: &str, reason: &str) -> Fault {
    fault::conflict("SegmentInUse", format!("Segment '{id}' cannot be deleted: {reason}."))
}

/// What a network begins with.
fn first_of(network: &VirtualNetwork) -> Segment {
    Segment {
        id: pilvi_kit::id::new(),
        network_id: network.id.clone(),
        name: None,
        description: None,
        network_type: network.network_type.clone(),
        physical_network: network.physical_network.clone(),
        segmentation_id: network.segmentation_id,
        vni: network.vni,
        first: true,
        tags: Vec::new(),
    }
}

pub async fn begin_in(tx: &mut Tx, network: &VirtualNetwork) -> Result<(), Fault> {
    tx.insert(&first_of(network)).await?;
    Ok(())
}

/// Networks that were made before there were segments get theirs once somebody looks.
pub async fn ensure(store: &Store) -> Result<(), Fault> {
    if store.get::<Once>(FIRST).await?.is_some() {
        return Ok(());
    }
    store
        .write(|tx| {
            Box::pin(async move {
                if tx.get::<Once>(FIRST).await?.is_some() {
                    return Ok::<_, Fault>(());
                }
                for network in tx.list::<VirtualNetwork>(Query::all()).await? {
                    if tx.count::<Segment>(find::on_network(&network.id)).await? == 0 {
                        begin_in(tx, &network.record).await?;
                    }
                }
                tx.insert(&Once { id: FIRST.to_owned() }).await?;
                Ok(())
            })
        })
        .await
}

/// The segment of this network, or why it is none.
pub async fn of_network_in(tx: &mut Tx, id: &str, network_id: &str) -> Result<Segment, Fault> {
    let segment = tx.get::<Segment>(id).await?.ok_or_else(|| missing(id))?.record;
    if segment.network_id != network_id {
        return Err(fault::bad(
            "NetworkIdsDontMatch",
            format!("The subnet's network id, '{network_id}', doesn't match the network_id of segment '{id}'"),
        ));
    }
    Ok(segment)
}

pub async fn create_in(tx: &mut Tx, attrs: &Raw) -> Result<Stored<Segment>, Fault> {
    let network_id = attrs.get("network_id").and_then(Value::as_str).unwrap_or_default();
    let network = tx.get::<VirtualNetwork>(network_id).await?;
    let network = network.ok_or_else(|| fault::network_missing(network_id))?;
    let made = add_in(tx, network, attrs).await?;
    Ok(made)
}

/// One more segment of a network, which carries what it is made of in mind.
pub async fn add_in(tx: &mut Tx, mut network: Stored<VirtualNetwork>, attrs: &Raw) -> Result<Stored<Segment>, Fault> {
    let text = |name: &str| attrs.get(name).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned);
    let number = attrs.get("segmentation_id").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    let wish = Wish { kind: text("network_type"), physical: text("physical_network"), number };
    if network.pvlan {
        return Err(fault::invalid("a PVLAN network has one segment"));
    }
    if tx.count::<Segment>(find::on_network(&network.id)).await? >= SEGMENTS_MAX {
        return Err(Fault::conflict(format!("A network has at most {SEGMENTS_MAX} segments.")));
    }
    let provided = provider::settle_in(tx, &network.project_id, wish).await?;
    let (transparent, qinq) = (network.record.vlan_transparent, network.record.qinq);
    check_tags(transparent.unwrap_or_default(), qinq.unwrap_or_default(), false, &provided.kind)?;
    let mut document = attrs.clone();
    for (name, value) in [
        ("id", json!(pilvi_kit::id::new())),
        ("network_id", json!(network.id)),
        ("network_type", json!(provided.kind)),
        ("physical_network", json!(provided.physical)),
        ("segmentation_id", json!(provided.number)),
        ("vni", json!(provided.vni)),
        ("first", json!(false)),
    ] {
        document.insert(name.to_owned(), value);
    }
    let segment: Segment = serde_json::from_value(Value::Object(document)).map_err(Fault::internal)?;
    network.record.segments.insert(segment.id.clone(), provided.vni);
    tx.update(&network).await?;
    Ok(tx.insert(&segment).await?)
}

pub async fn update_in(tx: &mut Tx, mut found: Stored<Segment>, changes: &Raw) -> Result<(), Fault> {
    found.record = overlay(&found.record, changes)?;
    tx.update(&found).await?;
    Ok(())
}

/// Refused while subnets are on it; the first one is the network itself.
pub async fn delete_in(tx: &mut Tx, found: Stored<Segment>) -> Result<(), Fault> {
    let subnets = tx.list::<Subnet>(find::on_network(&found.network_id)).await?;
    let its: Vec<&str> =
        subnets.iter().filter(|s| s.segment_id.as_ref() == Some(&found.id)).map(|s| s.id.as_str()).collect();
    if !its.is_empty() {
        let reason = format!("The segment is still associated with subnet(s) {}", its.join(", "));
        return Err(in_use(&found.id, &reason));
    }
    if found.first {
        return Err(in_use(&found.id, "It is the segment that the network was made with"));
    }
    if let Some(mut network) = tx.get::<VirtualNetwork>(&found.network_id).await? {
        network.record.segments.remove(&found.id);
        tx.update(&network).await?;
    }
    tx.delete::<Segment>(&found.id).await?;
    Ok(())
}

/// The physical network that some addresses are on.
pub async fn wire_in(tx: &mut Tx, network_id: &str, fixed: &[FixedIp]) -> Result<Option<String>, Fault> {
    let Some(network) = tx.get::<VirtualNetwork>(network_id).await? else { return Ok(None) };
    let Some(vni) = fixed.iter().find_map(|f| network.segment_subnets.get(&f.subnet_id)) else {
        return Ok(network.record.physical_network);
    };
    let Some((id, _)) = network.segments.iter().find(|(_, number)| *number == vni) else { return Ok(None) };
    Ok(tx.get::<Segment>(id).await?.and_then(|s| s.record.physical_network))
}

/// The network goes.
pub async fn forget_in(tx: &mut Tx, network_id: &str) -> Result<(), Fault> {
    for segment in tx.list::<Segment>(find::on_network(network_id)).await? {
        tx.delete::<Segment>(&segment.id).await?;
    }
    Ok(())
}

/// Which segment a subnet shall be on, by what the others of its network are on. `before`: where it is, if it is there.
pub async fn settle_subnet_in(
    tx: &mut Tx,
    network: &mut Stored<VirtualNetwork>,
    siblings: &[Stored<Subnet>],
    before: Option<&Subnet>,
    after: &Subnet,
) -> Result<(), Fault> {
    let had = before.and_then(|s| s.segment_id.as_deref());
    if let Some(before) = before
        && had != after.segment_id.as_deref()
    {
        if had.is_some() {
            return Err(fault::bad(
                "SubnetSegmentAssociationChangeNotAllowed",
                "A subnet that is already associated with a segment cannot have its segment association changed.",
            ));
        }
        if !network.segments.is_empty() {
            return Err(fault::bad(
                "NoUpdateSubnetWhenMultipleSegmentsOnNetwork",
                format!(
                    "The network '{}' has multiple segments, it is only possible to associate an existing subnet with a segment on networks with a single segment.",
                    before.network_id
                ),
            ));
        }
    }
    // Subnets that are there join the one segment one by one.
    if before.is_none() && siblings.iter().any(|s| s.segment_id.is_some() != after.segment_id.is_some()) {
        return Err(fault::bad(
            "SubnetsNotAllAssociatedWithSegments",
            format!(
                "All of the subnets on network '{}' must either all be associated with segments or all not associated with any segment.",
                after.network_id
            ),
        ));
    }
    let Some(id) = &after.segment_id else { return Ok(()) };
    let segment = of_network_in(tx, id, &after.network_id).await?;
    if !segment.first {
        network.record.segment_subnets.insert(after.id.clone(), segment.vni);
    }
    Ok(())
}
