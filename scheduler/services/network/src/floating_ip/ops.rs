//! The verbs of floating IPs; the only writer of the record.
use super::model::FloatingIp;
use crate::{
    attribute::overlay,
    fault,
    list::Raw,
    network::{
        model::VirtualNetwork,
        ops::{is_visible, sees_all},
    },
    port::{
        allocation::Wish,
        model::{FLOATING, FixedIp, Port, ROUTER_INTERFACE},
        ops::{self as ports, NewPort, on_subnet},
    },
    port_forwarding::ops as forwardings,
    qos, quota,
    router::model::Router,
    subnet::model::Subnet,
    tables::find,
};
use pilvi_kit::{Ctx, Fault};
use pilvi_store::{Stored, Tx};
use serde_json::Value;

fn text(attrs: &Raw, name: &str) -> Option<String> {
    attrs.get(name).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned)
}

pub async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<FloatingIp>, Fault> {
    let project = text(attrs, "project_id").unwrap_or_default();
    quota::check_in::<FloatingIp>(tx, &project, "floatingip").await?;
    let network_id = text(attrs, "floating_network_id").unwrap_or_default();
    let network = tx.get::<VirtualNetwork>(&network_id).await?;
    let network = network.filter(|n| is_visible(n, ctx)).ok_or_else(|| fault::network_missing(&network_id))?;
    if !network.external {
        return Err(fault::bad(
            "BadRequest",
            format!("Bad floatingip request: Network {network_id} is not a valid external network."),
        ));
    }
    refuse_half_a_name(attrs)?;
    qos::ops::bind_sent_in(tx, ctx, None, attrs).await?;
    let id = pilvi_kit::id::new();
    let port = outside_port_in(tx, ctx, attrs, &id, &network_id).await?;
    let mut floating = FloatingIp {
        id,
        project_id: project,
        description: text(attrs, "description").or(Some(String::new())),
        floating_ip_address: port.first_ipv4().unwrap_or_default().to_owned(),
        floating_network_id: network_id,
        floating_port_id: port.id.clone(),
        mac: port.mac_address.clone(),
        port_id: None,
        fixed_ip_address: None,
        router_id: None,
        by_leg: false,
        dns_name: text(attrs, "dns_name").unwrap_or_default(),
        dns_domain: text(attrs, "dns_domain").unwrap_or_default(),
        qos_policy_id: text(attrs, "qos_policy_id"),
        tags: serde_json::from_value(attrs.get("tags").cloned().unwrap_or_default()).unwrap_or_default(),
    };
    let (fixed, router) = (text(attrs, "fixed_ip_address"), text(attrs, "router_id"));
    match text(attrs, "port_id") {
        Some(port) => associate_in(tx, ctx, &mut floating, &port, fixed.as_deref(), router.as_deref()).await?,
        None if fixed.is_some() => return Err(fixed_needs_port()),
        None => {}
    }
    Ok(tx.insert(&floating).await?)
}

/// A name without a domain is none, nor is a domain without a name.
fn refuse_half_a_name(attrs: &Raw) -> Result<(), Fault> {
    let (there, lacking) = match (text(attrs, "dns_name"), text(attrs, "dns_domain")) {
        (Some(_), None) => ("dns_name", "dns_domain"),
        (None, Some(_)) => ("dns_domain", "dns_name"),
        _ => return Ok(()),
    };
    Err(fault::bad("BadRequest", format!("Bad floatingip request: {there} cannot be specified without a {lacking}.")))
}

fn fixed_needs_port() -> Fault {
    fault::bad("BadRequest", "Bad floatingip request: fixed_ip_address cannot be specified without a port_id.")
}

/// The port that holds the outside address: the wished one, or any of the network's IPv4 subnets.
async fn outside_port_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw, id: &str, network_id: &str) -> Result<Port, Fault> {
    let subnets = tx.list::<Subnet>(find::on_network(network_id)).await?;
    let (address, subnet) = (text(attrs, "floating_ip_address"), text(attrs, "subnet_id"));
    let wishes: Vec<Wish> = match (address, subnet) {
        (None, None) => subnets.iter().filter(|s| s.ip_version == 4).map(|s| on_subnet(&s.id, None)).collect(),
        (address, subnet) => vec![Wish { subnet_id: subnet, ip_address: address }],
    };
    let mut last = fault::bad(
        "BadRequest",
        format!("Bad floatingip request: Network {network_id} does not contain any IPv4 subnet."),
    );
    for wish in wishes {
        let new = NewPort {
            project_id: Some(String::new()),
            network_id: network_id.to_owned(),
            device_id: id.to_owned(),
            device_owner: FLOATING.to_owned(),
            fixed_ips: Some(vec![wish]),
            ..NewPort::default()
        };
        match ports::create_in(tx, ctx, new).await {
            Ok(port) => return Ok(port.record),
            Err(full) if full.kind == "IpAddressGenerationFailure" => last = full,
            Err(other) => return Err(other),
        }
    }
    Err(last)
}

pub async fn update_in(tx: &mut Tx, ctx: &Ctx, mut found: Stored<FloatingIp>, changes: &Raw) -> Result<(), Fault> {
    qos::ops::bind_sent_in(tx, ctx, found.qos_policy_id.as_deref(), changes).await?;
    let mut plain = changes.clone();
    let port = plain.remove("port_id");
    let fixed = plain.remove("fixed_ip_address").and_then(|f| f.as_str().map(str::to_owned));
    // A router is named for a port, not by itself.
    let router = plain.remove("router_id").and_then(|r| r.as_str().map(str::to_owned));
    let router = router.as_deref();
    let mut after: FloatingIp = overlay(&found.record, &plain)?;
    let forwards = forwardings::forwards_in(tx, &found.id).await?;
    match port {
        Some(Value::String(_)) if forwards => return Err(forwardings::in_use(&found.id)),
        _ if forwards => {}
        Some(Value::String(port)) => associate_in(tx, ctx, &mut after, &port, fixed.as_deref(), router).await?,
        Some(_) => disassociate(&mut after),
        // Nothing at all means: let go.
        None if changes.is_empty() => disassociate(&mut after),
        None if fixed.is_some() || router.is_some() => match after.port_id.clone() {
            Some(port) => associate_in(tx, ctx, &mut after, &port, fixed.as_deref(), router).await?,
            None if fixed.is_none() => {}
            None => return Err(fixed_needs_port()),
        },
        None => {}
    }
    found.record = after;
    tx.update(&found).await?;
    Ok(())
}

fn disassociate(floating: &mut FloatingIp) {
    floating.port_id = None;
    floating.fixed_ip_address = None;
    floating.by_leg = false;
    floating.router_id = None;
}

/// Points the floating IP at a fixed address of a port, through the named router or one that both can reach.
pub async fn associate_in(
    tx: &mut Tx,
    ctx: &Ctx,
    floating: &mut FloatingIp,
    port_id: &str,
    fixed: Option<&str>,
    router: Option<&str>,
) -> Result<(), Fault> {
    let port = tx.get::<Port>(port_id).await?.ok_or_else(|| fault::port_missing(port_id))?;
    if !sees_all(ctx) && port.project_id != ctx.project_id() {
        // Owners of a network see the ports that others have on it; nobody else learns of them.
        let network = tx.get::<VirtualNetwork>(&port.network_id).await?;
        network.filter(|n| n.project_id == ctx.project_id()).ok_or_else(|| fault::port_missing(port_id))?;
        return Err(fault::bad(
            "BadRequest",
            format!(
                "Bad floatingip request: Port {port_id} is associated with a different tenant than Floating IP {} and therefore cannot be bound.",
                floating.id
            ),
        ));
    }
    forwardings::refuse_target_in(tx, port_id).await?;
    let inside = choose_fixed(&port, fixed)?;
    for other in tx.list::<FloatingIp>(find::of_ports([port_id])).await? {
        if other.id != floating.id && other.fixed_ip_address.as_deref() == Some(inside.ip_address.as_str()) {
            return Err(fault::conflict(
                "FloatingIPPortAlreadyAssociated",
                format!(
                    "Cannot associate floating IP {} ({}) with port {port_id} using fixed IP {}, as that fixed IP already has a floating IP on external network {}.",
                    floating.floating_ip_address, floating.id, inside.ip_address, floating.floating_network_id
                ),
            ));
        }
    }
    let external = floating.floating_network_id.clone();
    let router = match router {
        Some(router) => named_router_in(tx, ctx, router, &external).await?,
        None => router_between_in(tx, &port, &inside, &external).await?,
    };
    floating.port_id = Some(port_id.to_owned());
    floating.fixed_ip_address = Some(inside.ip_address);
    (floating.router_id, floating.by_leg) = (Some(router.id), router.by_leg);
    Ok(())
}

fn choose_fixed(port: &Port, wanted: Option<&str>) -> Result<FixedIp, Fault> {
    let refuse = |text: String| fault::bad("BadRequest", format!("Bad floatingip request: {text}"));
    let mut v4 = port.fixed_ips.iter().filter(|f| !f.ip_address.contains(':'));
    if let Some(wanted) = wanted {
        return v4
            .find(|f| f.ip_address == wanted)
            .cloned()
            .ok_or_else(|| refuse(format!("Port {} does not have fixed ip {wanted}.", port.id)));
    }
    match (v4.next(), v4.next()) {
        (Some(one), None) => Ok(one.clone()),
        (Some(_), Some(_)) => Err(refuse(format!(
            "Port {} has multiple fixed IPv4 addresses. Must provide a specific IPv4 address when assigning a floating IP.",
            port.id
        ))),
        (None, _) => {
            Err(refuse(format!("Cannot add floating IP to port {} that has no fixed IPv4 addresses.", port.id)))
        }
    }
}

/// The router that the client names: it need not have a leg at the port, as other routers may lead there.
async fn named_router_in(tx: &mut Tx, ctx: &Ctx, id: &str, external: &str) -> Result<Between, Fault> {
    let router = tx.get::<Router>(id).await?.filter(|r| sees_all(ctx) || r.project_id == ctx.project_id());
    let router = router.ok_or_else(|| fault::router_missing(id))?;
    if router.outside().any(|network| network == external) {
        return Ok(Between { id: router.record.id, by_leg: false });
    }
    Err(Fault::conflict(format!("Router {id} has no external gateway on network {external}")))
}

/// A router between a fixed address and an external network.
pub(crate) struct Between {
    pub id: String,
    pub by_leg: bool,
}

/// A router with a leg in the fixed address's subnet and a gateway or, if none has that, a leg on the external network.
pub(crate) async fn router_between_in(
    tx: &mut Tx,
    port: &Port,
    inside: &FixedIp,
    external: &str,
) -> Result<Between, Fault> {
    let outer = tx.list::<Port>(find::owned_on([external], ROUTER_INTERFACE)).await?;
    let mut by_leg = None;
    let on_net = tx.list::<Port>(find::owned_on([port.network_id.as_str()], ROUTER_INTERFACE)).await?;
    for leg in on_net.iter().filter(|p| p.fixed_ips.iter().any(|f| f.subnet_id == inside.subnet_id)) {
        if let Some(router) = tx.get::<Router>(&leg.device_id).await?
            && router.outside().any(|network| network == external)
        {
            return Ok(Between { id: router.record.id, by_leg: false });
        }
        if outer.iter().any(|p| p.device_id == leg.device_id) {
            by_leg = by_leg.or(Some(leg.device_id.clone()));
        }
    }
    if let Some(id) = by_leg.filter(|_| external != port.network_id) {
        return Ok(Between { id, by_leg: true });
    }
    Err(unreachable(port, inside, external))
}

/// The same, of routers with a gateway there alone.
pub(crate) async fn outer_router_in(
    tx: &mut Tx,
    port: &Port,
    inside: &FixedIp,
    external: &str,
) -> Result<String, Fault> {
    let between = router_between_in(tx, port, inside, external).await?;
    if between.by_leg { Err(unreachable(port, inside, external)) } else { Ok(between.id) }
}

fn unreachable(port: &Port, inside: &FixedIp, external: &str) -> Fault {
    Fault::not_found(format!(
        "External network {external} is not reachable from subnet {}. Therefore, cannot associate Port {} with a Floating IP.",
        inside.subnet_id, port.id
    ))
    .kind("ExternalGatewayForFloatingIPNotFound")
}

/// A port goes: its floating IPs stay, pointing nowhere.
pub async fn forget_port_in(tx: &mut Tx, _ctx: &Ctx, port_id: &str) -> Result<(), Fault> {
    for mut floating in tx.list::<FloatingIp>(find::of_ports([port_id])).await? {
        disassociate(&mut floating.record);
        tx.update(&floating).await?;
    }
    forwardings::forget_in(tx, port_id, &[]).await
}

/// Deletes the floating IP and gives its address back.
pub async fn remove_in(tx: &mut Tx, _ctx: &Ctx, floating: &FloatingIp) -> Result<(), Fault> {
    if forwardings::forwards_in(tx, &floating.id).await? {
        return Err(forwardings::in_use(&floating.id));
    }
    tx.delete::<FloatingIp>(&floating.id).await?;
    if let Some(port) = tx.get::<Port>(&floating.floating_port_id).await? {
        ports::remove_in(tx, &port).await?;
    }
    Ok(())
}
