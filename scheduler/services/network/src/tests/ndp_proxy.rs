//! NDP proxies: when a router may answer for others, what is refused, what hosts are told.
use super::{Rig, id};
use crate::host::HostInfo;
use serde_json::{Value, json};

const PROXIES: &str = "/v2.0/ndp_proxies";

/// A pool in an address scope of its own.
async fn pool(rig: &Rig, prefix: &str) -> String {
    let scope = json!({"name": "s", "ip_version": 6, "shared": true});
    let scope = id(&rig.make(&rig.admin, "/v2.0/address-scopes", "address_scope", scope).await);
    let pool =
        json!({"name": "p", "prefixes": [prefix], "default_prefixlen": 64, "address_scope_id": scope, "shared": true});
    id(&rig.make(&rig.admin, "/v2.0/subnetpools", "subnetpool", pool).await)
}

async fn subnet(rig: &Rig, who: &pilvi_kit::Caller, network: &str, pool: &str) -> String {
    let attrs = json!({"network_id": network, "ip_version": 6, "subnetpool_id": pool});
    id(&rig.make(who, "/v2.0/subnets", "subnet", attrs).await)
}

#[tokio::test]
async fn a_router_answers_for_addresses_that_have_a_proxy() {
    let rig = Rig::new().await;
    let external = rig.external().await;
    let out = json!({"external_gateway_info": {"network_id": external}});
    let proxying = json!({"external_gateway_info": {"network_id": external}, "enable_ndp_proxy": true});
    let routers = "/v2.0/routers";
    let body = |attrs: Value| json!({ "router": attrs });
    let no = rig.refused(409, &rig.alice, "POST", routers, body(proxying)).await;
    assert_eq!(no, "RouterGatewayNotValid", "no IPv6 outside");
    let blocks = pool(&rig, "2001:db8::/48").await;
    subnet(&rig, &rig.admin, &external, &blocks).await;
    let no = rig.refused(409, &rig.alice, "POST", routers, body(json!({"enable_ndp_proxy": true}))).await;
    assert_eq!(no, "RouterGatewayNotValid", "no way out");
    let router = rig.make(&rig.alice, routers, "router", out).await;
    assert_eq!(router["enable_ndp_proxy"], json!(false));
    let path = format!("{routers}/{}", id(&router));
    let network = rig.network(&rig.alice, "n").await;
    let inside = subnet(&rig, &rig.alice, &network, &blocks).await;
    let port = rig
        .make(
            &rig.admin,
            "/v2.0/ports",
            "port",
            json!({"network_id": network, "project_id": "alice",
        "binding:host_id": "h1", "device_owner": "compute:nova"}),
        )
        .await;
    let proxy = |attrs: Value| {
        let mut all = json!({"router_id": router["id"], "port_id": port["id"]});
        all.as_object_mut().unwrap().extend(attrs.as_object().unwrap().clone());
        json!({ "ndp_proxy": all })
    };
    let refused = |attrs: Value| rig.refused(409, &rig.alice, "POST", PROXIES, proxy(attrs));
    assert_eq!(refused(json!({})).await, "PortUnreachableRouter");
    rig.want(200, &rig.alice, "PUT", &format!("{path}/add_router_interface"), json!({"subnet_id": inside})).await;
    assert_eq!(refused(json!({})).await, "RouterNDPProxyNotEnable");
    let on = rig.want(200, &rig.alice, "PUT", &path, body(json!({"enable_ndp_proxy": true}))).await;
    assert_eq!(on["router"]["enable_ndp_proxy"], json!(true));
    let elsewhere = proxy(json!({"ip_address": "2001:db8:ffff::1"}));
    assert_eq!(rig.refused(400, &rig.alice, "POST", PROXIES, elsewhere).await, "InvalidAddress");
    rig.want(404, &rig.bob, "POST", PROXIES, proxy(json!({}))).await;
    let made = rig.want(201, &rig.alice, "POST", PROXIES, proxy(json!({"name": "p"}))).await["ndp_proxy"].clone();
    assert_eq!(made["ip_address"], port["fixed_ips"][0]["ip_address"]);
    assert_eq!(refused(json!({})).await, "NDPProxyExists");
    let one = format!("{PROXIES}/{}", id(&made));
    assert_eq!(rig.refused(404, &rig.bob, "GET", &one, Value::Null).await, "NDPProxyNotFound");
    rig.want(200, &rig.alice, "PUT", &one, json!({"ndp_proxy": {"description": "d"}})).await;

    // What it stands on stays; another address scope does not go together.
    let leave = json!({"subnet_id": inside});
    let no = rig.refused(409, &rig.alice, "PUT", &format!("{path}/remove_router_interface"), leave).await;
    assert_eq!(no, "RouterInterfaceInUseByNDPProxy");
    let close = body(json!({"external_gateway_info": {}}));
    let no = rig.refused(409, &rig.alice, "PUT", &path, close.clone()).await;
    assert_eq!(no, "RouterGatewayInUseByNDPProxy");
    let other = rig.network(&rig.alice, "m").await;
    let strange = pool(&rig, "2001:db8:1::/48").await;
    let strange = subnet(&rig, &rig.alice, &other, &strange).await;
    rig.want(200, &rig.alice, "PUT", &format!("{path}/add_router_interface"), json!({"subnet_id": strange})).await;
    let apart = rig.port(&rig.alice, &other).await;
    assert_eq!(refused(json!({"port_id": apart["id"]})).await, "AddressScopeConflict");

    let hosts = [HostInfo { name: "h1".into(), up: true, ..HostInfo::default() }];
    let told = rig.svc.host_network("h1", &hosts).await.unwrap();
    let told = told.routers.iter().find(|r| r.id == id(&router)).unwrap();
    let way = told.gateway6.as_ref().unwrap();
    assert_eq!((way.proxies_only, json!(way.proxied)), (true, json!([made["ip_address"]])));
    // With its port it goes.
    rig.want(204, &rig.admin, "DELETE", &format!("/v2.0/ports/{}", id(&port)), Value::Null).await;
    assert_eq!(rig.get(&rig.alice, PROXIES).await["ndp_proxies"], json!([]));
    let both = body(json!({"external_gateway_info": {}, "enable_ndp_proxy": true}));
    assert_eq!(rig.refused(409, &rig.alice, "PUT", &path, both).await, "RouterGatewayNotValid");
    let closed = rig.want(200, &rig.alice, "PUT", &path, close).await;
    assert_eq!(closed["router"]["enable_ndp_proxy"], json!(false), "without a way out there is nobody to answer");
}
