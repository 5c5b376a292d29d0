//! What compute's first microversions have of the image and network services.
use super::Rig;
use pilvi_image::image::{model::Image, ops};
use serde_json::{Value, json};

#[tokio::test]
async fn security_groups_and_their_rules() {
    let rig = Rig::new().await;
    const ALL: &str = "/v2.1/os-security-groups";
    let body = json!({"security_group": {"name": "web", "description": "d"}});
    let made = rig.want(200, &rig.alice, &format!("POST {ALL}"), body).await["security_group"].clone();
    let id = made["id"].as_str().unwrap().to_owned();
    let one = format!("{ALL}/{id}");
    let rule =
        json!({"parent_group_id": id, "ip_protocol": "TCP", "from_port": 22, "to_port": "22", "cidr": "10.0.0.0/8"});
    const RULES: &str = "POST /v2.1/os-security-group-rules";
    let made =
        rig.want(200, &rig.alice, RULES, json!({"security_group_rule": rule})).await["security_group_rule"].clone();
    assert_eq!((&made["from_port"], &made["to_port"], &made["ip_protocol"]), (&json!(22), &json!(22), &json!("tcp")));
    assert_eq!((&made["ip_range"]["cidr"], &made["group"]), (&json!("10.0.0.0/8"), &json!({})));
    rig.want(409, &rig.alice, RULES, json!({"security_group_rule": rule})).await;
    let icmp =
        json!({"parent_group_id": id, "ip_protocol": "icmp", "from_port": -1, "to_port": -1, "cidr": "0.0.0.0/0"});
    let icmp = rig.want(200, &rig.alice, RULES, json!({"security_group_rule": icmp})).await;
    assert_eq!(icmp["security_group_rule"]["from_port"], -1);
    let mut bad = rule.clone();
    bad["from_port"] = json!(65_536);
    rig.want(400, &rig.alice, RULES, json!({"security_group_rule": bad})).await;
    assert_eq!(
        rig.want(200, &rig.alice, &format!("GET {one}"), Value::Null).await["security_group"]["rules"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    // Somebody else's group is none; readers do not write; the default one stays; 2.36 has none of this.
    rig.want(404, &rig.bob, &format!("GET {one}"), Value::Null).await;
    rig.want(
        404,
        &rig.bob,
        &format!("DELETE /v2.1/os-security-group-rules/{}", made["id"].as_str().unwrap()),
        Value::Null,
    )
    .await;
    rig.want(403, &rig.reader, &format!("DELETE {one}"), Value::Null).await;
    rig.want(400, &rig.alice, &format!("GET {ALL}/7"), Value::Null).await;
    let listed = rig.want(200, &rig.alice, &format!("GET {ALL}"), Value::Null).await["security_groups"].clone();
    assert_eq!((&listed[0]["name"], &listed[1]["name"]), (&json!("default"), &json!("web")));
    let default = format!("DELETE {ALL}/{}", listed[0]["id"].as_str().unwrap());
    rig.want(400, &rig.alice, &default, Value::Null).await;
    rig.at("2.36", 404, &rig.alice, &format!("GET {ALL}"), Value::Null).await;
    rig.want(202, &rig.alice, &format!("DELETE {one}"), Value::Null).await;
    rig.want(404, &rig.alice, &format!("GET {one}"), Value::Null).await;
}

#[tokio::test]
async fn floating_ips_come_from_pools_and_go_back() {
    let rig = Rig::new().await;
    let outside = json!({"name": "public", "router:external": true, "provider:network_type": "flat", "provider:physical_network": "external"});
    rig.network(&rig.bob, "172.24.4.0/24", outside).await;
    const ALL: &str = "/v2.1/os-floating-ips";
    rig.want(404, &rig.alice, &format!("POST {ALL}"), json!({"pool": "no-such"})).await;
    let made =
        rig.want(200, &rig.alice, &format!("POST {ALL}"), json!({"pool": "public"})).await["floating_ip"].clone();
    assert!(made["ip"].as_str().unwrap().starts_with("172.24.4."));
    assert_eq!(
        (&made["pool"], &made["instance_id"], &made["fixed_ip"]),
        (&json!("public"), &Value::Null, &Value::Null)
    );
    let one = format!("{ALL}/{}", made["id"].as_str().unwrap());
    assert_eq!(rig.want(200, &rig.alice, &format!("GET {one}"), Value::Null).await["floating_ip"], made);
    rig.want(404, &rig.bob, &format!("DELETE {one}"), Value::Null).await;
    let id = rig.server(&rig.alice).await;
    let act = format!("POST /v2.1/servers/{id}/action");
    rig.want(400, &rig.alice, &act, json!({"addFloatingIp": {"address": made["ip"]}})).await;
    rig.want(404, &rig.alice, &act, json!({"addFloatingIp": {"address": "172.24.5.254"}})).await;
    rig.want(409, &rig.alice, &act, json!({"removeFloatingIp": {"address": made["ip"]}})).await;
    rig.want(202, &rig.alice, &format!("DELETE {one}"), Value::Null).await;
    let pools = rig.want(200, &rig.alice, "GET /v2.1/os-floating-ip-pools", Value::Null).await;
    assert_eq!(pools, json!({"floating_ip_pools": [{"name": "public"}]}));
}

#[tokio::test]
async fn images_and_their_metadata() {
    let rig = Rig::new().await;
    let mut image = Image::new(pilvi_kit::id::new(), Some("alice".into()));
    image.name = Some("disk".into());
    let id = ops::create(&rig.svc.store, image).await.unwrap().record.id;
    let one = format!("/v2.1/images/{id}");
    let shown = rig.want(200, &rig.alice, &format!("GET {one}"), Value::Null).await["image"].clone();
    assert_eq!((&shown["status"], &shown["progress"], &shown["name"]), (&json!("SAVING"), &json!(25), &json!("disk")));
    rig.want(404, &rig.bob, &format!("GET {one}"), Value::Null).await;
    let found = rig.want(200, &rig.alice, "GET /v2.1/images/detail?status=active", Value::Null).await;
    assert_eq!(found, json!({"images": []}));
    rig.want(200, &rig.alice, &format!("PUT {one}/metadata"), json!({"metadata": {"a": "1"}})).await;
    rig.want(200, &rig.alice, &format!("POST {one}/metadata"), json!({"metadata": {"b": "2"}})).await;
    rig.want(400, &rig.alice, &format!("PUT {one}/metadata/c"), json!({"meta": {"d": "3"}})).await;
    rig.want(403, &rig.reader, &format!("PUT {one}/metadata/a"), json!({"meta": {"a": "3"}})).await;
    rig.want(204, &rig.alice, &format!("DELETE {one}/metadata/a"), Value::Null).await;
    rig.want(404, &rig.alice, &format!("GET {one}/metadata/a"), Value::Null).await;
    let left = rig.at("2.38", 200, &rig.alice, &format!("GET {one}/metadata"), Value::Null).await;
    assert_eq!(left, json!({"metadata": {"b": "2"}}));
    rig.at("2.39", 404, &rig.alice, &format!("GET {one}/metadata"), Value::Null).await;
    rig.want(403, &rig.reader, &format!("DELETE {one}"), Value::Null).await;
    rig.want(204, &rig.alice, &format!("DELETE {one}"), Value::Null).await;
    rig.want(404, &rig.alice, &format!("GET {one}"), Value::Null).await;
}

#[tokio::test]
async fn networks_are_the_projects_own() {
    let rig = Rig::new().await;
    let id = rig.network(&rig.alice, "10.9.0.0/24", json!({})).await;
    let listed = rig.want(200, &rig.alice, "GET /v2.1/os-tenant-networks", Value::Null).await;
    assert_eq!(listed, json!({"networks": [{"id": id, "label": "net-10.9.0.0/24", "cidr": "10.9.0.0/24"}]}));
    assert_eq!(rig.want(200, &rig.bob, "GET /v2.1/os-networks", Value::Null).await, json!({"networks": []}));
    rig.want(404, &rig.bob, &format!("GET /v2.1/os-networks/{id}"), Value::Null).await;
    rig.want(200, &rig.alice, &format!("GET /v2.1/os-networks/{id}"), Value::Null).await;
}
