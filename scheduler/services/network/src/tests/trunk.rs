//! Trunks: whose ports may be in them, what stays with them, what hosts are told.
use super::{Rig, id};
use crate::host::HostInfo;
use serde_json::{Value, json};

const TRUNKS: &str = "/v2.0/trunks";

async fn port(rig: &Rig, network: &str) -> String {
    id(&rig.port(&rig.alice, network).await)
}

fn sub(port: &str, tag: u16) -> Value {
    json!({"port_id": port, "segmentation_type": "vlan", "segmentation_id": tag})
}

#[tokio::test]
async fn ports_are_in_one_trunk_by_one_tag() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    rig.subnet(&rig.alice, &network, "10.0.0.0/24").await;
    let (parent, one, two) = (port(&rig, &network).await, port(&rig, &network).await, port(&rig, &network).await);
    let trunk = rig
        .make(&rig.alice, TRUNKS, "trunk", json!({"port_id": parent, "name": "t", "sub_ports": [sub(&one, 7)]}))
        .await;
    assert_eq!((&trunk["status"], &trunk["sub_ports"]), (&json!("DOWN"), &json!([sub(&one, 7)])));
    let path = format!("{TRUNKS}/{}", id(&trunk));
    let add = |subs: Value| json!({ "sub_ports": subs });
    let more = format!("{path}/add_subports");
    assert_eq!(rig.refused(409, &rig.alice, "PUT", &more, add(json!([sub(&two, 7)]))).await, "DuplicateSubPort");
    assert_eq!(rig.refused(409, &rig.alice, "PUT", &more, add(json!([sub(&one, 8)]))).await, "TrunkPortInUse");
    assert_eq!(rig.refused(409, &rig.alice, "PUT", &more, add(json!([sub(&parent, 8)]))).await, "TrunkPortInUse");
    for bad in [json!([{"port_id": two}]), json!([sub(&two, 4095)]), json!([sub(&two, 9), sub(&two, 10)]), json!(7)] {
        rig.want(400, &rig.alice, "PUT", &more, add(bad)).await;
    }
    let now = rig.want(200, &rig.alice, "PUT", &more, add(json!([sub(&two, 8)]))).await;
    assert_eq!(now["sub_ports"].as_array().unwrap().len(), 2, "the trunk itself, without an envelope: {now}");
    let listed = rig.get(&rig.reader, &format!("{path}/get_subports")).await;
    assert_eq!(listed["sub_ports"], json!([sub(&one, 7), sub(&two, 8)]));
    let shown = rig.get(&rig.alice, &format!("/v2.0/ports/{parent}")).await["port"].clone();
    assert_eq!(
        (&shown["trunk_details"]["trunk_id"], &shown["trunk_details"]["sub_ports"][0]["segmentation_id"]),
        (&trunk["id"], &json!(7))
    );
    assert!(shown["trunk_details"]["sub_ports"][0]["mac_address"].is_string());
    assert_eq!(
        rig.refused(409, &rig.alice, "DELETE", &format!("/v2.0/ports/{parent}"), Value::Null).await,
        "PortInUseAsTrunkParent"
    );
    assert_eq!(
        rig.refused(409, &rig.alice, "DELETE", &format!("/v2.0/ports/{one}"), Value::Null).await,
        "PortInUseAsSubPort"
    );
    assert_eq!(rig.refused(404, &rig.bob, "GET", &path, Value::Null).await, "TrunkNotFound");
    assert_eq!(
        rig.refused(409, &rig.alice, "POST", TRUNKS, json!({"trunk": {"port_id": one}})).await,
        "TrunkPortInUse"
    );
    rig.want(200, &rig.alice, "PUT", &path, json!({"trunk": {"admin_state_up": false}})).await;
    let less = format!("{path}/remove_subports");
    assert_eq!(rig.refused(409, &rig.alice, "PUT", &less, add(json!([{"port_id": two}]))).await, "TrunkDisabled");
    rig.want(200, &rig.alice, "PUT", &path, json!({"trunk": {"admin_state_up": true}})).await;
    rig.want(200, &rig.alice, "PUT", &less, add(json!([{"port_id": two}]))).await;
    assert_eq!(rig.refused(404, &rig.alice, "PUT", &less, add(json!([{"port_id": two}]))).await, "SubPortNotFound");
    rig.want(204, &rig.alice, "DELETE", &format!("/v2.0/ports/{two}"), Value::Null).await;
    rig.want(204, &rig.alice, "DELETE", &path, Value::Null).await;
    assert_eq!(rig.get(&rig.alice, &format!("/v2.0/ports/{one}")).await["port"]["device_owner"], "");
}

#[tokio::test]
async fn subports_are_where_their_parent_is() {
    let rig = Rig::new().await;
    let (outer, inner) = (rig.network(&rig.alice, "outer").await, rig.network(&rig.alice, "inner").await);
    let (parent, one) = (port(&rig, &outer).await, port(&rig, &inner).await);
    let trunk =
        id(&rig.make(&rig.alice, TRUNKS, "trunk", json!({"port_id": parent, "sub_ports": [sub(&one, 7)]})).await);
    let bind = json!({"port": {"binding:host_id": "h1"}});
    rig.want(200, &rig.admin, "PUT", &format!("/v2.0/ports/{parent}"), bind).await;
    let hosts = [HostInfo { name: "h1".into(), up: true, ..HostInfo::default() }];
    let told = || async { rig.svc.host_network("h1", &hosts).await.unwrap() };
    let ports = told().await.ports;
    let child = ports.iter().find(|p| p.id == one).unwrap();
    assert_eq!((child.parent_id.as_str(), child.vlan, child.up), (parent.as_str(), 7, true));
    let whole = ports.iter().find(|p| p.id == parent).unwrap();
    assert_eq!((whole.parent_id.as_str(), whole.vlan), ("", 0));
    let path = format!("{TRUNKS}/{trunk}");
    assert_eq!(rig.refused(409, &rig.alice, "DELETE", &path, Value::Null).await, "TrunkInUse");
    rig.want(200, &rig.alice, "PUT", &path, json!({"trunk": {"admin_state_up": false}})).await;
    assert!(
        told().await.ports.iter().all(|p| p.id != one || !p.up),
        "a trunk that is down carries nothing of its subports"
    );
    let free = json!({"port": {"binding:host_id": ""}});
    rig.want(200, &rig.admin, "PUT", &format!("/v2.0/ports/{parent}"), free).await;
    assert!(told().await.ports.is_empty());
    assert_eq!(rig.refused(409, &rig.alice, "DELETE", &path, Value::Null).await, "TrunkDisabled");
    rig.want(200, &rig.alice, "PUT", &path, json!({"trunk": {"admin_state_up": true}})).await;
    rig.want(204, &rig.alice, "DELETE", &path, Value::Null).await;
}

/// A subport may have the tag that its network has on the wire; where the wire has none there is none to have.
#[tokio::test]
async fn a_subport_inherits_the_tag_of_its_network() {
    let rig = Rig::new().await;
    let tagged =
        json!({"provider:network_type": "vlan", "provider:physical_network": "rack1", "provider:segmentation_id": 77});
    let tagged = id(&rig.make(&rig.admin, "/v2.0/networks", "network", tagged).await);
    let plain = id(&rig.make(&rig.admin, "/v2.0/networks", "network", json!({})).await);
    let new = async |network: &str| id(&rig.port(&rig.admin, network).await);
    let (parent, one, other) = (new(&tagged).await, new(&tagged).await, new(&plain).await);
    let inherit = |port: &str| json!({"port_id": port, "segmentation_type": "inherit"});
    let trunk = json!({"trunk": {"port_id": parent, "sub_ports": [inherit(&other)]}});
    assert_eq!(rig.refused(400, &rig.admin, "POST", TRUNKS, trunk).await, "InvalidInheritNetworkSegmentationType");
    let trunk = json!({"port_id": parent, "sub_ports": [inherit(&one)]});
    let trunk = rig.make(&rig.admin, TRUNKS, "trunk", trunk).await;
    assert_eq!(trunk["sub_ports"], json!([sub(&one, 77)]));
    let more = format!("{TRUNKS}/{}/add_subports", id(&trunk));
    let again = json!({"sub_ports": [inherit(&new(&tagged).await)]});
    assert_eq!(rig.refused(409, &rig.admin, "PUT", &more, again).await, "DuplicateSubPort");
    let twice = json!({"sub_ports": [inherit(&other), inherit(&other)]});
    rig.want(400, &rig.admin, "PUT", &more, twice).await;
}
