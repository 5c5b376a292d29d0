//! The verbs of port forwardings; the only writer of the record, and of the router of a floating IP that only forwards.
use super::model::{PortForwarding, Range};
use crate::{
    fault,
    floating_ip::{model::FloatingIp, ops::outer_router_in},
    list::Raw,
    port::model::{FixedIp, Port},
    tables::find,
};
use pilvi_kit::Fault;
use pilvi_store::{Stored, Tx};
use serde_json::{Value, json};

/// Forwardings of one floating IP: each is some rows in the tables of a host.
const FORWARDINGS_MAX: usize = 128;

fn refuse(message: impl std::fmt::Display) -> Fault {
    fault::bad("BadRequest", format!("Bad port_forwarding request: {message}."))
}

fn text(attrs: &Raw, name: &str) -> Option<String> {
    attrs.get(name).and_then(Value::as_str).map(str::to_owned)
}

/// The range that was sent, or the single port.
fn range(attrs: &Raw, side: &str) -> Option<Range> {
    let single = || {
        let port = attrs.get(&format!("{side}_port"))?.as_u64()?;
        Range::parse(&port.to_string())
    };
    text(attrs, &format!("{side}_port_range")).and_then(|t| Range::parse(&t)).or_else(single)
}

pub async fn create_in(tx: &mut Tx, attrs: &Raw) -> Result<Stored<PortForwarding>, Fault> {
    let id = text(attrs, "floatingip_id").unwrap_or_default();
    let missing = || fault::missing("FloatingIPNotFound", "Floating IP", &id);
    let mut floating = tx.get::<FloatingIp>(&id).await?.ok_or_else(missing)?;
    if let Some(port) = &floating.port_id {
        return Err(fault::conflict(
            "FloatingIPPortAlreadyAssociated",
            format!(
                "Cannot associate floating IP {} ({id}) with port {port}, as it is associated already.",
                floating.floating_ip_address
            ),
        ));
    }
    let need =
        |side: &str| range(attrs, side).ok_or_else(|| refuse(format!("{side}_port or {side}_port_range is needed")));
    let mut forwarding = PortForwarding {
        id: pilvi_kit::id::new(),
        project_id: floating.project_id.clone(),
        floatingip_id: id.clone(),
        router_id: String::new(),
        description: text(attrs, "description"),
        protocol: text(attrs, "protocol").unwrap_or_default(),
        external: need("external")?,
        internal_port_id: text(attrs, "internal_port_id").unwrap_or_default(),
        internal_ip_address: text(attrs, "internal_ip_address").unwrap_or_default(),
        internal: need("internal")?,
    };
    settle_in(tx, &floating, &mut forwarding).await?;
    if floating.router_id.as_ref() != Some(&forwarding.router_id) {
        floating.router_id = Some(forwarding.router_id.clone());
        tx.update(&floating).await?;
    }
    Ok(tx.insert(&forwarding).await?)
}

pub async fn update_in(tx: &mut Tx, mut found: Stored<PortForwarding>, changes: &Raw) -> Result<(), Fault> {
    let mut after = found.record.clone();
    if let Some(description) = text(changes, "description") {
        after.description = Some(description);
    }
    if let Some(protocol) = text(changes, "protocol") {
        after.protocol = protocol;
    }
    if let Some(port) = text(changes, "internal_port_id").filter(|p| *p != after.internal_port_id) {
        after.internal_port_id = port;
        after.internal_ip_address = String::new();
    }
    if let Some(address) = text(changes, "internal_ip_address") {
        after.internal_ip_address = address;
    }
    after.external = range(changes, "external").unwrap_or(after.external);
    after.internal = range(changes, "internal").unwrap_or(after.internal);
    let floating = tx.get::<FloatingIp>(&after.floatingip_id).await?;
    let floating = floating.ok_or_else(|| fault::missing("FloatingIPNotFound", "Floating IP", &after.floatingip_id))?;
    settle_in(tx, &floating, &mut after).await?;
    found.record = after;
    tx.update(&found).await?;
    Ok(())
}

/// Fills in the address and the router, and refuses what cannot be beside the others.
async fn settle_in(tx: &mut Tx, floating: &FloatingIp, forwarding: &mut PortForwarding) -> Result<(), Fault> {
    if !forwarding.external.fits(forwarding.internal) {
        return Err(refuse(
            "Invalid ranges of internal and/or external ports. The relation between internal and external ports must be N-N or 1-N",
        ));
    }
    let port_id = &forwarding.internal_port_id;
    let port = tx.get::<Port>(port_id).await?.filter(|p| p.project_id == forwarding.project_id);
    let port = port.ok_or_else(|| fault::port_missing(port_id))?;
    if let Some(bound) = tx.list::<FloatingIp>(find::of_ports([port_id.as_str()])).await?.first() {
        return Err(fault::conflict(
            "PortHasBindingFloatingIP",
            format!(
                "Cannot create port forwarding to floating IP {} ({}) with port {port_id}, as that port already has a binding floating IP.",
                bound.floating_ip_address, bound.id
            ),
        ));
    }
    let inside = inside_address(&port, &forwarding.internal_ip_address)?;
    forwarding.internal_ip_address.clone_from(&inside.ip_address);
    let external = &floating.floating_network_id;
    forwarding.router_id = outer_router_in(tx, &port, &inside, external).await.map_err(|_| {
        refuse(format!(
            "External network {external} is not reachable from subnet {}. Cannot set Port forwarding for port {port_id} with Floating IP {}",
            inside.subnet_id, floating.id
        ))
    })?;
    if let Some(router) = floating.router_id.as_ref().filter(|r| **r != forwarding.router_id) {
        return Err(refuse(format!(
            "The Floating IP {} had been set on router {router}, the internal Neutron port {port_id} can not reach it",
            floating.id
        )));
    }
    refuse_collision_in(tx, forwarding).await
}

async fn refuse_collision_in(tx: &mut Tx, forwarding: &PortForwarding) -> Result<(), Fault> {
    let mut others = tx.list::<PortForwarding>(find::of_floating(&forwarding.floatingip_id)).await?;
    if others.iter().filter(|o| o.id != forwarding.id).count() >= FORWARDINGS_MAX {
        return Err(Fault::conflict(format!("A floating IP has at most {FORWARDINGS_MAX} port forwardings.")));
    }
    others.extend(tx.list::<PortForwarding>(find::to_port(&forwarding.internal_port_id)).await?);
    match others.iter().find_map(|o| Some((forwarding.collides(o)?, o))) {
        None => Ok(()),
        Some((member, other)) => {
            let (ours, theirs) = if member == "external_port_range" {
                (forwarding.external, other.external)
            } else {
                (forwarding.internal, other.internal)
            };
            Err(refuse(format!(
                "There is a port collision with the {member}. The following ranges collide: {} and {}",
                theirs.text(),
                ours.text()
            )))
        }
    }
}

/// The wished address, or the port's first.
fn inside_address(port: &Port, wish: &str) -> Result<FixedIp, Fault> {
    let mut v4 = port.fixed_ips.iter().filter(|f| !f.ip_address.contains(':'));
    if wish.is_empty() {
        let none = || refuse(format!("Requested internal port {} must allocate an IPv4 address at least", port.id));
        return v4.next().cloned().ok_or_else(none);
    }
    v4.find(|f| f.ip_address == wish).cloned().ok_or_else(|| {
        refuse(format!(
            "Requested internal IP address {wish} is not suitable for internal neutron port {}, as its fixed_ips are {}",
            port.id,
            json!(port.fixed_ips)
        ))
    })
}

/// With its last forwarding a floating IP leaves its router.
pub async fn delete_in(tx: &mut Tx, forwarding: &PortForwarding) -> Result<(), Fault> {
    tx.delete::<PortForwarding>(&forwarding.id).await?;
    if !forwards_in(tx, &forwarding.floatingip_id).await?
        && let Some(mut floating) = tx.get::<FloatingIp>(&forwarding.floatingip_id).await?
    {
        floating.router_id = None;
        tx.update(&floating).await?;
    }
    Ok(())
}

/// Does this floating IP forward ports?
pub async fn forwards_in(tx: &mut Tx, floating_id: &str) -> Result<bool, Fault> {
    Ok(tx.count::<PortForwarding>(find::of_floating(floating_id)).await? > 0)
}

pub fn in_use(floating_id: &str) -> Fault {
    fault::conflict(
        "FipInUseByPortForwarding",
        format!("Floating IP {floating_id} in use by Port Forwarding resources."),
    )
}

/// A floating IP cannot be bound to a port that has some of another's ports.
pub async fn refuse_target_in(tx: &mut Tx, port_id: &str) -> Result<(), Fault> {
    if tx.count::<PortForwarding>(find::to_port(port_id)).await? == 0 {
        return Ok(());
    }
    Err(fault::bad(
        "PortHasPortForwarding",
        format!("Cannot associate floating IP to port {port_id} because it already has a Port Forwarding binding."),
    ))
}

/// A port goes, or loses addresses: what led there leads nowhere any more.
pub async fn forget_in(tx: &mut Tx, port_id: &str, kept: &[FixedIp]) -> Result<(), Fault> {
    for forwarding in tx.list::<PortForwarding>(find::to_port(port_id)).await? {
        if !kept.iter().any(|f| f.ip_address == forwarding.internal_ip_address) {
            delete_in(tx, &forwarding).await?;
        }
    }
    Ok(())
}
