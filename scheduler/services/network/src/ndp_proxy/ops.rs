//! The verbs of NDP proxies, the only writer of the record; and what routers ask before they change.
use super::model::NdpProxy;
use crate::{
    address_scope,
    attribute::overlay,
    fault,
    list::Raw,
    network::ops::sees_all,
    port::model::{FixedIp, Port},
    router::{interface, model::Router},
    subnet::model::Subnet,
    tables::find,
};
use pilvi_kit::{Ctx, Fault};
use pilvi_store::{Stored, Tx};
use serde_json::{Value, json};
use std::net::Ipv6Addr;

/// Proxies of one router: each is an address that a host answers for.
const PROXIES_MAX: u64 = 1024;

fn text<'a>(attrs: &'a Raw, name: &str) -> Option<&'a str> {
    attrs.get(name).and_then(Value::as_str)
}

pub async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<NdpProxy>, Fault> {
    let own = |project: &str| sees_all(ctx) || project == ctx.project_id();
    let port_id = text(attrs, "port_id").unwrap_or_default();
    let port = tx.get::<Port>(port_id).await?.filter(|p| own(&p.project_id));
    let port = port.ok_or_else(|| fault::port_missing(port_id))?;
    let router_id = text(attrs, "router_id").unwrap_or_default();
    let router = tx.get::<Router>(router_id).await?.filter(|r| own(&r.project_id));
    let router = router.ok_or_else(|| fault::router_missing(router_id))?;
    let legs = interface::ports_in(tx, router_id).await?;
    let legs: Vec<&Port> = legs.iter().map(|l| &l.record).filter(|l| l.network_id == port.network_id).collect();
    if legs.is_empty() {
        return Err(unreachable(port_id, router_id));
    }
    if !router.enable_ndp_proxy {
        return Err(fault::conflict(
            "RouterNDPProxyNotEnable",
            format!(
                "The enable_ndp_proxy parameter of router {router_id} must be set as True while create ndp proxy entry on it."
            ),
        ));
    }
    let address = address_of(&port, &legs, text(attrs, "ip_address"), router_id)?;
    let outside = router.external_gateway_info.as_ref().map(|g| g.network_id.as_str()).unwrap_or_default();
    refuse_scopes_in(tx, outside, &port.network_id).await?;
    if tx.count::<NdpProxy>(find::of_router(router_id)).await? >= PROXIES_MAX {
        return Err(Fault::conflict(format!("A router has at most {PROXIES_MAX} NDP proxies.")));
    }
    let mut document = attrs.clone();
    document.insert("id".into(), json!(pilvi_kit::id::new()));
    document.insert("ip_address".into(), json!(address));
    let proxy: NdpProxy = serde_json::from_value(Value::Object(document)).map_err(Fault::internal)?;
    for other in tx.list::<NdpProxy>(find::of_router(router_id)).await? {
        if other.ip_address == proxy.ip_address {
            return Err(fault::conflict(
                "NDPProxyExists",
                format!("Ndp proxy {} of router {router_id} has the address {} already.", other.id, proxy.ip_address),
            ));
        }
    }
    Ok(tx.insert(&proxy).await?)
}

fn unreachable(port: &str, router: &str) -> Fault {
    fault::conflict(
        "PortUnreachableRouter",
        format!("The port {port} cannot reach the router {router} by IPv6 subnet."),
    )
}

/// The wished address, or the port's first on a subnet that the router joins.
fn address_of(port: &Port, legs: &[&Port], wish: Option<&str>, router_id: &str) -> Result<String, Fault> {
    let mut v6 = port.fixed_ips.iter().filter(|f| f.ip_address.contains(':')).peekable();
    if v6.peek().is_none() {
        return Err(fault::bad(
            "BadRequest",
            format!("Bad ndp_proxy request: Requested port {} must allocate one IPv6 address at least.", port.id),
        ));
    }
    let joined = |f: &&FixedIp| legs.iter().flat_map(|l| &l.fixed_ips).any(|l| l.subnet_id == f.subnet_id);
    let Some(wish) = wish else {
        return v6.find(joined).map(|f| f.ip_address.clone()).ok_or_else(|| unreachable(&port.id, router_id));
    };
    let invalid =
        |reason: String| fault::bad("InvalidAddress", format!("The address {wish} is invalid, reason: {reason}."));
    let parse = |text: &str| text.parse::<Ipv6Addr>().ok();
    let found = v6.find(|f| parse(&f.ip_address).is_some() && parse(&f.ip_address) == parse(wish));
    let found = found.ok_or_else(|| invalid(format!("This address not belong to the port {}", port.id)))?;
    let reached = Some(found).filter(joined);
    let reached = reached.ok_or_else(|| invalid(format!("This address cannot reach the router {router_id}")))?;
    Ok(reached.ip_address.clone())
}

/// Nothing is routed from one address scope to another.
async fn refuse_scopes_in(tx: &mut Tx, outside: &str, inside: &str) -> Result<(), Fault> {
    let outside = address_scope::ops::of_network_in(tx, outside, 6).await?;
    let inside = address_scope::ops::of_network_in(tx, inside, 6).await?;
    if outside == inside {
        return Ok(());
    }
    let name = |scope: Option<String>| scope.unwrap_or_else(|| "None".to_owned());
    Err(fault::conflict(
        "AddressScopeConflict",
        format!(
            "The IPv6 address scope {} of external network conflict with internal network's IPv6 address scope {}.",
            name(outside),
            name(inside)
        ),
    ))
}

pub async fn update_in(tx: &mut Tx, mut found: Stored<NdpProxy>, changes: &Raw) -> Result<(), Fault> {
    found.record = overlay(&found.record, changes)?;
    tx.update(&found).await?;
    Ok(())
}

/// A port goes, or loses addresses: nobody answers for those any more.
pub async fn forget_in(tx: &mut Tx, port_id: &str, kept: &[FixedIp]) -> Result<(), Fault> {
    for proxy in tx.list::<NdpProxy>(find::of_ports([port_id])).await? {
        if !kept.iter().any(|f| f.ip_address == proxy.ip_address) {
            tx.delete::<NdpProxy>(&proxy.id).await?;
        }
    }
    Ok(())
}

fn no_gateway(router_id: &str, reason: &str) -> Fault {
    fault::conflict("RouterGatewayNotValid", format!("Can not enable ndp proxy on router {router_id}, {reason}."))
}

/// What a router that answers for others needs of its way out; asked when all else of the router is as it shall be.
pub async fn check_router_in(tx: &mut Tx, router: &Router) -> Result<(), Fault> {
    if !router.enable_ndp_proxy {
        return Ok(());
    }
    let Some(gateway) = &router.external_gateway_info else {
        return Err(no_gateway(&router.id, "The router has no external gateway"));
    };
    let network = &gateway.network_id;
    let subnets = tx.list::<Subnet>(find::on_network(network)).await?;
    let scope = address_scope::ops::of_network_in(tx, network, 6).await?;
    if scope.is_none() || subnets.iter().all(|s| s.ip_version != 6) {
        let reason = format!(
            "The external network {network} don't support IPv6 ndp proxy, the network has no IPv6 subnets or has no IPv6 address scope"
        );
        return Err(no_gateway(&router.id, &reason));
    }
    if gateway.external_fixed_ips.iter().all(|f| !f.ip_address.contains(':')) {
        return Err(fault::conflict(
            "RouterIPv6GatewayInUse",
            format!(
                "Can't remove the IPv6 subnet from external gateway of router {}, the IPv6 subnet in use by the router's ndp proxy.",
                router.id
            ),
        ));
    }
    Ok(())
}

/// A way out that proxies need cannot go.
pub async fn refuse_gateway_in(tx: &mut Tx, router_id: &str) -> Result<(), Fault> {
    if tx.count::<NdpProxy>(find::of_router(router_id)).await? == 0 {
        return Ok(());
    }
    Err(fault::conflict(
        "RouterGatewayInUseByNDPProxy",
        format!(
            "Unable to unset external gateway of router {router_id}, There are one or more ndp proxies still in use on the router."
        ),
    ))
}

/// Nor a leg by which a proxied address is reached.
pub async fn refuse_leg_in(tx: &mut Tx, router_id: &str, subnet_ids: &[String]) -> Result<(), Fault> {
    for proxy in tx.list::<NdpProxy>(find::of_router(router_id)).await? {
        let Some(port) = tx.get::<Port>(&proxy.port_id).await? else { continue };
        let behind = port.fixed_ips.iter().find(|f| f.ip_address == proxy.ip_address);
        if let Some(fixed) = behind.filter(|f| subnet_ids.contains(&f.subnet_id)) {
            return Err(fault::conflict(
                "RouterInterfaceInUseByNDPProxy",
                format!(
                    "Unable to remove subnet {} from router {router_id}, There are one or more ndp proxies still in use on the subnet.",
                    fixed.subnet_id
                ),
            ));
        }
    }
    Ok(())
}
