//! Routers, gateways and floating IPs: who is in whose way.
use super::{Rig, id};
use serde_json::{Value, json};

/// A router of alice's between 10.0.0.0/24 and the outside: (router, network, subnet, external).
pub async fn topology(rig: &Rig) -> (String, String, String, String) {
    let external = rig.external().await;
    let network = rig.network(&rig.alice, "n").await;
    let subnet = rig.subnet(&rig.alice, &network, "10.0.0.0/24").await;
    let router = rig
        .make(
            &rig.alice,
            "/v2.0/routers",
            "router",
            json!({"name": "r", "external_gateway_info": {"network_id": external}}),
        )
        .await;
    let joined = rig
        .want(
            200,
            &rig.alice,
            "PUT",
            &format!("/v2.0/routers/{}/add_router_interface", id(&router)),
            json!({"subnet_id": subnet}),
        )
        .await;
    assert_eq!(joined["subnet_ids"], json!([subnet]));
    (id(&router), network, subnet, external)
}

#[tokio::test]
async fn routers_join_subnets_once_and_leave_when_unused() {
    let rig = Rig::new().await;
    let (router, network, subnet, external) = topology(&rig).await;
    let shown = rig.get(&rig.alice, &format!("/v2.0/routers/{router}")).await["router"].clone();
    assert_eq!(shown["external_gateway_info"]["enable_snat"], true);
    assert!(
        shown["external_gateway_info"]["external_fixed_ips"][0]["ip_address"]
            .as_str()
            .unwrap()
            .starts_with("172.24.4.")
    );
    let add = format!("/v2.0/routers/{router}/add_router_interface");
    rig.want(400, &rig.alice, "PUT", &add, json!({"subnet_id": subnet})).await;
    rig.want(400, &rig.alice, "PUT", &add, json!({})).await;
    let other = rig.network(&rig.alice, "m").await;
    let overlapping = rig.subnet(&rig.alice, &other, "10.0.0.0/25").await;
    rig.want(400, &rig.alice, "PUT", &add, json!({"subnet_id": overlapping})).await;
    let port = rig
        .get(&rig.alice, &format!("/v2.0/ports?device_id={router}&device_owner=network:router_interface"))
        .await["ports"][0]
        .clone();
    assert_eq!(port["fixed_ips"][0]["ip_address"], "10.0.0.1");
    assert_eq!(
        rig.refused(409, &rig.alice, "DELETE", &format!("/v2.0/ports/{}", id(&port)), Value::Null).await,
        "ServicePortInUse"
    );
    assert_eq!(
        rig.refused(409, &rig.alice, "DELETE", &format!("/v2.0/routers/{router}"), Value::Null).await,
        "RouterInUse"
    );
    assert_eq!(
        rig.refused(409, &rig.alice, "DELETE", &format!("/v2.0/networks/{network}"), Value::Null).await,
        "NetworkInUse"
    );
    assert_eq!(
        rig.refused(409, &rig.admin, "DELETE", &format!("/v2.0/networks/{external}"), Value::Null).await,
        "NetworkInUse"
    );
    let gateway_change = json!({"subnet": {"gateway_ip": "10.0.0.254"}});
    rig.want(409, &rig.alice, "PUT", &format!("/v2.0/subnets/{subnet}"), gateway_change).await;
    let left = rig
        .want(
            200,
            &rig.alice,
            "PUT",
            &format!("/v2.0/routers/{router}/remove_router_interface"),
            json!({"port_id": port["id"]}),
        )
        .await;
    assert_eq!(left["port_id"], port["id"]);
    rig.want(
        404,
        &rig.alice,
        "PUT",
        &format!("/v2.0/routers/{router}/remove_router_interface"),
        json!({"subnet_id": subnet}),
    )
    .await;
    rig.want(204, &rig.alice, "DELETE", &format!("/v2.0/routers/{router}"), Value::Null).await;
    rig.want(204, &rig.admin, "DELETE", &format!("/v2.0/networks/{external}"), Value::Null).await;
    let leases = rig.svc.store.count::<crate::tables::AddressLease>(pilvi_store::Query::all()).await.unwrap();
    assert_eq!(leases, 0, "no address is left behind");
}

#[tokio::test]
async fn gateways_are_checked() {
    let rig = Rig::new().await;
    let external = rig.external().await;
    let inside = rig.network(&rig.alice, "n").await;
    let make = |gateway: Value| json!({"router": {"external_gateway_info": gateway}});
    let path = "/v2.0/routers";
    rig.want(400, &rig.alice, "POST", path, make(json!({"network_id": inside}))).await;
    rig.want(404, &rig.alice, "POST", path, make(json!({"network_id": pilvi_kit::id::new()}))).await;
    rig.want(403, &rig.alice, "POST", path, make(json!({"network_id": external, "enable_snat": false}))).await;
    rig.want(400, &rig.alice, "POST", path, make(json!({"enable_snat": false}))).await;
    let fixed =
        json!({"network_id": external, "external_fixed_ips": [{"ip_address": "172.24.4.9"}], "enable_snat": false});
    let made = rig.want(201, &rig.admin, "POST", path, make(fixed.clone())).await;
    assert_eq!(made["router"]["external_gateway_info"]["external_fixed_ips"][0]["ip_address"], "172.24.4.9");
    assert_eq!(rig.refused(409, &rig.admin, "POST", path, make(fixed)).await, "IpAddressInUse");
    let cleared = rig.want(200, &rig.admin, "PUT", &format!("{path}/{}", id(&made["router"])), make(json!({}))).await;
    assert_eq!(cleared["router"]["external_gateway_info"], Value::Null);
    rig.want(403, &rig.alice, "POST", path, json!({"router": {"distributed": true}})).await;
}

#[tokio::test]
async fn floating_ips_follow_their_port() {
    let rig = Rig::new().await;
    let (router, network, subnet, external) = topology(&rig).await;
    let port = rig.port(&rig.alice, &network).await;
    let floating =
        rig.make(&rig.alice, "/v2.0/floatingips", "floatingip", json!({"floating_network_id": external})).await;
    assert_eq!(floating["status"], "DOWN");
    let path = format!("/v2.0/floatingips/{}", id(&floating));
    let bound =
        rig.want(200, &rig.alice, "PUT", &path, json!({"floatingip": {"port_id": port["id"]}})).await["floatingip"]
            .clone();
    assert_eq!(bound["router_id"], json!(router));
    assert_eq!(bound["fixed_ip_address"], port["fixed_ips"][0]["ip_address"]);
    assert_eq!(bound["status"], "ACTIVE");
    let second = json!({"floatingip": {"floating_network_id": external, "port_id": port["id"]}});
    assert_eq!(
        rig.refused(409, &rig.alice, "POST", "/v2.0/floatingips", second).await,
        "FloatingIPPortAlreadyAssociated"
    );
    let leave = format!("/v2.0/routers/{router}/remove_router_interface");
    assert_eq!(
        rig.refused(409, &rig.alice, "PUT", &leave, json!({"subnet_id": subnet})).await,
        "RouterInterfaceInUseByFloatingIP"
    );
    let clear = json!({"router": {"external_gateway_info": null}});
    assert_eq!(
        rig.refused(409, &rig.alice, "PUT", &format!("/v2.0/routers/{router}"), clear).await,
        "RouterExternalGatewayInUseByFloatingIp"
    );
    rig.want(204, &rig.alice, "DELETE", &format!("/v2.0/ports/{}", id(&port)), Value::Null).await;
    let free = rig.get(&rig.alice, &path).await["floatingip"].clone();
    assert_eq!(
        (free["port_id"].clone(), free["router_id"].clone(), free["status"].clone()),
        (Value::Null, Value::Null, json!("DOWN"))
    );
    let lonely = rig.network(&rig.alice, "lonely").await;
    rig.subnet(&rig.alice, &lonely, "10.7.0.0/24").await;
    let cut_off = rig.port(&rig.alice, &lonely).await;
    let reach = json!({"floatingip": {"port_id": cut_off["id"]}});
    assert_eq!(rig.refused(404, &rig.alice, "PUT", &path, reach).await, "ExternalGatewayForFloatingIPNotFound");
    rig.want(404, &rig.bob, "GET", &path, Value::Null).await;
    rig.want(400, &rig.alice, "POST", "/v2.0/floatingips", json!({"floatingip": {"floating_network_id": network}}))
        .await;
    rig.want(
        403,
        &rig.alice,
        "POST",
        "/v2.0/floatingips",
        json!({"floatingip": {"floating_network_id": external, "floating_ip_address": "172.24.4.77"}}),
    )
    .await;
    rig.want(204, &rig.alice, "DELETE", &path, Value::Null).await;
}

#[tokio::test]
async fn static_routes_need_a_neighbour() {
    let rig = Rig::new().await;
    let (router, ..) = topology(&rig).await;
    let path = format!("/v2.0/routers/{router}");
    let route = |hop: &str| json!({"router": {"routes": [{"destination": "10.99.0.0/16", "nexthop": hop}]}});
    let set = rig.want(200, &rig.alice, "PUT", &path, route("10.0.0.9")).await;
    assert_eq!(set["router"]["routes"][0]["nexthop"], "10.0.0.9");
    assert_eq!(rig.refused(400, &rig.alice, "PUT", &path, route("192.168.0.1")).await, "InvalidRoutes");
    let gone = rig.want(200, &rig.alice, "PUT", &format!("{path}/remove_extraroutes"), route("10.0.0.9")).await;
    assert_eq!(gone["router"]["routes"], json!([]));
    rig.want(200, &rig.alice, "PUT", &format!("{path}/add_extraroutes"), route("10.0.0.9")).await;
    let again = rig.want(200, &rig.alice, "PUT", &format!("{path}/add_extraroutes"), route("10.0.0.9")).await;
    assert_eq!(again["router"]["routes"].as_array().unwrap().len(), 1);
}
