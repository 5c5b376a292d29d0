//! Image: a private image of the owner's with a member, a task, and a private namespace of metadata definitions.
use super::{Facts, World, make, map, text};
use crate::persona;
use pilvi_image::{Config, Image, kinds, service};
use pilvi_kit::{service::Mounting, testing::App};
use pilvi_store::Store;
use serde_json::{Value, json};
use std::collections::HashMap;

/// The rule lets a service past, but another project's private image is not seen by it.
const EXCEPTIONS: &[(&str, &str, &str, bool)] = &[
    ("GET", "/v2/images/{image_id}/locations", "service", false),
    ("POST", "/v2/images/{image_id}/locations", "service", false),
];
const FACTS: Facts = Facts { exceptions: EXCEPTIONS, unseeded: 40, ..Facts::NONE };
const PATCH: &[(&str, &str)] = &[("content-type", "application/openstack-images-v2.1-json-patch")];

pub async fn world() -> World {
    world_with(None).await
}

/// The same under an operator's policy file.
pub async fn world_with(policy_file: Option<String>) -> World {
    let dir = tempfile::tempdir().unwrap();
    let mut all = kinds();
    all.push(pilvi_store::KindSpec::of::<pilvi_kit::quota::QuotaOverride>());
    let store = Store::open("sqlite::memory:", all).await.unwrap();
    let state = Image::new(store.clone(), Config::new(dir.path())).unwrap();
    let app = App::new(move |authenticator| service().mount(state, Mounting { authenticator, policy_file }).unwrap());
    let names = HashMap::new();
    let (owner, admin) = (persona::named("owner", &names).caller, persona::named("admin", &names).caller);
    let members = json!({"name": "i-own", "visibility": "shared", "disk_format": "raw", "container_format": "bare", "tags": ["a-tag"]});
    let id = text(&make(&app, &owner, "POST", "/v2/images", members, &[]).await["id"]);
    let one = format!("/v2/images/{id}");
    make(&app, &owner, "POST", &format!("{one}/members"), json!({"member": "p-member"}), &[]).await;
    let private = json!([{"op": "replace", "path": "/visibility", "value": "private"}]);
    make(&app, &owner, "PATCH", &one, private, PATCH).await;
    let ns = "/v2/metadefs/namespaces";
    make(&app, &admin, "POST", ns, json!({"namespace": "ns-own", "visibility": "private"}), &[]).await;
    let ns = format!("{ns}/ns-own");
    let thing = json!({"name": "thing", "title": "Thing", "type": "string"});
    make(&app, &admin, "POST", &format!("{ns}/properties"), thing, &[]).await;
    make(&app, &admin, "POST", &format!("{ns}/objects"), json!({"name": "thing"}), &[]).await;
    make(&app, &admin, "POST", &format!("{ns}/tags/thing"), Value::Null, &[]).await;
    make(&app, &admin, "POST", &format!("{ns}/resource_types"), json!({"name": "thing"}), &[]).await;
    let params = map([
        ("{image_id}", id.as_str()),
        ("{member_id}", "p-member"),
        ("{tag}", "a-tag"),
        ("{namespace}", "ns-own"),
        ("{namespace_name}", "ns-own"),
        ("{name}", "thing"),
        ("{object_name}", "thing"),
        ("{property_name}", "thing"),
        ("{tag_name}", "thing"),
        ("{resource_type}", "thing"),
    ]);
    let fill = map([("owner", "p-own")]);
    World { app, store, names, params, fill, facts: FACTS, judged_by_original: true, _dir: Some(dir) }
}
