//! Routers with several ways out: how they come, change and go, and what hosts are told of them.
use super::{Rig, id};
use crate::host::HostInfo;
use serde_json::{Value, json};

struct Lab {
    rig: Rig,
    external: String,
    router: String,
}

impl Lab {
    async fn new() -> Self {
        let rig = Rig::new().await;
        let external = rig.external().await;
        let router = id(&rig.make(&rig.alice, "/v2.0/routers", "router", json!({})).await);
        Lab { rig, external, router }
    }

    fn path(&self, verb: &str) -> String {
        format!("/v2.0/routers/{}/{verb}_external_gateways", self.router)
    }

    fn body(&self, gateways: Value) -> Value {
        json!({"router": {"external_gateways": gateways}})
    }

    fn plain(&self) -> Value {
        json!({"network_id": self.external})
    }

    fn at(&self, address: &str) -> Value {
        json!({"network_id": self.external, "external_fixed_ips": [{"ip_address": address}]})
    }

    async fn change(&self, verb: &str, gateways: Value) -> Value {
        let rig = &self.rig;
        rig.want(200, &rig.admin, "PUT", &self.path(verb), self.body(gateways)).await["router"].clone()
    }

    /// The addresses of all ways out, and of the first.
    async fn addresses(&self) -> (Vec<String>, Option<String>) {
        let router = self.rig.get(&self.rig.alice, &format!("/v2.0/routers/{}", self.router)).await["router"].clone();
        let address = |g: &Value| g["external_fixed_ips"][0]["ip_address"].as_str().map(str::to_owned);
        let all = router["external_gateways"].as_array().unwrap().iter().filter_map(address).collect();
        (all, address(&router["external_gateway_info"]))
    }
}

#[tokio::test]
async fn ways_out_come_and_go() {
    let lab = Lab::new().await;
    let rig = &lab.rig;
    assert_eq!(lab.addresses().await, (vec![], None));
    let three = json!([lab.at("172.24.4.11"), lab.at("172.24.4.12"), lab.plain()]);
    let router = lab.change("add", three).await;
    assert_eq!(router["external_gateways"].as_array().unwrap().len(), 3);
    assert_eq!(
        router["external_gateway_info"]["external_fixed_ips"],
        router["external_gateways"][0]["external_fixed_ips"]
    );
    assert_eq!(router["enable_default_route_ecmp"], json!(false));
    let third = router["external_gateways"][2].clone();
    // Several on one network must be told apart; the owner may take one away by what he was shown.
    let no = rig.refused(400, &rig.alice, "PUT", &lab.path("remove"), lab.body(json!([lab.plain()]))).await;
    assert_eq!(no, "UnableToMatchGateways");
    rig.want(200, &rig.alice, "PUT", &lab.path("remove"), lab.body(json!([third]))).await;
    let (all, first) = lab.addresses().await;
    assert_eq!(
        (all.as_slice(), first.as_deref()),
        (&["172.24.4.11".into(), "172.24.4.12".into()][..], Some("172.24.4.11"))
    );
    // When the first goes, the next is the first; alone, it needs no address to be named.
    lab.change("remove", json!([lab.at("172.24.4.11")])).await;
    assert_eq!(lab.addresses().await, (vec!["172.24.4.12".into()], Some("172.24.4.12".into())));
    lab.change("remove", json!([lab.plain()])).await;
    assert_eq!(lab.addresses().await, (vec![], None));
    let no = rig.refused(400, &rig.admin, "PUT", &lab.path("remove"), lab.body(json!([lab.plain()]))).await;
    assert_eq!(no, "UnableToRemoveGateways");
    let nine: Vec<Value> = (0..9).map(|_| lab.plain()).collect();
    let no = rig.refused(400, &rig.admin, "PUT", &lab.path("add"), lab.body(json!(nine))).await;
    assert_eq!(no, "UnableToAddExtraGateways");
    // The client says "none" by an empty object as well.
    rig.want(200, &rig.alice, "PUT", &lab.path("remove"), lab.body(json!({}))).await;
    rig.want(400, &rig.alice, "PUT", &lab.path("remove"), lab.body(json!({"a": 1}))).await;
    // Nothing of a refused request stays.
    assert_eq!(lab.addresses().await, (vec![], None));
    let ports = rig.get(&rig.admin, &format!("/v2.0/ports?device_id={}", lab.router)).await;
    assert_eq!(ports["ports"], json!([]));
}

#[tokio::test]
async fn the_list_can_be_said_anew() {
    let lab = Lab::new().await;
    let rig = &lab.rig;
    lab.change("add", json!([lab.at("172.24.4.11"), lab.at("172.24.4.12"), lab.at("172.24.4.13")])).await;
    // Another first, one that goes, one that is new.
    lab.change("update", json!([lab.at("172.24.4.13"), lab.at("172.24.4.11"), lab.at("172.24.4.14")])).await;
    let (mut all, first) = lab.addresses().await;
    all.sort();
    assert_eq!(all, ["172.24.4.11", "172.24.4.13", "172.24.4.14"]);
    assert_eq!(first.as_deref(), Some("172.24.4.13"));
    // The older way to say it changes the first alone.
    let path = format!("/v2.0/routers/{}", lab.router);
    let first = json!({"router": {"external_gateway_info": lab.at("172.24.4.20")}});
    rig.want(200, &rig.admin, "PUT", &path, first).await;
    let (all, first) = lab.addresses().await;
    assert_eq!((all.len(), first.as_deref()), (3, Some("172.24.4.20")));
    rig.want(200, &rig.alice, "PUT", &path, json!({"router": {"external_gateway_info": {}}})).await;
    let (all, first) = lab.addresses().await;
    assert_eq!((all.len(), first.is_some()), (2, true), "the next took its place");
    lab.change("update", json!([])).await;
    assert_eq!(lab.addresses().await, (vec![], None));
    lab.change("add", json!([lab.plain(), lab.plain()])).await;
    rig.want(204, &rig.alice, "DELETE", &path, Value::Null).await;
    let ports = rig.get(&rig.admin, &format!("/v2.0/ports?network_id={}", lab.external)).await;
    assert_eq!(ports["ports"], json!([]), "all of them went with the router");
}

#[tokio::test]
async fn rules_and_floating_ips_hold_ways_out() {
    let lab = Lab::new().await;
    let rig = &lab.rig;
    rig.refused(403, &rig.alice, "PUT", &lab.path("add"), lab.body(json!([lab.at("172.24.4.11")]))).await;
    let snat = json!([{"network_id": lab.external, "enable_snat": false}]);
    rig.refused(403, &rig.alice, "PUT", &lab.path("add"), lab.body(snat)).await;
    rig.refused(404, &rig.bob, "PUT", &lab.path("add"), lab.body(json!([lab.plain()]))).await;
    rig.want(200, &rig.alice, "PUT", &lab.path("add"), lab.body(json!([lab.plain()]))).await;
    rig.refused(400, &rig.alice, "PUT", &lab.path("add"), lab.body(json!([{}]))).await;
    let second = json!({"name": "two", "router:external": true, "provider:network_type": "flat", "provider:physical_network": "two"});
    let second = id(&rig.make(&rig.admin, "/v2.0/networks", "network", second).await);
    rig.subnet(&rig.admin, &second, "198.51.100.0/24").await;
    let inside = rig.network(&rig.alice, "n").await;
    let subnet = rig.subnet(&rig.alice, &inside, "10.0.0.0/24").await;
    let join = format!("/v2.0/routers/{}/add_router_interface", lab.router);
    rig.want(200, &rig.alice, "PUT", &join, json!({"subnet_id": subnet})).await;
    let port = rig.port(&rig.alice, &inside).await;
    let floating = json!({"floating_network_id": second, "port_id": port["id"]});
    let no = rig.refused(404, &rig.alice, "POST", "/v2.0/floatingips", json!({ "floatingip": floating })).await;
    assert_eq!(no, "ExternalGatewayForFloatingIPNotFound");
    rig.want(200, &rig.alice, "PUT", &lab.path("add"), lab.body(json!([{"network_id": second}]))).await;
    rig.make(&rig.alice, "/v2.0/floatingips", "floatingip", floating).await;
    let away = lab.body(json!([{"network_id": second}]));
    let no = rig.refused(409, &rig.alice, "PUT", &lab.path("remove"), away).await;
    assert_eq!(no, "RouterExternalGatewayInUseByFloatingIp");
    let private = json!({"network": {"router:external": false}});
    let no = rig.refused(409, &rig.admin, "PUT", &format!("/v2.0/networks/{second}"), private).await;
    assert_eq!(no, "ExternalNetworkInUse");
    // The first is free to go: its network has no floating IP.
    rig.want(200, &rig.alice, "PUT", &lab.path("remove"), lab.body(json!([lab.plain()]))).await;
}

#[tokio::test]
async fn hosts_are_told_of_all_ways_out() {
    let lab = Lab::new().await;
    let rig = &lab.rig;
    let host = HostInfo { name: "h1".into(), up: true, ..HostInfo::default() };
    rig.svc.remember(std::slice::from_ref(&host));
    let inside = rig.network(&rig.alice, "n").await;
    let subnet = rig.subnet(&rig.alice, &inside, "10.0.0.0/24").await;
    let join = format!("/v2.0/routers/{}/add_router_interface", lab.router);
    rig.want(200, &rig.alice, "PUT", &join, json!({"subnet_id": subnet})).await;
    let attrs =
        json!({"network_id": inside, "project_id": "alice", "binding:host_id": "h1", "device_owner": "compute:nova"});
    rig.make(&rig.admin, "/v2.0/ports", "port", attrs).await;
    lab.change("add", json!([lab.at("172.24.4.11"), lab.at("172.24.4.12")])).await;
    let path = format!("/v2.0/routers/{}", lab.router);
    let spread = json!({"router": {"enable_default_route_ecmp": true}});
    rig.refused(403, &rig.alice, "PUT", &path, spread.clone()).await;
    let told = || async { rig.svc.host_network("h1", std::slice::from_ref(&host)).await.unwrap().routers.remove(0) };
    assert!(!told().await.balanced);
    rig.want(200, &rig.admin, "PUT", &path, spread).await;
    let router = told().await;
    assert!(router.balanced);
    assert_eq!(router.gateway.as_ref().map(|g| g.address.as_str()), Some("172.24.4.11"));
    let further: Vec<&str> = router.further.iter().map(|g| g.address.as_str()).collect();
    assert_eq!(further, ["172.24.4.12"]);
    assert_eq!(router.further[0].next_hop, "172.24.4.1");
    rig.want(200, &rig.admin, "PUT", &path, json!({"router": {"enable_default_route_ecmp": null}})).await;
    assert!(told().await.balanced, "nothing said, nothing changed");
}

#[tokio::test]
async fn next_hops_are_watched_where_an_operator_says_so() {
    let lab = Lab::new().await;
    let rig = &lab.rig;
    let host = HostInfo { name: "h1".into(), up: true, ..HostInfo::default() };
    rig.svc.remember(std::slice::from_ref(&host));
    let told = || async { rig.svc.host_network("h1", std::slice::from_ref(&host)).await.unwrap().routers };
    let path = format!("/v2.0/routers/{}", lab.router);
    let said = || async { rig.get(&rig.alice, &path).await["router"]["enable_default_route_bfd"].clone() };
    assert_eq!(said().await, json!(false));
    let watch = |is: Value| json!({"router": {"enable_default_route_bfd": is}});
    rig.refused(403, &rig.alice, "PUT", &path, watch(json!(true))).await;
    rig.refused(403, &rig.alice, "POST", "/v2.0/routers", watch(json!(false))).await;
    rig.refused(400, &rig.admin, "PUT", &path, watch(json!("perhaps"))).await;
    lab.change("add", json!([lab.at("172.24.4.11"), lab.at("172.24.4.12")])).await;
    assert!(told().await.is_empty(), "a router that leads nobody out is nothing to the host");
    rig.want(200, &rig.admin, "PUT", &path, watch(json!(true))).await;
    assert_eq!(said().await, json!(true));
    let routers = told().await;
    assert!(
        routers.len() == 1 && routers[0].watched && routers[0].further.len() == 1,
        "it speaks before there are guests"
    );
    rig.want(200, &rig.admin, "PUT", &path, watch(Value::Null)).await;
    assert_eq!(said().await, json!(true), "nothing said, nothing changed");
    rig.want(200, &rig.admin, "PUT", &path, watch(json!("False"))).await;
    assert!(told().await.is_empty());
    let new = rig.make(&rig.admin, "/v2.0/routers", "router", json!({"enable_default_route_bfd": true})).await;
    assert_eq!(new["enable_default_route_bfd"], json!(true));
}
