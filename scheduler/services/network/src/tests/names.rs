//! How ports are called, and who is told.
use super::{
    Rig,
    host::{hosts, server, view},
    id,
};
use pilvi_agent_api::v1::HostNetwork;
use serde_json::{Value, json};

/// `name=address` of one network, in order.
fn told(view: &HostNetwork, network: &str) -> Vec<String> {
    let zone = view.zones.iter().find(|z| z.network_id == network).unwrap();
    let mut names: Vec<String> = zone.names.iter().map(|n| format!("{}={}", n.name, n.addresses.join(","))).collect();
    names.sort();
    names
}

#[tokio::test]
async fn ports_are_called_by_their_names_and_domains() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    rig.subnet(&rig.alice, &network, "10.0.0.0/24").await;
    let attrs = |more: Value| {
        let mut attrs = json!({"network_id": network, "fixed_ips": [{"ip_address": "10.0.0.9"}]});
        attrs.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        attrs
    };
    let fqdn = |port: &Value| port["dns_assignment"][0]["fqdn"].as_str().unwrap_or_default().to_owned();
    let port = rig.make(&rig.alice, "/v2.0/ports", "port", attrs(json!({}))).await;
    assert_eq!(fqdn(&port), "host-10-0-0-9.openstacklocal.");
    assert_eq!((port["dns_name"].as_str(), port["dns_domain"].as_str()), (Some(""), Some("")));
    let path = format!("/v2.0/ports/{}", id(&port));
    let change = |port: Value| rig.want(200, &rig.alice, "PUT", &path, json!({ "port": port }));
    assert_eq!(fqdn(&change(json!({"dns_name": "Web"})).await["port"]), "web.openstacklocal.");
    let set = json!({"network": {"dns_domain": "blue.example."}});
    rig.want(200, &rig.alice, "PUT", &format!("/v2.0/networks/{network}"), set).await;
    assert_eq!(fqdn(&rig.get(&rig.alice, &path).await["port"]), "web.blue.example.");
    let own = change(json!({"dns_domain": "red.example."})).await;
    assert_eq!((fqdn(&own["port"]).as_str(), &own["port"]["dns_domain"]), ("web.red.example.", &json!("red.example.")));
    for wrong in [json!({"dns_domain": "red.example"}), json!({"dns_domain": "-x."}), json!({"dns_name": "a_b"})] {
        rig.refused(400, &rig.alice, "PUT", &path, json!({ "port": wrong })).await;
    }
}

#[tokio::test]
async fn a_host_learns_the_names_of_its_guests_neighbours() {
    let rig = Rig::new().await;
    let all = hosts(2);
    let external = rig.external().await;
    let (near, apart) = (rig.network(&rig.alice, "near").await, rig.network(&rig.bob, "apart").await);
    let subnet = rig.subnet(&rig.alice, &near, "10.1.0.0/24").await;
    rig.subnet(&rig.bob, &apart, "10.1.0.0/24").await;
    server(&rig, &near, "web", "h1").await;
    let db = server(&rig, &near, "db", "h2").await;
    server(&rig, &apart, "secret", "h2").await;
    // A port that is nowhere yet has a name too; a router's has none.
    let idle = json!({"network_id": near, "fixed_ips": [{"ip_address": "10.1.0.77"}], "dns_domain": "red.example."});
    rig.make(&rig.alice, "/v2.0/ports", "port", idle).await;
    let router = json!({"external_gateway_info": {"network_id": external}});
    let router = id(&rig.make(&rig.alice, "/v2.0/routers", "router", router).await);
    let leg = format!("/v2.0/routers/{router}/add_router_interface");
    rig.want(200, &rig.alice, "PUT", &leg, json!({"subnet_id": subnet})).await;
    let floating =
        json!({"floating_network_id": external, "port_id": db, "dns_name": "db", "dns_domain": "example.org."});
    let floating = rig.make(&rig.alice, "/v2.0/floatingips", "floatingip", floating).await;
    let set = json!({"network": {"dns_domain": "blue.example."}});
    rig.want(200, &rig.alice, "PUT", &format!("/v2.0/networks/{near}"), set).await;
    let seen = view(&rig, "h1", &all).await;
    assert_eq!(seen.zones.len(), 1, "only its own networks");
    let zone = &seen.zones[0];
    assert_eq!((zone.domain.as_str(), zone.also.as_str(), zone.closed), ("openstacklocal", "blue.example", true));
    let names = told(&seen, &near);
    let begins = |n: &str| names.iter().filter(|name| name.starts_with(n)).count();
    assert_eq!((begins("web=10.1.0."), begins("db=10.1.0."), begins("secret")), (1, 1, 0), "{names:?}");
    assert_eq!((begins("host-10-1-0-77=10.1.0.77"), begins("host-10-1-0-77.red.example.=10.1.0.77")), (1, 1));
    let address = floating["floating_ip_address"].as_str().unwrap();
    assert_eq!(begins(&format!("db.example.org.={address}")), 1);
    assert_eq!(names.len(), 5, "and no router's: {names:?}");
    let set = json!({"network": {"dns_domain": "<project_id>.example."}});
    rig.want(200, &rig.alice, "PUT", &format!("/v2.0/networks/{near}"), set).await;
    assert_eq!(view(&rig, "h1", &all).await.zones[0].also, "", "no zone has a keyword");
}
