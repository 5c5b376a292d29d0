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

#[tokio::test]
async fn a_floating_ip_may_be_of_a_network_that_the_router_has_a_leg_in() {
    let rig = Rig::new().await;
    let hosts = super::host::hosts(2);
    let inner = rig.network(&rig.alice, "inner").await;
    let inside = rig.subnet(&rig.alice, &inner, "10.0.0.0/24").await;
    let attrs = json!({"name": "outer", "router:external": true, "shared": true});
    let outer = id(&rig.make(&rig.admin, "/v2.0/networks", "network", attrs).await);
    let outside = rig.subnet(&rig.admin, &outer, "192.0.2.0/24").await;
    let router = id(&rig.make(&rig.alice, "/v2.0/routers", "router", json!({})).await);
    let path = format!("/v2.0/routers/{router}");
    let join = |subnet: &str| json!({ "subnet_id": subnet });
    rig.want(200, &rig.alice, "PUT", &format!("{path}/add_router_interface"), join(&inside)).await;
    let port = id(&rig.port(&rig.alice, &inner).await);
    let floating = rig.make(&rig.alice, "/v2.0/floatingips", "floatingip", json!({"floating_network_id": outer})).await;
    let at = format!("/v2.0/floatingips/{}", id(&floating));
    let lead = json!({"floatingip": {"port_id": port}});
    let none = rig.refused(404, &rig.alice, "PUT", &at, lead.clone()).await;
    assert_eq!(none, "ExternalGatewayForFloatingIPNotFound");
    rig.want(200, &rig.admin, "PUT", &format!("{path}/add_router_interface"), join(&outside)).await;
    let led = rig.want(200, &rig.alice, "PUT", &at, lead).await["floatingip"].clone();
    assert_eq!((&led["router_id"], &led["status"]), (&json!(router), &json!("ACTIVE")));
    // Both legs are needed.
    for (subnet, kind) in
        [(&outside, "RouterInterfaceInUseAsGatewayByFloatingIP"), (&inside, "RouterInterfaceInUseByFloatingIP")]
    {
        let leave = format!("{path}/remove_router_interface");
        assert_eq!(rig.refused(409, &rig.admin, "PUT", &leave, join(subnet)).await, kind);
    }
    // Whoever has a guest on either side translates, though the guest inside is elsewhere.
    let bind = |network: &str, host: &str| json!({"port": {"network_id": network, "binding:host_id": host}});
    rig.want(201, &rig.admin, "POST", "/v2.0/ports", bind(&outer, "h1")).await;
    let view = super::host::view(&rig, "h1", &hosts).await;
    assert_eq!((view.floating.len(), view.by_leg.len()), (0, 1));
    assert_eq!(view.by_leg[0].network_id, outer);
    rig.want(200, &rig.alice, "PUT", &at, json!({"floatingip": {"port_id": null}})).await;
    assert!(super::host::view(&rig, "h1", &hosts).await.by_leg.is_empty());
    // Single ports of it cannot be forwarded: that is done at gateways.
    let forward = json!({"port_forwarding": {"internal_port_id": port, "internal_ip_address": led["fixed_ip_address"],
        "protocol": "tcp", "external_port": 80, "internal_port": 80}});
    let refused = rig.app.call("POST", &format!("{at}/port_forwardings"), Some(&rig.alice), Some(forward)).await;
    assert!((400..500).contains(&refused.status), "{}", refused.body);
}

#[tokio::test]
async fn a_floating_ip_may_lead_by_a_router_that_is_named() {
    let rig = Rig::new().await;
    let external = rig.external().await;
    let (inner, transit) = (rig.network(&rig.alice, "inner").await, rig.network(&rig.alice, "transit").await);
    let inside = rig.subnet(&rig.alice, &inner, "10.0.0.0/24").await;
    let between = rig.subnet(&rig.alice, &transit, "10.0.1.0/24").await;
    let router = |more: Value| rig.make(&rig.alice, "/v2.0/routers", "router", more);
    let near = id(&router(json!({})).await);
    let far = id(&router(json!({"external_gateway_info": {"network_id": external}})).await);
    let join = |router: &str| format!("/v2.0/routers/{router}/add_router_interface");
    rig.want(200, &rig.alice, "PUT", &join(&near), json!({"subnet_id": inside})).await;
    let leg = json!({"network_id": transit, "fixed_ips": [{"ip_address": "10.0.1.2"}]});
    let leg = id(&rig.make(&rig.alice, "/v2.0/ports", "port", leg).await);
    rig.want(200, &rig.alice, "PUT", &join(&near), json!({"port_id": leg})).await;
    rig.want(200, &rig.alice, "PUT", &join(&far), json!({"subnet_id": between})).await;
    let routes = json!({"router": {"routes": [{"destination": "0.0.0.0/0", "nexthop": "10.0.1.1"}]}});
    rig.want(200, &rig.alice, "PUT", &format!("/v2.0/routers/{near}"), routes).await;
    let port =
        json!({"network_id": inner, "device_owner": "compute:nova", "binding:host_id": "h1", "project_id": "alice"});
    let port = id(&rig.make(&rig.admin, "/v2.0/ports", "port", port).await);
    let want =
        |router: &str| json!({"floatingip": {"floating_network_id": external, "port_id": port, "router_id": router}});
    let none = json!({"floatingip": {"floating_network_id": external, "port_id": port}});
    assert_eq!(
        rig.refused(404, &rig.alice, "POST", "/v2.0/floatingips", none).await,
        "ExternalGatewayForFloatingIPNotFound"
    );
    rig.refused(409, &rig.alice, "POST", "/v2.0/floatingips", want(&near)).await;
    let foreign = id(&rig.make(&rig.bob, "/v2.0/routers", "router", json!({})).await);
    assert_eq!(rig.refused(404, &rig.alice, "POST", "/v2.0/floatingips", want(&foreign)).await, "RouterNotFound");
    let made = rig.want(201, &rig.alice, "POST", "/v2.0/floatingips", want(&far)).await["floatingip"].clone();
    assert_eq!(made["router_id"], far);
    // The guest's host knows both routers, and the address.
    let view = super::host::view(&rig, "h1", &super::host::hosts(1)).await;
    assert_eq!((view.routers.len(), view.floating.len(), view.floating[0].router_id.as_str()), (2, 1, far.as_str()));
    let clear = json!({"router": {"external_gateway_info": null}});
    rig.refused(409, &rig.alice, "PUT", &format!("/v2.0/routers/{far}"), clear).await;
    let path = format!("/v2.0/floatingips/{}", id(&made));
    let let_go = rig.want(200, &rig.alice, "PUT", &path, json!({"floatingip": {"port_id": null}})).await;
    assert_eq!(let_go["floatingip"]["router_id"], Value::Null);
}

/// What is said of a router's ports follows from the router: clients see there what kind it is, and whether it is up.
#[tokio::test]
async fn ports_of_a_router_show_what_it_is() {
    let rig = Rig::new().await;
    let public = rig.external().await;
    rig.subnet(&rig.admin, &public, "203.0.113.0/24").await;
    let inner = rig.network(&rig.admin, "n").await;
    let subnet = rig.subnet(&rig.admin, &inner, "10.0.0.0/24").await;
    let attrs = json!({"external_gateway_info": {"network_id": public}});
    let router = id(&rig.make(&rig.admin, "/v2.0/routers", "router", attrs).await);
    let path = format!("/v2.0/routers/{router}");
    rig.want(200, &rig.admin, "PUT", &format!("{path}/add_router_interface"), json!({"subnet_id": subnet})).await;
    let ports = async |filter: &str| {
        let found = rig.get(&rig.admin, &format!("/v2.0/ports?device_id={router}{filter}")).await;
        found["ports"].as_array().cloned().unwrap_or_default()
    };
    let shown = async || {
        let port = ports("&device_owner=network:router_interface").await;
        let spread = ports("&device_owner=network:router_interface_distributed&status=ACTIVE").await;
        (port.len(), spread.len(), ports("&status=ACTIVE").await.len(), ports("&status=DOWN").await.len())
    };
    assert_eq!(shown().await, (1, 0, 2, 0));
    assert!(ports("").await.iter().all(|p| p["binding:vif_type"] == "distributed"));
    rig.want(200, &rig.admin, "PUT", &path, json!({"router": {"admin_state_up": false}})).await;
    assert_eq!(shown().await, (1, 0, 0, 2));
    rig.want(200, &rig.admin, "PUT", &path, json!({"router": {"distributed": true}})).await;
    rig.want(200, &rig.admin, "PUT", &path, json!({"router": {"admin_state_up": true}})).await;
    assert_eq!(shown().await, (0, 1, 2, 0));
    // What is shown may be sent back, and the leg stays one.
    let leg = ports("&device_owner=network:router_interface_distributed").await.remove(0);
    let same = json!({"port": {"device_owner": leg["device_owner"], "name": "leg"}});
    rig.want(200, &rig.admin, "PUT", &format!("/v2.0/ports/{}", id(&leg)), same).await;
    assert_eq!(shown().await, (0, 1, 2, 0));
    rig.want(200, &rig.admin, "PUT", &format!("{path}/remove_router_interface"), json!({"subnet_id": subnet})).await;
    assert_eq!(ports("").await.len(), 1);
}
