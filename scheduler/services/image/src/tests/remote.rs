//! Several stores: choosing one, copies, deleting from one, locations, the read cache; a real S3 server where there is one.
use super::*;
use crate::{StoreConfig, store::Kind};
use pilvi_kit::testing::caller;
use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

pub(super) fn file(directory: &Path, weight: i64) -> StoreConfig {
    let kind = Kind::File { directory: directory.to_owned() };
    StoreConfig { description: Some("a directory".into()), weight, read_only: false, kind }
}

async fn two() -> (Bench, tempfile::TempDir) {
    let home = tempfile::tempdir().unwrap();
    let (slow, fast) = (home.path().join("slow"), home.path().join("fast"));
    let b = Bench::with(|c| {
        c.stores = [("slow".to_owned(), file(&slow, 1)), ("fast".to_owned(), file(&fast, 9))].into();
        c.default_store = Some("slow".into());
        c.show_locations = true;
        c.show_direct_url = true;
    })
    .await;
    (b, home)
}

async fn copy(b: &Bench, id: &str, store: &str) {
    let body = json!({"method": {"name": "copy-image"}, "stores": [store]});
    let answer = b.call(&b.admin, "POST", &format!("/v2/images/{id}/import"), Some(body)).await;
    assert_eq!(answer.status, 202, "{:?}", answer.body);
    for _ in 0..500 {
        let shown = b.call(&b.admin, "GET", &format!("/v2/images/{id}"), None).await.body;
        if shown["stores"].as_str().unwrap().split(',').any(|s| s == store)
            && shown.get("os_glance_import_task").is_none()
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no copy in {store}");
}

#[tokio::test]
async fn an_image_lies_where_it_was_sent_and_copies_come_and_go() {
    let (b, home) = two().await;
    let id = b.raw().await;
    let made = b.call(&b.alice, "POST", "/v2/images", Some(json!({"name": "x"}))).await;
    assert_eq!(made.headers["openstack-image-store-ids"], "fast,slow");
    let (path, file) = (format!("/v2/images/{id}"), format!("/v2/images/{id}/file"));
    for bad in ["nowhere", ""] {
        let answer =
            b.app.upload("PUT", &file, &b.alice, b"data".to_vec(), &[OCTETS[0], ("x-image-meta-store", bad)]).await;
        assert_eq!(answer.status, 400, "{bad}");
    }
    let sent =
        b.app.upload("PUT", &file, &b.alice, b"data".to_vec(), &[OCTETS[0], ("x-image-meta-store", "fast")]).await;
    assert_eq!(sent.status, 204, "{:?}", sent.body);
    let shown = b.call(&b.alice, "GET", &path, None).await.body;
    assert_eq!(shown["stores"], "fast");
    let url = format!("file://{}", home.path().join("fast").join(&id).display());
    assert_eq!((&shown["direct_url"], &shown["locations"][0]["url"]), (&json!(url), &json!(url)));
    assert_eq!(shown["locations"][0]["metadata"], json!({"store": "fast"}));
    let from = |store: &str| format!("/v2/stores/{store}/{id}");
    assert_eq!(b.call(&b.admin, "DELETE", &from("fast"), None).await.status, 403, "the only copy");
    copy(&b, &id, "slow").await;
    assert_eq!(b.call(&b.alice, "DELETE", &from("slow"), None).await.status, 403, "for administrators");
    assert_eq!(b.call(&b.admin, "DELETE", &from("none"), None).await.status, 409);
    assert!(home.path().join("slow").join(&id).exists());
    // The copy of the greater weight is lost: the other one is read.
    std::fs::remove_file(home.path().join("fast").join(&id)).unwrap();
    assert_eq!(b.call(&b.alice, "GET", &file, None).await.bytes, b"data");
    assert_eq!(b.call(&b.alice, "GET", &format!("{file}?prefer=slow"), None).await.bytes, b"data");
    assert_eq!(b.call(&b.alice, "GET", &format!("{file}?prefer=none"), None).await.status, 400);
    assert_eq!(b.call(&b.admin, "DELETE", &from("fast"), None).await.status, 204);
    assert_eq!(b.call(&b.alice, "GET", &path, None).await.body["stores"], "slow");
    assert_eq!(b.call(&b.admin, "DELETE", &from("fast"), None).await.status, 403);
    assert_eq!(b.call(&b.alice, "DELETE", &path, None).await.status, 204);
    assert!(!home.path().join("slow").join(&id).exists());
    let left = b.svc.store.list::<crate::store::object::Object>(pilvi_store::Query::all()).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn stores_are_told_and_in_detail_to_administrators() {
    let (b, _home) = two().await;
    let stores = b.call(&b.alice, "GET", "/v2/info/stores", None).await.body["stores"].clone();
    assert_eq!(stores[1], json!({"id": "slow", "description": "a directory", "default": "true"}));
    assert_eq!(stores[0].get("default"), None);
    assert_eq!(b.call(&b.alice, "GET", "/v2/info/stores/detail", None).await.status, 403);
    let detail = b.call(&b.admin, "GET", "/v2/info/stores/detail", None).await.body["stores"].clone();
    assert_eq!((&detail[0]["type"], &detail[0]["weight"]), (&json!("file"), &json!(9)));
    assert!(detail[0]["properties"]["data_dir"].as_str().unwrap().ends_with("fast"));
}

#[tokio::test]
async fn what_is_deleted_while_a_store_fails_goes_later() {
    let (b, home) = two().await;
    let id = b.raw().await;
    assert_eq!(b.upload(&id, b"data").await.status, 204);
    // A directory where the file was cannot be removed as a file.
    let path = home.path().join("slow").join(&id);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert_eq!(b.call(&b.alice, "DELETE", &format!("/v2/images/{id}"), None).await.status, 204);
    let doomed = async || b.svc.store.count::<crate::store::object::Object>(pilvi_store::Query::all()).await.unwrap();
    assert_eq!(doomed().await, 1);
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, b"back again").unwrap();
    crate::store::object::sweep(&b.svc).await.unwrap();
    assert_eq!((doomed().await, path.exists()), (0, false));
}

#[tokio::test]
async fn locations_are_for_services_and_never_files() {
    let (b, home) = two().await;
    let id = b.raw().await;
    let path = format!("/v2/images/{id}/locations");
    let service = caller("alice", &["service", "member", "reader"]);
    assert_eq!(b.call(&b.alice, "GET", &path, None).await.status, 403);
    assert_eq!(b.call(&service, "GET", &path, None).await.body, json!([]));
    let secret = home.path().join("secret");
    std::fs::write(&secret, b"root:x").unwrap();
    for url in [format!("file://{}", secret.display()), "http://127.0.0.1/x".into(), "s3://x/y".into(), "x".into()] {
        for who in [&b.alice, &service] {
            let answer = b.call(who, "POST", &path, Some(json!({"url": url}))).await;
            assert_eq!(answer.status, 400, "{url}: {:?}", answer.body);
        }
        let patch = json!([{"op": "add", "path": "/locations/-", "value": {"url": url, "metadata": {}}}]);
        let answer = b.app.call_with("PATCH", &format!("/v2/images/{id}"), Some(&b.alice), Some(patch), PATCH).await;
        assert_eq!(answer.status, 400, "{url}: {:?}", answer.body);
    }
    assert_eq!(b.call(&b.bob, "POST", &path, Some(json!({"url": "x"}))).await.status, 404);
    let empty = json!([{"op": "replace", "path": "/locations", "value": []}]);
    let answer = b.app.call_with("PATCH", &format!("/v2/images/{id}"), Some(&b.alice), Some(empty), PATCH).await;
    assert_eq!(answer.status, 403);
    assert_eq!(b.status(&id).await, "queued");
    assert_eq!(b.upload(&id, b"data").await.status, 204);
    assert_eq!(b.call(&service, "GET", &path, None).await.body[0]["metadata"]["store"], "slow");
    assert_eq!(b.call(&service, "POST", &path, Some(json!({"url": "http://x.example/"}))).await.status, 409);
    let last = json!([{"op": "remove", "path": "/locations/0"}]);
    let answer = b.app.call_with("PATCH", &format!("/v2/images/{id}"), Some(&b.admin), Some(last), PATCH).await;
    assert_eq!(answer.status, 403, "the last one");
    copy(&b, &id, "fast").await;
    let first = json!([{"op": "remove", "path": "/locations/0"}]);
    let answer = b.app.call_with("PATCH", &format!("/v2/images/{id}"), Some(&b.admin), Some(first), PATCH).await;
    assert_eq!((answer.status, &answer.body["stores"]), (200, &json!("fast")));
    assert!(!home.path().join("slow").join(&id).exists());
}

#[tokio::test]
async fn without_a_cache_there_is_none_to_manage() {
    let b = Bench::new().await;
    assert_eq!(b.call(&b.alice, "GET", "/v2/cache", None).await.status, 403);
    for (method, path) in [("GET", "/v2/cache"), ("DELETE", "/v2/cache"), ("POST", "/v2/cache/prune")] {
        assert_eq!(b.call(&b.admin, method, path, None).await.status, 404, "{method} {path}");
    }
}

/// A real S3 server with a bucket; `None`, and a word about it, where none is installed.
struct S3 {
    server: Child,
    endpoint: String,
    home: tempfile::TempDir,
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl S3 {
    async fn start() -> Option<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let started = Command::new("moto_server")
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(server) = started else {
            println!("SKIPPED: no S3 server: pip install 'moto[server]'");
            return None;
        };
        let s3 = S3 { server, endpoint: format!("http://127.0.0.1:{port}"), home: tempfile::tempdir().unwrap() };
        for _ in 0..600 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                s3.request("PUT", "/images").await;
                std::fs::write(s3.home.path().join("secret"), "secret\n").unwrap();
                return Some(s3);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the S3 server does not answer");
    }

    /// The server takes requests without a signature as well.
    async fn request(&self, method: &str, path: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let host = self.endpoint.strip_prefix("http://").unwrap();
        let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
        let text =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn store(&self) -> StoreConfig {
        let text = json!({"type": "s3", "endpoint": self.endpoint, "bucket": "images", "prefix": "a/", "access_key": "key",
            "secret_key_file": self.home.path().join("secret"), "part_size_mib": 5});
        serde_json::from_value(text).unwrap()
    }

    async fn bench(&self) -> Bench {
        let store = self.store();
        Bench::with(move |c| {
            c.stores = [("s3".to_owned(), store)].into();
            c.cache_size_max = 32 << 20;
        })
        .await
    }

    async fn objects(&self) -> usize {
        self.request("GET", "/images?list-type=2").await.matches("<Key>").count()
    }

    async fn uploads(&self) -> usize {
        self.request("GET", "/images?uploads").await.matches("<UploadId>").count()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_holds_images_and_the_cache_spares_it() {
    let Some(s3) = S3::start().await else { return };
    let b = s3.bench().await;
    // Three parts, the last one short; one short part; nothing at all.
    let data: Vec<u8> = (0..12u32 << 20).map(|n| (n % 251) as u8).collect();
    for bytes in [&data[..], b"short", b""] {
        let id = b.raw().await;
        assert_eq!(b.upload(&id, bytes).await.status, 204);
        let got = b.call(&b.alice, "GET", &format!("/v2/images/{id}/file"), None).await;
        assert!(got.bytes == bytes, "{} bytes", bytes.len());
        assert_eq!(b.call(&b.alice, "DELETE", &format!("/v2/images/{id}"), None).await.status, 204);
    }
    assert_eq!((s3.objects().await, s3.uploads().await), (0, 0));
    let id = b.raw().await;
    assert_eq!(b.upload(&id, &data).await.status, 204);
    let (path, file) = (format!("/v2/images/{id}"), format!("/v2/images/{id}/file"));
    let part = b.app.call_with("GET", &file, Some(&b.alice), None, &[("range", "bytes=5242878-5242883")]).await;
    assert_eq!((part.status, part.bytes.as_slice()), (206, &data[5_242_878..5_242_884]));
    let cached = async || b.call(&b.admin, "GET", "/v2/cache", None).await.body;
    assert_eq!(cached().await, json!({"cached_images": [], "queued_images": []}), "a part is not the whole");
    assert!(b.call(&b.alice, "GET", &file, None).await.bytes == data);
    let entry = cached().await["cached_images"][0].clone();
    assert_eq!((&entry["image_id"], &entry["size"], &entry["hits"]), (&json!(id), &json!(data.len()), &json!(0)));
    // The bucket may go: the cache has all of it.
    s3.request("DELETE", &format!("/images/a/{id}")).await;
    assert!(b.call(&b.alice, "GET", &file, None).await.bytes == data);
    assert_eq!(cached().await["cached_images"][0]["hits"], 1);
    let clear =
        b.app.call_with("DELETE", "/v2/cache", Some(&b.admin), None, &[("x-image-cache-clear-target", "x")]).await;
    assert_eq!(clear.status, 400);
    assert_eq!(b.call(&b.admin, "DELETE", &format!("/v2/cache/{id}"), None).await.status, 204);
    assert_eq!(b.call(&b.alice, "GET", &file, None).await.status, 404, "neither there nor here");
    assert_eq!(b.call(&b.alice, "DELETE", &path, None).await.status, 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_fills_the_cache_and_crashes_leave_nothing_in_a_bucket() {
    let Some(s3) = S3::start().await else { return };
    let b = s3.bench().await;
    let id = b.raw().await;
    assert_eq!(b.call(&b.admin, "PUT", &format!("/v2/cache/{id}"), None).await.status, 400, "not active");
    assert_eq!(b.upload(&id, b"data").await.status, 204);
    assert_eq!(b.call(&b.alice, "PUT", &format!("/v2/cache/{id}"), None).await.status, 403);
    assert_eq!(b.call(&b.admin, "PUT", &format!("/v2/cache/{id}"), None).await.status, 202);
    assert_eq!(b.call(&b.admin, "GET", "/v2/cache", None).await.body["queued_images"], json!([id]));
    crate::cache::ops::fetch_queued(&b.svc).await.unwrap();
    let state = b.call(&b.admin, "GET", "/v2/cache", None).await.body;
    assert_eq!((&state["queued_images"], &state["cached_images"][0]["image_id"]), (&json!([]), &json!(id)));
    // A refused upload, and one whose process died.
    let qcow2 = b.create(json!({"name": "q", "disk_format": "qcow2", "container_format": "bare"})).await;
    assert_eq!(b.upload(&qcow2, &vec![1; 6 << 20]).await.status, 415);
    assert_eq!((s3.objects().await, s3.uploads().await), (1, 0));
    let (cut, store) = (b.raw().await, b.svc.stores.default().clone());
    image::ops::step(&b.svc.store, &cut, image::model::Event::UploadBegins, |_| {}).await.unwrap();
    let mut incoming = crate::store::object::begin(&b.svc, &store, &cut).await.unwrap();
    incoming.write(bytes::Bytes::from(vec![0; 6 << 20])).await.unwrap();
    std::mem::forget(incoming);
    assert_eq!(s3.uploads().await, 1);
    b.svc.recover(&Default::default()).await.unwrap();
    assert_eq!((s3.objects().await, s3.uploads().await, b.status(&cut).await), (1, 0, json!("queued")));
    assert_eq!(b.call(&b.alice, "GET", &format!("/v2/images/{id}/file"), None).await.bytes, b"data");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_names_an_object_that_it_wrote_itself() {
    let Some(s3) = S3::start().await else { return };
    let b = s3.bench().await;
    let service = caller("alice", &["service", "member", "reader"]);
    let (from, to) = (b.raw().await, b.raw().await);
    assert_eq!(b.upload(&from, b"data").await.status, 204);
    let url = b.call(&service, "GET", &format!("/v2/images/{from}/locations"), None).await.body[0]["url"].clone();
    let path = format!("/v2/images/{to}/locations");
    assert_eq!(b.call(&service, "POST", &path, Some(json!({"url": url}))).await.status, 409, "it is another image's");
    s3.request("PUT", "/images/a/snapshot").await;
    let url = json!(url.as_str().unwrap().replace(&from, "snapshot"));
    assert_eq!(b.call(&b.alice, "POST", &path, Some(json!({"url": url}))).await.status, 403, "for services alone");
    let wrong = json!({"url": url, "validation_data": {"os_hash_algo": "sha512", "os_hash_value": "00".repeat(64)}});
    for (body, status) in [(wrong, "failure"), (json!({"url": url}), "success")] {
        assert_eq!(b.call(&service, "POST", &path, Some(body)).await.status, 202);
        let mut task = Value::Null;
        for _ in 0..500 {
            let tasks = b.call(&b.alice, "GET", &format!("/v2/images/{to}/tasks"), None).await.body["tasks"].clone();
            task = tasks.as_array().unwrap().iter().find(|t| t["status"] == status).cloned().unwrap_or(Value::Null);
            if !task.is_null() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!((&task["type"], &task["status"]), (&json!("location_import"), &json!(status)));
    }
    let shown = b.call(&b.alice, "GET", &format!("/v2/images/{to}"), None).await.body;
    assert_eq!((&shown["status"], &shown["size"], &shown["stores"]), (&json!("active"), &json!(0), &json!("s3")));
    assert!(shown["os_hash_value"].as_str().unwrap().starts_with("cf83e1357eefb8bd"), "the hash of nothing");
}
