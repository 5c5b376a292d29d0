//! The whole service through the kit: what clients see. Bytes that come in are in `upload`.
mod cloud;
mod import;
mod location;
mod remote;
mod stores;
mod upload;

use crate::{Config, Image, image, kinds, service};
use pilvi_kit::{
    Caller, Ctx,
    service::Mounting,
    testing::{Answer, App, caller},
};
use pilvi_store::Store;
use serde_json::{Value, json};
use std::sync::Arc;

const OCTETS: &[(&str, &str)] = &[("content-type", "application/octet-stream")];
const PATCH: &[(&str, &str)] = &[("content-type", "application/openstack-images-v2.1-json-patch")];

struct Bench {
    app: App,
    svc: Arc<Image>,
    alice: Caller,
    bob: Caller,
    admin: Caller,
    _directory: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(set: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::new(directory.path().join("image").join("store"));
        set(&mut config);
        let svc = Image::new(Store::open("sqlite::memory:", kinds()).await.unwrap(), config).unwrap();
        let state = svc.clone();
        let app =
            App::new(|authenticator| service().mount(state, Mounting { authenticator, policy_file: None }).unwrap());
        let member = |project: &str| caller(project, &["member", "reader"]);
        Bench {
            app,
            svc,
            alice: member("alice"),
            bob: member("bob"),
            admin: caller("ops", &["admin", "member", "reader"]),
            _directory: directory,
        }
    }

    async fn call(&self, who: &Caller, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.app.call(method, path, Some(who), body).await
    }

    async fn create(&self, body: Value) -> String {
        let made = self.call(&self.alice, "POST", "/v2/images", Some(body)).await;
        assert_eq!(made.status, 201, "{:?}", made.body);
        made.body["id"].as_str().unwrap().to_owned()
    }

    async fn raw(&self) -> String {
        self.create(json!({"name": "raw", "disk_format": "raw", "container_format": "bare", "visibility": "private"}))
            .await
    }

    async fn upload(&self, id: &str, data: &[u8]) -> Answer {
        self.app.upload("PUT", &format!("/v2/images/{id}/file"), &self.alice, data.to_vec(), OCTETS).await
    }

    async fn status(&self, id: &str) -> Value {
        self.call(&self.alice, "GET", &format!("/v2/images/{id}"), None).await.body["status"].clone()
    }

    async fn patch(&self, who: &Caller, id: &str, name: &str, value: Value) -> Answer {
        let body = json!([{"op": "replace", "path": format!("/{name}"), "value": value}]);
        self.app.call_with("PATCH", &format!("/v2/images/{id}"), Some(who), Some(body), PATCH).await
    }

    async fn files(&self) -> Vec<String> {
        self.svc.files.names().await.unwrap()
    }

    async fn listed(&self, who: &Caller, query: &str) -> Vec<String> {
        let answer = self.call(who, "GET", &format!("/v2/images{query}"), None).await;
        assert_eq!(answer.status, 200, "{query}: {:?}", answer.body);
        answer.body["images"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["name"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

#[tokio::test]
async fn an_image_is_created_uploaded_downloaded_and_deleted() {
    let b = Bench::new().await;
    let id = b.create(json!({"name": "n", "disk_format": "raw", "container_format": "bare", "ramdisk_id": "00000000-1111-2222-3333-444455556666"})).await;
    let file = format!("/v2/images/{id}/file");
    let empty = b.call(&b.alice, "GET", &file, None).await;
    assert_eq!((empty.status, empty.bytes.len()), (204, 0));
    assert_eq!(b.upload(&id, b"hello").await.status, 204);
    let shown = b.call(&b.alice, "GET", &format!("/v2/images/{id}"), None).await.body;
    assert_eq!(shown["status"], "active");
    assert_eq!((shown["size"].as_u64(), shown["virtual_size"].as_u64()), (Some(5), Some(5)));
    assert_eq!(shown["checksum"], "5d41402abc4b2a76b9719d911017c592");
    assert_eq!(shown["os_hash_algo"], "sha512");
    assert!(shown["os_hash_value"].as_str().unwrap().starts_with("9b71d224bd62f378"));
    assert_eq!(shown["visibility"], "shared");
    assert_eq!(shown["ramdisk_id"], "00000000-1111-2222-3333-444455556666");
    assert_eq!(shown["file"], json!(file));
    let got = b.call(&b.alice, "GET", &file, None).await;
    assert_eq!((got.status, got.bytes.as_slice()), (200, &b"hello"[..]));
    assert_eq!(got.headers["content-md5"], "5d41402abc4b2a76b9719d911017c592");
    assert_eq!(got.headers["content-length"], "5");
    let part = b.app.call_with("GET", &file, Some(&b.alice), None, &[("range", "bytes=1-3")]).await;
    assert_eq!(
        (part.status, part.bytes.as_slice(), part.headers["content-range"].to_str().unwrap()),
        (206, &b"ell"[..], "bytes 1-3/5")
    );
    assert_eq!(b.app.call_with("GET", &file, Some(&b.alice), None, &[("range", "bytes=9-")]).await.status, 416);
    assert_eq!(b.upload(&id, b"again").await.status, 409);
    assert_eq!(b.call(&b.alice, "GET", &file, None).await.bytes, b"hello");
    assert_eq!(b.call(&b.alice, "DELETE", &format!("/v2/images/{id}"), None).await.status, 204);
    assert_eq!(b.call(&b.alice, "GET", &format!("/v2/images/{id}"), None).await.status, 404);
    assert_eq!(b.call(&b.alice, "DELETE", &format!("/v2/images/{id}"), None).await.status, 404);
    assert!(b.files().await.is_empty());
}

#[tokio::test]
async fn who_sees_and_changes_what() {
    let b = Bench::new().await;
    let id = b.raw().await;
    let path = format!("/v2/images/{id}");
    assert_eq!(b.call(&b.bob, "GET", &path, None).await.status, 404);
    assert_eq!(b.call(&b.admin, "GET", &path, None).await.status, 200);
    assert_eq!(b.app.call("GET", &path, None, None).await.status, 401);
    assert_eq!(b.patch(&b.alice, &id, "visibility", json!("public")).await.status, 403);
    assert_eq!(b.patch(&b.admin, &id, "visibility", json!("public")).await.status, 200);
    assert_eq!(b.call(&b.bob, "GET", &path, None).await.status, 200);
    assert_eq!(b.patch(&b.bob, &id, "name", json!("mine")).await.status, 403);
    assert_eq!(b.call(&b.bob, "DELETE", &path, None).await.status, 403);
    assert_eq!(b.patch(&b.alice, &id, "owner", json!("bob")).await.status, 403);
    assert_eq!(b.patch(&b.alice, &id, "protected", json!(true)).await.status, 200);
    assert_eq!(b.call(&b.alice, "DELETE", &path, None).await.status, 403);
    assert_eq!(b.patch(&b.alice, &id, "status", json!("active")).await.status, 403);
    let reader = caller("alice", &["reader"]);
    assert_eq!(b.call(&reader, "POST", "/v2/images", Some(json!({"name": "x"}))).await.status, 403);
    for (body, code) in
        [(json!({"disk_format": "wrong"}), 400), (json!({"os_glance_foo": "bar"}), 403), (json!({"name": 5}), 400)]
    {
        assert_eq!(b.call(&b.alice, "POST", "/v2/images", Some(body)).await.status, code);
    }
    let other = b.call(&b.alice, "POST", "/v2/images", Some(json!({"owner": "bob"}))).await;
    assert_eq!(other.status, 403);
    for method in ["GET", "DELETE"] {
        assert_eq!(b.call(&b.alice, method, "/v2/images/", None).await.status, 404);
    }
    let fault = b.call(&b.alice, "GET", "/v2/images/nothing", None).await;
    assert_eq!(
        fault.body,
        json!({"message": "No image found with ID nothing", "code": "404 Not Found", "title": "Not Found"})
    );
}

#[tokio::test]
async fn members_see_what_is_shared_once_they_accept() {
    let b = Bench::new().await;
    let id = b.create(json!({"name": "s"})).await;
    let members = format!("/v2/images/{id}/members");
    assert_eq!(b.call(&b.bob, "GET", &format!("/v2/images/{id}"), None).await.status, 404);
    let made = b.call(&b.alice, "POST", &members, Some(json!({"member": "bob"}))).await;
    assert_eq!((made.status, &made.body["status"]), (200, &json!("pending")));
    assert_eq!(b.call(&b.alice, "POST", &members, Some(json!({"member": "bob"}))).await.status, 409);
    assert_eq!(b.call(&b.bob, "GET", &format!("/v2/images/{id}"), None).await.status, 200);
    assert!(b.listed(&b.bob, "").await.is_empty());
    assert_eq!(b.listed(&b.bob, "?member_status=pending&visibility=shared").await, ["s"]);
    let one = format!("{members}/bob");
    assert_eq!(b.call(&b.alice, "PUT", &one, Some(json!({"status": "accepted"}))).await.status, 403);
    assert_eq!(b.call(&b.bob, "PUT", &one, Some(json!({"status": "maybe"}))).await.status, 400);
    assert_eq!(b.call(&b.bob, "PUT", &one, Some(json!({"status": "accepted"}))).await.body["status"], "accepted");
    assert_eq!(b.listed(&b.bob, "").await, ["s"]);
    assert_eq!(b.call(&b.bob, "POST", &members, Some(json!({"member": "carol"}))).await.status, 403);
    assert_eq!(b.call(&b.bob, "GET", &one, None).await.status, 200);
    assert_eq!(b.call(&b.alice, "GET", &members, None).await.body["members"].as_array().unwrap().len(), 1);
    assert_eq!(b.call(&b.bob, "DELETE", &one, None).await.status, 403);
    assert_eq!(b.call(&b.alice, "DELETE", &one, None).await.status, 204);
    assert_eq!(b.call(&b.alice, "GET", &one, None).await.status, 404);
    assert!(b.listed(&b.bob, "").await.is_empty());
    let ctx = Ctx { caller: Arc::new(b.bob.clone()), request_id: "r".into() };
    assert_eq!(image::ops::visible(&b.svc.store, &ctx, &id).await.unwrap_err().code(), 404);
}

#[tokio::test]
async fn lists_filter_sort_and_page() {
    let b = Bench::new().await;
    for (name, size, format) in [("a", 30usize, "raw"), ("b", 10, "aki"), ("c", 20, "raw")] {
        let id = b.create(json!({"name": name, "disk_format": format, "container_format": "bare", "tags": [name, "all"], "hw": name})).await;
        assert_eq!(b.upload(&id, &vec![0; size]).await.status, 204);
    }
    b.create(json!({"name": "hidden", "os_hidden": true})).await;
    let community = b.create(json!({"name": "community", "visibility": "community"})).await;
    let sorted = async |query: &str| b.listed(&b.alice, query).await.join(",");
    assert_eq!(sorted("?sort=size:asc&size_min=1").await, "b,c,a");
    assert_eq!(sorted("?sort_key=size&sort_dir=desc&size_min=1").await, "a,c,b");
    assert_eq!(sorted("?disk_format=raw&sort=name:asc").await, "a,c");
    assert_eq!(sorted("?disk_format=in:aki,iso").await, "b");
    assert_eq!(sorted("?size_min=15&size_max=25").await, "c");
    assert_eq!(sorted("?size=30").await, "a");
    assert_eq!(sorted("?tag=a&tag=all").await, "a");
    assert_eq!(sorted("?tag=a&tag=b").await, "");
    assert_eq!(sorted("?hw=b").await, "b");
    assert_eq!(sorted("?os_hidden=true").await, "hidden");
    assert_eq!(sorted("?status=active&name=in:a,c&sort=name:desc").await, "c,a");
    assert_eq!(sorted("?created_at=gt:2100-01-01T00:00:00Z").await, "");
    assert_eq!(sorted("?visibility=community").await, "community");
    assert_eq!(b.listed(&b.bob, "").await, Vec::<String>::new());
    assert_eq!(b.listed(&b.bob, "?visibility=community").await, ["community"]);
    for bad in [
        "?limit=x",
        "?limit=-1",
        "?sort=colour",
        "?sort=name:up",
        "?visibility=x",
        "?marker=none",
        "?size_min=-1",
        "?member_status=x",
        "?changes-since=1",
    ] {
        assert_eq!(b.call(&b.alice, "GET", &format!("/v2/images{bad}"), None).await.status, 400, "{bad}");
    }
    let first = b.call(&b.alice, "GET", "/v2/images?limit=3&sort=name:asc", None).await.body;
    assert_eq!(first["first"], "/v2/images?limit=3&sort=name%3Aasc");
    let next = b.call(&b.alice, "GET", first["next"].as_str().unwrap(), None).await.body;
    assert_eq!((next["images"][0]["id"].as_str(), next.get("next")), (Some(community.as_str()), None));
}

#[tokio::test]
async fn tags_deactivation_and_documents() {
    let b = Bench::new().await;
    let id = b.raw().await;
    assert_eq!(b.call(&b.alice, "PUT", &format!("/v2/images/{id}/tags/x%20y"), None).await.status, 204);
    assert_eq!(b.call(&b.alice, "DELETE", &format!("/v2/images/{id}/tags/x%20y"), None).await.status, 204);
    assert_eq!(b.call(&b.alice, "DELETE", &format!("/v2/images/{id}/tags/x%20y"), None).await.status, 404);
    assert_eq!(b.upload(&id, b"data").await.status, 204);
    let act =
        async |what: &str| b.call(&b.alice, "POST", &format!("/v2/images/{id}/actions/{what}"), None).await.status;
    assert_eq!(act("deactivate").await, 204);
    assert_eq!(b.call(&b.alice, "GET", &format!("/v2/images/{id}/file"), None).await.status, 403);
    assert_eq!(b.call(&b.admin, "GET", &format!("/v2/images/{id}/file"), None).await.status, 200);
    assert_eq!(act("reactivate").await, 204);
    assert_eq!(b.status(&id).await, "active");
    for name in ["image", "images", "member", "members", "task", "tasks"] {
        assert_eq!(b.call(&b.alice, "GET", &format!("/v2/schemas/{name}"), None).await.body["name"], name);
    }
    assert_eq!(b.app.call("GET", "/", None, None).await.status, 300);
    assert_eq!(b.app.call("GET", "/versions", None, None).await.body["versions"][0]["status"], "CURRENT");
    assert_eq!(
        b.call(&b.alice, "GET", "/v2/info/import", None).await.body["import-methods"]["value"],
        json!(crate::import::METHODS)
    );
    assert_eq!(b.call(&b.alice, "GET", "/v2/info/stores", None).await.body["stores"][0]["id"], "file");
}

#[tokio::test]
async fn metadata_definitions_are_kept_by_administrators() {
    let b = Bench::new().await;
    let ns = "/v2/metadefs/namespaces";
    let body = json!({"namespace": "n", "visibility": "private", "resource_type_associations": [{"name": "OS::Glance::Image", "prefix": "hw_"}]});
    assert_eq!(b.call(&b.alice, "POST", ns, Some(body.clone())).await.status, 403);
    assert_eq!(b.call(&b.admin, "POST", ns, Some(body.clone())).await.status, 201);
    assert_eq!(b.call(&b.admin, "POST", ns, Some(body)).await.status, 409);
    assert_eq!(b.call(&b.alice, "GET", &format!("{ns}/n"), None).await.status, 404);
    let property = json!({"name": "cores", "title": "Cores", "type": "integer"});
    assert_eq!(b.call(&b.admin, "POST", &format!("{ns}/n/properties"), Some(property)).await.status, 201);
    assert_eq!(b.call(&b.admin, "POST", &format!("{ns}/n/properties"), Some(json!({"name": "x"}))).await.status, 400);
    assert_eq!(b.call(&b.admin, "POST", &format!("{ns}/n/tags/one"), None).await.status, 201);
    let renamed = b.call(&b.admin, "PUT", &format!("{ns}/n/tags/one"), Some(json!({"name": "two"}))).await;
    assert_eq!((renamed.status, &renamed.body["name"]), (200, &json!("two")));
    let public = json!({"namespace": "m", "visibility": "public", "protected": true});
    assert_eq!(b.call(&b.admin, "PUT", &format!("{ns}/n"), Some(public)).await.status, 200);
    let shown = b.call(&b.alice, "GET", &format!("{ns}/m"), None).await.body;
    assert_eq!((&shown["properties"]["cores"]["type"], &shown["tags"][0]["name"]), (&json!("integer"), &json!("two")));
    assert_eq!(b.call(&b.alice, "GET", ns, None).await.body["namespaces"][0]["namespace"], "m");
    assert_eq!(b.call(&b.alice, "DELETE", &format!("{ns}/m"), None).await.status, 403);
    assert_eq!(b.call(&b.admin, "DELETE", &format!("{ns}/m"), None).await.status, 403);
    assert_eq!(b.call(&b.admin, "DELETE", &format!("{ns}/m/tags"), None).await.status, 204);
    assert_eq!(b.call(&b.alice, "GET", &format!("{ns}/m/tags"), None).await.body["tags"], json!([]));
    assert_eq!(b.call(&b.admin, "DELETE", &format!("{ns}/m/resource_types/OS::Glance::Image"), None).await.status, 204);
}
