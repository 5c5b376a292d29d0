//! Network: one of each of the owner's, and an external network of the administrator's.
use super::{Facts, World, make, map, root, text};
use crate::persona;
use pilvi_kit::{Caller, service::Mounting, testing::App};
use pilvi_network::{Network, kinds, service};
use pilvi_store::Store;
use serde_json::{Value, json};
use std::collections::HashMap;

const FACTS: Facts = Facts {
    bodies: &[
        ("POST", "/v2.0/networks", r#"{"network": {"project_id": "p-own"}}"#),
        (
            "POST",
            "/v2.0/subnets",
            r#"{"subnet": {"project_id": "p-own", "network_id": "<network_id>", "ip_version": 4, "cidr": "10.3.0.0/24"}}"#,
        ),
        ("POST", "/v2.0/ports", r#"{"port": {"project_id": "p-own", "network_id": "<network_id>"}}"#),
        ("POST", "/v2.0/routers", r#"{"router": {"project_id": "p-own"}}"#),
        (
            "POST",
            "/v2.0/floatingips",
            r#"{"floatingip": {"project_id": "p-own", "floating_network_id": "<floating_network_id>"}}"#,
        ),
        (
            "POST",
            "/v2.0/subnetpools",
            r#"{"subnetpool": {"project_id": "p-own", "name": "x", "prefixes": ["10.8.0.0/16"]}}"#,
        ),
        ("POST", "/v2.0/security-groups", r#"{"security_group": {"project_id": "p-own", "name": "x"}}"#),
        (
            "POST",
            "/v2.0/security-group-rules",
            r#"{"security_group_rule": {"project_id": "p-own", "security_group_id": "<security_group_id>", "direction": "egress"}}"#,
        ),
    ],
    // A project's default group is made when somebody first looks.
    makes: &[("GET", "/v2.0/security-groups")],
    unseeded: 20,
    ..Facts::NONE
};

async fn create(app: &App, who: &Caller, collection: &str, kind: &str, members: Value) -> String {
    let path = format!("/v2.0/{collection}");
    text(&make(app, who, "POST", &path, json!({ kind: members }), &[]).await[kind]["id"])
}

pub async fn world() -> World {
    let mut all = kinds();
    all.push(pilvi_store::KindSpec::of::<pilvi_kit::quota::QuotaOverride>());
    let store = Store::open("sqlite::memory:", all).await.unwrap();
    let state = Network::new(store.clone());
    let app =
        App::new(move |authenticator| service().mount(state, Mounting { authenticator, policy_file: None }).unwrap());
    let names = HashMap::new();
    let owner = persona::named("member", &names).caller;
    let external = create(&app, &root(), "networks", "network", json!({"name": "ext", "router:external": true})).await;
    let members = json!({"network_id": external, "ip_version": 4, "cidr": "203.0.113.0/24"});
    create(&app, &root(), "subnets", "subnet", members).await;
    let net = create(&app, &owner, "networks", "network", json!({"name": "n-own"})).await;
    let members = json!({"network_id": net, "ip_version": 4, "cidr": "10.1.0.0/24"});
    let subnet = create(&app, &owner, "subnets", "subnet", members).await;
    let pool =
        create(&app, &owner, "subnetpools", "subnetpool", json!({"name": "sp", "prefixes": ["10.9.0.0/16"]})).await;
    let port = create(&app, &owner, "ports", "port", json!({"network_id": net})).await;
    let router = create(&app, &owner, "routers", "router", json!({"name": "r-own"})).await;
    let floating = create(&app, &owner, "floatingips", "floatingip", json!({"floating_network_id": external})).await;
    let group = create(&app, &owner, "security-groups", "security_group", json!({"name": "sg-own"})).await;
    let members = json!({"security_group_id": group, "direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22});
    let rule = create(&app, &owner, "security-group-rules", "security_group_rule", members).await;
    let mut params = HashMap::new();
    for (collection, id) in [
        ("networks", &net),
        ("subnets", &subnet),
        ("subnetpools", &pool),
        ("ports", &port),
        ("routers", &router),
        ("floatingips", &floating),
        ("security-groups", &group),
        ("security-group-rules", &rule),
        ("network-ip-availabilities", &net),
    ] {
        let tags = format!("/v2.0/{collection}/{id}/tags/a-tag");
        // Rules of groups and counts of addresses have no tags.
        if !matches!(collection, "security-group-rules" | "network-ip-availabilities") {
            make(&app, &owner, "PUT", &tags, Value::Null, &[]).await;
        }
        params.insert(format!("/v2.0/{collection}/{{id}}"), id.clone());
    }
    params.extend(map([("{tag}", "a-tag"), ("{project_id}", "p-own"), ("{router_id}", &router)]));
    let fill = map([
        ("project_id", "p-own"),
        ("tenant_id", "p-own"),
        ("network_id", &net),
        ("floating_network_id", &external),
        ("security_group_id", &group),
    ]);
    World { app, store, names, params, fill, facts: FACTS, judged_by_original: false, _dir: None }
}
