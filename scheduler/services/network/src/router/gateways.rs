//! Several ways out of one router: the first stands in `external_gateway_info` as ever, the others beside it.
//!
//! ```text
//!  add     none yet: the first of the list becomes the first; every other one is a port of its own
//!  remove  by network, and by address where a network has several; when the first goes, the next is it
//!  update  what is named stays (with its new addresses), what is not goes, what is new comes; the list's first is the first
//! ```
//! What comes in by any of them reaches the inside. What goes out takes the first, unless the router balances its default
//! routes (`enable_default_route_ecmp`). Source NAT is on or off for all, as the first says.
use super::{
    gateway,
    model::{FurtherGateway, Gateway, Router},
};
use crate::{
    fault,
    floating_ip::model::FloatingIp,
    port::{allocation::Wish, model::FixedIp, model::Port, ops as ports},
    tables::find,
};
use pilvi_kit::{Ctx, Fault};
use pilvi_store::Tx;
use serde::Deserialize;
use serde_json::{Value, json};

/// Ways out of one router.
const GATEWAYS_MAX: usize = 8;

/// One way out as a client names it.
#[derive(Debug, Clone, Deserialize)]
pub struct Named {
    pub network_id: String,
    #[serde(default)]
    pub external_fixed_ips: Vec<Wish>,
}

impl Named {
    /// The list of a body, which has been checked.
    pub fn list(given: &Value) -> Result<Vec<Self>, Fault> {
        serde_json::from_value(given.clone()).map_err(Fault::internal)
    }

    fn names(&self, address: &FixedIp) -> bool {
        self.external_fixed_ips.iter().any(|w| w.ip_address.as_ref() == Some(&address.ip_address))
    }
}

impl Router {
    /// All its ways out, the first one first, as the API shows them.
    pub fn external_gateways(&self) -> Value {
        let view = |network: &str, fixed: &[FixedIp]| json!({"network_id": network, "external_fixed_ips": fixed});
        let first = self.external_gateway_info.iter().map(|g| view(&g.network_id, &g.external_fixed_ips));
        Value::Array(first.chain(self.further.iter().map(|g| view(&g.network_id, &g.external_fixed_ips))).collect())
    }

    /// The networks that it leads to.
    pub fn outside(&self) -> impl Iterator<Item = &str> {
        let first = self.external_gateway_info.iter().map(|g| g.network_id.as_str());
        first.chain(self.further.iter().map(|g| g.network_id.as_str()))
    }
}

fn unmatched(router: &Router, why: &str) -> Fault {
    fault::bad(
        "UnableToMatchGateways",
        format!("Unable to match a requested gateway port to existing gateway ports for router {}: {why}.", router.id),
    )
}

/// Which of the router's ways out is meant: 0 is the first. `None`: none of them.
fn find_one(router: &Router, named: &Named) -> Result<Option<usize>, Fault> {
    let first = router.external_gateway_info.iter().map(|g| (0, &g.network_id, &g.external_fixed_ips));
    let others = router.further.iter().enumerate().map(|(n, g)| (n + 1, &g.network_id, &g.external_fixed_ips));
    let there: Vec<_> = first.chain(others).filter(|(_, network, _)| **network == named.network_id).collect();
    if named.external_fixed_ips.is_empty() {
        return match there.as_slice() {
            [] => Ok(None),
            [(n, ..)] => Ok(Some(*n)),
            _ => Err(unmatched(router, "several are on the same network, and no address is named")),
        };
    }
    Ok(there.iter().find(|(_, _, fixed)| fixed.iter().any(|f| named.names(f))).map(|(n, ..)| *n))
}

pub async fn add_in(tx: &mut Tx, ctx: &Ctx, router: &mut Router, given: &Value) -> Result<(), Fault> {
    for (wish, named) in given.as_array().into_iter().flatten().zip(Named::list(given)?) {
        if router.external_gateway_info.is_none() {
            gateway::set_in(tx, ctx, router, wish).await?;
            continue;
        }
        if router.further.len() + 1 >= GATEWAYS_MAX {
            return Err(fault::bad(
                "UnableToAddExtraGateways",
                format!("Unable to add extra gateways to a router {}: it has {GATEWAYS_MAX}.", router.id),
            ));
        }
        if wish.get("qos_policy_id").is_some_and(|p| !p.is_null()) {
            return Err(fault::bad("BadRequest", "Bad router request: Only a router's first gateway has a policy."));
        }
        gateway::refuse_inside_in(tx, ctx, router, &named.network_id).await?;
        let fixed = Some(named.external_fixed_ips);
        let port = gateway::port_in(tx, ctx, router, &named.network_id, fixed).await?;
        router.further.push(FurtherGateway {
            port_id: port.id,
            network_id: named.network_id,
            external_fixed_ips: port.fixed_ips,
        });
    }
    Ok(())
}

pub async fn remove_in(tx: &mut Tx, router: &mut Router, given: &Value) -> Result<(), Fault> {
    for named in Named::list(given)? {
        if router.external_gateway_info.is_none() {
            return Err(fault::bad(
                "UnableToRemoveGateways",
                format!("Unable to remove extra gateways from a router {}: it does not have any.", router.id),
            ));
        }
        match find_one(router, &named)? {
            None => return Err(unmatched(router, "none has that network and address")),
            Some(0) => gateway::clear_in(tx, router).await?,
            Some(n) => drop_in(tx, router, n - 1).await?,
        }
    }
    Ok(())
}

/// The list is what the router has from now on.
pub async fn update_in(tx: &mut Tx, ctx: &Ctx, router: &mut Router, given: &Value) -> Result<(), Fault> {
    let wishes: Vec<&Value> = given.as_array().into_iter().flatten().collect();
    let named = Named::list(given)?;
    let Some((first, rest)) = named.split_first() else { return clear_all_in(tx, router).await };
    if let Some(n) = find_one(router, first)?.filter(|n| *n > 0) {
        make_first(router, n - 1);
    }
    // The others first: an address that one of them lets go may be the first one's wish.
    let mut kept = Vec::new();
    let mut new = Vec::new();
    for (at, one) in rest.iter().enumerate() {
        match find_one(router, one)? {
            Some(n) if n > 0 && !kept.contains(&(n - 1)) => {
                kept.push(n - 1);
                move_in(tx, router, n - 1, one).await?;
            }
            _ => new.push(wishes.get(at + 1).copied().cloned().unwrap_or_default()),
        }
    }
    for n in (0..router.further.len()).rev().filter(|n| !kept.contains(n)) {
        drop_in(tx, router, n).await?;
    }
    gateway::set_in(tx, ctx, router, wishes.first().copied().unwrap_or(&Value::Null)).await?;
    add_in(tx, ctx, router, &Value::Array(new)).await
}

pub async fn clear_all_in(tx: &mut Tx, router: &mut Router) -> Result<(), Fault> {
    while !router.further.is_empty() {
        drop_in(tx, router, router.further.len() - 1).await?;
    }
    gateway::clear_in(tx, router).await
}

/// Other addresses for one that stays.
async fn move_in(tx: &mut Tx, router: &mut Router, n: usize, named: &Named) -> Result<(), Fault> {
    let Some(port) = router.further.get(n).map(|g| g.port_id.clone()) else { return Ok(()) };
    let fixed = gateway::move_in(tx, &port, Some(&named.external_fixed_ips)).await?;
    router.further[n].external_fixed_ips = fixed;
    Ok(())
}

/// One of the others goes. Floating IPs of its network need one there.
async fn drop_in(tx: &mut Tx, router: &mut Router, n: usize) -> Result<(), Fault> {
    let going = router.further.remove(n);
    if !router.outside().any(|network| network == going.network_id) {
        let floating = tx.list::<FloatingIp>(find::of_router(&router.id)).await?;
        if floating.iter().any(|f| f.floating_network_id == going.network_id) {
            return Err(gateway::needed(router, &going.network_id));
        }
    }
    if let Some(port) = tx.get::<Port>(&going.port_id).await? {
        ports::remove_in(tx, &port).await?;
    }
    Ok(())
}

/// Another one takes the place of the first, which goes among the others.
fn make_first(router: &mut Router, n: usize) {
    let next = router.further.remove(n);
    let (snat, policy) =
        router.external_gateway_info.as_ref().map_or((true, None), |g| (g.enable_snat, g.qos_policy_id.clone()));
    let gateway = Gateway {
        network_id: next.network_id,
        enable_snat: snat,
        external_fixed_ips: next.external_fixed_ips,
        qos_policy_id: policy,
    };
    let before = router.external_gateway_info.replace(gateway);
    if let (Some(before), Some(port_id)) = (before, router.gw_port_id.replace(next.port_id)) {
        let (network_id, external_fixed_ips) = (before.network_id, before.external_fixed_ips);
        router.further.insert(0, FurtherGateway { port_id, network_id, external_fixed_ips });
    }
}

/// Nobody is first: the next one is.
pub fn promote(router: &mut Router, snat: bool) {
    if router.external_gateway_info.is_none() && !router.further.is_empty() {
        make_first(router, 0);
        if let Some(gateway) = &mut router.external_gateway_info {
            gateway.enable_snat = snat;
        }
    }
}
