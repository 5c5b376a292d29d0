//! Private networks: what ports are, and which parts hosts are told of.
use super::{
    Rig,
    host::{hosts, view},
    id,
};
use serde_json::{Value, json};

async fn private(rig: &Rig) -> String {
    let network = rig.make(&rig.alice, "/v2.0/networks", "network", json!({"name": "p", "pvlan": true})).await;
    assert_eq!(network["pvlan"], true);
    let network = id(&network);
    rig.subnet(&rig.alice, &network, "10.0.0.0/24").await;
    network
}

#[tokio::test]
async fn ports_of_private_networks_are_of_three_kinds() {
    let rig = Rig::new().await;
    let (network, plain) = (private(&rig).await, rig.network(&rig.alice, "n").await);
    let port = |network: &str, more: Value| {
        let mut port = json!({ "network_id": network });
        port.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "port": port })
    };
    let made = |more: Value| rig.want(201, &rig.alice, "POST", "/v2.0/ports", port(&network, more));
    assert_eq!(made(json!({})).await["port"]["pvlan_type"], "promiscuous");
    let one = made(json!({"pvlan_type": "isolated"})).await["port"].clone();
    assert_eq!((&one["pvlan_type"], &one["pvlan_community"]), (&json!("isolated"), &Value::Null));
    let path = format!("/v2.0/ports/{}", id(&one));
    let change = |to: Value| rig.want(200, &rig.alice, "PUT", &path, json!({ "port": to }));
    let moved = change(json!({"pvlan_type": "community", "pvlan_community": "blue"})).await["port"].clone();
    assert_eq!((&moved["pvlan_type"], &moved["pvlan_community"]), (&json!("community"), &json!("blue")));
    assert_eq!(change(json!({"pvlan_type": "isolated"})).await["port"]["pvlan_community"], Value::Null);
    for wrong in [
        json!({"pvlan_type": "community"}),
        json!({"pvlan_type": "community", "pvlan_community": "1blue"}),
        json!({"pvlan_type": "community", "pvlan_community": ""}),
        json!({"pvlan_type": "isolated", "pvlan_community": "blue"}),
        json!({"pvlan_type": "other"}),
    ] {
        rig.refused(400, &rig.alice, "POST", "/v2.0/ports", port(&network, wrong)).await;
    }
    let elsewhere = port(&plain, json!({"pvlan_type": "isolated"}));
    rig.refused(400, &rig.alice, "POST", "/v2.0/ports", elsewhere).await;
    let usual = rig.port(&rig.alice, &plain).await;
    assert_eq!((&usual["pvlan_type"], &usual["pvlan_community"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn hosts_are_told_of_parts() {
    let rig = Rig::new().await;
    let all = hosts(2);
    let network = private(&rig).await;
    let mut ports = Vec::new();
    for (host, more) in [
        ("h1", json!({})),
        ("h1", json!({"pvlan_type": "isolated"})),
        ("h2", json!({"pvlan_type": "isolated"})),
        ("h2", json!({"pvlan_type": "community", "pvlan_community": "blue"})),
    ] {
        let mut port = json!({"network_id": network, "device_owner": "compute:nova", "binding:host_id": host});
        port.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ports.push(id(&rig.make(&rig.admin, "/v2.0/ports", "port", port).await));
    }
    let seen = view(&rig, "h1", &all).await;
    assert_eq!(seen.networks.len(), 3, "itself and two parts");
    let mut numbers: Vec<u32> = seen.networks.iter().map(|n| n.vni).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 3, "each with a number of its own");
    let apart = seen.views.iter().find(|v| v.apart).unwrap();
    assert_eq!(apart.ports, [ports[0].clone()], "the isolated see the promiscuous");
    let own = seen.views.iter().find(|v| v.network_id == network).unwrap();
    assert_eq!(own.ports, [ports[1].clone()], "the promiscuous see the isolated");
    let placed = |id: &str| seen.ports.iter().find(|p| p.id == id).unwrap().network_id.clone();
    assert_eq!((placed(&ports[0]), placed(&ports[1])), (network.clone(), apart.network_id.clone()));
    let known = |network: &str| {
        let mut ids: Vec<&str> =
            seen.remotes.iter().filter(|r| r.network_id == network).map(|r| r.port_id.as_str()).collect();
        ids.sort_unstable();
        ids
    };
    let mut both = vec![ports[2].as_str(), ports[3].as_str()];
    both.sort_unstable();
    assert_eq!(known(&network), both, "the network knows all");
    assert!(known(&apart.network_id).is_empty(), "the isolated know no others");
    let club = seen.views.iter().find(|v| !v.apart && v.network_id != network).unwrap();
    assert_eq!(known(&club.network_id), [ports[3].as_str()]);
}
