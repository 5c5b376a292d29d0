//! Subnets that the provider is told of (`leak_routes`): their addresses mean something outside, so the way out does not
//! hide them and lets in what comes for them.
//!
//! ```text
//! subnet --leg--> router --gateway--> external network      the provider routes the subnet to the router's address there,
//!                                                           by configuration or by BGP (`bgp/route.rs`)
//! ```
//! The word stays when the router loses its gateway or leaves: nothing is told then, until there is a way again.
use super::model::Subnet;
use crate::{
    address, fault,
    port::model::{Port, ROUTER_INTERFACE},
    router::model::Router,
    tables::find,
};
use pilvi_kit::Fault;
use pilvi_store::{Query, Tx};

/// An administrator turns it on: there must be a way out, and nobody else may have told the provider of these addresses.
pub(super) async fn check_in(tx: &mut Tx, subnet: &Subnet) -> Result<(), Fault> {
    let Some(net) = subnet.net().filter(|_| !subnet.is_bare()) else {
        return Err(refuse(subnet, "it has no addresses yet"));
    };
    if !leads_out_in(tx, subnet).await? {
        return Err(refuse(subnet, "no router with an external gateway has an interface on it"));
    }
    for other in tx.list::<Subnet>(find::leaked()).await? {
        let theirs = other.net().filter(|theirs| other.id != subnet.id && address::overlap(theirs, &net));
        if let Some(theirs) = theirs {
            return Err(refuse(subnet, &format!("{theirs} of subnet {} overlaps it", other.id)));
        }
    }
    Ok(())
}

fn refuse(subnet: &Subnet, why: &str) -> Fault {
    fault::invalid(format!("routes to subnet {} cannot be leaked: {why}", subnet.id))
}

async fn leads_out_in(tx: &mut Tx, subnet: &Subnet) -> Result<bool, Fault> {
    let legs = tx.list::<Port>(find::owned_on([subnet.network_id.as_str()], ROUTER_INTERFACE)).await?;
    let joins = |leg: &Port| leg.fixed_ips.iter().any(|f| f.subnet_id == subnet.id);
    let routers: Vec<&str> = legs.iter().filter(|leg| joins(leg)).map(|leg| leg.device_id.as_str()).collect();
    let routers = tx.list::<Router>(Query::all().ids(routers)).await?;
    Ok(routers.iter().any(|router| router.external_gateway_info.is_some()))
}
