//! What policies keep free: rules of a minimum, as requests to placement.
//!
//! ```text
//!  port --its policy, else its network's--> minimum rules --> groups of resources and traits
//!     '--> `resource_request`          compute --> claims them with the server, on the server's host
//! ```
//! A minimum is kept by never promising more of a host's link than it has; nothing in the packet path favours anybody.
//! So what a running server holds cannot change under it: such changes are refused until the port is free.
use super::model::{Kind, LeastBandwidth, LeastPacketRate, QosRule, Way};
use crate::{fault, network::model::VirtualNetwork, port::model::Port, tables::find};
use pilvi_kit::Fault;
use pilvi_store::{Store, Stored, Tx};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Who serves networks of the overlay, as Neutron calls it.
const OVERLAY_TRAIT: &str = "CUSTOM_PHYSNET_RP_TUNNELLED";

/// Resources that one provider gives together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub id: String,
    pub required: Vec<String>,
    pub resources: BTreeMap<String, i64>,
}

/// Minimum rules of some policies.
#[derive(Debug, Default)]
struct Rules {
    bandwidths: Vec<QosRule<LeastBandwidth>>,
    packets: Vec<QosRule<LeastPacketRate>>,
}

impl Rules {
    async fn read(store: &Store, policies: &BTreeSet<&str>) -> Result<Self, Fault> {
        let ids: Vec<&str> = policies.iter().copied().collect();
        let mut rules = Rules::default();
        for chunk in ids.chunks(400) {
            let of = || find::of_policies(chunk.iter().copied());
            rules.bandwidths.extend(store.list::<QosRule<LeastBandwidth>>(of()).await?.into_iter().map(|r| r.record));
            rules.packets.extend(store.list::<QosRule<LeastPacketRate>>(of()).await?.into_iter().map(|r| r.record));
        }
        Ok(rules)
    }

    async fn read_in(tx: &mut Tx, policy: &str) -> Result<Self, Fault> {
        let of = || find::of_policies([policy]);
        let bandwidths = tx.list::<QosRule<LeastBandwidth>>(of()).await?.into_iter().map(|r| r.record).collect();
        let packets = tx.list::<QosRule<LeastPacketRate>>(of()).await?.into_iter().map(|r| r.record).collect();
        Ok(Rules { bandwidths, packets })
    }

    fn bandwidth(&self, policy: &str) -> BTreeMap<String, i64> {
        let class = |way| match way {
            Some(Way::Ingress) => "NET_BW_IGR_KILOBIT_PER_SEC",
            _ => "NET_BW_EGR_KILOBIT_PER_SEC",
        };
        let of = self.bandwidths.iter().filter(|r| r.policy_id == policy);
        amounts(of.map(|r| (class(r.direction), r.min_kbps)))
    }

    fn packet_rate(&self, policy: &str) -> BTreeMap<String, i64> {
        let class = |way| match way {
            Some(Way::Ingress) => "NET_PACKET_RATE_IGR_KILOPACKET_PER_SEC",
            Some(Way::Egress) => "NET_PACKET_RATE_EGR_KILOPACKET_PER_SEC",
            _ => "NET_PACKET_RATE_KILOPACKET_PER_SEC",
        };
        let of = self.packets.iter().filter(|r| r.policy_id == policy);
        amounts(of.map(|r| (class(r.direction), r.min_kpps)))
    }

    fn groups(&self, seed: &str, vnic_type: &str, network: &VirtualNetwork, policy: Option<&str>) -> Vec<Group> {
        let Some(policy) = policy else { return Vec::new() };
        let vnic = format!("CUSTOM_VNIC_TYPE_{}", spelled(vnic_type));
        let physical = network.physical_network.as_deref().map(|p| format!("CUSTOM_PHYSNET_{}", spelled(p)));
        let physical = physical.unwrap_or_else(|| OVERLAY_TRAIT.to_owned());
        let group = |kind: &str, required: Vec<String>, resources: BTreeMap<String, i64>| {
            (!resources.is_empty()).then(|| Group { id: id_of(seed, kind), required, resources })
        };
        let bandwidth = group(LeastBandwidth::TYPE, vec![physical, vnic.clone()], self.bandwidth(policy));
        let packets = group(LeastPacketRate::TYPE, vec![vnic], self.packet_rate(policy));
        bandwidth.into_iter().chain(packets).collect()
    }
}

fn amounts<'c>(of: impl Iterator<Item = (&'c str, Option<u64>)>) -> BTreeMap<String, i64> {
    let amount = |n: Option<u64>| n.and_then(|n| i64::try_from(n).ok()).filter(|n| *n > 0);
    of.filter_map(|(class, n)| Some((class.to_owned(), amount(n)?))).collect()
}

/// As a trait spells a name.
fn spelled(name: &str) -> String {
    name.to_ascii_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}

/// The same port always asks under the same id, so that what it was given can be found again.
pub(crate) fn id_of(seed: &str, kind: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(format!("{seed}/{kind}")).into();
    let hex: String = digest.iter().take(16).map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-5{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

/// Its own, else its network's.
fn policy_of<'p>(port: &'p Port, network: &'p VirtualNetwork) -> Option<&'p str> {
    port.qos_policy_id.as_deref().or(network.qos_policy_id.as_deref())
}

/// What `resource_request` shows.
pub fn shown(groups: &[Group]) -> Value {
    if groups.is_empty() {
        return Value::Null;
    }
    let one = |g: &Group| json!({"id": g.id, "required": g.required, "resources": g.resources});
    let ids: Vec<&str> = groups.iter().map(|g| g.id.as_str()).collect();
    json!({"request_groups": groups.iter().map(one).collect::<Vec<_>>(), "same_subtree": ids})
}

/// What ports ask for, by port; a fixed number of queries.
pub async fn of_ports(
    store: &Store,
    ports: &[Stored<Port>],
    networks: &HashMap<String, VirtualNetwork>,
) -> Result<HashMap<String, Vec<Group>>, Fault> {
    let with = || ports.iter().filter_map(|p| Some((p, networks.get(&p.network_id)?)));
    let policies: BTreeSet<&str> = with().filter_map(|(p, n)| policy_of(p, n)).collect();
    if policies.is_empty() {
        return Ok(HashMap::new());
    }
    let rules = Rules::read(store, &policies).await?;
    let groups = |(p, n): (&Stored<Port>, &VirtualNetwork)| {
        (p.id.clone(), rules.groups(&p.id, &p.vnic_type, n, policy_of(p, n)))
    };
    Ok(with().map(groups).collect())
}

/// What a port asks for, or one that will be made on a network; nothing of what is not there.
pub async fn wished(store: &Store, port: Option<&str>, network: Option<&str>) -> Result<Vec<Group>, Fault> {
    let port = match port {
        Some(id) => store.get::<Port>(id).await?.map(|p| p.record),
        None => None,
    };
    let Some(network) = port.as_ref().map(|p| p.network_id.as_str()).or(network) else { return Ok(Vec::new()) };
    let Some(network) = store.get::<VirtualNetwork>(network).await? else { return Ok(Vec::new()) };
    let policy = port.as_ref().map_or(network.qos_policy_id.as_deref(), |p| policy_of(p, &network));
    let Some(policy) = policy else { return Ok(Vec::new()) };
    let rules = Rules::read(store, &BTreeSet::from([policy])).await?;
    let (seed, vnic) = port.as_ref().map_or((network.id.as_str(), "normal"), |p| (p.id.as_str(), p.vnic_type.as_str()));
    Ok(rules.groups(seed, vnic, &network, Some(policy)))
}

/// What a port asks for, in the transaction that takes it.
pub async fn of_port_in(tx: &mut Tx, port: &Port) -> Result<Vec<Group>, Fault> {
    let Some(network) = tx.get::<VirtualNetwork>(&port.network_id).await? else { return Ok(Vec::new()) };
    let Some(policy) = policy_of(port, &network) else { return Ok(Vec::new()) };
    Ok(Rules::read_in(tx, policy).await?.groups(&port.id, &port.vnic_type, &network, Some(policy)))
}

/// Does a server hold what the port asks for?
fn is_claimed(port: &Port) -> bool {
    !port.host_id.is_empty() && port.device_owner.starts_with("compute:")
}

fn claimed(port: &Port) -> Fault {
    fault::conflict(
        "QosResourceRequestInUse",
        format!("What port {} keeps free cannot change while server {} has it.", port.id, port.device_id),
    )
}

/// 409 while a server has a port that the policy's minimum rules hold for.
pub async fn refuse_claimed_in(tx: &mut Tx, policy: &str) -> Result<(), Fault> {
    let own = tx.list::<Port>(find::with_policy(policy)).await?;
    let networks = tx.list::<VirtualNetwork>(find::with_policy(policy)).await?;
    let ids: Vec<&str> = networks.iter().map(|n| n.id.as_str()).collect();
    let mut inherited = Vec::new();
    for chunk in ids.chunks(400) {
        inherited.extend(tx.list::<Port>(find::on_networks(chunk.iter().copied())).await?);
    }
    let inherits = |p: &&Stored<Port>| p.qos_policy_id.is_none();
    match own.iter().chain(inherited.iter().filter(inherits)).find(|p| is_claimed(p)) {
        Some(port) => Err(claimed(port)),
        None => Ok(()),
    }
}

async fn asked_in(tx: &mut Tx, policy: Option<&str>) -> Result<[BTreeMap<String, i64>; 2], Fault> {
    let Some(policy) = policy else { return Ok(Default::default()) };
    let rules = Rules::read_in(tx, policy).await?;
    Ok([rules.bandwidth(policy), rules.packet_rate(policy)])
}

/// 409 if a port that a server has would ask for something else under another policy.
pub async fn refuse_change_in(tx: &mut Tx, before: &Port, after: &Port) -> Result<(), Fault> {
    if before.qos_policy_id == after.qos_policy_id || !is_claimed(before) || !is_claimed(after) {
        return Ok(());
    }
    if of_port_in(tx, before).await? == of_port_in(tx, after).await? { Ok(()) } else { Err(claimed(before)) }
}

/// The same for the ports of a network that have its policy.
pub async fn refuse_network_change_in(
    tx: &mut Tx,
    network: &str,
    before: Option<&str>,
    after: Option<&str>,
) -> Result<(), Fault> {
    if before == after || asked_in(tx, before).await? == asked_in(tx, after).await? {
        return Ok(());
    }
    let ports = tx.list::<Port>(find::on_network(network)).await?;
    match ports.iter().find(|p| p.qos_policy_id.is_none() && is_claimed(p)) {
        Some(port) => Err(claimed(port)),
        None => Ok(()),
    }
}

/// Notes on a port which provider gives what it asks for, where agents and clients look for it.
pub async fn note_in(tx: &mut Tx, port_id: &str, provider: &str) -> Result<BTreeMap<String, i64>, Fault> {
    let mut port = tx.get::<Port>(port_id).await?.ok_or_else(|| fault::port_missing(port_id))?;
    let groups = of_port_in(tx, &port).await?;
    let mut all: BTreeMap<String, i64> = BTreeMap::new();
    for (class, amount) in groups.iter().flat_map(|g| &g.resources) {
        *all.entry(class.clone()).or_default() += amount;
    }
    let given: serde_json::Map<String, Value> = groups.iter().map(|g| (g.id.clone(), json!(provider))).collect();
    let noted = port.profile.get(ALLOCATION).and_then(Value::as_object).cloned().unwrap_or_default();
    if given != noted {
        port.profile[ALLOCATION] = Value::Object(given);
        tx.update(&port).await?;
    }
    Ok(all)
}

/// The word for it in a port's binding profile.
pub const ALLOCATION: &str = "allocation";
