//! `/v2.0/network-ip-availabilities`: how many addresses each subnet has and how many are in use.
use crate::{
    Network, address, fault,
    network::{model::VirtualNetwork, ops as networks},
    subnet::model::Subnet,
    tables::{AddressLease, find},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route};
use pilvi_store::{Store, Stored};
use serde_json::{Value, json};
use std::{collections::HashMap, sync::Arc};

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::get("/v2.0/network-ip-availabilities", list)
            .rule("get_network_ip_availability")
            .summary("Usage of addresses"),
        Route::get("/v2.0/network-ip-availabilities/{id}", show)
            .rule("get_network_ip_availability")
            .summary("Usage on a network"),
    ]
}

async fn list(svc: Arc<Network>, call: Call) -> Reply {
    let wanted = |key: &str| call.query.get(key).map(str::to_owned);
    let (id, name, version) = (wanted("network_id"), wanted("network_name"), wanted("ip_version"));
    let project = wanted("project_id").or(wanted("tenant_id"));
    let found = networks::all(&svc.store).await?.into_iter().filter(|n| {
        id.as_ref().is_none_or(|i| *i == n.id)
            && name.as_ref().is_none_or(|i| *i == n.name)
            && project.as_ref().is_none_or(|i| *i == n.project_id)
    });
    let views = views(&svc.store, found.collect(), version.as_deref()).await?;
    Ok(Response::ok(json!({"network_ip_availabilities": views})))
}

async fn show(svc: Arc<Network>, call: Call) -> Reply {
    let id = call.param("id").to_owned();
    let network = svc.store.get::<VirtualNetwork>(&id).await?.ok_or_else(|| fault::network_missing(&id))?;
    let views = views(&svc.store, vec![network], None).await?;
    Ok(Response::ok(json!({"network_ip_availability": views.first()})))
}

async fn views(store: &Store, found: Vec<Stored<VirtualNetwork>>, version: Option<&str>) -> Result<Vec<Value>, Fault> {
    let mut subnets: HashMap<String, Vec<Subnet>> = HashMap::new();
    let ids: Vec<&str> = found.iter().map(|n| n.id.as_str()).collect();
    for chunk in ids.chunks(500) {
        for subnet in store.list::<Subnet>(find::on_networks(chunk.iter().copied())).await? {
            if version.is_none_or(|v| v == subnet.ip_version.to_string()) {
                subnets.entry(subnet.record.network_id.clone()).or_default().push(subnet.record);
            }
        }
    }
    let used = used(store, &subnets).await?;
    Ok(found.iter().map(|n| view(n, subnets.get(&n.id).map_or(&[][..], Vec::as_slice), &used)).collect())
}

/// How many addresses of a subnet are in use: all, and those of its pools.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    all: u64,
    pooled: u64,
}

async fn used(store: &Store, subnets: &HashMap<String, Vec<Subnet>>) -> Result<HashMap<String, Used>, Fault> {
    let pools: HashMap<&str, Vec<address::Range>> =
        subnets.values().flatten().map(|s| (s.id.as_str(), address::ranges(&s.allocation_pools))).collect();
    let ids: Vec<&str> = pools.keys().copied().collect();
    let mut used: HashMap<String, Used> = HashMap::new();
    for chunk in ids.chunks(500) {
        for lease in store.list::<AddressLease>(find::on_subnets(chunk.iter().copied())).await? {
            let number = lease.address.parse().ok().map(address::number);
            let ranges = pools.get(lease.subnet_id.as_str()).map_or(&[][..], Vec::as_slice);
            let of = used.entry(lease.record.subnet_id).or_default();
            of.all += 1;
            of.pooled += u64::from(number.is_some_and(|n| address::in_ranges(ranges, n)));
        }
    }
    Ok(used)
}

/// JSON numbers end at 2^64; larger subnets are shown as full as that.
fn number(n: u128) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// Addresses that hosts could have, and those that are given out.
fn totals(subnet: &Subnet) -> (u128, u128) {
    let whole = subnet.net().map_or(0, |net| {
        let bits = u32::from(net.max_prefix_len() - net.prefix_len());
        let all = 1u128.checked_shl(bits).unwrap_or(u128::MAX);
        if net.addr().is_ipv4() { all.saturating_sub(2) } else { all }
    });
    (whole, address::size(&address::ranges(&subnet.allocation_pools)))
}

fn details(subnets: &[Subnet], used: &HashMap<String, Used>) -> Value {
    let sum =
        |of: fn((u128, u128)) -> u128| number(subnets.iter().map(|s| of(totals(s))).fold(0, u128::saturating_add));
    let count = |of: fn(Used) -> u64| -> u64 { subnets.iter().filter_map(|s| used.get(&s.id)).map(|u| of(*u)).sum() };
    json!({"total_ips_in_subnet": sum(|t| t.0), "total_ips_in_allocation_pool": sum(|t| t.1),
        "used_ips_in_subnet": count(|u| u.all), "used_ips_in_allocation_pool": count(|u| u.pooled)})
}

fn view(network: &VirtualNetwork, subnets: &[Subnet], used: &HashMap<String, Used>) -> Value {
    let of = |s: &Subnet| used.get(&s.id).map_or(0, |u| u.all);
    let each: Vec<Value> = subnets
        .iter()
        .map(|s| {
            json!({"subnet_id": s.id, "subnet_name": s.name, "cidr": s.cidr, "ip_version": s.ip_version,
                "total_ips": number(totals(s).1), "used_ips": of(s),
                "ip_availability_details": details(std::slice::from_ref(s), used)})
        })
        .collect();
    let total = subnets.iter().map(|s| totals(s).1).fold(0, u128::saturating_add);
    json!({"network_id": network.id, "network_name": network.name, "project_id": network.project_id,
        "tenant_id": network.project_id, "subnet_ip_availability": each, "total_ips": number(total),
        "used_ips": subnets.iter().map(of).sum::<u64>(), "ip_availability_details": details(subnets, used)})
}
