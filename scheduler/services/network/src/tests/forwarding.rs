//! Port forwarding: what is refused, what floating IPs show, what hosts are told, what goes with what.
use super::{Rig, id, outside::topology};
use crate::host::HostInfo;
use serde_json::{Value, json};

struct Scene {
    rig: Rig,
    router: String,
    subnet: String,
    network: String,
    external: String,
    floating: String,
    port: Value,
}

impl Scene {
    async fn new() -> Self {
        let rig = Rig::new().await;
        let (router, network, subnet, external) = topology(&rig).await;
        let floating = json!({"floating_network_id": external});
        let floating = id(&rig.make(&rig.alice, "/v2.0/floatingips", "floatingip", floating).await);
        let port = rig.port(&rig.alice, &network).await;
        Scene { rig, router, subnet, network, external, floating, port }
    }
    fn path(&self) -> String {
        format!("/v2.0/floatingips/{}/port_forwardings", self.floating)
    }
    fn body(&self, more: Value) -> Value {
        let mut body = json!({"internal_port_id": id(&self.port), "internal_ip_address": self.port["fixed_ips"][0]["ip_address"],
            "protocol": "tcp", "external_port": 2222, "internal_port": 22});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"port_forwarding": body})
    }
    async fn make(&self, more: Value) -> Value {
        self.rig.want(201, &self.rig.alice, "POST", &self.path(), self.body(more)).await["port_forwarding"].clone()
    }
    async fn floating(&self) -> Value {
        let path = format!("/v2.0/floatingips/{}", self.floating);
        self.rig.get(&self.rig.alice, &path).await["floatingip"].clone()
    }
}

#[tokio::test]
async fn forwardings_stand_below_their_floating_ip_and_do_not_collide() {
    let s = Scene::new().await;
    let made = s.make(json!({"description": "ssh"})).await;
    assert_eq!((&made["external_port"], &made["external_port_range"]), (&json!(2222), &json!("2222:2222")));
    assert!(made.get("project_id").is_none() && made["description"] == "ssh");
    let range = json!({"external_port": null, "internal_port": null, "external_port_range": "9000:9010", "internal_port_range": "7000:7010"});
    let range = s.make(range).await;
    assert_eq!((&range["external_port"], &range["internal_port_range"]), (&Value::Null, &json!("7000:7010")));
    for (status, more) in [
        (400, json!({"internal_port": 23})),
        (400, json!({"external_port": 2223})),
        (400, json!({"external_port": 9005, "internal_port": 1})),
        (400, json!({"external_port": 2300, "internal_port": null, "internal_port_range": "1:2"})),
        (400, json!({"external_port": 70_000})),
        (400, json!({"external_port": null})),
        (400, json!({"protocol": "icmp"})),
        (400, json!({"internal_ip_address": "10.0.0.250", "external_port": 1, "internal_port": 1})),
        (404, json!({"internal_port_id": "7d6b1dcb-7a3e-4a38-9a0a-3a3a3a3a3a3a"})),
    ] {
        s.rig.want(status, &s.rig.alice, "POST", &s.path(), s.body(more)).await;
    }
    s.make(json!({"protocol": "udp"})).await;
    let shown = s.floating().await;
    assert_eq!((shown["port_forwardings"].as_array().unwrap().len(), &shown["status"]), (3, &json!("ACTIVE")));
    assert_eq!((&shown["router_id"], &shown["port_id"]), (&json!(s.router), &Value::Null));
    let listed = s.rig.get(&s.rig.alice, &format!("{}?protocol=udp", s.path())).await;
    assert_eq!(listed["port_forwardings"].as_array().unwrap().len(), 1);
    let one = format!("{}/{}", s.path(), id(&made));
    let moved = s.rig.want(200, &s.rig.alice, "PUT", &one, json!({"port_forwarding": {"external_port": 2200}})).await;
    assert_eq!(moved["port_forwarding"]["external_port"], 2200);
    s.rig.want(400, &s.rig.alice, "PUT", &one, json!({"port_forwarding": {"external_port": 9001}})).await;
    // Others, and other parents, know nothing of it.
    assert_eq!(s.rig.refused(404, &s.rig.bob, "GET", &one, Value::Null).await, "FloatingIPNotFound");
    let floating = json!({"floating_network_id": s.external});
    let other = id(&s.rig.make(&s.rig.alice, "/v2.0/floatingips", "floatingip", floating).await);
    let elsewhere = format!("/v2.0/floatingips/{other}/port_forwardings");
    let missing = s.rig.refused(404, &s.rig.alice, "GET", &format!("{elsewhere}/{}", id(&made)), Value::Null).await;
    assert_eq!(missing, "PortForwardingNotFound");
    assert_eq!(s.rig.get(&s.rig.alice, &elsewhere).await["port_forwardings"], json!([]));
    s.rig.want(403, &s.rig.reader, "POST", &s.path(), s.body(json!({"external_port": 5, "internal_port": 5}))).await;
}

#[tokio::test]
async fn what_forwards_is_not_bound_and_goes_in_order() {
    let s = Scene::new().await;
    let made = s.make(json!({})).await;
    let alice = &s.rig.alice;
    let fip = format!("/v2.0/floatingips/{}", s.floating);
    let bind = json!({"floatingip": {"port_id": id(&s.port)}});
    assert_eq!(s.rig.refused(409, alice, "PUT", &fip, bind.clone()).await, "FipInUseByPortForwarding");
    assert_eq!(s.rig.refused(409, alice, "DELETE", &fip, Value::Null).await, "FipInUseByPortForwarding");
    s.rig.want(200, alice, "PUT", &fip, json!({"floatingip": {"port_id": null}})).await;
    assert_eq!(s.floating().await["router_id"], json!(s.router), "letting go of nothing changes nothing");
    let more = json!({"floating_network_id": s.external});
    let other = id(&s.rig.make(alice, "/v2.0/floatingips", "floatingip", more).await);
    let other = format!("/v2.0/floatingips/{other}");
    assert_eq!(s.rig.refused(400, alice, "PUT", &other, bind.clone()).await, "PortHasPortForwarding");
    let leave = format!("/v2.0/routers/{}/remove_router_interface", s.router);
    let kind = s.rig.refused(409, alice, "PUT", &leave, json!({"subnet_id": s.subnet})).await;
    assert_eq!(kind, "RouterInterfaceInUseByFloatingIP");
    let gateway = json!({"router": {"external_gateway_info": null}});
    s.rig.want(409, alice, "PUT", &format!("/v2.0/routers/{}", s.router), gateway).await;
    s.rig.want(204, alice, "DELETE", &format!("{}/{}", s.path(), id(&made)), Value::Null).await;
    assert_eq!(s.floating().await["status"], "DOWN");
    s.rig.want(200, alice, "PUT", &other, bind).await;
    let body = s.body(json!({}));
    assert_eq!(s.rig.refused(409, alice, "POST", &s.path(), body).await, "PortHasBindingFloatingIP");
    s.rig.want(204, alice, "DELETE", &other, Value::Null).await;
    s.make(json!({})).await;
    s.rig.want(204, alice, "DELETE", &format!("/v2.0/ports/{}", id(&s.port)), Value::Null).await;
    let left = s.floating().await;
    assert_eq!((&left["port_forwardings"], &left["router_id"]), (&json!([]), &Value::Null), "they go with their port");
    s.rig.want(204, alice, "DELETE", &fip, Value::Null).await;
}

#[tokio::test]
async fn hosts_of_the_router_are_told() {
    let s = Scene::new().await;
    s.make(json!({"external_port": null, "external_port_range": "80:89", "internal_port": 8080})).await;
    let bound = json!({"port": {"binding:host_id": "h1"}});
    s.rig.want(200, &s.rig.admin, "PUT", &format!("/v2.0/ports/{}", id(&s.port)), bound).await;
    let host =
        |n: usize| HostInfo { name: format!("h{n}"), vtep: format!("10.255.0.{n}"), up: true, ..HostInfo::default() };
    let told = s.rig.svc.host_network("h1", &[host(1)]).await.unwrap();
    let [one] = &told.forwards[..] else { panic!("{told:?}") };
    assert_eq!((one.protocol, one.external_first, one.external_last, one.internal_first), (6, 80, 89, 8080));
    assert!(one.to_one && one.router_id == s.router && !one.mac.is_empty());
    assert_eq!(json!(one.fixed_address), s.port["fixed_ips"][0]["ip_address"]);
    assert!(told.networks.iter().any(|n| n.id == s.network));
}
