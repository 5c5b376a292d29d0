//! Networks and subnets: CRUD, who sees what, lists, bad input.
use super::{Rig, id, ids};
use serde_json::{Value, json};

#[tokio::test]
async fn networks_and_subnets_live_and_die() {
    let rig = Rig::new().await;
    let network = rig.make(&rig.alice, "/v2.0/networks", "network", json!({"name": "n1"})).await;
    assert_eq!(network["status"], "ACTIVE");
    assert_eq!(network["mtu"], 1450);
    assert_eq!(network["project_id"], "alice");
    assert_eq!(network["tenant_id"], "alice");
    assert!(network.get("provider:network_type").is_none(), "only administrators see provider attributes");
    let path = format!("/v2.0/networks/{}", id(&network));
    assert_eq!(rig.get(&rig.admin, &path).await["network"]["provider:network_type"], "vxlan");
    for (kind, count) in [("vxlan", 1), ("vlan", 0)] {
        let found = rig.get(&rig.alice, &format!("/v2.0/networks?provider:network_type={kind}")).await;
        assert_eq!(found["networks"].as_array().map(Vec::len), Some(count), "but all may look for them: {found}");
    }
    let subnet = rig.subnet(&rig.alice, &id(&network), "10.0.0.0/24").await;
    let shown = rig.get(&rig.alice, &format!("/v2.0/subnets/{subnet}")).await["subnet"].clone();
    assert_eq!(shown["gateway_ip"], "10.0.0.1");
    assert_eq!(shown["allocation_pools"], json!([{"start": "10.0.0.2", "end": "10.0.0.254"}]));
    assert_eq!(rig.get(&rig.alice, &path).await["network"]["subnets"], json!([subnet]));
    let renamed = rig.want(200, &rig.alice, "PUT", &path, json!({"network": {"name": "n2", "description": "d"}})).await;
    assert_eq!(renamed["network"]["name"], "n2");
    assert_eq!(renamed["network"]["revision_number"], 3, "a new subnet and a new name");
    rig.want(204, &rig.alice, "DELETE", &path, Value::Null).await;
    assert_eq!(rig.refused(404, &rig.alice, "GET", &path, Value::Null).await, "NetworkNotFound");
    rig.want(404, &rig.alice, "GET", &format!("/v2.0/subnets/{subnet}"), Value::Null).await;
}

#[tokio::test]
async fn projects_see_their_own_and_what_is_open() {
    let rig = Rig::new().await;
    let own = rig.network(&rig.alice, "own").await;
    let path = format!("/v2.0/networks/{own}");
    rig.want(404, &rig.bob, "GET", &path, Value::Null).await;
    rig.want(404, &rig.bob, "PUT", &path, json!({"network": {"name": "x"}})).await;
    rig.want(404, &rig.bob, "DELETE", &path, Value::Null).await;
    rig.want(403, &rig.reader, "DELETE", &path, Value::Null).await;
    rig.want(403, &rig.reader, "POST", "/v2.0/networks", json!({"network": {}})).await;
    rig.want(403, &rig.alice, "POST", "/v2.0/networks", json!({"network": {"shared": true}})).await;
    rig.want(403, &rig.alice, "POST", "/v2.0/networks", json!({"network": {"router:external": true}})).await;
    rig.want(403, &rig.alice, "POST", "/v2.0/networks", json!({"network": {"provider:network_type": "flat"}})).await;
    rig.want(400, &rig.alice, "POST", "/v2.0/networks", json!({"network": {"project_id": "bob"}})).await;
    rig.want(403, &rig.alice, "PUT", &path, json!({"network": {"shared": true}})).await;
    rig.want(201, &rig.alice, "POST", "/v2.0/networks", json!({"network": {"shared": false}})).await;
    let external = rig.external().await;
    let seen = rig.get(&rig.bob, "/v2.0/networks").await;
    assert_eq!(ids(&seen["networks"]), vec![external.clone()]);
    let subnets = rig.get(&rig.bob, "/v2.0/subnets").await;
    assert_eq!(subnets["subnets"].as_array().unwrap().len(), 1);
    rig.want(404, &rig.bob, "PUT", &format!("/v2.0/networks/{external}"), json!({"network": {"name": "mine"}})).await;
}

#[tokio::test]
async fn lists_filter_sort_page_and_pick_fields() {
    let rig = Rig::new().await;
    for name in ["a", "b", "c"] {
        rig.network(&rig.alice, name).await;
    }
    let names = |v: &Value| -> Vec<String> {
        v["networks"].as_array().unwrap().iter().map(|n| n["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&rig.get(&rig.alice, "/v2.0/networks?name=a&name=c&sort_key=name").await), ["a", "c"]);
    assert_eq!(names(&rig.get(&rig.alice, "/v2.0/networks?sort_key=name&sort_dir=desc").await), ["c", "b", "a"]);
    assert_eq!(names(&rig.get(&rig.alice, "/v2.0/networks?shared=True").await), Vec::<String>::new());
    assert_eq!(
        names(&rig.get(&rig.alice, "/v2.0/networks?admin_state_up=true&router:external=False&sort_key=name").await)
            .len(),
        3
    );
    let first = rig.get(&rig.alice, "/v2.0/networks?limit=2&sort_key=name").await;
    assert_eq!(names(&first), ["a", "b"]);
    let next = first["networks_links"][0]["href"].as_str().unwrap();
    assert_eq!(first["networks_links"][0]["rel"], "next");
    let next = next.split("/network").last().map(|_| next.split_once("/v2.0").unwrap().1).unwrap();
    assert_eq!(names(&rig.get(&rig.alice, &format!("/v2.0{next}")).await), ["c"]);
    let picked = rig.get(&rig.alice, "/v2.0/networks?fields=id&fields=name&name=a").await;
    assert_eq!(picked["networks"][0].as_object().unwrap().len(), 2);
    rig.want(400, &rig.alice, "GET", "/v2.0/networks?colour=red", Value::Null).await;
    rig.want(400, &rig.alice, "GET", "/v2.0/networks?limit=-1", Value::Null).await;
    rig.want(400, &rig.alice, "GET", "/v2.0/networks?marker=nothing", Value::Null).await;
    rig.want(400, &rig.alice, "GET", "/v2.0/networks?sort_key=colour", Value::Null).await;
}

#[tokio::test]
async fn bad_input_is_refused_by_name() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    let foreign = rig.network(&rig.bob, "n").await;
    rig.subnet(&rig.alice, &network, "10.0.0.0/16").await;
    let subnet = |extra: Value| {
        let mut attrs = json!({"network_id": network, "ip_version": 4, "cidr": "10.9.0.0/24"});
        for (k, v) in extra.as_object().unwrap() {
            attrs[k.as_str()] = v.clone();
        }
        json!({"subnet": attrs})
    };
    let cases = [
        (400, "HTTPBadRequest", subnet(json!({"cidr": "10.9.0.0/33"}))),
        (400, "HTTPBadRequest", subnet(json!({"cidr": "10.9.0.1/24"}))),
        (400, "HTTPBadRequest", subnet(json!({"cidr": 7}))),
        (400, "InvalidInput", subnet(json!({"cidr": "10.0.7.0/24"}))),
        (400, "InvalidInput", subnet(json!({"cidr": "10.0.0.0/8"}))),
        (400, "InvalidInput", subnet(json!({"ip_version": 6}))),
        (400, "HTTPBadRequest", subnet(json!({"ip_version": 5}))),
        (400, "HTTPBadRequest", subnet(json!({"unknown": 5}))),
        (404, "NetworkNotFound", subnet(json!({"network_id": foreign}))),
        (404, "NetworkNotFound", subnet(json!({"network_id": pilvi_kit::id::new()}))),
        (400, "BadRequest", json!({"subnet": {"network_id": network, "ip_version": 4}})),
        (
            409,
            "GatewayConflictWithAllocationPools",
            subnet(json!({"gateway_ip": "10.9.0.9", "allocation_pools": [{"start": "10.9.0.9", "end": "10.9.0.10"}]})),
        ),
        (400, "HTTPBadRequest", json!({"subnet": []})),
        (400, "HTTPBadRequest", json!({"subnets": []})),
        (400, "HTTPBadRequest", json!({"nothing": {}})),
        (400, "HTTPBadRequest", json!([])),
    ];
    for (status, kind, body) in cases {
        let found = rig.refused(status, &rig.alice, "POST", "/v2.0/subnets", body.clone()).await;
        assert_eq!(found, kind, "{body}");
    }
    for body in [
        json!({"network": {"mtu": 9000}}),
        json!({"network": {"name": "x".repeat(256)}}),
        json!({"network": {"admin_state_up": "maybe"}}),
    ] {
        rig.want(400, &rig.alice, "POST", "/v2.0/networks", body).await;
    }
    rig.want(400, &rig.alice, "PUT", &format!("/v2.0/networks/{network}"), json!({"network": {"id": "x"}})).await;
}

#[tokio::test]
async fn bulk_creates_are_all_or_nothing() {
    let rig = Rig::new().await;
    let made =
        rig.want(201, &rig.alice, "POST", "/v2.0/networks", json!({"networks": [{"name": "a"}, {"name": "b"}]})).await;
    let network = id(&made["networks"][0]);
    let overlapping = json!({"subnets": [
        {"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/24"},
        {"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/25"}]});
    assert_eq!(rig.refused(400, &rig.alice, "POST", "/v2.0/subnets", overlapping).await, "InvalidInput");
    assert_eq!(rig.get(&rig.alice, "/v2.0/subnets").await["subnets"], json!([]));
}

#[tokio::test]
async fn subnets_are_cut_from_pools() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    let pool = rig
        .make(
            &rig.alice,
            "/v2.0/subnetpools",
            "subnetpool",
            json!({"name": "p", "prefixes": ["10.11.0.0/24", "10.11.1.0/24"], "min_prefixlen": 25}),
        )
        .await;
    assert_eq!(pool["prefixes"], json!(["10.11.0.0/23"]), "neighbours are joined");
    assert_eq!(pool["ip_version"], 4);
    let cut = |extra: Value| {
        let mut attrs = json!({"network_id": network, "ip_version": 4, "subnetpool_id": pool["id"]});
        for (k, v) in extra.as_object().unwrap() {
            attrs[k.as_str()] = v.clone();
        }
        json!({"subnet": attrs})
    };
    for expected in ["10.11.0.0/25", "10.11.0.128/25"] {
        let made = rig.want(201, &rig.alice, "POST", "/v2.0/subnets", cut(json!({}))).await;
        assert_eq!(made["subnet"]["cidr"], expected);
    }
    assert_eq!(
        rig.refused(400, &rig.alice, "POST", "/v2.0/subnets", cut(json!({"prefixlen": 24}))).await,
        "MinPrefixSubnetAllocationError"
    );
    assert_eq!(
        rig.refused(400, &rig.alice, "POST", "/v2.0/subnets", cut(json!({"cidr": "10.12.0.0/25"}))).await,
        "SubnetAllocationError"
    );
    assert_eq!(
        rig.refused(409, &rig.alice, "POST", "/v2.0/subnets", cut(json!({"cidr": "10.11.0.0/25"}))).await,
        "SubnetAllocationError"
    );
    let path = format!("/v2.0/subnetpools/{}", id(&pool));
    assert_eq!(rig.refused(409, &rig.alice, "DELETE", &path, Value::Null).await, "SubnetPoolInUse");
    assert_eq!(
        rig.refused(400, &rig.alice, "PUT", &path, json!({"subnetpool": {"prefixes": ["10.11.0.0/24"]}})).await,
        "IllegalSubnetPoolPrefixUpdate"
    );
    rig.want(404, &rig.bob, "GET", &path, Value::Null).await;
}

#[tokio::test]
async fn quotas_are_kept_and_shown() {
    let rig = Rig::new().await;
    rig.want(200, &rig.admin, "PUT", "/v2.0/quotas/alice", json!({"quota": {"network": 1}})).await;
    rig.want(403, &rig.alice, "PUT", "/v2.0/quotas/alice", json!({"quota": {"network": 9}})).await;
    rig.want(400, &rig.admin, "PUT", "/v2.0/quotas/alice", json!({"quota": {"network": -2}})).await;
    rig.network(&rig.alice, "one").await;
    assert_eq!(rig.refused(409, &rig.alice, "POST", "/v2.0/networks", json!({"network": {}})).await, "OverQuota");
    let details = rig.get(&rig.alice, "/v2.0/quotas/alice/details.json").await;
    assert_eq!(details["quota"]["network"], json!({"limit": 1, "used": 1, "reserved": 0}));
    rig.want(403, &rig.bob, "GET", "/v2.0/quotas/alice", Value::Null).await;
    rig.want(204, &rig.admin, "DELETE", "/v2.0/quotas/alice", Value::Null).await;
    assert_eq!(rig.get(&rig.alice, "/v2.0/quotas/alice").await["quota"]["network"], 100);
}

#[tokio::test]
async fn if_match_guards_updates() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    let path = format!("/v2.0/networks/{network}");
    let body = json!({"network": {"name": "m"}});
    let stale = rig
        .app
        .call_with("PUT", &path, Some(&rig.alice), Some(body.clone()), &[("if-match", "revision_number=7")])
        .await;
    assert_eq!(stale.status, 412);
    assert_eq!(stale.body["NeutronError"]["type"], "RevisionNumberConstraintFailed");
    let fresh =
        rig.app.call_with("PUT", &path, Some(&rig.alice), Some(body), &[("if-match", "revision_number=1")]).await;
    assert_eq!(fresh.status, 200);
}
