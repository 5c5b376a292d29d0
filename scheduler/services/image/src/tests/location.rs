//! Bytes that stay on a web server: named by a patch, given by the locations API, cached on demand.
use super::{
    import::{Web, open_to},
    remote::file,
    *,
};
use crate::{StoreConfig, store::Kind};
use sha2::{Digest, Sha256, Sha512};

const FILE: &[u8] = b"bytes on a web server";

/// A store of web servers beside the directory, and a server in it.
async fn bench() -> (Bench, Web, tempfile::TempDir) {
    bench_with(|_| {}).await
}

async fn bench_with(set: impl FnOnce(&mut crate::Config)) -> (Bench, Web, tempfile::TempDir) {
    let home = tempfile::tempdir().unwrap();
    let web = Web::of(FILE.to_vec(), usize::MAX, true).await;
    let b = Bench::with(|c| {
        let kind = Kind::Http;
        c.stores.insert("file".to_owned(), file(&home.path().join("images"), 1));
        c.stores.insert("web".to_owned(), StoreConfig { description: None, weight: 0, read_only: true, kind });
        c.default_store = Some("file".to_owned());
        c.show_locations = true;
        c.cache_size_max = 1 << 20;
        open_to(c, web.port);
        set(c);
    })
    .await;
    (b, web, home)
}

async fn patch(b: &Bench, id: &str, op: &str, path: &str, value: Value) -> u16 {
    let patch = json!([{"op": op, "path": path, "value": value}]);
    b.app.call_with("PATCH", &format!("/v2/images/{id}"), Some(&b.alice), Some(patch), PATCH).await.status
}

#[tokio::test]
async fn a_patch_says_what_an_image_shows_and_what_was_read_is_kept_beside_it() {
    let (b, web, _home) = bench().await;
    let (plain, told) = (b.raw().await, b.raw().await);
    let location = json!({"url": web.url(), "metadata": {"a": "b"}});
    assert_eq!(patch(&b, &plain, "add", "/locations/-", location.clone()).await, 200);
    let shown = b.shown(&plain).await;
    assert_eq!((&shown["status"], &shown["size"], &shown["stores"]), (&json!("active"), &json!(21), &json!("web")));
    assert_eq!((&shown["checksum"], &shown["os_hash_algo"]), (&Value::Null, &Value::Null));
    let content = hex::encode(Sha512::digest(FILE));
    let kept = image::ops::get_any(&b.svc.store, &plain).await.unwrap();
    assert_eq!(kept.content_hash(), Some(content.as_str()), "hosts check what was read");

    let hashes = json!({"checksum": "1".repeat(32), "os_hash_algo": "sha512", "os_hash_value": "deadbeef".repeat(16)});
    let mut value = json!({"url": web.url(), "metadata": {}, "validation_data": hashes});
    assert_eq!(patch(&b, &told, "add", "/locations/-", value.clone()).await, 200);
    assert_eq!(b.shown(&told).await["os_hash_value"], hashes["os_hash_value"]);
    value["url"] = json!(web.url() + "#again");
    for (name, other) in [("checksum", "2"), ("os_hash_algo", "sha256"), ("os_hash_value", "beef")] {
        let mut wrong = value.clone();
        wrong["validation_data"][name] = json!(other);
        assert_eq!(patch(&b, &told, "add", "/locations/-", wrong).await, 409, "{name}");
    }
    assert_eq!(patch(&b, &told, "add", "/locations/-", value).await, 200);
    let mut all = b.shown(&told).await["locations"].clone();
    assert_eq!(all.as_array().unwrap().len(), 2);
    all[0]["metadata"]["speed"] = json!("88mph");
    assert_eq!(patch(&b, &told, "replace", "/locations", all.clone()).await, 200);
    assert_eq!(patch(&b, &told, "replace", "/locations", json!([all[0]])).await, 400, "one is missing");
    all[1]["url"] = json!(web.url() + "#third");
    assert_eq!(patch(&b, &told, "replace", "/locations", all).await, 400, "another URL");
    for bad in [json!({"checksum": "12"}), json!({"os_hash_algo": "sha256", "os_hash_value": "ab".repeat(32)})] {
        let value = json!({"url": web.url(), "metadata": {}, "validation_data": bad});
        assert_eq!(patch(&b, &b.raw().await, "add", "/locations/-", value).await, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_url_of_no_store_is_told_from_one_that_the_operator_does_not_let_pass() {
    let (b, _web, _home) = bench().await;
    let add = async |url: &str| {
        let path = format!("/v2/images/{}/locations", b.raw().await);
        let answer = b.call(&b.alice, "POST", &path, Some(json!({"url": url}))).await;
        (answer.status, answer.body.to_string())
    };
    for url in ["http://127.0.0.1:1/x", "https://127.0.0.1:1/x"] {
        let (status, said) = add(url).await;
        assert!(status == 400 && said.contains("does not pass filtering"), "{url}: {status} {said}");
    }
    for url in ["ftp://127.0.0.1/x", "rbd://pool/x", "x"] {
        let (status, said) = add(url).await;
        assert!(status == 400 && said.contains("in no store"), "{url}: {status} {said}");
    }
}

#[tokio::test]
async fn a_location_is_read_and_must_hold_what_was_said() {
    let (b, web, _home) = bench().await;
    let give = async |id: &str, hashes: Value| {
        let body = json!({"url": web.url(), "validation_data": hashes});
        b.call(&b.alice, "POST", &format!("/v2/images/{id}/locations"), Some(body)).await.status
    };
    let good = b.raw().await;
    let short = hex::encode(Sha256::digest(FILE));
    for bad in [json!({"os_hash_value": short}), json!({"os_hash_algo": "sha512", "os_hash_value": short})] {
        assert_eq!(give(&good, bad.clone()).await, 400, "{bad}");
    }
    assert_eq!(give(&good, json!({"os_hash_algo": "sha256", "os_hash_value": short})).await, 202);
    assert_eq!(b.task(&good).await["status"], "success");
    let shown = b.shown(&good).await;
    assert_eq!((&shown["os_hash_algo"], &shown["os_hash_value"]), (&json!("sha256"), &json!(short)));
    assert_eq!(b.call(&b.alice, "GET", &format!("/v2/images/{good}/file"), None).await.status, 200);

    // What failed stays named, as the store removes nothing; an upload takes its place.
    let wrong = b.raw().await;
    assert_eq!(give(&wrong, json!({"os_hash_algo": "sha512", "os_hash_value": "ab".repeat(64)})).await, 202);
    assert_eq!(b.task(&wrong).await["status"], "failure");
    let shown = b.shown(&wrong).await;
    assert_eq!((&shown["status"], &shown["stores"]), (&json!("queued"), &json!("web")));
    assert_eq!((&shown["os_hash_value"], &shown["size"]), (&Value::Null, &Value::Null));
    assert_eq!(b.call(&b.alice, "GET", &format!("/v2/images/{wrong}/file"), None).await.status, 204);
    assert_eq!(b.upload(&wrong, b"data").await.status, 204);
    assert_eq!(b.shown(&wrong).await["stores"], "file");
}

#[tokio::test]
async fn locations_are_believed_where_hashing_is_off() {
    let (b, web, _home) = bench_with(|c| c.hash_locations = false).await;
    for (algorithm, value) in [("sha256", "ab".repeat(32)), ("sha512", "cd".repeat(64))] {
        let id = b.raw().await;
        let hashes = json!({"os_hash_algo": algorithm, "os_hash_value": value});
        let body = json!({"url": web.url(), "validation_data": hashes});
        assert_eq!(b.call(&b.alice, "POST", &format!("/v2/images/{id}/locations"), Some(body)).await.status, 202);
        assert_eq!(b.task(&id).await["status"], "success");
        let shown = b.shown(&id).await;
        assert_eq!((&shown["status"], &shown["size"]), (&json!("active"), &json!(FILE.len())));
        assert_eq!((&shown["os_hash_algo"], &shown["os_hash_value"]), (&json!(algorithm), &json!(value)));
        assert_eq!(shown["checksum"], Value::Null);
        let kept = image::ops::get_any(&b.svc.store, &id).await.unwrap();
        assert_eq!(kept.content_hash().is_some(), algorithm == "sha512", "hosts check what they can");
    }
    let id = b.raw().await;
    let body = json!({"url": web.url()});
    assert_eq!(b.call(&b.alice, "POST", &format!("/v2/images/{id}/locations"), Some(body)).await.status, 202);
    assert_eq!(b.task(&id).await["status"], "success");
    assert_eq!((&b.shown(&id).await["os_hash_value"], &b.shown(&id).await["size"]), (&Value::Null, &json!(FILE.len())));
    assert_eq!(b.call(&b.alice, "GET", &format!("/v2/images/{id}/file"), None).await.status, 200);
}

#[tokio::test]
async fn an_image_of_a_directory_is_cached_when_it_is_queued() {
    let (b, _web, _home) = bench().await;
    let id = b.raw().await;
    assert_eq!(b.upload(&id, b"data").await.status, 204);
    let cached = async || b.call(&b.admin, "GET", "/v2/cache", None).await.body["cached_images"].clone();
    assert_eq!(b.call(&b.alice, "GET", &format!("/v2/images/{id}/file"), None).await.status, 200);
    assert_eq!(cached().await, json!([]), "it is here already");
    assert_eq!(b.call(&b.admin, "PUT", &format!("/v2/cache/{id}"), None).await.status, 202);
    crate::cache::ops::fetch_queued(&b.svc).await.unwrap();
    assert_eq!(cached().await[0]["image_id"], json!(id));
}
