//! Placement: a provider with an inventory, a trait and a consumer of the owner's.
use super::{Facts, World, make, map, root};
use crate::registry::About;
use pilvi_kit::{service::Mounting, testing::App};
use pilvi_placement::{Placement, kinds, service};
use pilvi_store::Store;
use serde_json::{Value, json};
use std::collections::HashMap;

const FACTS: Facts = Facts {
    // The usages of a project are its own.
    about: &[("GET", "/usages", About::Owned)],
    queries: &[("GET", "/usages", "project_id=p-own")],
    unseeded: 10,
    ..Facts::NONE
};
const NEWEST: &[(&str, &str)] = &[("openstack-api-version", "placement 1.39"), ("content-type", "application/json")];
const CONSUMER: &str = "33333333-3333-4333-8333-333333333333";
const PROVIDER: &str = "44444444-4444-4444-8444-444444444444";

pub async fn world() -> World {
    let store = Store::open("sqlite::memory:", kinds()).await.unwrap();
    let state = Placement::new(store.clone());
    let app =
        App::new(move |authenticator| service().mount(state, Mounting { authenticator, policy_file: None }).unwrap());
    let put = async |path: &str, body: Value| {
        make(&app, &root(), "PUT", path, body, NEWEST).await;
    };
    make(&app, &root(), "POST", "/resource_providers", json!({"name": "host", "uuid": PROVIDER}), NEWEST).await;
    let inventories = json!({"resource_provider_generation": 0, "inventories": {"VCPU": {"total": 4}}});
    put(&format!("/resource_providers/{PROVIDER}/inventories"), inventories).await;
    put("/traits/CUSTOM_X", Value::Null).await;
    put("/resource_classes/CUSTOM_X", Value::Null).await;
    let allocations = json!({"allocations": {PROVIDER: {"resources": {"VCPU": 1}}}, "project_id": "p-own", "user_id": "u-own",
        "consumer_generation": null, "consumer_type": "INSTANCE"});
    put(&format!("/allocations/{CONSUMER}"), allocations).await;
    let params = map([
        ("{uuid}", PROVIDER),
        ("{consumer_uuid}", CONSUMER),
        ("{consumer}", CONSUMER),
        ("/traits/{name}", "CUSTOM_X"),
        ("/resource_classes/{name}", "CUSTOM_X"),
        ("{resource_class}", "VCPU"),
        ("{class}", "VCPU"),
    ]);
    let fill = map([("project_id", "p-own"), ("user_id", "u-own")]);
    World { app, store, names: HashMap::new(), params, fill, facts: FACTS, judged_by_original: true, _dir: None }
}
