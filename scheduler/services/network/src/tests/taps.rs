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

const MIRRORS: &str = "/v2.0/taas/tap_mirrors";

fn mirror(port: &str, directions: Value, remote: &str, kind: &str) -> Value {
    json!({"tap_mirror": {"port_id": port, "directions": directions, "remote_ip": remote, "mirror_type": kind}})
}

#[tokio::test]
async fn a_mirror_sends_a_project_s_own_port_s_frames_outside() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    let port = id(&rig.port(&rig.alice, &network).await);
    let other = rig.network(&rig.bob, "m").await;
    let other = id(&rig.port(&rig.bob, &other).await);
    let gre = |port: &str, directions: Value| mirror(port, directions, "192.0.2.9", "gre");
    let no = rig.refused(404, &rig.alice, "POST", MIRRORS, gre(&other, json!({"IN": 1}))).await;
    assert_eq!(no, "PortNotFound", "nothing is told of it");
    let no = rig.refused(403, &rig.admin, "POST", MIRRORS, gre(&other, json!({"IN": 1}))).await;
    assert_eq!(no, "PortDoesNotBelongToTenant");
    rig.refused(403, &rig.reader, "POST", MIRRORS, gre(&port, json!({"IN": 1}))).await;
    // What cannot be meant.
    for directions in [
        json!({}),
        json!([]),
        json!({"UP": 1}),
        json!({"IN": "x"}),
        json!({"IN": -1}),
        json!({"IN": null}),
        json!({"OUT": 4_294_967_296_u64}),
    ] {
        rig.want(400, &rig.alice, "POST", MIRRORS, gre(&port, directions)).await;
    }
    for remote in [
        "192.0.2.900",
        "host",
        "0.0.0.0",
        "127.0.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "ff02::1",
        "::ffff:192.0.2.1",
    ] {
        rig.want(400, &rig.alice, "POST", MIRRORS, mirror(&port, json!({"IN": 1}), remote, "gre")).await;
    }
    rig.want(400, &rig.alice, "POST", MIRRORS, mirror(&port, json!({"IN": 1}), "192.0.2.9", "erspanv2")).await;
    let no = rig.refused(400, &rig.alice, "POST", MIRRORS, mirror(&port, json!({"IN": 1024}), "192.0.2.9", "erspanv1"));
    assert_eq!(no.await, "InvalidInput", "ten bits");
    for lacks in ["port_id", "directions", "remote_ip", "mirror_type"] {
        let mut body = gre(&port, json!({"IN": 1}));
        body["tap_mirror"].as_object_mut().unwrap().remove(lacks);
        rig.want(400, &rig.alice, "POST", MIRRORS, body).await;
    }

    let made = rig.want(201, &rig.alice, "POST", MIRRORS, gre(&port, json!({"IN": "101", "OUT": 102}))).await;
    let made = made["tap_mirror"].clone();
    assert_eq!((made["directions"].clone(), made["name"].clone()), (json!({"IN": 101, "OUT": 102}), json!("")));
    assert_eq!((&made["remote_ip"], &made["mirror_type"]), (&json!("192.0.2.9"), &json!("gre")));
    assert_eq!(made["project_id"], json!("alice"));
    let six = mirror(&port, json!({"BOTH": 1023}), "2001:DB8:0::7", "erspanv1");
    let six = rig.want(201, &rig.alice, "POST", MIRRORS, six).await["tap_mirror"].clone();
    assert_eq!(six["remote_ip"], json!("2001:db8::7"));
    // Numbers are a project's: another collector does not make them others.
    let taken = mirror(&port, json!({"OUT": 101}), "192.0.2.10", "gre");
    assert_eq!(rig.refused(409, &rig.alice, "POST", MIRRORS, taken).await, "TapMirrorTunnelConflict");
    rig.want(201, &rig.bob, "POST", MIRRORS, gre(&other, json!({"IN": 101, "OUT": 101}))).await;

    // IN 2 times, OUT 2 times so far: the packet path copies a frame four times.
    for n in 0..2 {
        rig.want(201, &rig.alice, "POST", MIRRORS, gre(&port, json!({"IN": 200 + n}))).await;
    }
    let no = rig.refused(409, &rig.alice, "POST", MIRRORS, gre(&port, json!({"BOTH": 300}))).await;
    assert_eq!(no, "TapMirrorLimitReached");
    let looks = id(&rig.port(&rig.alice, &network).await);
    let service = id(&rig.make(&rig.alice, SERVICES, "tap_service", json!({"port_id": looks})).await);
    let flow =
        |direction: &str| json!({"tap_flow": {"tap_service_id": service, "source_port": port, "direction": direction}});
    assert_eq!(rig.refused(409, &rig.alice, "POST", FLOWS, flow("IN")).await, "TapFlowLimitReached");
    rig.want(201, &rig.alice, "POST", FLOWS, flow("OUT")).await;

    let path = format!("{MIRRORS}/{}", id(&made));
    let changed =
        rig.want(200, &rig.alice, "PUT", &path, json!({"tap_mirror": {"name": "m", "description": "d"}})).await;
    assert_eq!((&changed["tap_mirror"]["name"], &changed["tap_mirror"]["description"]), (&json!("m"), &json!("d")));
    for fixed in [
        json!({"remote_ip": "192.0.2.11"}),
        json!({"directions": {"IN": 7}}),
        json!({"port_id": looks}),
        json!({"mirror_type": "gre"}),
    ] {
        rig.want(400, &rig.alice, "PUT", &path, json!({"tap_mirror": fixed})).await;
    }
    rig.want(404, &rig.bob, "GET", &path, Value::Null).await;
    rig.want(403, &rig.reader, "DELETE", &path, Value::Null).await;
    let listed = |query: &'static str| {
        let rig = &rig;
        async move { rig.get(&rig.alice, &format!("{MIRRORS}{query}")).await["tap_mirrors"].as_array().unwrap().clone() }
    };
    assert_eq!(listed("").await.len(), 4, "not those of others");
    assert_eq!(listed("?name=m&fields=id").await, [json!({"id": made["id"]})]);
    assert_eq!(listed("?mirror_type=erspanv1").await[0]["id"], six["id"]);
    assert_eq!(listed("?sort_key=name&sort_dir=desc&limit=1").await[0]["id"], made["id"]);
    // What is deleted gives its numbers back; with a port go its mirrors.
    rig.want(204, &rig.alice, "DELETE", &path, Value::Null).await;
    rig.want(404, &rig.alice, "GET", &path, Value::Null).await;
    rig.want(201, &rig.alice, "POST", MIRRORS, gre(&port, json!({"OUT": 101}))).await;
    rig.want(204, &rig.alice, "DELETE", &format!("/v2.0/ports/{port}"), Value::Null).await;
    assert_eq!(listed("").await, Vec::<Value>::new());
    rig.want(201, &rig.alice, "POST", MIRRORS, gre(&looks, json!({"IN": 101}))).await;
}

#[tokio::test]
async fn the_host_of_a_mirrored_port_is_told_and_hears_of_changes() {
    let rig = Rig::new().await;
    let hosts = [host(1), host(2)];
    rig.svc.remember(&hosts);
    let network = rig.network(&rig.alice, "n").await;
    rig.subnet(&rig.alice, &network, "10.0.0.0/24").await;
    let source = port(&rig, &network, "h1").await;
    let _other = port(&rig, &network, "h2").await;
    for name in ["h1", "h2"] {
        assert!(rig.svc.host_network(name, &hosts).await.unwrap().taps.is_empty());
    }
    let made = rig.want(
        201,
        &rig.alice,
        "POST",
        MIRRORS,
        mirror(&source, json!({"IN": 5, "BOTH": 6}), "192.0.2.9", "erspanv1"),
    );
    let made = id(&made.await["tap_mirror"]);
    let change = |op: Op| Change {
        seq: 1,
        kind: crate::tap::model::TapMirror::KIND.into(),
        id: made.clone(),
        rev: 1,
        op,
        at_us: 0,
    };
    let first = Concerned::Hosts(["h1".to_owned()].into());
    assert_eq!(rig.svc.concerned(&[change(Op::Insert)]).await.unwrap(), first);
    let told = rig.svc.host_network("h1", &hosts).await.unwrap().taps;
    let collector = |t: &pilvi_agent_api::v1::Tap| t.collector.clone().map(|c| (c.address, c.erspan, c.number));
    let mut seen: Vec<_> = told.iter().map(|t| (t.ingress, t.egress, collector(t).unwrap())).collect();
    seen.sort();
    let to = |number: u32| ("192.0.2.9".to_owned(), true, number);
    assert_eq!(seen, [(true, false, to(5)), (true, true, to(6))]);
    assert!(told.iter().all(|t| t.port_id == source && t.to_port.is_empty() && t.vtep.is_empty()));
    assert!(rig.svc.host_network("h2", &hosts).await.unwrap().taps.is_empty());
    rig.want(204, &rig.alice, "DELETE", &format!("{MIRRORS}/{made}"), Value::Null).await;
    assert_eq!(rig.svc.concerned(&[change(Op::Delete)]).await.unwrap(), first);
    assert!(rig.svc.host_network("h1", &hosts).await.unwrap().taps.is_empty());
}
