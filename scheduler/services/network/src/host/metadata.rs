//! `network_data.json`: what a guest is told of its interfaces.
use crate::{
    network::model::VirtualNetwork,
    port::model::Port,
    subnet::{api::by_id, model::Subnet},
    tables::find,
};
use ipnet::IpNet;
use pilvi_kit::Fault;
use pilvi_store::{Query, Store};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

/// The document for ports in the guest's order.
pub async fn network_data(store: &Store, port_ids: &[String]) -> Result<Value, Fault> {
    let ids: Vec<&str> = port_ids.iter().map(String::as_str).take(128).collect();
    let found = store.list::<Port>(Query::all().ids(ids.iter().copied())).await?;
    let mut ports: HashMap<String, Port> = found.into_iter().map(|p| (p.record.id.clone(), p.record)).collect();
    let ports: Vec<Port> = ids.iter().filter_map(|id| ports.remove(*id)).collect();
    let nets: HashSet<&str> = ports.iter().map(|p| p.network_id.as_str()).collect();
    let subnets = store.list::<Subnet>(find::on_networks(nets.iter().copied())).await?;
    let subnets: HashMap<String, Subnet> = subnets.into_iter().map(|s| (s.record.id.clone(), s.record)).collect();
    let networks = by_id(store, nets).await?;
    Ok(document(&ports, &networks, &subnets))
}

fn document(ports: &[Port], networks: &HashMap<String, VirtualNetwork>, subnets: &HashMap<String, Subnet>) -> Value {
    let (mut links, mut layers, mut services) = (Vec::new(), Vec::new(), Vec::<Value>::new());
    for port in ports {
        let link = format!("tap{}", port.id.chars().take(11).collect::<String>());
        let mtu = networks.get(&port.network_id).map(|n| n.mtu);
        links.push(
            json!({"id": link, "vif_id": port.id, "type": "tap", "mtu": mtu, "ethernet_mac_address": port.mac_address}),
        );
        for fixed in &port.fixed_ips {
            let Some(subnet) = subnets.get(&fixed.subnet_id) else { continue };
            let id = format!("network{}", layers.len());
            let servers: Vec<Value> =
                subnet.dns_nameservers.iter().map(|s| json!({"type": "dns", "address": s})).collect();
            for server in &servers {
                if !services.contains(server) {
                    services.push(server.clone());
                }
            }
            layers.push(layer(&id, &link, port, subnet, &fixed.ip_address, servers));
        }
    }
    json!({"links": links, "networks": layers, "services": services})
}

fn layer(id: &str, link: &str, port: &Port, subnet: &Subnet, address: &str, services: Vec<Value>) -> Value {
    let dynamic = match (subnet.ip_version, subnet.enable_dhcp, subnet.ipv6_address_mode.as_deref()) {
        (4, true, _) => Some("ipv4_dhcp"),
        (6, true, Some("slaac")) => Some("ipv6_slaac"),
        (6, true, Some("dhcpv6-stateless")) => Some("ipv6_dhcpv6-stateless"),
        (6, true, Some("dhcpv6-stateful")) => Some("ipv6_dhcpv6-stateful"),
        _ => None,
    };
    if let Some(kind) = dynamic {
        return json!({"id": id, "type": kind, "link": link, "network_id": port.network_id});
    }
    let mut routes: Vec<Value> =
        subnet.host_routes.iter().filter_map(|r| Some(route(&r.destination.parse().ok()?, &r.nexthop))).collect();
    if let Some(gateway) = &subnet.gateway_ip {
        let all: Option<IpNet> = if subnet.ip_version == 4 { "0.0.0.0/0" } else { "::/0" }.parse().ok();
        routes.extend(all.map(|net| route(&net, gateway)));
    }
    json!({"id": id, "type": format!("ipv{}", subnet.ip_version), "link": link, "network_id": port.network_id,
        "ip_address": address, "netmask": subnet.net().map(|n| n.netmask().to_string()), "routes": routes, "services": services})
}

fn route(to: &IpNet, gateway: &str) -> Value {
    json!({"network": to.network().to_string(), "netmask": to.netmask().to_string(), "gateway": gateway})
}
