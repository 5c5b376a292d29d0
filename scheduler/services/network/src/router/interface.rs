//! A router's legs: the ports by which it joins subnets.
use super::model::Router;
use crate::{
    address, delegation, fault,
    floating_ip::model::FloatingIp,
    ndp_proxy,
    network::model::VirtualNetwork,
    network::ops::{is_visible, sees_all},
    port::{
        model::{Port, ROUTER_GATEWAY, ROUTER_INTERFACE},
        ops::{self as ports, NewPort, on_subnet},
    },
    port_forwarding::model::PortForwarding,
    subnet::model::Subnet,
    tables::find,
};
use ipnet::IpNet;
use pilvi_kit::{Ctx, Fault};
use pilvi_store::{Query, Stored, Tx};
use serde_json::{Value, json};
use std::collections::HashMap;

/// What the client names: a subnet, a port, or (on removal) both.
#[derive(Debug, Clone)]
pub struct Wish {
    pub subnet_id: Option<String>,
    pub port_id: Option<String>,
}

impl Wish {
    pub fn read(body: &Value) -> Result<Self, Fault> {
        let id = |name: &str| match body.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => crate::check::uuid(value)
                .map(|v| v.as_str().map(str::to_owned))
                .map_err(|reason| fault::bad("BadRequest", format!("Bad router request: Invalid {name}: {reason}."))),
        };
        let wish = Wish { subnet_id: id("subnet_id")?, port_id: id("port_id")? };
        if wish.subnet_id.is_none() && wish.port_id.is_none() {
            return Err(fault::bad("BadRequest", "Bad router request: Either subnet_id or port_id must be specified."));
        }
        Ok(wish)
    }
}

/// What was joined or left.
#[derive(Debug, Clone)]
pub struct Joined {
    router: Router,
    port: Port,
    subnet_ids: Vec<String>,
}

impl Joined {
    pub fn view(&self) -> Value {
        json!({
            "id": self.router.id, "tenant_id": self.router.project_id, "project_id": self.router.project_id,
            "port_id": self.port.id, "network_id": self.port.network_id,
            "subnet_id": self.subnet_ids.first(), "subnet_ids": self.subnet_ids, "tags": self.router.tags,
        })
    }
}

/// One address of a router on one subnet.
#[derive(Debug, Clone)]
pub struct Leg {
    pub subnet_id: String,
    pub address: String,
    pub net: Option<IpNet>,
    /// Of a way out.
    pub gateway: bool,
}

impl Leg {
    pub fn reaches(&self, address: &str) -> bool {
        address.parse::<std::net::IpAddr>().is_ok_and(|ip| self.net.is_some_and(|n| n.contains(&ip)))
    }
}

/// The router's ports, without its gateway.
pub async fn ports_in(tx: &mut Tx, router_id: &str) -> Result<Vec<Stored<Port>>, Fault> {
    let ports = tx.list::<Port>(find::of_device(router_id)).await?;
    Ok(ports.into_iter().filter(|p| p.device_owner == ROUTER_INTERFACE).collect())
}

/// All addresses of a router, the gateway's included.
pub async fn legs_in(tx: &mut Tx, router: &Router) -> Result<Vec<Leg>, Fault> {
    let ports = tx.list::<Port>(find::of_device(&router.id)).await?;
    let fixed: Vec<(String, String, bool)> = ports
        .iter()
        .filter(|p| matches!(p.device_owner.as_str(), ROUTER_INTERFACE | ROUTER_GATEWAY))
        .flat_map(|p| {
            let gateway = p.device_owner == ROUTER_GATEWAY;
            p.fixed_ips.iter().map(move |f| (f.subnet_id.clone(), f.ip_address.clone(), gateway))
        })
        .collect();
    let subnets = tx.list::<Subnet>(Query::all().ids(fixed.iter().map(|(s, ..)| s.as_str()))).await?;
    let nets: HashMap<&str, Option<IpNet>> = subnets.iter().map(|s| (s.id.as_str(), s.net())).collect();
    Ok(fixed
        .iter()
        .map(|(subnet_id, address, gateway)| Leg {
            subnet_id: subnet_id.clone(),
            address: address.clone(),
            net: nets.get(subnet_id.as_str()).copied().flatten(),
            gateway: *gateway,
        })
        .collect())
}

pub async fn add_in(tx: &mut Tx, ctx: &Ctx, router_id: &str, wish: &Wish) -> Result<Joined, Fault> {
    let router = tx.get::<Router>(router_id).await?.ok_or_else(|| fault::router_missing(router_id))?;
    let port = match (&wish.subnet_id, &wish.port_id) {
        (Some(_), Some(_)) => {
            return Err(fault::bad("BadRequest", "Bad router request: Cannot specify both subnet-id and port-id."));
        }
        (Some(subnet), None) => by_subnet(tx, ctx, &router, subnet).await?,
        (None, Some(port)) => by_port(tx, ctx, &router, port).await?,
        (None, None) => {
            return Err(fault::bad("BadRequest", "Bad router request: Either subnet_id or port_id must be specified."));
        }
    };
    let router = tx.update(&router).await?.record;
    delegation::ops::settle_router_in(tx, router_id).await?;
    let subnet_ids = port.fixed_ips.iter().map(|f| f.subnet_id.clone()).collect();
    Ok(Joined { router, port, subnet_ids })
}

async fn by_subnet(tx: &mut Tx, ctx: &Ctx, router: &Router, subnet_id: &str) -> Result<Port, Fault> {
    let subnet = tx.get::<Subnet>(subnet_id).await?.ok_or_else(|| fault::subnet_missing(subnet_id))?;
    let network = tx.get::<VirtualNetwork>(&subnet.network_id).await?;
    network.filter(|n| is_visible(n, ctx)).ok_or_else(|| fault::subnet_missing(subnet_id))?;
    let Some(gateway) = subnet.gateway_ip.clone() else {
        return Err(fault::bad(
            "BadRequest",
            "Bad router request: Subnet for router interface must have a gateway IP.",
        ));
    };
    refuse_overlap(tx, router, &subnet).await?;
    let new = NewPort {
        project_id: Some(router.project_id.clone()),
        network_id: subnet.network_id.clone(),
        device_id: router.id.clone(),
        device_owner: ROUTER_INTERFACE.to_owned(),
        fixed_ips: Some(vec![on_subnet(subnet_id, Some(&gateway))]),
        ..NewPort::default()
    };
    Ok(ports::create_in(tx, ctx, new).await?.record)
}

async fn by_port(tx: &mut Tx, ctx: &Ctx, router: &Router, port_id: &str) -> Result<Port, Fault> {
    let mut port = tx.get::<Port>(port_id).await?.ok_or_else(|| fault::port_missing(port_id))?;
    if !sees_all(ctx) && port.project_id != ctx.project_id() {
        return Err(fault::port_missing(port_id));
    }
    if !port.device_id.is_empty() {
        return Err(fault::conflict(
            "PortInUse",
            format!(
                "Unable to complete operation on port {port_id} for network {}. Port already has an attached device {}.",
                port.network_id, port.device_id
            ),
        ));
    }
    if port.fixed_ips.is_empty() {
        return Err(fault::bad("BadRequest", "Bad router request: Router port must have at least one fixed IP."));
    }
    if port.fixed_ips.iter().filter(|f| !f.ip_address.contains(':')).count() > 1 {
        return Err(fault::bad("BadRequest", "Bad router request: Cannot have multiple IPv4 subnets on router port."));
    }
    let ids: Vec<String> = port.fixed_ips.iter().map(|f| f.subnet_id.clone()).collect();
    for id in ids {
        let subnet = tx.get::<Subnet>(&id).await?.ok_or_else(|| fault::subnet_missing(&id))?;
        refuse_overlap(tx, router, &subnet).await?;
    }
    port.device_id.clone_from(&router.id);
    ROUTER_INTERFACE.clone_into(&mut port.device_owner);
    port.security_groups.clear();
    port.port_security_enabled = false;
    port.status = crate::port::model::Status::Active;
    Ok(tx.update(&port).await?.record)
}

async fn refuse_overlap(tx: &mut Tx, router: &Router, subnet: &Subnet) -> Result<(), Fault> {
    let Some(net) = subnet.net() else { return Ok(()) };
    let bare: Option<IpNet> = delegation::model::NONE.parse().ok();
    for leg in legs_in(tx, router).await? {
        if leg.subnet_id == subnet.id {
            return Err(fault::bad(
                "BadRequest",
                format!("Bad router request: Router already has a port on subnet {}.", subnet.id),
            ));
        }
        // Several may wait for their prefixes.
        if let Some(other) = leg.net
            && leg.net != bare
            && other.addr().is_ipv4() == net.addr().is_ipv4()
            && address::overlap(&other, &net)
        {
            return Err(fault::bad(
                "BadRequest",
                format!(
                    "Bad router request: Cidr {net} of subnet {} overlaps with cidr {other} of subnet {}.",
                    subnet.id, leg.subnet_id
                ),
            ));
        }
    }
    Ok(())
}

pub async fn remove_in(tx: &mut Tx, router_id: &str, wish: &Wish) -> Result<Joined, Fault> {
    let router = tx.get::<Router>(router_id).await?.ok_or_else(|| fault::router_missing(router_id))?;
    let ports = ports_in(tx, router_id).await?;
    let port = find_port(router_id, &ports, wish)?;
    let subnet_ids: Vec<String> = port.fixed_ips.iter().map(|f| f.subnet_id.clone()).collect();
    refuse_in_use(tx, &router, &port, &subnet_ids).await?;
    ports::remove_in(tx, &port).await?;
    let router = tx.update(&router).await?.record;
    delegation::ops::settle_router_in(tx, router_id).await?;
    Ok(Joined { router, port, subnet_ids })
}

fn find_port(router_id: &str, ports: &[Stored<Port>], wish: &Wish) -> Result<Port, Fault> {
    let on = |p: &Port, subnet: &str| p.fixed_ips.iter().any(|f| f.subnet_id == subnet);
    match (&wish.port_id, &wish.subnet_id) {
        (Some(id), subnet) => {
            let port = ports.iter().find(|p| p.id == *id).ok_or_else(|| {
                Fault::not_found(format!("Router {router_id} does not have an interface with id {id}"))
                    .kind("RouterInterfaceNotFound")
            })?;
            match subnet {
                Some(subnet) if !on(port, subnet) => Err(fault::conflict(
                    "SubnetMismatchForPort",
                    format!("Subnet on port {id} does not match the requested subnet {subnet}."),
                )),
                _ => Ok(port.record.clone()),
            }
        }
        (None, Some(subnet)) => ports.iter().find(|p| on(p, subnet)).map(|p| p.record.clone()).ok_or_else(|| {
            Fault::not_found(format!("Router {router_id} has no interface on subnet {subnet}"))
                .kind("RouterInterfaceNotFoundForSubnet")
        }),
        (None, None) => {
            Err(fault::bad("BadRequest", "Bad router request: Either subnet_id or port_id must be specified."))
        }
    }
}

fn needed_by_floating(router: &Router, fixed: &crate::port::model::FixedIp) -> Fault {
    fault::conflict(
        "RouterInterfaceInUseByFloatingIP",
        format!(
            "Router interface for subnet {} on router {} cannot be deleted, as it is required by one or more floating IPs.",
            fixed.subnet_id, router.id
        ),
    )
}

/// Floating IPs and static routes may depend on the leg.
async fn refuse_in_use(tx: &mut Tx, router: &Router, port: &Port, subnet_ids: &[String]) -> Result<(), Fault> {
    for floating in tx.list::<FloatingIp>(find::of_router(&router.id)).await? {
        if floating.by_leg && floating.floating_network_id == port.network_id {
            return Err(fault::conflict(
                "RouterInterfaceInUseAsGatewayByFloatingIP",
                format!(
                    "Router interface for subnet {} on router {} cannot be deleted, as it is used as a gateway by one or more floating IPs.",
                    subnet_ids.join(", "),
                    router.id
                ),
            ));
        }
        let Some(inside) = &floating.port_id else { continue };
        let Some(inside) = tx.get::<Port>(inside).await? else { continue };
        let uses = |f: &crate::port::model::FixedIp| {
            Some(&f.ip_address) == floating.fixed_ip_address.as_ref() && subnet_ids.contains(&f.subnet_id)
        };
        if let Some(fixed) = inside.fixed_ips.iter().find(|f| uses(f)) {
            return Err(needed_by_floating(router, fixed));
        }
    }
    for forwarding in tx.list::<PortForwarding>(find::of_router(&router.id)).await? {
        let inside = tx.get::<Port>(&forwarding.internal_port_id).await?;
        let uses = |f: &crate::port::model::FixedIp| {
            f.ip_address == forwarding.internal_ip_address && subnet_ids.contains(&f.subnet_id)
        };
        if let Some(fixed) = inside.as_ref().and_then(|p| p.fixed_ips.iter().find(|f| uses(f))) {
            return Err(needed_by_floating(router, fixed));
        }
    }
    ndp_proxy::ops::refuse_leg_in(tx, &router.id, subnet_ids).await?;
    let legs = legs_in(tx, router).await?;
    let gone: Vec<&Leg> = legs
        .iter()
        .filter(|l| port.fixed_ips.iter().any(|f| f.ip_address == l.address && f.subnet_id == l.subnet_id))
        .collect();
    let needed = router.routes.iter().find(|r| gone.iter().any(|l| l.reaches(&r.nexthop)));
    match (needed, gone.first()) {
        (Some(_), Some(leg)) => Err(fault::conflict(
            "RouterInterfaceInUseByRoute",
            format!(
                "Router interface for subnet {} on router {} cannot be deleted, as it is required by one or more routes.",
                leg.subnet_id, router.id
            ),
        )),
        _ => Ok(()),
    }
}
