//! Conntrack helpers: what is offered, what is refused, what routers show and hosts are told.
use super::{Rig, id};
use crate::host::HostInfo;
use serde_json::{Value, json};

#[tokio::test]
async fn only_what_the_packet_path_can_do_is_offered() {
    let rig = Rig::new().await;
    let external = rig.external().await;
    let out = json!({"external_gateway_info": {"network_id": external}});
    let router = id(&rig.make(&rig.alice, "/v2.0/routers", "router", out).await);
    let path = format!("/v2.0/routers/{router}/conntrack_helpers");
    let helper = |helper: &str, protocol: &str, port: u32| json!({"conntrack_helper": {"helper": helper, "protocol": protocol, "port": port}});
    let made = rig.want(201, &rig.alice, "POST", &path, helper("tftp", "udp", 69)).await["conntrack_helper"].clone();
    assert_eq!((&made["helper"], &made["port"]), (&json!("tftp"), &json!(69)));
    for (kind, body) in [
        ("ConntrackHelperNotAllowed", helper("ftp", "tcp", 21)),
        ("InvalidProtocolForHelper", helper("tftp", "tcp", 69)),
        ("BadRequest", helper("tftp", "udp", 69)),
        ("HTTPBadRequest", helper("tftp", "udp", 0)),
        ("HTTPBadRequest", helper("tftp", "carrier-pigeon", 69)),
    ] {
        assert_eq!(rig.refused(400, &rig.alice, "POST", &path, body).await, kind);
    }
    let one = format!("{path}/{}", id(&made));
    assert_eq!(rig.refused(404, &rig.bob, "GET", &one, Value::Null).await, "RouterNotFound");
    rig.want(403, &rig.reader, "POST", &path, helper("tftp", "udp", 70)).await;
    let moved = rig.want(200, &rig.alice, "PUT", &one, json!({"conntrack_helper": {"port": 6969}})).await;
    assert_eq!(moved["conntrack_helper"]["port"], json!(6969));
    let shown = rig.get(&rig.alice, &format!("/v2.0/routers/{router}")).await;
    let brief = json!([{"helper": "tftp", "protocol": "udp", "port": 6969}]);
    assert_eq!(shown["router"]["conntrack_helpers"], brief);
    assert_eq!(rig.get(&rig.reader, &path).await["conntrack_helpers"], json!([moved["conntrack_helper"]]));
    // The hosts whose guests go out by it.
    let network = rig.network(&rig.alice, "n").await;
    let subnet = rig.subnet(&rig.alice, &network, "10.0.0.0/24").await;
    let join = format!("/v2.0/routers/{router}/add_router_interface");
    rig.want(200, &rig.alice, "PUT", &join, json!({"subnet_id": subnet})).await;
    let port =
        json!({"network_id": network, "project_id": "alice", "binding:host_id": "h1", "device_owner": "compute:nova"});
    rig.make(&rig.admin, "/v2.0/ports", "port", port).await;
    let hosts = [HostInfo { name: "h1".into(), up: true, ..HostInfo::default() }];
    let told = rig.svc.host_network("h1", &hosts).await.unwrap().routers;
    let told = told.iter().find(|r| r.id == router).unwrap();
    assert_eq!(
        told.helpers.iter().map(|h| (h.name.as_str(), h.protocol, h.port)).collect::<Vec<_>>(),
        [("tftp", 17, 6969)]
    );
    rig.want(204, &rig.alice, "DELETE", &one, Value::Null).await;
    assert_eq!(rig.refused(404, &rig.alice, "GET", &one, Value::Null).await, "ConntrackHelperNotFound");
}
