//! `/v2.0/qos/rule-types`: what the packet path can do, and with which values.
use super::model::{Bandwidth, Dscp, Kind, LeastBandwidth, LeastPacketRate, MARKS, PacketRate};
use crate::Network;
use pilvi_kit::{Call, Fault, Reply, Response, Route};
use serde_json::{Value, json};
use std::sync::Arc;

const DRIVER: &str = "pilvi.packet_path";
const TYPES: [&str; 5] = [Bandwidth::TYPE, PacketRate::TYPE, Dscp::TYPE, LeastBandwidth::TYPE, LeastPacketRate::TYPE];

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::get("/v2.0/qos/rule-types", list).rule_by_handler("get_rule_type").summary("Lists kinds of rules"),
        Route::get("/v2.0/qos/rule-types/{rule_type}", show)
            .rule_by_handler("get_rule_type")
            .summary("Shows what a kind of rules takes"),
    ]
}

async fn list(_svc: Arc<Network>, call: Call) -> Reply {
    call.authorize(&call.target())?;
    let wanted: Vec<&str> = call.query.all("type").collect();
    let known = ["type", "all_supported", "all_rules", "fields"];
    if let Some((key, _)) = call.query.0.iter().find(|(k, _)| !known.contains(&k.as_str())) {
        return Err(Fault::bad_request(format!("[\"{key}\"] is invalid attribute for filtering")));
    }
    let types = TYPES.iter().filter(|t| wanted.is_empty() || wanted.contains(*t));
    let shown: Vec<Value> = types.map(|t| json!({"type": t})).collect();
    Ok(Response::ok(json!({ "rule_types": shown })))
}

async fn show(_svc: Arc<Network>, call: Call) -> Reply {
    call.authorize(&call.target())?;
    // Drivers are the operator's business.
    if !call.caller().has_role("admin") {
        return Err(crate::fault::refused(call.rule()));
    }
    let name = call.param("rule_type");
    let range = |name: &str| json!({"parameter_name": name, "parameter_type": "range", "parameter_values": {"start": 0, "end": 2_147_483_647}});
    let choices =
        |name: &str, of: Value| json!({"parameter_name": name, "parameter_type": "choices", "parameter_values": of});
    let direction = || choices("direction", json!(["egress", "ingress"]));
    let parameters = match name {
        Bandwidth::TYPE => json!([range("max_kbps"), range("max_burst_kbps"), direction()]),
        PacketRate::TYPE => json!([range("max_kpps"), range("max_burst_kpps"), direction()]),
        LeastBandwidth::TYPE => json!([range("min_kbps"), direction()]),
        LeastPacketRate::TYPE => {
            json!([range("min_kpps"), choices("direction", json!(["any", "egress", "ingress"]))])
        }
        Dscp::TYPE => json!([choices("dscp_mark", json!(MARKS))]),
        _ => return Err(Fault::not_found(format!("QoS rule type {name} could not be found.")).kind("HTTPNotFound")),
    };
    let drivers = json!([{"name": DRIVER, "supported_parameters": parameters}]);
    Ok(Response::ok(json!({"rule_type": {"type": name, "drivers": drivers}})))
}
