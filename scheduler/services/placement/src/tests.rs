//! The whole service through the kit: what clients see, version by version. What compute calls is in `claims`.
mod candidates;
mod claims;
mod oracle;
mod providers;
mod speed;
mod table;
mod usages;

use crate::{Placement, allocation::ops as allocations, kinds, service};
use pilvi_kit::{
    Caller, id,
    service::Mounting,
    testing::{Answer, App, caller},
};
use pilvi_store::Store;
use serde_json::{Value, json};
use std::sync::Arc;

struct Bench {
    app: App,
    admin: Caller,
    store: Store,
    placement: Arc<Placement>,
}

impl Bench {
    async fn new() -> Self {
        let store = Store::open("sqlite::memory:", kinds()).await.unwrap();
        let state = Placement::new(store.clone());
        let placement = state.clone();
        let app =
            App::new(|authenticator| service().mount(state, Mounting { authenticator, policy_file: None }).unwrap());
        Bench { app, admin: caller("admin", &["admin", "service"]), store, placement }
    }

    async fn at(&self, version: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let spoken = format!("placement {version}");
        self.app
            .call_with(
                method,
                path,
                Some(&self.admin),
                body,
                &[("openstack-api-version", &spoken), ("content-type", "application/json")],
            )
            .await
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.at("1.39", method, path, body).await
    }

    /// A provider with 4 cores and 1024 MiB.
    async fn host(&self, name: &str, parent: Option<&str>) -> String {
        let uuid = id::new();
        let made = self
            .call(
                "POST",
                "/resource_providers",
                Some(json!({"name": name, "uuid": uuid, "parent_provider_uuid": parent})),
            )
            .await;
        assert_eq!(made.status, 200, "{:?}", made.body);
        let body = json!({"resource_provider_generation": 0, "inventories": {"VCPU": {"total": 4}, "MEMORY_MB": {"total": 1024}}});
        let set = self.call("PUT", &format!("/resource_providers/{uuid}/inventories"), Some(body)).await;
        assert_eq!(set.status, 200, "{:?}", set.body);
        uuid
    }

    async fn claim(&self, consumer: &str, host: &str, cores: i64, generation: Value) -> Answer {
        let body = json!({"allocations": {host: {"resources": {"VCPU": cores}}}, "project_id": "p", "user_id": "u",
            "consumer_generation": generation, "consumer_type": "INSTANCE"});
        self.call("PUT", &format!("/allocations/{consumer}"), Some(body)).await
    }
}

fn code(answer: &Answer) -> &str {
    answer.body["errors"][0]["code"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn versions_are_public_and_negotiated() {
    let b = Bench::new().await;
    let home = b.app.call("GET", "/", None, None).await;
    assert_eq!((home.status, &home.body["versions"][0]["max_version"]), (200, &json!("1.39")));
    let refused = b.at("1.40", "GET", "/resource_providers", None).await;
    assert_eq!((refused.status, &refused.body["errors"][0]["max_version"]), (406, &json!("1.39")));
    assert_eq!(b.at("1.5", "GET", "/traits", None).await.status, 404);
    assert_eq!(b.app.call("GET", "/resource_providers", Some(&caller("p", &["member"])), None).await.status, 403);
    assert_eq!(b.app.call("GET", "/resource_providers", None, None).await.status, 401);
}

#[tokio::test]
async fn providers_form_trees() {
    let b = Bench::new().await;
    let root = b.host("root", None).await;
    let child = b.host("child", Some(&root)).await;
    let shown = b.call("GET", &format!("/resource_providers/{child}"), None).await;
    assert_eq!((&shown.body["root_provider_uuid"], &shown.body["parent_provider_uuid"]), (&json!(root), &json!(root)));
    assert!(shown.headers.contains_key("last-modified"));
    assert!(
        b.at("1.13", "GET", &format!("/resource_providers/{child}"), None)
            .await
            .body
            .get("root_provider_uuid")
            .is_none()
    );
    let twice = b.call("POST", "/resource_providers", Some(json!({"name": "root"}))).await;
    assert_eq!((twice.status, code(&twice)), (409, "placement.duplicate_name"));
    let parent = b.call("DELETE", &format!("/resource_providers/{root}"), None).await;
    assert_eq!((parent.status, code(&parent)), (409, "placement.resource_provider.cannot_delete_parent"));
    let looped = b
        .call(
            "PUT",
            &format!("/resource_providers/{root}"),
            Some(json!({"name": "root", "parent_provider_uuid": child})),
        )
        .await;
    assert_eq!(looped.status, 400);
    let other = b.host("other", None).await;
    let moved = json!({"name": "child", "parent_provider_uuid": other});
    assert_eq!(b.at("1.36", "PUT", &format!("/resource_providers/{child}"), Some(moved.clone())).await.status, 400);
    assert_eq!(
        b.call("PUT", &format!("/resource_providers/{child}"), Some(moved)).await.body["root_provider_uuid"],
        json!(other)
    );
    let tree = b.call("GET", &format!("/resource_providers?in_tree={child}"), None).await;
    assert_eq!(tree.body["resource_providers"].as_array().unwrap().len(), 2);
    assert_eq!(b.call("GET", "/resource_providers?colour=red", None).await.status, 400);
    assert_eq!(b.call("DELETE", &format!("/resource_providers/{root}"), None).await.status, 204);
    assert_eq!(b.call("GET", &format!("/resource_providers/{root}"), None).await.status, 404);
}

#[tokio::test]
async fn inventories_traits_and_aggregates_count_generations() {
    let b = Bench::new().await;
    let host = b.host("host", None).await;
    let path = format!("/resource_providers/{host}");
    let stale = b
        .call(
            "PUT",
            &format!("{path}/inventories"),
            Some(json!({"resource_provider_generation": 0, "inventories": {}})),
        )
        .await;
    assert_eq!((stale.status, code(&stale)), (409, "placement.concurrent_update"));
    let one = b
        .call(
            "PUT",
            &format!("{path}/inventories/VCPU"),
            Some(json!({"resource_provider_generation": 1, "total": 8, "allocation_ratio": 2.0})),
        )
        .await;
    assert_eq!((one.status, &one.body["resource_provider_generation"]), (200, &json!(2)));
    let unknown =
        b.call("POST", &format!("{path}/inventories"), Some(json!({"resource_class": "CUSTOM_X", "total": 1}))).await;
    assert_eq!(unknown.status, 400);
    assert_eq!(b.call("PUT", "/resource_classes/CUSTOM_X", None).await.status, 201);
    assert_eq!(b.call("PUT", "/resource_classes/CUSTOM_X", None).await.status, 204);
    assert_eq!(
        b.call("POST", &format!("{path}/inventories"), Some(json!({"resource_class": "CUSTOM_X", "total": 1})))
            .await
            .status,
        201
    );
    assert_eq!(b.call("DELETE", "/resource_classes/CUSTOM_X", None).await.status, 409);
    assert_eq!(b.call("DELETE", "/resource_classes/VCPU", None).await.status, 400);
    assert_eq!(
        b.call(
            "PUT",
            &format!("{path}/traits"),
            Some(json!({"traits": ["CUSTOM_T"], "resource_provider_generation": 3}))
        )
        .await
        .status,
        400
    );
    assert_eq!(b.call("PUT", "/traits/CUSTOM_T", None).await.status, 201);
    let traits = b
        .call(
            "PUT",
            &format!("{path}/traits"),
            Some(json!({"traits": ["CUSTOM_T", "HW_CPU_X86_AVX"], "resource_provider_generation": 3})),
        )
        .await;
    assert_eq!((traits.status, &traits.body["resource_provider_generation"]), (200, &json!(4)));
    assert_eq!(b.call("GET", "/traits?name=startswith:CUSTOM_", None).await.body["traits"], json!(["CUSTOM_T"]));
    assert_eq!(b.call("GET", "/traits?associated=true", None).await.body["traits"].as_array().unwrap().len(), 2);
    assert_eq!(b.call("DELETE", "/traits/CUSTOM_T", None).await.status, 409);
    let aggregate = id::new();
    assert_eq!(
        b.at("1.1", "PUT", &format!("{path}/aggregates"), Some(json!([aggregate]))).await.body,
        json!({"aggregates": [aggregate]})
    );
    let object = json!({"aggregates": [aggregate], "resource_provider_generation": 4});
    assert_eq!(
        b.call("PUT", &format!("{path}/aggregates"), Some(object)).await.body["resource_provider_generation"],
        json!(5)
    );
    let found = b
        .call(
            "GET",
            &format!(
                "/resource_providers?member_of=in:{aggregate}&required=CUSTOM_T,!STORAGE_DISK_SSD&resources=VCPU:16"
            ),
            None,
        )
        .await;
    assert_eq!(found.body["resource_providers"].as_array().map(Vec::len), Some(1), "{:?}", found.body);
    let none = b.call("GET", &format!("/resource_providers?member_of=!{aggregate}"), None).await;
    assert_eq!(none.body["resource_providers"], json!([]));
}

#[tokio::test]
async fn allocations_take_give_back_and_refuse() {
    let b = Bench::new().await;
    let (host, consumer) = (b.host("host", None).await, id::new());
    assert_eq!(b.claim(&consumer, &host, 3, Value::Null).await.status, 204);
    let stale = b.claim(&consumer, &host, 2, Value::Null).await;
    assert_eq!((stale.status, code(&stale)), (409, "placement.concurrent_update"));
    assert_eq!(b.claim(&consumer, &host, 4, json!(1)).await.status, 204);
    let full = b.claim(&id::new(), &host, 1, Value::Null).await;
    assert_eq!((full.status, code(&full)), (409, "placement.undefined_code"));
    let held = b.call("GET", &format!("/allocations/{consumer}"), None).await;
    assert_eq!(held.body["allocations"][&host]["resources"], json!({"VCPU": 4}));
    assert_eq!((&held.body["consumer_generation"], &held.body["consumer_type"]), (&json!(2), &json!("INSTANCE")));
    let of_host = b.call("GET", &format!("/resource_providers/{host}/allocations"), None).await;
    assert_eq!(of_host.body["allocations"][&consumer]["consumer_generation"], json!(2));
    let usages = b.call("GET", &format!("/resource_providers/{host}/usages"), None).await;
    assert_eq!(usages.body["usages"], json!({"MEMORY_MB": 0, "VCPU": 4}));
    assert_eq!(
        b.call("GET", "/usages?project_id=p", None).await.body["usages"],
        json!({"INSTANCE": {"VCPU": 4, "consumer_count": 1}})
    );
    assert_eq!(b.at("1.37", "GET", "/usages?project_id=p&user_id=u", None).await.body["usages"], json!({"VCPU": 4}));
    let in_use = b.call("DELETE", &format!("/resource_providers/{host}/inventories"), None).await;
    assert_eq!((in_use.status, code(&in_use)), (409, "placement.inventory.inuse"));
    assert_eq!(
        code(&b.call("DELETE", &format!("/resource_providers/{host}"), None).await),
        "placement.resource_provider.inuse"
    );
    assert_eq!(b.call("DELETE", &format!("/allocations/{consumer}"), None).await.status, 204);
    assert_eq!(b.call("DELETE", &format!("/allocations/{consumer}"), None).await.status, 404);
    assert_eq!(b.call("GET", &format!("/allocations/{consumer}"), None).await.body, json!({"allocations": {}}));
    let old = json!({"allocations": [{"resource_provider": {"uuid": host}, "resources": {"VCPU": 1}}]});
    assert_eq!(b.at("1.0", "PUT", &format!("/allocations/{consumer}"), Some(old)).await.status, 204);
    let nowhere = b.claim(&id::new(), &id::new(), 1, Value::Null).await;
    assert_eq!(nowhere.status, 400);
}

#[tokio::test]
async fn several_consumers_move_at_once_or_not_at_all() {
    let b = Bench::new().await;
    let (from, to) = (b.host("from", None).await, b.host("to", None).await);
    let (guest, migration) = (id::new(), id::new());
    assert_eq!(b.claim(&guest, &from, 4, Value::Null).await.status, 204);
    let owner = |allocations: Value, generation: Value| json!({"allocations": allocations, "project_id": "p", "user_id": "u", "consumer_generation": generation, "consumer_type": "INSTANCE"});
    let give = |cores: i64| {
        json!({
        &guest: owner(json!({&to: {"resources": {"VCPU": cores}}}), json!(1)),
        &migration: owner(json!({&from: {"resources": {"VCPU": 4}}}), Value::Null)})
    };
    assert_eq!(b.call("POST", "/allocations", Some(give(5))).await.status, 409);
    assert!(allocations::of(&b.store, &migration).await.unwrap().is_empty());
    assert_eq!(b.call("POST", "/allocations", Some(give(4))).await.status, 204);
    assert_eq!(allocations::of(&b.store, &guest).await.unwrap()[&to]["VCPU"], 4);
}

#[tokio::test]
async fn candidates_answer_in_the_shape_of_their_version() {
    let b = Bench::new().await;
    let host = b.host("host", None).await;
    let new = b.call("GET", "/allocation_candidates?resources=VCPU:1,MEMORY_MB:512&limit=5", None).await;
    assert_eq!(
        new.body["allocation_requests"],
        json!([{"allocations": {&host: {"resources": {"MEMORY_MB": 512, "VCPU": 1}}}, "mappings": {"": [&host]}}]),
        "{:?}",
        new.body
    );
    assert_eq!(new.body["provider_summaries"][&host]["resources"]["VCPU"], json!({"capacity": 4, "used": 0}));
    let old = b.at("1.10", "GET", "/allocation_candidates?resources=VCPU:1", None).await;
    assert_eq!(old.body["allocation_requests"][0]["allocations"][0]["resource_provider"]["uuid"], json!(host));
    assert_eq!(b.at("1.10", "GET", "/allocation_candidates?resources=VCPU:1&limit=1", None).await.status, 400);
    for bad in [
        "resources=CUSTOM_NO:1",
        "resources=VCPU:1&required=CUSTOM_NO",
        "required=HW_CPU_X86_AVX",
        "resources=VCPU:1&limit=0",
        "resources1=VCPU:1&resources2=VCPU:1",
        "resources=VCPU:1&same_subtree=_x",
    ] {
        assert_eq!(b.call("GET", &format!("/allocation_candidates?{bad}"), None).await.status, 400, "{bad}");
    }
    let any =
        b.call("GET", "/allocation_candidates?resources=VCPU:1&required=in:HW_CPU_X86_AVX,HW_CPU_X86_AVX2", None).await;
    assert_eq!(any.body["allocation_requests"], json!([]));
    let isolated =
        b.call("GET", "/allocation_candidates?resources1=VCPU:1&resources2=VCPU:1&group_policy=isolate", None).await;
    assert_eq!(isolated.body["allocation_requests"], json!([]));
}

#[tokio::test]
async fn the_reshaper_moves_inventory_and_allocations_together() {
    let b = Bench::new().await;
    let root = b.host("root", None).await;
    let guest = id::new();
    assert_eq!(b.claim(&guest, &root, 2, Value::Null).await.status, 204);
    let child = id::new();
    b.call("POST", "/resource_providers", Some(json!({"name": "numa0", "uuid": child, "parent_provider_uuid": root})))
        .await;
    let body = json!({
        "inventories": {
            &root: {"resource_provider_generation": 2, "inventories": {"MEMORY_MB": {"total": 1024}}},
            &child: {"resource_provider_generation": 0, "inventories": {"VCPU": {"total": 4}}}},
        "allocations": {&guest: {"allocations": {&child: {"resources": {"VCPU": 2}}}, "project_id": "p", "user_id": "u", "consumer_generation": 1, "consumer_type": "INSTANCE"}}});
    let done = b.call("POST", "/reshaper", Some(body.clone())).await;
    assert_eq!(done.status, 204, "{:?}", done.body);
    assert_eq!(
        b.call("GET", &format!("/resource_providers/{root}/usages"), None).await.body["usages"],
        json!({"MEMORY_MB": 0})
    );
    assert_eq!(
        b.call("GET", &format!("/resource_providers/{child}/usages"), None).await.body["usages"],
        json!({"VCPU": 2})
    );
    assert_eq!(b.call("POST", "/reshaper", Some(body)).await.status, 409);
}
