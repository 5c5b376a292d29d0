//! Limits and marks for one host: which policy holds for what, and what its rules say. Pure.
use super::reach::Reach;
use crate::{port::model::Port, qos::model::Way};
use pilvi_agent_api::v1;

/// Of the rate, in percent: what may come at once when a rule does not say.
const BURST: u64 = 80;

pub fn compose(reach: &Reach) -> Vec<v1::Quality> {
    let ports = reach.local.values().filter_map(|p| {
        let quality = said(reach, of_port(reach, p)?);
        Some(v1::Quality { port_id: p.id.clone(), ..quality })
    });
    // A floating address is limited on its guest's host, or where it forwards ports.
    let floating = reach.floating.values().chain(reach.forwarders.values()).filter_map(|f| {
        let network = reach.networks.get(&f.floating_network_id).and_then(|n| n.qos_policy_id.as_deref());
        let quality = said(reach, f.qos_policy_id.as_deref().or(network)?);
        Some(v1::Quality { address: f.floating_ip_address.clone(), ..quality })
    });
    let gateways = reach.routers.values().filter_map(|r| {
        let info = r.external_gateway_info.as_ref()?;
        let quality = said(reach, info.qos_policy_id.as_deref()?);
        // Its address of IPv4 stands for all of the way out.
        let v4 = info.external_fixed_ips.iter().find(|f| !f.ip_address.contains(':'));
        let fixed = v4.or_else(|| info.external_fixed_ips.first())?;
        Some(v1::Quality { address: fixed.ip_address.clone(), ..quality })
    });
    let all = ports.chain(floating).chain(gateways);
    all.filter(|q| q.egress.is_some() || q.ingress.is_some() || q.dscp.is_some()).collect()
}

/// Its own, else its network's.
pub fn of_port<'r>(reach: &'r Reach, port: &'r Port) -> Option<&'r str> {
    let network = || reach.networks.get(&port.network_id)?.qos_policy_id.as_deref();
    port.qos_policy_id.as_deref().or_else(network)
}

fn said(reach: &Reach, policy: &str) -> v1::Quality {
    let rate = |direction: Way| {
        let bandwidth = reach.bandwidths.values().find(|r| r.policy_id == policy && r.direction == Some(direction));
        let packets = reach.packet_rates.values().find(|r| r.policy_id == policy && r.direction == Some(direction));
        let (kbps, burst_kbit) = bandwidth.map_or((0, 0), |r| with_burst(r.max_kbps, r.max_burst_kbps, 1));
        let (packets, burst_packets) = packets.map_or((0, 0), |r| with_burst(r.max_kpps, r.max_burst_kpps, 1000));
        (kbps > 0 || packets > 0).then_some(v1::Rate { kbps, burst_kbit, packets, burst_packets })
    };
    let mark = reach.marks.values().find(|r| r.policy_id == policy).and_then(|r| r.dscp_mark);
    v1::Quality {
        egress: rate(Way::Egress),
        ingress: rate(Way::Ingress),
        dscp: mark.map(u32::from),
        ..v1::Quality::default()
    }
}

/// A rate and what may come at once, of `unit`s.
fn with_burst(rate: Option<u64>, burst: Option<u64>, unit: u64) -> (u64, u64) {
    let rate = rate.unwrap_or(0) * unit;
    (rate, burst.filter(|b| *b > 0).map_or(rate * BURST / 100, |b| b * unit))
}
