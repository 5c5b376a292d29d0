//! Lists, quotas and transfers: who sees and has what.
use super::Rig;
use serde_json::{Value, json};

fn names(body: &Value, of: &str) -> Vec<String> {
    body[of].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn lists_are_filtered_sorted_and_paged() {
    let rig = Rig::new().await;
    for (name, size) in [("a", 3), ("b", 1), ("c", 2)] {
        rig.volume(&rig.alice, json!({"name": name, "size": size, "metadata": {"k": name}})).await;
    }
    rig.volume(&rig.bob, json!({"name": "other"})).await;
    let list =
        async |query: &str| rig.want(200, &rig.alice, &format!("GET /v3/volumes/detail{query}"), Value::Null).await;
    assert_eq!(names(&list("").await, "volumes"), ["c", "b", "a"]);
    assert_eq!(names(&list("?sort=size:asc").await, "volumes"), ["b", "c", "a"]);
    assert_eq!(names(&list("?name=b").await, "volumes"), ["b"]);
    assert_eq!(names(&list("?metadata=%7B%27k%27%3A+%27c%27%7D").await, "volumes"), ["c"]);
    assert_eq!(names(&list("?status=error").await, "volumes"), Vec::<String>::new());
    assert_eq!(names(&list("?all_tenants=1&created_at=gt:2020-01-01T00:00:00").await, "volumes"), ["c", "b", "a"]);
    let page = list("?limit=2&with_count=true").await;
    assert_eq!((names(&page, "volumes"), &page["count"]), (vec!["c".to_owned(), "b".to_owned()], &json!(3)));
    let full = list("?limit=3").await;
    assert!(full["volumes_links"][0]["href"].is_string(), "a full page has a next one");
    let next = page["volumes_links"][0]["href"].as_str().unwrap().split("/volume/").nth(1).unwrap().to_owned();
    let page = rig.want(200, &rig.alice, &format!("GET /{next}"), Value::Null).await;
    assert_eq!((names(&page, "volumes"), page.get("volumes_links")), (vec!["a".to_owned()], None));
    assert_eq!(names(&list("?offset=1&limit=1").await, "volumes"), ["b"]);
    assert_eq!(names(&list("?limit=0").await, "volumes"), Vec::<String>::new());
    for (query, status) in [("limit=x", 400), ("sort=what:asc", 400), ("bogus=1", 400), ("bootable=maybe", 400)] {
        rig.want(status, &rig.alice, &format!("GET /v3/volumes?{query}"), Value::Null).await;
    }
    let unknown = format!("GET /v3/volumes?marker={}", pilvi_kit::id::new());
    rig.want(404, &rig.alice, &unknown, Value::Null).await;
    // Before 3.31 what is not known filters nothing.
    rig.at("3.0", 200, &rig.alice, "GET /v3/volumes?bogus=1", Value::Null).await;
    let all = rig.want(200, &rig.admin, "GET /v3/volumes?all_tenants=1&project_id=bob", Value::Null).await;
    assert_eq!(names(&all, "volumes"), ["other"]);
    let summary = rig.want(200, &rig.alice, "GET /v3/volumes/summary", Value::Null).await["volume-summary"].clone();
    assert_eq!((&summary["total_count"], &summary["total_size"]), (&json!(3), &json!(6)));
}

#[tokio::test]
async fn quotas_are_set_shown_and_kept() {
    let rig = Rig::new().await;
    rig.volume(&rig.alice, json!({"size": 2})).await;
    let shown = rig.want(200, &rig.alice, "GET /v3/os-quota-sets/alice?usage=true", Value::Null).await;
    assert_eq!(shown["quota_set"]["gigabytes"], json!({"limit": 1000, "in_use": 2, "reserved": 0}));
    rig.want(403, &rig.alice, "GET /v3/os-quota-sets/bob", Value::Null).await;
    let set = |name: &str, limit: i64| json!({"quota_set": {name: limit}});
    rig.want(403, &rig.alice, "PUT /v3/os-quota-sets/alice", set("volumes", 99)).await;
    rig.want(400, &rig.admin, "PUT /v3/os-quota-sets/alice", set("gigabytes", 1)).await;
    rig.want(400, &rig.admin, "PUT /v3/os-quota-sets/alice", set("unheard_of", 1)).await;
    rig.want(200, &rig.admin, "PUT /v3/os-quota-sets/alice", set("volumes___DEFAULT__", 1)).await;
    rig.want(413, &rig.alice, "POST /v3/volumes", json!({"volume": {"size": 1}})).await;
    rig.want(200, &rig.admin, "DELETE /v3/os-quota-sets/alice", Value::Null).await;
    let class = json!({"quota_class_set": {"volumes": 1}});
    rig.want(200, &rig.admin, "PUT /v3/os-quota-class-sets/default", class).await;
    rig.want(413, &rig.alice, "POST /v3/volumes", json!({"volume": {"size": 1}})).await;
    let limits = rig.want(200, &rig.alice, "GET /v3/limits", Value::Null).await["limits"]["absolute"].clone();
    assert_eq!((&limits["maxTotalVolumes"], &limits["totalVolumesUsed"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn a_volume_goes_to_whoever_has_the_key() {
    let rig = Rig::new().await;
    let volume = rig.volume(&rig.alice, json!({})).await;
    let body = json!({"transfer": {"volume_id": volume, "name": "gift"}});
    let made = rig.want(202, &rig.alice, "POST /v3/volume-transfers", body.clone()).await["transfer"].clone();
    assert_eq!(rig.record(&volume).await.status.as_str(), "awaiting-transfer");
    rig.want(400, &rig.alice, "POST /v3/volume-transfers", body).await;
    let path = format!("/v3/volume-transfers/{}", made["id"].as_str().unwrap());
    let shown = rig.want(200, &rig.alice, &format!("GET {path}"), Value::Null).await["transfer"].clone();
    assert!(shown.get("auth_key").is_none() && shown["source_project_id"] == "alice");
    rig.want(404, &rig.bob, &format!("GET {path}"), Value::Null).await;
    let key = |key: &Value| json!({"accept": {"auth_key": key}});
    rig.want(400, &rig.bob, &format!("POST {path}/accept"), key(&json!("0000"))).await;
    rig.want(202, &rig.bob, &format!("POST {path}/accept"), key(&made["auth_key"])).await;
    rig.want(404, &rig.alice, &format!("GET /v3/volumes/{volume}"), Value::Null).await;
    let shown = rig.want(200, &rig.bob, &format!("GET /v3/volumes/{volume}"), Value::Null).await;
    assert_eq!((&shown["volume"]["status"], rig.taken("h1").await), (&json!("available"), 1));
}

#[tokio::test]
async fn versions_and_what_there_is_are_told() {
    let rig = Rig::new().await;
    let all = rig.app.call("GET", "/", None, None).await;
    assert_eq!((all.status, &all.body["versions"][0]["version"]), (300, &json!("3.71")));
    assert_eq!(rig.app.call("GET", "/v3/", None, None).await.status, 200);
    rig.at("3.72", 406, &rig.alice, "GET /v3/volumes", Value::Null).await;
    let told = rig.want(200, &rig.alice, "GET /v3/resource_filters?resource=message", Value::Null).await;
    assert_eq!(told["resource_filters"][0]["resource"], "message");
    rig.want(200, &rig.alice, "GET /v3/alice/extensions", Value::Null).await;
    let zones = rig.want(200, &rig.alice, "GET /v3/os-availability-zone", Value::Null).await;
    assert_eq!(zones["availabilityZoneInfo"], json!([{"zoneName": "nova", "zoneState": {"available": true}}]));
    assert_eq!(rig.app.call("GET", "/v3/volumes", None, None).await.status, 401);
}
