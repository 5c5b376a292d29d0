//! Imports of every kind, through the kit: downloads that break off, locks, stops, plug-ins.
use super::*;
use crate::{
    plugin::{Output, Plugin},
    task::model::Status as Progress,
};
use axum::{Router, body::Body, http::HeaderMap, routing::get};
use bytes::Bytes;
use futures::{StreamExt, stream};
use pilvi_kit::fetch::Listed;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// A server of one file that breaks every connection after some bytes.
pub(super) struct Web {
    pub(super) port: u16,
    asked: Arc<AtomicUsize>,
}

impl Web {
    /// `ranges`: may clients ask for a part?
    pub(super) async fn of(file: Vec<u8>, cut: usize, ranges: bool) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (file, asked) = (Arc::new(file), Arc::new(AtomicUsize::new(0)));
        let counter = asked.clone();
        let serve = move |headers: HeaderMap| {
            let (file, counter) = (file.clone(), counter.clone());
            async move {
                counter.fetch_add(1, Ordering::Relaxed);
                let range =
                    headers.get("range").and_then(|v| v.to_str().ok()?.strip_prefix("bytes=")?.strip_suffix('-'));
                let from = range.filter(|_| ranges).and_then(|n| n.parse::<usize>().ok());
                let rest = file[from.unwrap_or(0)..].to_vec();
                let length = rest.len();
                let part: Vec<u8> = rest.into_iter().take(cut).collect();
                let broken = stream::iter((part.len() < length).then_some(())).then(|()| async {
                    // What was sent before has to be on its way.
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    Err(std::io::Error::other("gone"))
                });
                let body = stream::iter([Ok(Bytes::from(part))]).chain(broken);
                let mut answer = http::Response::builder().header("content-length", length).header("etag", "\"v1\"");
                if let Some(from) = from {
                    let range = format!("bytes {from}-{}/{}", file.len() - 1, file.len());
                    answer = answer.status(206).header("content-range", range);
                }
                answer.body(Body::from_stream(body)).unwrap()
            }
        };
        let app = Router::new().route("/image", get(serve));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Web { port, asked }
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/image", self.port)
    }
}

pub(super) fn open_to(config: &mut Config, port: u16) {
    config.import.web.ports = Listed::allow([port]);
    config.import.web.networks = vec!["127.0.0.0/8".parse().unwrap()];
}

impl Bench {
    pub(super) async fn import(&self, who: &Caller, id: &str, body: Value) -> u16 {
        self.call(who, "POST", &format!("/v2/images/{id}/import"), Some(body)).await.status
    }

    /// The newest task of an image, when it has ended.
    pub(super) async fn task(&self, id: &str) -> Value {
        for _ in 0..1000 {
            let tasks = self.call(&self.alice, "GET", &format!("/v2/images/{id}/tasks"), None).await.body;
            let tasks = tasks["tasks"].as_array().unwrap().clone();
            if !tasks.is_empty() && tasks.iter().all(|t| matches!(t["status"].as_str(), Some("success" | "failure"))) {
                return tasks.into_iter().max_by_key(|t| t["created_at"].to_string()).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the import of {id} does not end");
    }

    pub(super) async fn shown(&self, id: &str) -> Value {
        self.call(&self.alice, "GET", &format!("/v2/images/{id}"), None).await.body
    }

    pub(super) async fn stage(&self, id: &str, data: &[u8], headers: &[(&str, &str)]) -> u16 {
        let headers = [OCTETS, headers].concat();
        self.app.upload("PUT", &format!("/v2/images/{id}/stage"), &self.alice, data.to_vec(), &headers).await.status
    }
}

fn web_download(url: &str) -> Value {
    json!({"method": {"name": "web-download", "uri": url}})
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_was() {
    let file: Vec<u8> = (0..400_000u32).map(|i| (i * 7 % 251) as u8).collect();
    for ranges in [true, false] {
        let web = Web::of(file.clone(), if ranges { 150_000 } else { usize::MAX }, ranges).await;
        let b = Bench::with(|c| open_to(c, web.port)).await;
        let id = b.raw().await;
        assert_eq!(b.import(&b.alice, &id, web_download(&web.url())).await, 202);
        let task = b.task(&id).await;
        assert_eq!(task["status"], "success", "{task}");
        assert_eq!(task["result"]["image_id"], json!(id));
        assert_eq!(task["input"]["import_req"]["method"]["name"], "web-download");
        assert_eq!(web.asked.load(Ordering::Relaxed), if ranges { 3 } else { 1 });
        let got = b.call(&b.alice, "GET", &format!("/v2/images/{id}/file"), None).await;
        assert!(got.bytes == file);
        let shown = b.shown(&id).await;
        assert_eq!(
            (&shown["os_glance_importing_to_stores"], &shown["os_glance_failed_import"]),
            (&json!(""), &json!(""))
        );
        assert!(shown.get("os_glance_import_task").is_none() && shown.get("os_glance_staged_bytes").is_none());
        assert_eq!(b.files().await, [id]);
    }
}

#[tokio::test]
async fn what_may_not_be_fetched_is_not() {
    let web = Web::of(vec![1; 2000], usize::MAX, true).await;
    let b = Bench::with(|c| c.import.web.ports = Listed::allow([web.port])).await;
    let id = b.raw().await;
    for url in [&web.url(), "http://localhost:22/", "file:///etc/passwd", "", "http://169.254.169.254/latest"] {
        assert_eq!(b.import(&b.alice, &id, web_download(url)).await, 400, "{url}");
    }
    // A name is resolved later: what it stands for is refused then.
    let named = format!("http://localhost:{}/image", web.port);
    assert_eq!(b.import(&b.alice, &id, web_download(&named)).await, 202);
    assert_eq!(b.task(&id).await["status"], "failure");
    assert_eq!(web.asked.load(Ordering::Relaxed), 0);
    let shown = b.shown(&id).await;
    assert_eq!((&shown["status"], &shown["os_glance_failed_import"]), (&json!("queued"), &json!("file")));
    let small = Bench::with(|c| {
        open_to(c, web.port);
        c.size_max = 1000;
    })
    .await;
    let id = small.raw().await;
    assert_eq!(small.import(&small.alice, &id, web_download(&web.url())).await, 202);
    assert!(small.task(&id).await["message"].as_str().unwrap().contains("too large"));
    assert!(small.files().await.is_empty());
}

#[tokio::test]
async fn states_rules_and_bodies_are_checked_first() {
    let b = Bench::new().await;
    let id = b.raw().await;
    let direct = json!({"method": {"name": "glance-direct"}});
    assert_eq!(b.import(&b.alice, &id, direct.clone()).await, 409);
    assert_eq!(b.import(&b.bob, &id, direct.clone()).await, 404);
    assert_eq!(b.import(&b.alice, &id, json!({"method": {"name": "magic"}})).await, 400);
    assert_eq!(b.import(&b.alice, &id, json!({"method": {"name": "copy-image"}})).await, 403);
    assert_eq!(b.import(&b.admin, &id, json!({"method": {"name": "copy-image"}})).await, 409);
    assert_eq!(b.stage(&id, b"data", &[]).await, 204);
    assert_eq!(b.import(&b.alice, &id, json!({"method": {"name": "glance-direct"}, "stores": ["none"]})).await, 409);
    assert_eq!(b.import(&b.alice, &id, web_download("http://192.0.2.1/")).await, 409);
    assert_eq!(b.import(&b.alice, &id, direct.clone()).await, 202);
    assert_eq!(b.task(&id).await["status"], "success");
    assert_eq!(b.import(&b.alice, &id, direct).await, 409);
    assert_eq!(b.import(&b.admin, &id, json!({"method": {"name": "copy-image"}, "stores": ["file"]})).await, 400);
    assert_eq!(b.import(&b.admin, &id, json!({"method": {"name": "copy-image"}, "all_stores": true})).await, 202);
    let bare = b.create(json!({"name": "no formats"})).await;
    assert_eq!(b.stage(&bare, b"data", &[]).await, 204);
    assert_eq!(b.import(&b.alice, &bare, json!({"method": {"name": "glance-direct"}})).await, 409);
}

#[tokio::test]
async fn staging_goes_on_after_a_break() {
    let b = Bench::new().await;
    let (id, file) = (b.raw().await, (0..1_000_000u32).map(|i| (i % 253) as u8).collect::<Vec<_>>());
    let cut = stream::iter([Ok(Bytes::copy_from_slice(&file[..300_000])), Err(std::io::Error::other("gone"))]).boxed();
    let cut = pilvi_kit::call::BodyStream::new(cut);
    let broken = crate::data::stage::stage(&b.svc, &id, cut, Some(1_000_000), None).await.unwrap_err();
    assert_eq!(broken.code(), 400);
    let shown = b.shown(&id).await;
    assert_eq!((&shown["status"], &shown["os_glance_staged_bytes"]), (&json!("queued"), &json!("300000")));
    b.svc.recover(&Default::default()).await.unwrap();
    assert_eq!(b.stage(&id, &file[400_000..], &[("content-range", "bytes 400000-999999/1000000")]).await, 416);
    assert_eq!(b.stage(&id, &file[300_000..], &[("content-range", "bytes nonsense")]).await, 400);
    assert_eq!(b.stage(&id, &file[300_000..400_000], &[("content-range", "bytes 300000-399999/1000000")]).await, 204);
    assert_eq!(b.shown(&id).await["os_glance_staged_bytes"], "400000");
    assert_eq!(b.import(&b.alice, &id, json!({"method": {"name": "glance-direct"}})).await, 409, "not all is there");
    assert_eq!(b.stage(&id, &file[350_000..], &[("content-range", "bytes 350000-999999/1000000")]).await, 204);
    let shown = b.shown(&id).await;
    assert_eq!(
        (&shown["status"], &shown["size"], shown.get("os_glance_staged_bytes")),
        (&json!("uploading"), &json!(1_000_000), None)
    );
    assert_eq!(b.import(&b.alice, &id, json!({"method": {"name": "glance-direct"}})).await, 202);
    assert_eq!(b.task(&id).await["status"], "success");
    assert!(b.call(&b.alice, "GET", &format!("/v2/images/{id}/file"), None).await.bytes == file);
    // Who knows nothing of that stages everything again.
    let again = b.raw().await;
    let cut = stream::iter([Ok(Bytes::from_static(b"half")), Err(std::io::Error::other("gone"))]).boxed();
    let cut = crate::data::stage::stage(&b.svc, &again, pilvi_kit::call::BodyStream::new(cut), None, None).await;
    assert!(cut.is_err());
    assert_eq!(b.stage(&again, b"whole file", &[]).await, 204);
    assert_eq!(b.shown(&again).await["size"], 10);
    assert_eq!(b.call(&b.alice, "DELETE", &format!("/v2/images/{again}"), None).await.status, 204);
    assert_eq!(b.files().await, [id]);
}

#[tokio::test]
async fn a_stale_import_loses_its_image_and_a_live_one_does_not() {
    let b = Bench::with(|c| c.import.stale_seconds = 10).await;
    let id = b.raw().await;
    assert_eq!(b.stage(&id, b"data", &[]).await, 204);
    let old = crate::task::model::Task {
        id: pilvi_kit::id::new(),
        kind: "api_image_import".into(),
        status: Progress::Processing,
        owner: "alice".into(),
        user_id: "u".into(),
        image_id: id.clone(),
        request_id: "r".into(),
        input: Value::Null,
        request: Value::Null,
        message: String::new(),
        result: None,
        roles: vec![],
        resume: None,
        ended_us: None,
    };
    crate::task::ops::add(&b.svc.store, old.clone()).await.unwrap();
    let task = old.id.clone();
    let taken = image::ops::change(&b.svc.store, &id, move |image| {
        image.import.begin(&task, &["file".to_owned()]);
        image.status = image::model::Status::Importing;
        Ok(())
    });
    taken.await.unwrap();
    let direct = json!({"method": {"name": "glance-direct"}});
    assert_eq!(b.shown(&id).await["os_glance_import_task"], json!(old.id));
    assert_eq!(b.import(&b.alice, &id, direct.clone()).await, 409, "it is alive");
    // A task that is not there any more cannot hold anything.
    image::ops::change(&b.svc.store, &id, |image| {
        image.import.task = Some("gone".into());
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(b.import(&b.alice, &id, direct).await, 202);
    let ended = async {
        while b.status(&id).await != "active" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap();
}

#[tokio::test]
async fn an_import_that_a_stop_interrupted_goes_on() {
    let file: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
    let web = Web::of(file.clone(), usize::MAX, true).await;
    let b = Bench::with(|c| open_to(c, web.port)).await;
    for method in ["glance-direct", "web-download"] {
        let id = b.raw().await;
        if method == "glance-direct" {
            assert_eq!(b.stage(&id, &file, &[]).await, 204);
        } else {
            // A download of which a part is durable, and more was lost.
            std::fs::write(b.svc.files.path(&format!("{id}.staged")), &file[..60_000]).unwrap();
        }
        let body = json!({"method": {"name": method, "uri": web.url()}});
        let task = crate::task::model::Task {
            id: pilvi_kit::id::new(),
            kind: "api_image_import".into(),
            status: Progress::Processing,
            owner: "alice".into(),
            user_id: "u".into(),
            image_id: id.clone(),
            request_id: "r".into(),
            input: json!({"import_req": body}),
            request: body,
            message: String::new(),
            result: None,
            roles: vec![],
            resume: Some(pilvi_kit::fetch::Progress {
                have: 50_000,
                total: Some(200_000),
                validator: Some("\"v1\"".into()),
            }),
            ended_us: None,
        };
        crate::task::ops::add(&b.svc.store, task.clone()).await.unwrap();
        image::ops::change(&b.svc.store, &id, move |image| {
            image.import.begin(&task.id, &["file".to_owned()]);
            image.status = image::model::Status::Importing;
            Ok(())
        })
        .await
        .unwrap();
        std::fs::write(b.svc.files.path(&format!("{id}.work-x-0")), b"half made").unwrap();
        b.svc.recover(&Default::default()).await.unwrap();
        let task = b.task(&id).await;
        assert_eq!(task["status"], "success", "{method}: {task}");
        assert!(b.call(&b.alice, "GET", &format!("/v2/images/{id}/file"), None).await.bytes == file, "{method}");
    }
    assert_eq!(web.asked.load(Ordering::Relaxed), 1);
    assert!(b.files().await.iter().all(|name| !name.contains('.')));
}

#[tokio::test]
async fn plug_ins_unpack_convert_and_inject() {
    let disk = pilvi_disk::samples::qcow2(1 << 20);
    let packed = {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&disk).unwrap();
        encoder.finish().unwrap()
    };
    let b = Bench::with(|c| {
        c.import.plugins.plugins = vec![Plugin::Decompression, Plugin::Conversion, Plugin::Inject];
        c.import.plugins.output_format = Output::Raw;
        c.import.plugins.inject = BTreeMap::from([("hw_disk_bus".into(), "virtio".into())]);
    })
    .await;
    let id = b.create(json!({"name": "q", "disk_format": "qcow2", "container_format": "bare"})).await;
    assert_eq!(b.stage(&id, &packed, &[]).await, 204);
    assert_eq!(b.import(&b.alice, &id, json!({"method": {"name": "glance-direct"}})).await, 202);
    let task = b.task(&id).await;
    assert_eq!(task["status"], "success", "{task}");
    let shown = b.shown(&id).await;
    assert_eq!(
        (&shown["disk_format"], &shown["size"], &shown["hw_disk_bus"]),
        (&json!("raw"), &json!(1 << 20), &json!("virtio"))
    );
    assert_eq!(b.files().await, [id]);
    let bad = b.create(json!({"name": "bad", "disk_format": "qcow2", "container_format": "bare"})).await;
    assert_eq!(b.stage(&bad, &packed[..packed.len() / 2], &[]).await, 204);
    assert_eq!(b.import(&b.alice, &bad, json!({"method": {"name": "glance-direct"}})).await, 202);
    assert_eq!(b.task(&bad).await["status"], "failure");
    assert_eq!((b.status(&bad).await, b.files().await.len()), (json!("queued"), 1));
}

#[tokio::test]
async fn the_tasks_api_makes_an_image_and_imports_it() {
    let web = Web::of(vec![7; 5000], usize::MAX, true).await;
    let b = Bench::with(|c| open_to(c, web.port)).await;
    let input = |url: &str| {
        json!({"type": "import", "input": {"import_from": url, "import_from_format": "raw",
            "image_properties": {"name": "t", "disk_format": "raw", "container_format": "bare", "visibility": "public"}}})
    };
    assert_eq!(b.call(&b.alice, "POST", "/v2/tasks", Some(input(&web.url()))).await.status, 403);
    assert_eq!(b.call(&b.admin, "POST", "/v2/tasks", Some(input("file:///etc/passwd"))).await.status, 400);
    assert_eq!(b.call(&b.admin, "POST", "/v2/tasks", Some(json!({"type": "import", "input": {}}))).await.status, 400);
    assert_eq!(b.call(&b.admin, "POST", "/v2/tasks", Some(json!({"type": "magic"}))).await.status, 400);
    let made = b.call(&b.admin, "POST", "/v2/tasks", Some(input(&web.url()))).await;
    assert_eq!((made.status, &made.body["type"]), (201, &json!("import")), "{:?}", made.body);
    let path = format!("/v2/tasks/{}", made.body["id"].as_str().unwrap());
    let mut task = Value::Null;
    for _ in 0..500 {
        task = b.call(&b.admin, "GET", &path, None).await.body;
        if task["status"] == "success" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(task["status"], "success", "{task}");
    assert_eq!(task["input"]["import_from"], json!(web.url()));
    let id = task["result"]["image_id"].as_str().unwrap().to_owned();
    assert_eq!(b.shown(&id).await["status"], "active");
}

#[tokio::test]
async fn an_image_deleted_during_its_import_leaves_nothing() {
    let web = Web::of(vec![3; 200_000], 100_000, false).await;
    let b = Bench::with(|c| open_to(c, web.port)).await;
    let id = b.raw().await;
    assert_eq!(b.import(&b.alice, &id, web_download(&web.url())).await, 202);
    while web.asked.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(b.upload(&id, b"x").await.status, 409);
    assert_eq!(b.call(&b.alice, "DELETE", &format!("/v2/images/{id}"), None).await.status, 204);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(b.files().await.is_empty(), "{:?}", b.files().await);
}
