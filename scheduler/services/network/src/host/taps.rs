//! What a host must know of taps: which of its ports are copied and where to, and which of them get copies and from whom. Pure.
use super::{HostInfo, reach::Reach};
use crate::tap::model::{MirrorType, TapFlow};
use pilvi_agent_api::v1;

/// The underlay address of the host that a port is on; `None`: it is on none, or that host has none.
fn vtep<'h>(reach: &Reach, hosts: &'h [HostInfo], port: &str) -> Option<&'h str> {
    let host = &reach.tap_ports.get(port)?.host_id;
    hosts.iter().find(|h| h.name == *host).map(|h| h.vtep.as_str()).filter(|v| !v.is_empty())
}

/// Copies of local ports' frames.
pub fn flows(reach: &Reach, host: &str, hosts: &[HostInfo]) -> Vec<v1::Tap> {
    let tap = |flow: &TapFlow| {
        let service = reach.tap_services.get(&flow.tap_service_id)?;
        if !reach.local.contains_key(&flow.source_port) {
            return None;
        }
        let tap = v1::Tap {
            id: flow.id.clone(),
            port_id: flow.source_port.clone(),
            ingress: flow.direction.ingress(),
            egress: flow.direction.egress(),
            ..v1::Tap::default()
        };
        if reach.tap_ports.get(&service.port_id)?.host_id == host {
            return Some(v1::Tap { to_port: service.port_id.clone(), ..tap });
        }
        let vtep = vtep(reach, hosts, &service.port_id)?.to_owned();
        Some(v1::Tap { vtep, vni: service.vni, ..tap })
    };
    reach.tap_flows.values().filter_map(tap).chain(mirrors(reach)).collect()
}

/// Copies of local ports' frames for collectors outside: one for each way that has a number.
fn mirrors(reach: &Reach) -> impl Iterator<Item = v1::Tap> {
    let here = reach.tap_mirrors.values().filter(|m| reach.local.contains_key(&m.port_id));
    here.flat_map(|mirror| {
        mirror.directions.iter().map(|(way, number)| v1::Tap {
            id: format!("{}/{way:?}", mirror.id),
            port_id: mirror.port_id.clone(),
            ingress: way.ingress(),
            egress: way.egress(),
            collector: Some(v1::Collector {
                address: mirror.remote_ip.to_string(),
                erspan: mirror.mirror_type == MirrorType::Erspan,
                number: *number,
            }),
            ..v1::Tap::default()
        })
    })
}

/// Local ports that look at ports of other hosts.
pub fn sinks(reach: &Reach, host: &str, hosts: &[HostInfo]) -> Vec<v1::TapSink> {
    let here = reach.tap_services.values().filter(|s| reach.local.get(&s.port_id).is_some_and(|p| p.host_id == host));
    here.map(|service| {
        let flows = reach.tap_flows.values().filter(|f| f.tap_service_id == service.id);
        let mut from: Vec<String> =
            flows.filter_map(|f| vtep(reach, hosts, &f.source_port)).map(str::to_owned).collect();
        from.sort_unstable();
        from.dedup();
        v1::TapSink { port_id: service.port_id.clone(), vni: service.vni, from }
    })
    .collect()
}
