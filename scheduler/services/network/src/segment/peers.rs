//! Routes between the segments of a routed network: each subnet's guests are told that the other segments' subnets lie behind
//! their own gateway.
use crate::{
    subnet::model::{Route, Subnet},
    tables::find,
};
use pilvi_kit::Fault;
use pilvi_store::Tx;

/// Routes to peers by a gateway that is no more, or to a peer that is no more, go; those that are missing come.
fn routes(subnet: &Subnet, peers: &[&Subnet], old_gateway: Option<&str>, gone: Option<&str>) -> Vec<Route> {
    let is_peer = |cidr: &str| peers.iter().any(|p| p.cidr == cidr) || gone == Some(cidr);
    let stale = |r: &Route| {
        let by_old = old_gateway == Some(r.nexthop.as_str()) && is_peer(&r.destination);
        let to_gone = gone == Some(r.destination.as_str()) && subnet.gateway_ip.as_deref() == Some(r.nexthop.as_str());
        by_old || to_gone
    };
    let mut out: Vec<Route> = subnet.host_routes.iter().filter(|r| !stale(r)).cloned().collect();
    let Some(gateway) = &subnet.gateway_ip else { return out };
    for peer in peers {
        if !out.iter().any(|r| r.destination == peer.cidr) {
            out.push(Route { destination: peer.cidr.clone(), nexthop: gateway.clone() });
        }
    }
    out
}

/// After a subnet of a network came, went (`gone`) or has another gateway (`moved`: its id and the gateway that it had).
pub async fn settle_in(
    tx: &mut Tx,
    network_id: &str,
    moved: Option<(&str, &str)>,
    gone: Option<&str>,
) -> Result<(), Fault> {
    let subnets = tx.list::<Subnet>(find::on_network(network_id)).await?;
    if !super::reach::is_routed(&subnets) {
        return Ok(());
    }
    let all: Vec<Subnet> = subnets.iter().map(|s| s.record.clone()).collect();
    for mut subnet in subnets {
        let is_peer = |p: &&Subnet| p.segment_id != subnet.segment_id && p.ip_version == subnet.ip_version;
        let peers: Vec<&Subnet> = all.iter().filter(is_peer).collect();
        let old_gateway = moved.filter(|(id, _)| *id == subnet.id).map(|(_, old)| old);
        let wanted = routes(&subnet, &peers, old_gateway, gone);
        if wanted != subnet.host_routes {
            subnet.record.host_routes = wanted;
            tx.update(&subnet).await?;
        }
    }
    Ok(())
}
