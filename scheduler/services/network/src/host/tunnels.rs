//! The keys of hosts that a host must know for what its wanted state names: ways out, taps, guests that move. Those of its
//! neighbours' hosts come with the neighbours. Pure.
use super::HostInfo;
use pilvi_agent_api::v1;
use std::collections::BTreeSet;

/// Each host once, of those that encrypt.
pub fn compose(message: &v1::HostNetwork, hosts: &[HostInfo]) -> Vec<v1::Tunnel> {
    let ways = |r: &v1::Router| [r.gateway.clone(), r.gateway6.clone()].into_iter().flatten().map(|g| g.vtep);
    let mut named: BTreeSet<String> = message.routers.iter().flat_map(ways).collect();
    named.extend(message.routers.iter().flat_map(|r| &r.further).map(|g| g.vtep.clone()));
    named.extend(message.ports.iter().map(|p| p.other_vtep.clone()));
    named.extend(message.taps.iter().map(|t| t.vtep.clone()));
    named.extend(message.tap_sinks.iter().flat_map(|s| &s.from).cloned());
    named.remove("");
    if named.is_empty() {
        return Vec::new();
    }
    let tunnel = |host: &HostInfo| {
        let wireguard = host.wireguard.clone().filter(|_| named.contains(&host.vtep))?;
        Some(v1::Tunnel { vtep: host.vtep.clone(), wireguard: Some(wireguard) })
    };
    let mut tunnels: Vec<v1::Tunnel> = hosts.iter().filter_map(tunnel).collect();
    tunnels.sort_by(|a, b| a.vtep.cmp(&b.vtep));
    tunnels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_those_alone_who_are_named() {
        let host = |n: u8, encrypts: bool| HostInfo {
            name: format!("h{n}"),
            vtep: format!("10.255.0.{n}"),
            wireguard: encrypts.then(|| v1::Wireguard { public_key: vec![n; 32], port: 51820 }),
            ..HostInfo::default()
        };
        let hosts: Vec<HostInfo> = (1..10).map(|n| host(n, n != 3)).collect();
        let vtep = |n: u8| format!("10.255.0.{n}");
        let way = |n| v1::RouterGateway { vtep: vtep(n), ..v1::RouterGateway::default() };
        let router = |first, further| v1::Router {
            gateway: Some(way(first)),
            further: vec![way(further)],
            ..v1::Router::default()
        };
        let message = v1::HostNetwork {
            routers: vec![router(7, 2), router(2, 3), v1::Router { gateway: None, ..router(1, 7) }],
            ports: vec![v1::Port { other_vtep: vtep(4), ..v1::Port::default() }, v1::Port::default()],
            taps: vec![v1::Tap { vtep: vtep(5), ..v1::Tap::default() }],
            tap_sinks: vec![v1::TapSink { from: vec![vtep(6)], ..v1::TapSink::default() }],
            ..v1::HostNetwork::default()
        };
        let told = compose(&message, &hosts);
        let told: Vec<&str> = told.iter().map(|t| t.vtep.as_str()).collect();
        assert_eq!(told, [2, 4, 5, 6, 7].map(vtep).iter().map(String::as_str).collect::<Vec<_>>());
        assert!(compose(&v1::HostNetwork::default(), &hosts).is_empty());
    }
}
