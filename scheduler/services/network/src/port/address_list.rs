//! The addresses of servers, for their lists: a fixed number of queries for any number of servers.
use super::model::Port;
use crate::{floating_ip::model::FloatingIp, subnet::api::by_id, tables::find};
use pilvi_kit::Fault;
use pilvi_store::Store;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// By server: network name -> `[{"addr", "version", "OS-EXT-IPS-MAC:mac_addr", "OS-EXT-IPS:type"}]`, each
/// fixed address followed by its floating one.
pub async fn addresses(store: &Store, device_ids: &[String]) -> Result<HashMap<String, Value>, Fault> {
    let mut ports = Vec::new();
    for chunk in device_ids.chunks(500) {
        ports.extend(store.list::<Port>(find::of_devices(chunk.iter().map(String::as_str))).await?);
    }
    ports.sort_by_key(|p| p.created_us);
    let ids: Vec<&str> = ports.iter().map(|p| p.id.as_str()).collect();
    let mut floating: HashMap<(String, String), String> = HashMap::new();
    for chunk in ids.chunks(500) {
        for found in store.list::<FloatingIp>(find::of_ports(chunk.iter().copied())).await? {
            let found = found.record;
            if let (Some(port), Some(fixed)) = (found.port_id, found.fixed_ip_address) {
                floating.insert((port, fixed), found.floating_ip_address);
            }
        }
    }
    let networks = by_id(store, ports.iter().map(|p| p.network_id.as_str()).collect()).await?;
    let mut out: HashMap<String, Map<String, Value>> = HashMap::new();
    for port in &ports {
        let name = networks.get(&port.network_id).map_or("", |n| n.name.as_str());
        let of_server = out.entry(port.device_id.clone()).or_default();
        let list = of_server.entry(name).or_insert_with(|| json!([]));
        for fixed in &port.fixed_ips {
            let outside = floating.get(&(port.id.clone(), fixed.ip_address.clone()));
            push(list, &fixed.ip_address, &port.mac_address, "fixed");
            if let Some(outside) = outside {
                push(list, outside, &port.mac_address, "floating");
            }
        }
    }
    Ok(out.into_iter().map(|(id, map)| (id, Value::Object(map))).collect())
}

fn push(list: &mut Value, address: &str, mac: &str, kind: &str) {
    if let Some(list) = list.as_array_mut() {
        let version = if address.contains(':') { 6 } else { 4 };
        list.push(
            json!({"addr": address, "version": version, "OS-EXT-IPS-MAC:mac_addr": mac, "OS-EXT-IPS:type": kind}),
        );
    }
}
