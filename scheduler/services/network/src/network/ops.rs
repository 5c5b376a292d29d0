//! The verbs of networks; the only writer of the record.
use super::{
    model::{OVERLAY, VLAN, VirtualNetwork, mtu_max},
    provider::{self, Wish},
};
use crate::{
    attribute::overlay,
    bgp, fault,
    floating_ip::{self, model::FloatingIp},
    hosting,
    list::Raw,
    port::model::{FLOATING, Port, ROUTER_GATEWAY},
    qos, quota,
    rbac::{
        self,
        model::{Action, covers},
        shared::Shareable,
    },
    security_group, segment, spare,
    subnet::{self, model::Subnet},
    tables::find,
    zone,
};
use pilvi_kit::{Ctx, Fault};
use pilvi_store::{Query, Store, Stored, Tx};
use serde_json::Value;
use std::collections::HashMap;

/// May this caller see every project's records? (The rules decide about each; this only widens the search.)
pub fn sees_all(ctx: &Ctx) -> bool {
    ctx.caller.has_role("admin") || ctx.caller.has_role("service")
}

/// Networks of a project, and those that are open to it.
pub async fn seen_by(store: &Store, project: &str) -> Result<Vec<Stored<VirtualNetwork>>, Fault> {
    Ok(store.list::<VirtualNetwork>(find::open_to(project)).await?)
}

/// The network, if the caller may use it; else 404.
pub async fn visible(store: &Store, ctx: &Ctx, id: &str) -> Result<Stored<VirtualNetwork>, Fault> {
    let found = store.get::<VirtualNetwork>(id).await?;
    found.filter(|n| is_visible(n, ctx)).ok_or_else(|| fault::network_missing(id))
}

/// Bytes of the interfaces on a network.
pub async fn mtu_in(tx: &mut Tx, id: &str) -> Result<u32, Fault> {
    Ok(tx.get::<VirtualNetwork>(id).await?.ok_or_else(|| fault::network_missing(id))?.mtu)
}

pub(crate) fn is_visible(network: &VirtualNetwork, ctx: &Ctx) -> bool {
    sees_all(ctx) || network.is_open_to(ctx.project_id())
}

/// The networks of a server that names none: the project's only one, or none.
///
/// As in Nova: own networks that are not external, and shared ones; more than one is 409.
pub async fn choose_for_server(store: &Store, ctx: &Ctx) -> Result<Vec<String>, Fault> {
    let usable = |n: &Stored<VirtualNetwork>| {
        n.is_shared_with(ctx.project_id()) || (n.project_id == ctx.project_id() && !n.external)
    };
    let found: Vec<String> =
        seen_by(store, ctx.project_id()).await?.into_iter().filter(usable).map(|n| n.record.id).collect();
    if found.len() > 1 {
        return Err(Fault::conflict("Multiple possible networks found, use a Network ID to be more specific.")
            .kind("NetworkAmbiguous"));
    }
    Ok(found)
}

/// Makes a network. `attrs` is what [`crate::attribute::Resource::parse`] gave.
pub async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<VirtualNetwork>, Fault> {
    let attrs = &first_segment(attrs)?;
    let text = |name: &str| attrs.get(name).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned);
    let project = text("project_id").unwrap_or_default();
    quota::check_in::<VirtualNetwork>(tx, &project, "network").await?;
    let number = attrs.get("provider:segmentation_id").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    let wish = Wish { kind: text("provider:network_type"), physical: text("provider:physical_network"), number };
    let provided = provider::settle_in(tx, &project, wish).await?;
    let set = |name: &str| attrs.get(name) == Some(&Value::Bool(true));
    if provided.kind == VLAN && set("pvlan") {
        return Err(fault::invalid("a PVLAN network cannot be a VLAN network: outside, its parts would be one"));
    }
    check_tags(set("vlan_transparent"), set("qinq"), set("pvlan"), &provided.kind)?;
    let top = mtu_max(&provided.kind);
    let mtu =
        attrs.get("mtu").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(top);
    check_mtu(mtu, top)?;
    zone::wished_in(tx, attrs).await?;
    let mut document = attrs.clone();
    document.remove("segments");
    if set("ha") {
        document.insert(spare::network::HA_FOR.into(), ctx.project_id().into());
    }
    if let Some(project) = document.get(spare::network::HA_FOR).and_then(Value::as_str) {
        spare::network::refuse_second_in(tx, project).await?;
    }
    qos::ops::bind_sent_in(tx, ctx, None, attrs).await?;
    if text("qos_policy_id").is_none() {
        let policy = qos::ops::default_in(tx, &project).await?;
        document.insert("qos_policy_id".into(), Value::from(policy));
    }
    for (name, value) in [
        ("id", Value::from(pilvi_kit::id::new())),
        ("mtu", mtu.into()),
        ("vni", provided.vni.into()),
        ("provider:network_type", provided.kind.into()),
        ("provider:physical_network", provided.physical.into()),
        ("provider:segmentation_id", provided.number.into()),
    ] {
        document.insert(name.to_owned(), value);
    }
    let mut network: VirtualNetwork = serde_json::from_value(Value::Object(document)).map_err(Fault::internal)?;
    if network.shared {
        rbac::ops::follow_flag_in(tx, &mut network, Action::Shared, true).await?;
    }
    if network.external {
        rbac::ops::follow_flag_in(tx, &mut network, Action::External, true).await?;
    }
    security_group::ops::ensure_default_in(tx, &project).await?;
    let stored = tx.insert(&network).await?;
    segment::ops::begin_in(tx, &network).await?;
    let further = attrs.get("segments").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let id = network.id;
    for wished in further.iter().skip(1).filter_map(Value::as_object) {
        let at = tx.get::<VirtualNetwork>(&id).await?.ok_or_else(|| fault::network_missing(&id))?;
        segment::ops::add_in(tx, at, wished).await?;
    }
    if further.len() < 2 { Ok(stored) } else { tx.get(&id).await?.ok_or_else(|| fault::network_missing(&id)) }
}

/// What a network of several segments begins with is the first of them.
fn first_segment(attrs: &Raw) -> Result<Raw, Fault> {
    let mut attrs = attrs.clone();
    let segments = attrs.get("segments").and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(first) = segments.first().and_then(Value::as_object) else { return Ok(attrs) };
    for (name, value) in first.iter().filter(|(_, value)| !value.is_null()) {
        let name = format!("provider:{name}");
        if attrs.get(&name).is_some_and(|sent| !sent.is_null()) {
            return Err(fault::bad(
                "SegmentsSetInConjunctionWithProviders",
                "Segments and provider values cannot both be set.",
            ));
        }
        attrs.insert(name, value.clone());
    }
    Ok(attrs)
}

/// Tags of guests' own are within the network's own on a wire: without one there they would be the provider's.
pub(crate) fn check_tags(transparent: bool, qinq: bool, private: bool, kind: &str) -> Result<(), Fault> {
    if transparent && qinq {
        return Err(fault::bad(
            "BadRequest",
            "Bad network request: Attributes 'vlan_transparent' and 'qinq' can not be set to True for the same network.",
        ));
    }
    if transparent && (![OVERLAY, VLAN].contains(&kind) || private) {
        return Err(fault::bad(
            "VlanTransparencyDriverError",
            format!(
                "Backend does not support VLAN Transparency, but for {OVERLAY} and {VLAN} networks that are not private."
            ),
        ));
    }
    if qinq && kind != VLAN {
        return Err(fault::bad(
            "VlanQinqDriverError",
            format!("Backend does not support VLAN QinQ, but for {VLAN} networks."),
        ));
    }
    Ok(())
}

fn check_mtu(mtu: u32, top: u32) -> Result<(), Fault> {
    if mtu > top {
        return Err(fault::invalid(format!("Requested MTU is too big, maximum is {top}")));
    }
    Ok(())
}

/// 409 if hosts of that IP version cannot live with the network's MTU.
pub(crate) fn check_subnet_mtu(mtu: u32, ip_version: u8) -> Result<(), Fault> {
    let least = if ip_version == 4 { 68 } else { 1280 };
    if mtu < least {
        return Err(fault::conflict(
            "NetworkMTUSubnetConflict",
            format!("MTU of {mtu} is too small for an IPv{ip_version} subnet: the minimum is {least}."),
        ));
    }
    Ok(())
}

pub async fn update_in(tx: &mut Tx, ctx: &Ctx, mut found: Stored<VirtualNetwork>, changes: &Raw) -> Result<(), Fault> {
    let before = found.record.clone();
    qos::ops::bind_sent_in(tx, ctx, before.qos_policy_id.as_deref(), changes).await?;
    let mut after: VirtualNetwork = overlay(&before, changes)?;
    let (had, has) = (before.qos_policy_id.as_deref(), after.qos_policy_id.as_deref());
    qos::least::refuse_network_change_in(tx, &before.id, had, has).await?;
    let top = mtu_max(&before.network_type);
    if after.mtu == 0 {
        after.mtu = top;
    }
    // One that was made when more fitted keeps what it has until somebody changes it.
    if after.mtu != before.mtu {
        check_mtu(after.mtu, top)?;
    }
    if after.mtu < before.mtu {
        for subnet in tx.list::<Subnet>(find::on_network(&before.id)).await? {
            check_subnet_mtu(after.mtu, subnet.ip_version)?;
        }
    }
    if before.external
        && !after.external
        && tx.count::<Port>(find::owned_on([before.id.as_str()], ROUTER_GATEWAY)).await? > 0
    {
        return Err(fault::conflict(
            "ExternalNetworkInUse",
            format!(
                "External network {} cannot be updated to be made non-external, since it has existing gateway ports.",
                before.id
            ),
        ));
    }
    if before.shared && !after.shared {
        let users = before.users_in(tx, Action::Shared).await?;
        if users.iter().any(|p| !p.is_empty() && *p != before.project_id && !covers(&before.shared_with, p)) {
            return Err(fault::conflict(
                "InvalidSharedSetting",
                format!(
                    "Unable to reconfigure sharing settings for network {}. Multiple tenants are using it.",
                    before.name
                ),
            ));
        }
    }
    if before.shared != after.shared {
        let shared = after.shared;
        rbac::ops::follow_flag_in(tx, &mut after, Action::Shared, shared).await?;
    }
    if before.external != after.external {
        let external = after.external;
        rbac::ops::follow_flag_in(tx, &mut after, Action::External, external).await?;
    }
    found.record = after;
    tx.update(&found).await?;
    Ok(())
}

/// Deletes the network, its subnets, and floating IPs of it that nobody uses.
pub async fn delete_in(tx: &mut Tx, ctx: &Ctx, found: Stored<VirtualNetwork>) -> Result<(), Fault> {
    let id = &found.id;
    let ports = tx.list::<Port>(find::on_network(id)).await?;
    let floating: HashMap<String, FloatingIp> = tx
        .list::<FloatingIp>(find::of_floating_network(id))
        .await?
        .into_iter()
        .map(|f| (f.record.floating_port_id.clone(), f.record))
        .collect();
    let idle = |p: &Port| p.device_owner == FLOATING && floating.get(&p.id).is_some_and(|f| f.port_id.is_none());
    if let Some(port) = ports.iter().find(|p| !idle(p)) {
        return Err(fault::conflict(
            "NetworkInUse",
            format!(
                "Unable to complete operation on network {id}. There are one or more ports still in use on the network, id for these ports is: {}",
                port.id
            ),
        ));
    }
    for floating in floating.into_values() {
        floating_ip::ops::remove_in(tx, ctx, &floating).await?;
    }
    for subnet in tx.list::<Subnet>(find::on_network(id)).await? {
        subnet::ops::delete_in(tx, subnet).await?;
    }
    rbac::ops::forget_in(tx, id).await?;
    segment::ops::forget_in(tx, id).await?;
    hosting::ops::forget_in(tx, id).await?;
    bgp::ops::forget_network_in(tx, id).await?;
    tx.delete::<VirtualNetwork>(id).await?;
    Ok(())
}

/// The default external network, for topologies that are made by themselves.
pub async fn default_external(store: &Store) -> Result<Option<Stored<VirtualNetwork>>, Fault> {
    Ok(store.list::<VirtualNetwork>(find::external()).await?.into_iter().find(|n| n.is_default))
}

/// All networks, for reports to administrators.
pub async fn all(store: &Store) -> Result<Vec<Stored<VirtualNetwork>>, Fault> {
    Ok(store.list::<VirtualNetwork>(Query::all()).await?)
}
