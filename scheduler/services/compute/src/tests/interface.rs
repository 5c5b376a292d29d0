//! Interfaces of a server: attached, shown, detached; their groups and further addresses.
use super::{Rig, ctx};
use crate::{server::create::Networks, tables::NetworkWish};
use pilvi_network::port::model::Port;
use serde_json::{Value, json};

fn attach(member: Value) -> Value {
    json!({"interfaceAttachment": member})
}

#[tokio::test]
async fn an_attached_interface_is_the_servers_and_goes_with_its_port() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "10.1.0.0/24", json!({})).await;
    let id = rig.server(&rig.alice).await;
    let path = format!("/v2.1/servers/{id}/os-interface");
    let body = attach(json!({"net_id": network, "fixed_ips": [{"ip_address": "10.1.0.77"}]}));
    let made = rig.want(200, &rig.alice, &format!("POST {path}"), body.clone()).await["interfaceAttachment"].clone();
    assert_eq!((&made["net_id"], &made["fixed_ips"][0]["ip_address"]), (&json!(network), &json!("10.1.0.77")));
    let server = rig.record(&id).await;
    assert_eq!((server.ports.len(), server.wanted.generation), (1, 2));
    assert_eq!(server.ports[0].mac, made["mac_addr"].as_str().unwrap());
    // The same address again, a port that is nobody's, both kinds of wish at once.
    rig.want(409, &rig.alice, &format!("POST {path}"), body).await;
    let nobody = pilvi_kit::id::new();
    rig.want(404, &rig.alice, &format!("POST {path}"), attach(json!({"port_id": nobody}))).await;
    let both = attach(json!({"net_id": network, "port_id": nobody}));
    rig.want(400, &rig.alice, &format!("POST {path}"), both).await;
    rig.want(400, &rig.alice, &format!("POST {path}"), attach(json!({"tag": "x"}))).await;
    let port = made["port_id"].as_str().unwrap();
    let one = format!("{path}/{port}");
    assert_eq!(rig.want(200, &rig.reader, &format!("GET {one}"), Value::Null).await["interfaceAttachment"], made);
    rig.want(403, &rig.reader, &format!("DELETE {one}"), Value::Null).await;
    rig.want(404, &rig.bob, &format!("GET {one}"), Value::Null).await;
    rig.want(202, &rig.alice, &format!("DELETE {one}"), Value::Null).await;
    rig.want(404, &rig.alice, &format!("GET {one}"), Value::Null).await;
    rig.want(404, &rig.alice, &format!("DELETE {one}"), Value::Null).await;
    let server = rig.record(&id).await;
    assert_eq!((server.ports.len(), server.wanted.generation), (0, 3));
}

#[tokio::test]
async fn a_port_that_asks_for_an_accelerator_is_refused() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "10.1.0.0/24", json!({})).await;
    let port: Port = rig.api(json!({"network_id": network, "project_id": "alice", "device_profile": "nic"})).await;
    let id = rig.server(&rig.alice).await;
    let path = format!("POST /v2.1/servers/{id}/os-interface");
    let refused = rig.want(400, &rig.alice, &path, attach(json!({"port_id": port.id}))).await;
    assert!(refused.to_string().contains("accelerators"), "{refused}");
    let wish = NetworkWish { network_id: None, port_id: Some(port.id), fixed_ip: None, tag: None };
    let refused = rig.svc.networks_for(&ctx(&rig.alice), &Networks::These(vec![wish])).await.unwrap_err();
    assert_eq!(refused.code(), 400);
    assert!(refused.message.contains("Device profile name nic"), "{}", refused.message);
}

#[tokio::test]
async fn a_network_without_port_security_takes_no_groups() {
    let rig = Rig::new().await;
    let open = rig.network(&rig.alice, "10.1.0.0/24", json!({"port_security_enabled": false})).await;
    let guarded = rig.network(&rig.alice, "10.2.0.0/24", json!({})).await;
    let id = rig.server(&rig.alice).await;
    let (path, act) = (format!("/v2.1/servers/{id}/os-interface"), format!("POST /v2.1/servers/{id}/action"));
    let plug = format!("POST {path}");
    rig.want(200, &rig.alice, &plug, attach(json!({"net_id": guarded}))).await;
    rig.want(202, &rig.alice, &act, json!({"addSecurityGroup": {"name": "default"}})).await;
    let made = rig.want(200, &rig.alice, &plug, attach(json!({"net_id": open}))).await["interfaceAttachment"].clone();
    let made = made["port_id"].as_str().unwrap();
    let port = rig.svc.store.get::<pilvi_network::port::model::Port>(made).await.unwrap().unwrap();
    assert!(port.security_groups.is_empty() && !port.port_security_enabled);
    // Another group than the default one is meant to guard something.
    rig.want(202, &rig.alice, &format!("DELETE {path}/{made}"), Value::Null).await;
    let web = json!({"security_group": {"name": "web", "description": "d"}});
    rig.want(200, &rig.alice, "POST /v2.1/os-security-groups", web).await;
    rig.want(202, &rig.alice, &act, json!({"addSecurityGroup": {"name": "web"}})).await;
    rig.want(400, &rig.alice, &plug, attach(json!({"net_id": open}))).await;
}

#[tokio::test]
async fn groups_and_addresses_change_by_actions() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "10.1.0.0/24", json!({})).await;
    let id = rig.server(&rig.alice).await;
    let interfaces = format!("/v2.1/servers/{id}/os-interface");
    let act = format!("POST /v2.1/servers/{id}/action");
    // Without a port there is nothing that a group could guard.
    rig.want(400, &rig.alice, &act, json!({"addSecurityGroup": {"name": "default"}})).await;
    rig.want(200, &rig.alice, &format!("POST {interfaces}"), attach(json!({}))).await;
    rig.want(202, &rig.alice, &act, json!({"addSecurityGroup": {"name": "default"}})).await;
    let listed = format!("GET /v2.1/servers/{id}/os-security-groups");
    let groups = rig.want(200, &rig.alice, &listed, Value::Null).await["security_groups"].clone();
    assert_eq!(groups[0]["name"], "default");
    rig.want(202, &rig.alice, &act, json!({"removeSecurityGroup": {"name": "default"}})).await;
    rig.want(404, &rig.alice, &act, json!({"removeSecurityGroup": {"name": "default"}})).await;
    rig.want(404, &rig.alice, &act, json!({"addSecurityGroup": {"name": "no-such"}})).await;
    rig.want(202, &rig.alice, &act, json!({"addFixedIp": {"networkId": network}})).await;
    let addresses = |listed: &Value| listed["interfaceAttachments"][0]["fixed_ips"].as_array().unwrap().clone();
    let have = addresses(&rig.want(200, &rig.alice, &format!("GET {interfaces}"), Value::Null).await);
    assert_eq!(have.len(), 2);
    let gone = json!({"removeFixedIp": {"address": have[1]["ip_address"]}});
    rig.want(202, &rig.alice, &act, gone.clone()).await;
    rig.want(400, &rig.alice, &act, gone).await;
    assert_eq!(addresses(&rig.want(200, &rig.alice, &format!("GET {interfaces}"), Value::Null).await), have[..1]);
    // These actions ended with 2.43.
    rig.at("2.44", 400, &rig.alice, &act, json!({"addFixedIp": {"networkId": network}})).await;
}

#[tokio::test]
async fn a_port_that_asks_for_hardware_offload_is_refused() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "10.1.0.0/24", json!({})).await;
    let new = json!({"network_id": network, "project_id": "alice", "hardware_offload_type": "switchdev"});
    let port: Port = rig.api(new).await;
    let id = rig.server(&rig.alice).await;
    let path = format!("POST /v2.1/servers/{id}/os-interface");
    let refused = rig.want(400, &rig.alice, &path, attach(json!({"port_id": port.id}))).await;
    assert!(refused.to_string().contains("offload"), "{refused}");
    let wish = NetworkWish { network_id: None, port_id: Some(port.id), fixed_ip: None, tag: None };
    let refused = rig.svc.networks_for(&ctx(&rig.alice), &Networks::These(vec![wish])).await.unwrap_err();
    assert_eq!(refused.code(), 400);
    assert!(refused.message.contains("switchdev"), "{}", refused.message);
}
