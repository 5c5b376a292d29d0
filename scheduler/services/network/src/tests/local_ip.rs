//! Local IPs: who may, what is refused, what hosts are told.
use super::{Rig, id, ids};
use crate::host::HostInfo;
use serde_json::{Value, json};

const LOCALS: &str = "/v2.0/local_ips";

#[tokio::test]
async fn local_ips_and_their_ports_live_and_die() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    rig.subnet(&rig.alice, &network, "10.0.0.0/24").await;
    let own = rig.port(&rig.alice, &network).await;
    let local = rig.make(&rig.alice, LOCALS, "local_ip", json!({"name": "l", "network_id": network})).await;
    assert_eq!((&local["ip_mode"], &local["network_id"]), (&json!("translate"), &json!(network)));
    let holder = rig.get(&rig.admin, &format!("/v2.0/ports/{}", local["local_port_id"].as_str().unwrap())).await;
    assert_eq!(holder["port"]["device_owner"], json!("network:local_ip"));
    assert_eq!(holder["port"]["fixed_ips"][0]["ip_address"], local["local_ip_address"]);
    let of_port = json!({"local_port_id": own["id"], "ip_mode": "passthrough"});
    let of_port = rig.make(&rig.alice, LOCALS, "local_ip", of_port).await;
    assert_eq!(of_port["local_ip_address"], own["fixed_ips"][0]["ip_address"]);
    let body = |attrs: Value| json!({ "local_ip": attrs });
    for (status, kind, attrs) in [
        (400, "LocalIPPortOrNetworkRequired", json!({})),
        (400, "LocalIPRequestedIPNotFound", json!({"local_port_id": own["id"], "local_ip_address": "10.0.0.99"})),
        (400, "BadRequest", json!({"local_port_id": "7d6b1dcb-7a3e-4a38-9a0a-3a3a3a3a3a3a"})),
        (400, "HTTPBadRequest", json!({"network_id": network, "ip_mode": "sideways"})),
        (404, "NetworkNotFound", json!({"network_id": "7d6b1dcb-7a3e-4a38-9a0a-3a3a3a3a3a3a"})),
    ] {
        assert_eq!(rig.refused(status, &rig.alice, "POST", LOCALS, body(attrs)).await, kind);
    }
    let path = format!("{LOCALS}/{}", id(&local));
    assert_eq!(rig.refused(404, &rig.bob, "GET", &path, Value::Null).await, "LocalIPNotFound");
    rig.want(403, &rig.reader, "PUT", &path, body(json!({"name": "x"}))).await;
    let changed = rig.want(200, &rig.alice, "PUT", &path, body(json!({"name": "x"}))).await;
    assert_eq!(changed["local_ip"]["name"], json!("x"));
    rig.want(400, &rig.alice, "PUT", &path, body(json!({"ip_mode": "passthrough"}))).await;

    let below = format!("{path}/port_associations");
    let port = rig.port(&rig.alice, &network).await;
    let with = |port: &Value| json!({"port_association": {"fixed_port_id": port["id"]}});
    let made = rig.want(201, &rig.alice, "POST", &below, with(&port)).await["port_association"].clone();
    let expected = json!({"local_ip_id": local["id"], "local_ip_address": local["local_ip_address"],
        "fixed_port_id": port["id"], "fixed_ip": port["fixed_ips"][0]["ip_address"], "host": ""});
    assert_eq!(made, expected);
    rig.want(409, &rig.alice, "POST", &below, with(&port)).await;
    rig.want(404, &rig.bob, "POST", &below, with(&port)).await;
    let other = rig.network(&rig.alice, "m").await;
    rig.subnet(&rig.alice, &other, "10.0.1.0/24").await;
    let elsewhere = rig.port(&rig.alice, &other).await;
    rig.want(400, &rig.alice, "POST", &below, with(&elsewhere)).await;
    let listed = rig.get(&rig.reader, &below).await;
    assert_eq!(listed["port_associations"], json!([made]));
    let one = format!("{below}/{}", id(&port));
    assert_eq!(rig.get(&rig.alice, &one).await["port_association"], made);
    assert_eq!(rig.refused(409, &rig.alice, "DELETE", &path, Value::Null).await, "LocalIPInUse");
    let holder = format!("/v2.0/ports/{}", id(&own));
    assert_eq!(rig.refused(409, &rig.alice, "DELETE", &holder, Value::Null).await, "ServicePortInUse");
    // Addresses are drawn: one of these may be a port's.
    let taken = rig.get(&rig.alice, "/v2.0/ports").await.to_string();
    let free = (70..80).map(|n| format!("10.0.0.{n}")).find(|a| !taken.contains(&format!("\"{a}\""))).unwrap();
    let moved = json!({"port": {"fixed_ips": [{"ip_address": free}]}});
    assert_eq!(rig.refused(409, &rig.alice, "PUT", &holder, moved).await, "LocalIPAddressInUse", "somebody may get it");
    // A port that goes stands behind nothing; the same one by one.
    rig.want(204, &rig.alice, "DELETE", &format!("/v2.0/ports/{}", id(&port)), Value::Null).await;
    assert_eq!(rig.refused(404, &rig.alice, "GET", &one, Value::Null).await, "LocalIPAssociationNotFound");
    rig.want(201, &rig.alice, "POST", &below, with(&own)).await;
    rig.want(204, &rig.alice, "DELETE", &format!("{below}/{}", id(&own)), Value::Null).await;
    rig.want(204, &rig.alice, "DELETE", &path, Value::Null).await;
    assert_eq!(ids(&rig.get(&rig.alice, LOCALS).await["local_ips"]), [id(&of_port)]);
    let ports = rig.get(&rig.admin, "/v2.0/ports?device_owner=network:local_ip").await;
    assert_eq!(ports["ports"], json!([]), "the port goes with the local IP that it was made for");
    // A server takes its port with it, whatever that holds.
    let port = id(&own);
    let gone = rig.svc.store.write(move |tx| {
        let (ctx, port) = (pilvi_kit::Ctx::internal(), port.clone());
        Box::pin(async move { crate::port::ops::delete_in(tx, &ctx, &port).await })
    });
    gone.await.unwrap();
    assert_eq!(rig.get(&rig.alice, LOCALS).await["local_ips"], json!([]));
}

#[tokio::test]
async fn hosts_are_told_of_their_own_ports_behind_it() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    rig.subnet(&rig.alice, &network, "10.0.0.0/24").await;
    let local = rig.make(&rig.alice, LOCALS, "local_ip", json!({"network_id": network})).await;
    let below = format!("{LOCALS}/{}/port_associations", id(&local));
    let mut ports = Vec::new();
    for host in ["h1", "h2"] {
        let port = json!({"network_id": network, "project_id": "alice", "binding:host_id": host, "device_owner": "compute:nova"});
        let port = rig.make(&rig.admin, "/v2.0/ports", "port", port).await;
        let with = json!({"port_association": {"fixed_port_id": port["id"]}});
        let made = rig.want(201, &rig.alice, "POST", &below, with).await;
        assert_eq!(made["port_association"]["host"], json!(host));
        ports.push(id(&port));
    }
    let host =
        |n: usize| HostInfo { name: format!("h{n}"), vtep: format!("10.255.0.{n}"), up: true, ..HostInfo::default() };
    let hosts = [host(1), host(2)];
    for (n, port) in ports.iter().enumerate() {
        let told = rig.svc.host_network(&hosts[n].name, &hosts).await.unwrap().local_ips;
        assert_eq!(told.len(), 1);
        assert_eq!((&told[0].port_id, told[0].translate), (port, true));
        assert_eq!(json!(told[0].address), local["local_ip_address"]);
    }
}
