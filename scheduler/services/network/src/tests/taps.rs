//! Taps: whose ports may be looked at, what goes with what, and what hosts are told.
use super::{Rig, id};
use crate::host::{HostInfo, interest::Concerned};
use pilvi_store::{Change, Op, Record};
use serde_json::{Value, json};

const SERVICES: &str = "/v2.0/taas/tap_services";
const FLOWS: &str = "/v2.0/taas/tap_flows";

fn host(n: u8) -> HostInfo {
    HostInfo { name: format!("h{n}"), vtep: format!("10.255.0.{n}"), up: true, ..HostInfo::default() }
}

async fn port(rig: &Rig, network: &str, host: &str) -> String {
    let attrs =
        json!({"network_id": network, "project_id": "alice", "binding:host_id": host, "device_owner": "compute:nova"});
    id(&rig.make(&rig.admin, "/v2.0/ports", "port", attrs).await)
}

#[tokio::test]
async fn a_project_looks_at_its_own_ports_alone() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    let (source, looks) = (id(&rig.port(&rig.alice, &network).await), id(&rig.port(&rig.alice, &network).await));
    let other = rig.network(&rig.bob, "m").await;
    let other = id(&rig.port(&rig.bob, &other).await);
    let service = |port: &str| json!({"tap_service": {"port_id": port}});
    let no = rig.refused(404, &rig.alice, "POST", SERVICES, service(&other)).await;
    assert_eq!(no, "PortNotFound", "nothing is told of it");
    let no = rig.refused(403, &rig.admin, "POST", SERVICES, service(&other)).await;
    assert_eq!(no, "PortDoesNotBelongToTenant", "an administrator's project neither");
    rig.want(400, &rig.alice, "POST", SERVICES, json!({"tap_service": {}})).await;
    let made = rig.make(&rig.alice, SERVICES, "tap_service", json!({"port_id": looks, "name": "s"})).await;
    assert_eq!((made["status"].as_str(), made.get("vni")), (Some("ACTIVE"), None));
    let service = id(&made);
    let flow = |source: &str, direction: &str| json!({"tap_flow": {"tap_service_id": service, "source_port": source, "direction": direction}});
    rig.want(400, &rig.alice, "POST", FLOWS, flow(&source, "UP")).await;
    assert_eq!(rig.refused(404, &rig.alice, "POST", FLOWS, flow(&other, "IN")).await, "PortNotFound");
    assert_eq!(rig.refused(404, &rig.bob, "POST", FLOWS, flow(&other, "IN")).await, "TapServiceNotFound");
    assert_eq!(rig.refused(400, &rig.alice, "POST", FLOWS, flow(&looks, "IN")).await, "BadRequest", "not at itself");
    let mut made = Vec::new();
    for direction in ["IN", "OUT", "BOTH", "BOTH"] {
        made.push(rig.want(201, &rig.alice, "POST", FLOWS, flow(&source, direction)).await["tap_flow"].clone());
    }
    assert_eq!(rig.refused(409, &rig.alice, "POST", FLOWS, flow(&source, "IN")).await, "TapFlowLimitReached");
    let path = format!("{FLOWS}/{}", id(&made[0]));
    let named = rig.want(200, &rig.alice, "PUT", &path, json!({"tap_flow": {"description": "d"}})).await;
    assert_eq!(named["tap_flow"]["description"], json!("d"));
    rig.want(400, &rig.alice, "PUT", &path, json!({"tap_flow": {"direction": "OUT"}})).await;
    rig.want(404, &rig.bob, "GET", &path, Value::Null).await;
    rig.want(403, &rig.reader, "DELETE", &path, Value::Null).await;
    assert_eq!(rig.get(&rig.alice, &format!("{FLOWS}?direction=BOTH")).await["tap_flows"].as_array().unwrap().len(), 2);
    // With a port go its taps: first those that it looks by, then those that look at it.
    rig.want(204, &rig.alice, "DELETE", &format!("/v2.0/ports/{looks}"), Value::Null).await;
    assert_eq!(rig.get(&rig.alice, FLOWS).await["tap_flows"], json!([]));
    assert_eq!(rig.get(&rig.alice, SERVICES).await["tap_services"], json!([]));
}

#[tokio::test]
async fn both_hosts_are_told_and_hear_of_changes() {
    let rig = Rig::new().await;
    let hosts = [host(1), host(2)];
    rig.svc.remember(&hosts);
    let network = rig.network(&rig.alice, "n").await;
    rig.subnet(&rig.alice, &network, "10.0.0.0/24").await;
    let (source, near, far) =
        (port(&rig, &network, "h1").await, port(&rig, &network, "h1").await, port(&rig, &network, "h2").await);
    let told = |name: &'static str| {
        let (svc, hosts) = (rig.svc.clone(), hosts.clone());
        async move { svc.host_network(name, &hosts).await.unwrap() }
    };
    assert!(told("h1").await.taps.is_empty() && told("h2").await.tap_sinks.is_empty());
    let mut made = Vec::new();
    for looks in [&near, &far] {
        let service = id(&rig.make(&rig.alice, SERVICES, "tap_service", json!({"port_id": looks})).await);
        told("h2").await;
        let flow = json!({"tap_service_id": service, "source_port": source, "direction": "OUT"});
        made.push(id(&rig.make(&rig.alice, FLOWS, "tap_flow", flow).await));
    }
    // Both ends of a flow look anew.
    let changed =
        |kind: &str, id: &str, op: Op| Change { seq: 1, kind: kind.into(), id: id.into(), rev: 1, op, at_us: 0 };
    let change = |op: Op, id: &str| changed(crate::tap::model::TapFlow::KIND, id, op);
    let both = Concerned::Hosts(["h1".to_owned(), "h2".to_owned()].into());
    assert_eq!(rig.svc.concerned(&[change(Op::Insert, &made[1])]).await.unwrap(), both);
    let (here, there) = (told("h1").await, told("h2").await);
    let mut to: Vec<(&str, &str)> = here.taps.iter().map(|t| (t.to_port.as_str(), t.vtep.as_str())).collect();
    to.sort_unstable();
    assert_eq!(to, [("", "10.255.0.2"), (near.as_str(), "")]);
    assert!(here.taps.iter().all(|t| t.port_id == source && t.egress && !t.ingress));
    let sink = &there.tap_sinks[0];
    assert_eq!((sink.port_id.as_str(), sink.from.as_slice()), (far.as_str(), &["10.255.0.1".to_owned()][..]));
    let away = here.taps.iter().find(|t| !t.vtep.is_empty()).unwrap();
    assert!(sink.vni == away.vni && sink.vni != here.networks[0].vni);
    assert!(there.taps.is_empty(), "nothing there is looked at");
    // The port that looks moves: the host of the port that is looked at hears of it.
    let moved = json!({"port": {"binding:host_id": "h1"}});
    rig.want(200, &rig.admin, "PUT", &format!("/v2.0/ports/{far}"), moved).await;
    let moved = changed(crate::port::model::Port::KIND, &far, Op::Update);
    assert_eq!(rig.svc.concerned(&[moved]).await.unwrap(), both);
    assert!(told("h1").await.taps.iter().any(|t| t.to_port == far));
    rig.want(204, &rig.alice, "DELETE", &format!("{FLOWS}/{}", made[0]), Value::Null).await;
    assert_eq!(
        rig.svc.concerned(&[change(Op::Delete, &made[0])]).await.unwrap(),
        Concerned::Hosts(["h1".to_owned()].into())
    );
}
