//! A router's way out: its port on an external network, the addresses there, source NAT on or off.
use super::{
    gateways, interface,
    model::{Gateway, Router},
};
use crate::{
    address, fault,
    floating_ip::model::FloatingIp,
    ndp_proxy,
    network::{model::VirtualNetwork, ops::is_visible},
    port::{
        allocation::{self, Wish},
        model::{FixedIp, Port, ROUTER_GATEWAY},
        ops::{self as ports, NewPort},
    },
    qos, segment,
    subnet::model::Subnet,
    tables::find,
};
use pilvi_kit::{Ctx, Fault};
use pilvi_store::Tx;
use serde_json::Value;

/// Sets, changes or (with `null`) clears the gateway. The caller writes the router.
pub async fn set_in(tx: &mut Tx, ctx: &Ctx, router: &mut Router, wish: &Value) -> Result<(), Fault> {
    let Some(network_id) = wish.get("network_id").and_then(Value::as_str) else {
        return clear_in(tx, router).await;
    };
    let snat = wish.get("enable_snat").and_then(Value::as_bool).unwrap_or(true);
    let fixed: Option<Vec<Wish>> = match wish.get("external_fixed_ips") {
        Some(given) => Some(serde_json::from_value(given.clone()).map_err(Fault::internal)?),
        None => None,
    };
    external_in(tx, ctx, network_id).await?;
    let policy = policy_in(tx, ctx, router, network_id, wish).await?;
    let fixed_ips = match (&router.external_gateway_info, &router.gw_port_id) {
        (Some(have), Some(port)) if have.network_id == network_id => {
            let port = port.clone();
            move_in(tx, &port, fixed.as_deref()).await?
        }
        _ => {
            drop_first_in(tx, router).await?;
            refuse_overlap(tx, router, network_id).await?;
            let port = port_in(tx, ctx, router, network_id, fixed).await?;
            router.gw_port_id = Some(port.id);
            port.fixed_ips
        }
    };
    router.wire = segment::ops::wire_in(tx, network_id, &fixed_ips).await?;
    router.external_gateway_info = Some(Gateway {
        network_id: network_id.to_owned(),
        enable_snat: snat,
        external_fixed_ips: fixed_ips,
        qos_policy_id: policy,
    });
    Ok(())
}

/// The network must lead outside, and the caller must know of it.
async fn external_in(tx: &mut Tx, ctx: &Ctx, network_id: &str) -> Result<(), Fault> {
    let network = tx.get::<VirtualNetwork>(network_id).await?;
    let network = network.filter(|n| is_visible(n, ctx)).ok_or_else(|| fault::network_missing(network_id))?;
    if network.external {
        return Ok(());
    }
    Err(fault::bad("BadRequest", format!("Bad router request: Network {network_id} is not an external network.")))
}

/// What one more way out must not be.
pub(super) async fn refuse_inside_in(tx: &mut Tx, ctx: &Ctx, router: &Router, network_id: &str) -> Result<(), Fault> {
    external_in(tx, ctx, network_id).await?;
    refuse_overlap(tx, router, network_id).await
}

/// The policy that was sent; a gateway that stays on its network keeps its own.
async fn policy_in(
    tx: &mut Tx,
    ctx: &Ctx,
    router: &Router,
    network_id: &str,
    wish: &Value,
) -> Result<Option<String>, Fault> {
    let before = router.external_gateway_info.as_ref().filter(|g| g.network_id == network_id);
    let before = before.and_then(|g| g.qos_policy_id.clone());
    let Some(sent) = wish.get("qos_policy_id") else { return Ok(before) };
    let after = sent.as_str().map(str::to_owned);
    qos::ops::bind_in(tx, ctx, before.as_deref(), after.as_deref()).await?;
    Ok(after)
}

pub(super) async fn port_in(
    tx: &mut Tx,
    ctx: &Ctx,
    router: &Router,
    network_id: &str,
    fixed: Option<Vec<Wish>>,
) -> Result<Port, Fault> {
    let new = NewPort {
        project_id: Some(String::new()),
        network_id: network_id.to_owned(),
        device_id: router.id.clone(),
        device_owner: ROUTER_GATEWAY.to_owned(),
        fixed_ips: fixed.filter(|f| !f.is_empty()),
        ..NewPort::default()
    };
    Ok(ports::create_in(tx, ctx, new).await?.record)
}

/// Other addresses on the same network; floating IPs do not care.
pub(super) async fn move_in(tx: &mut Tx, port_id: &str, fixed: Option<&[Wish]>) -> Result<Vec<FixedIp>, Fault> {
    let mut port = tx.get::<Port>(port_id).await?.ok_or_else(|| fault::port_missing(port_id))?;
    if let Some(wishes) = fixed.filter(|f| !f.is_empty()) {
        let record = port.record.clone();
        port.fixed_ips = allocation::reallocate_in(tx, record.holder(), &record.fixed_ips, wishes).await?;
        tx.update(&port).await?;
    }
    Ok(port.record.fixed_ips)
}

/// Refused while a floating IP goes through it. With several, the next one is the first.
pub async fn clear_in(tx: &mut Tx, router: &mut Router) -> Result<(), Fault> {
    let snat = router.external_gateway_info.as_ref().is_none_or(|g| g.enable_snat);
    drop_first_in(tx, router).await?;
    gateways::promote(router, snat);
    Ok(())
}

async fn drop_first_in(tx: &mut Tx, router: &mut Router) -> Result<(), Fault> {
    let Some(port_id) = router.gw_port_id.clone() else {
        router.external_gateway_info = None;
        return Ok(());
    };
    let network = router.external_gateway_info.as_ref().map(|g| g.network_id.clone()).unwrap_or_default();
    let another = router.further.iter().any(|g| g.network_id == network);
    let floating = tx.list::<FloatingIp>(find::of_router(&router.id)).await?;
    if !another && floating.iter().any(|f| f.floating_network_id == network) {
        return Err(needed(router, &network));
    }
    ndp_proxy::ops::refuse_gateway_in(tx, &router.id).await?;
    if let Some(port) = tx.get::<Port>(&port_id).await? {
        ports::remove_in(tx, &port).await?;
    }
    router.gw_port_id = None;
    router.external_gateway_info = None;
    Ok(())
}

/// Floating IPs go through it.
pub(super) fn needed(router: &Router, network: &str) -> Fault {
    fault::conflict(
        "RouterExternalGatewayInUseByFloatingIp",
        format!(
            "Gateway cannot be updated for router {}, since a gateway to external network {network} is required by one or more floating IPs.",
            router.id
        ),
    )
}

/// No subnet of the external network may overlap one that the router joins; several ways out may lead to one network.
async fn refuse_overlap(tx: &mut Tx, router: &Router, network_id: &str) -> Result<(), Fault> {
    let outside = tx.list::<Subnet>(find::on_network(network_id)).await?;
    for leg in interface::legs_in(tx, router).await? {
        for subnet in outside.iter().filter(|s| !leg.gateway || s.id != leg.subnet_id) {
            if let (Some(a), Some(b)) = (leg.net, subnet.net())
                && a.addr().is_ipv4() == b.addr().is_ipv4()
                && address::overlap(&a, &b)
            {
                return Err(fault::bad(
                    "BadRequest",
                    format!(
                        "Bad router request: Cidr {b} of subnet {} overlaps with cidr {a} of subnet {}.",
                        subnet.id, leg.subnet_id
                    ),
                ));
            }
        }
    }
    Ok(())
}
