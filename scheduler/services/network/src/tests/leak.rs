//! Subnets whose routes are leaked: who may say so, where it makes sense, and who is told.
use super::{Rig, id, outside::topology};
use serde_json::{Value, json};

fn leak(on: bool) -> Value {
    json!({"subnet": {"leak_routes": on}})
}

#[tokio::test]
async fn administrators_leak_what_leads_out_and_overlaps_nobody() {
    let rig = Rig::new().await;
    let (_, _, subnet, external) = topology(&rig).await;
    let path = |subnet: &str| format!("/v2.0/subnets/{subnet}");
    assert_eq!(rig.get(&rig.alice, &path(&subnet)).await["subnet"]["leak_routes"], json!(false));
    rig.want(403, &rig.alice, "PUT", &path(&subnet), leak(true)).await;
    let network = rig.network(&rig.alice, "m").await;
    let born =
        json!({"subnet": {"network_id": network, "cidr": "10.0.0.128/25", "ip_version": 4, "leak_routes": true}});
    rig.want(400, &rig.admin, "POST", "/v2.0/subnets", born).await;

    // Without a router, and with one that leads nowhere.
    let other = rig.subnet(&rig.alice, &network, "10.0.0.128/25").await;
    assert_eq!(rig.refused(400, &rig.admin, "PUT", &path(&other), leak(true)).await, "InvalidInput");
    let second = id(&rig.make(&rig.alice, "/v2.0/routers", "router", json!({"name": "s"})).await);
    let join = format!("/v2.0/routers/{second}/add_router_interface");
    rig.want(200, &rig.alice, "PUT", &join, json!({"subnet_id": other})).await;
    assert_eq!(rig.refused(400, &rig.admin, "PUT", &path(&other), leak(true)).await, "InvalidInput");
    let out = json!({"router": {"external_gateway_info": {"network_id": external}}});
    rig.want(200, &rig.alice, "PUT", &format!("/v2.0/routers/{second}"), out).await;

    // Once for an address, as often as one likes for one subnet.
    for _ in 0..2 {
        let shown = rig.want(200, &rig.admin, "PUT", &path(&subnet), leak(true)).await;
        assert_eq!(shown["subnet"]["leak_routes"], json!(true));
    }
    let no = rig.want(400, &rig.admin, "PUT", &path(&other), leak(true)).await;
    assert!(no["NeutronError"]["message"].as_str().unwrap().contains("10.0.0.0/24"), "{no}");
    rig.want(200, &rig.admin, "PUT", &path(&subnet), leak(false)).await;
    rig.want(200, &rig.admin, "PUT", &path(&other), leak(true)).await;

    // Its owner goes on changing what else it says.
    let named = rig.want(200, &rig.alice, "PUT", &path(&other), json!({"subnet": {"name": "x"}})).await;
    assert_eq!(named["subnet"]["leak_routes"], json!(true));
    rig.want(403, &rig.alice, "PUT", &path(&other), leak(false)).await;
}

#[tokio::test]
async fn the_provider_and_the_hosts_are_told() {
    let rig = Rig::new().await;
    let host = crate::host::HostInfo { name: "h1".into(), up: true, ..Default::default() };
    rig.svc.remember(std::slice::from_ref(&host));
    let (router, network, subnet, external) = topology(&rig).await;
    let port = json!({"network_id": network, "device_owner": "compute:nova", "binding:host_id": "h1"});
    rig.make(&rig.admin, "/v2.0/ports", "port", port).await;
    let speaker = json!({"name": "s", "local_as": 65001, "ip_version": 4});
    let speaker = id(&rig.make(&rig.admin, "/v2.0/bgp-speakers", "bgp_speaker", speaker).await);
    let add = format!("/v2.0/bgp-speakers/{speaker}/add_gateway_network");
    rig.want(200, &rig.admin, "PUT", &add, json!({"network_id": external})).await;
    let said = async || {
        let path = format!("/v2.0/bgp-speakers/{speaker}/get_advertised_routes");
        let routes = rig.get(&rig.admin, &path).await["advertised_routes"].clone();
        let told = rig.svc.host_network("h1", std::slice::from_ref(&host)).await.unwrap();
        let leaked: Vec<bool> = told.routers.iter().flat_map(|r| &r.interfaces).map(|leg| leg.leaked).collect();
        (routes, leaked)
    };
    assert_eq!(said().await, (json!([]), vec![false]));
    rig.want(200, &rig.admin, "PUT", &format!("/v2.0/subnets/{subnet}"), leak(true)).await;
    let shown = rig.get(&rig.admin, &format!("/v2.0/routers/{router}")).await["router"].clone();
    let hop = &shown["external_gateway_info"]["external_fixed_ips"][0]["ip_address"];
    assert_eq!(said().await, (json!([{"destination": "10.0.0.0/24", "next_hop": hop}]), vec![true]));
    // Where there is no way, there is none to tell.
    let closed = json!({"router": {"external_gateway_info": null}});
    rig.want(200, &rig.alice, "PUT", &format!("/v2.0/routers/{router}"), closed).await;
    assert_eq!(said().await.0, json!([]));
    rig.want(200, &rig.admin, "PUT", &format!("/v2.0/subnets/{subnet}"), leak(false)).await;
    assert_eq!(said().await.1, [false]);
}
