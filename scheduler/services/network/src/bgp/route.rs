//! What a speaker advertises: floating IPs and inside subnets, and the address that leads to them.
//!
//! ```text
//! gateway network --gateway ports--> routers that are up --legs--> subnets in the network's address scope, or leaked
//!                                        '--> floating IPs of the network that they translate
//! ```
//! The host that holds a router's way out passes on what comes for floating IPs of other hosts' guests.
use super::model::BgpSpeaker;
use crate::{
    floating_ip::model::FloatingIp,
    port::model::{FixedIp, Port, ROUTER_GATEWAY, ROUTER_INTERFACE},
    router::model::Router,
    subnet::model::Subnet,
    subnet_pool::model::SubnetPool,
    tables::find,
};
use ipnet::IpNet;
use pilvi_kit::Fault;
use pilvi_store::{Query, Record, Store};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

/// Values of one query.
const CHUNK: usize = 400;

/// Destinations, each with all its next hops, in order.
pub type Advertised = BTreeSet<(IpNet, IpAddr)>;

/// One path for each destination: peers are told no more.
pub fn single(all: &Advertised) -> pilvi_bgp::Routes {
    let mut routes = pilvi_bgp::Routes::new();
    for (net, hop) in all {
        routes.entry(*net).or_insert(*hop);
    }
    routes
}

/// What is around the gateway networks of a speaker.
#[derive(Debug, Default)]
struct Around {
    /// Subnets of the gateway networks, and those of the legs.
    subnets: HashMap<String, Subnet>,
    /// Address scopes of their pools.
    scopes: HashMap<String, String>,
    gateways: Vec<Port>,
    legs: Vec<Port>,
    /// Routers that are up.
    up: HashSet<String>,
    floating: Vec<FloatingIp>,
}

async fn fetch<R: Record>(
    store: &Store,
    keys: BTreeSet<String>,
    query: impl Fn(Vec<&str>) -> Query,
) -> Result<Vec<R>, Fault> {
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut out = Vec::new();
    for chunk in keys.chunks(CHUNK) {
        out.extend(store.list::<R>(query(chunk.to_vec())).await?.into_iter().map(|found| found.record));
    }
    Ok(out)
}

fn by_id(ids: Vec<&str>) -> Query {
    Query::all().ids(ids)
}

pub async fn advertised(store: &Store, speaker: &BgpSpeaker) -> Result<Advertised, Fault> {
    let networks: BTreeSet<String> = speaker.networks.iter().cloned().collect();
    let mut around = Around {
        gateways: fetch(store, networks.clone(), |ids| find::owned_on(ids, ROUTER_GATEWAY)).await?,
        ..Around::default()
    };
    if around.gateways.is_empty() {
        return Ok(Advertised::new());
    }
    let routers: BTreeSet<String> = around.gateways.iter().map(|p| p.device_id.clone()).collect();
    let found: Vec<Router> = fetch(store, routers.clone(), by_id).await?;
    if speaker.ip_version == 4 && speaker.advertise_floating_ip_host_routes {
        around.floating = fetch(store, networks.clone(), |ids| find::of_floating_networks(ids)).await?;
    }
    around.up = found.into_iter().filter(|r| r.admin_state_up).map(|r| r.id).collect();
    if speaker.advertise_tenant_networks {
        let legs: Vec<Port> = fetch(store, routers, |ids| find::of_devices(ids)).await?;
        around.legs = legs.into_iter().filter(|p| p.device_owner == ROUTER_INTERFACE).collect();
        let joined = around.legs.iter().flat_map(|p| p.fixed_ips.iter().map(|f| f.subnet_id.clone())).collect();
        let mut subnets: Vec<Subnet> = fetch(store, joined, by_id).await?;
        subnets.extend(fetch::<Subnet>(store, networks, |ids| find::on_networks(ids)).await?);
        let pools = subnets.iter().filter_map(|s| s.subnetpool_id.clone()).collect();
        let pools: Vec<SubnetPool> = fetch(store, pools, by_id).await?;
        around.scopes = pools.into_iter().filter_map(|p| Some((p.id, p.address_scope_id?))).collect();
        around.subnets = subnets.into_iter().map(|s| (s.id.clone(), s)).collect();
    }
    Ok(around.routes(speaker))
}

impl Around {
    /// Pure.
    fn routes(&self, speaker: &BgpSpeaker) -> Advertised {
        let mut out = Advertised::new();
        for network in &speaker.networks {
            // Each router's address on this network, if it is up.
            let hops: BTreeMap<&str, IpAddr> = self
                .gateways
                .iter()
                .filter(|p| p.network_id == *network && self.up.contains(&p.device_id))
                .filter_map(|p| Some((p.device_id.as_str(), address(&p.fixed_ips, speaker.ip_version)?)))
                .collect();
            self.floating_routes(network, &hops, &mut out);
            self.inside_routes(speaker, network, &hops, &mut out);
        }
        out
    }

    fn floating_routes(&self, network: &str, hops: &BTreeMap<&str, IpAddr>, out: &mut Advertised) {
        for floating in self.floating.iter().filter(|f| f.floating_network_id == network && !f.by_leg) {
            let hop = floating.router_id.as_deref().and_then(|router| hops.get(router));
            let address = floating.floating_ip_address.parse::<IpAddr>();
            if let (Some(hop), Ok(address)) = (hop, address) {
                out.insert((IpNet::from(address), *hop));
            }
        }
    }

    fn inside_routes(&self, speaker: &BgpSpeaker, network: &str, hops: &BTreeMap<&str, IpAddr>, out: &mut Advertised) {
        let outside = self.subnets.values().filter(|s| s.network_id == network && s.ip_version == speaker.ip_version);
        let scopes: HashSet<&str> = outside.filter_map(|s| self.scope(s)).collect();
        for leg in &self.legs {
            let Some(hop) = hops.get(leg.device_id.as_str()) else { continue };
            let joined = leg.fixed_ips.iter().filter_map(|f| self.subnets.get(&f.subnet_id));
            let inside = joined.filter(|s| s.network_id != network && s.ip_version == speaker.ip_version);
            let told = inside.filter(|s| s.leak_routes || self.scope(s).is_some_and(|scope| scopes.contains(scope)));
            out.extend(told.filter_map(|s| Some((s.net()?.trunc(), *hop))));
        }
    }

    fn scope(&self, subnet: &Subnet) -> Option<&str> {
        self.scopes.get(subnet.subnetpool_id.as_ref()?).map(String::as_str)
    }
}

fn address(fixed: &[FixedIp], version: u8) -> Option<IpAddr> {
    let all = fixed.iter().filter_map(|f| f.ip_address.parse::<IpAddr>().ok());
    all.into_iter().find(|ip| ip.is_ipv4() == (version == 4))
}
