//! `/v2.0/network-ip-availabilities`: how many addresses each subnet has and how many are in use.
use crate::{
    Network, address, fault,
    network::{model::VirtualNetwork, ops as networks},
    subnet::model::Subnet,
    tables::{AddressLease, find},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route};
use pilvi_store::{Query, Store, Stored};
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
    let used = used(store).await?;
    Ok(found.iter().map(|n| view(n, subnets.get(&n.id).map_or(&[][..], Vec::as_slice), &used)).collect())
}

/// Addresses in use, by subnet, counted by the database.
async fn used(store: &Store) -> Result<HashMap<String, i64>, Fault> {
    let groups = store.group::<AddressLease>(&[find::SUBNET], &[], Query::all()).await?;
    Ok(groups
        .into_iter()
        .filter_map(|g| Some((g.key.first()?.as_text()?.to_owned(), i64::try_from(g.count).ok()?)))
        .collect())
}

fn view(network: &VirtualNetwork, subnets: &[Subnet], used: &HashMap<String, i64>) -> Value {
    let total = |s: &Subnet| address::size(&address::ranges(&s.allocation_pools));
    // JSON numbers end at 2^64; larger subnets are shown as full as that.
    let number = |n: u128| u64::try_from(n).unwrap_or(u64::MAX);
    let of = |s: &Subnet| used.get(&s.id).copied().unwrap_or(0);
    let each: Vec<Value> = subnets
        .iter()
        .map(|s| {
            json!({"subnet_id": s.id, "subnet_name": s.name, "cidr": s.cidr, "ip_version": s.ip_version,
                "total_ips": number(total(s)), "used_ips": of(s)})
        })
        .collect();
    json!({"network_id": network.id, "network_name": network.name, "project_id": network.project_id,
        "tenant_id": network.project_id, "subnet_ip_availability": each,
        "total_ips": number(subnets.iter().map(total).fold(0, u128::saturating_add)), "used_ips": subnets.iter().map(of).sum::<i64>()})
}
