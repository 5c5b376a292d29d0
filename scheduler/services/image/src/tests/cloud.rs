//! What the image service asks of the rest of the cloud: limits, and where other regions are.
use super::*;
use crate::Cloud;
use axum::{Router, body::Body, http::HeaderMap, routing::get};
use std::collections::BTreeMap;

#[derive(Debug)]
struct Limited(BTreeMap<String, i64>, Option<String>);

#[async_trait::async_trait]
impl Cloud for Limited {
    async fn limits(&self, _project: &str) -> Result<BTreeMap<String, i64>, pilvi_kit::Fault> {
        Ok(self.0.clone())
    }
    async fn image_endpoint(&self, region: &str, _interface: &str) -> Result<Option<String>, pilvi_kit::Fault> {
        Ok(self.1.clone().filter(|_| region == "RegionTwo"))
    }
}

#[tokio::test]
async fn unified_limits_hold() {
    let b = Bench::new().await;
    let limits =
        [("image_size_total", 2), ("image_stage_total", 1), ("image_count_total", 3), ("image_count_uploading", 1)];
    b.svc.set_cloud(Arc::new(Limited(limits.map(|(n, v)| (n.to_owned(), v)).into(), None)));
    let (one, two, three) = (b.raw().await, b.raw().await, b.raw().await);
    assert_eq!(b.call(&b.alice, "POST", "/v2/images", Some(json!({"name": "too many"}))).await.status, 413);
    assert_eq!(b.stage(&one, &vec![1; 3 << 20], &[]).await, 413);
    assert_eq!(b.stage(&one, &vec![1; 1 << 20], &[]).await, 204);
    assert_eq!(b.stage(&two, b"x", &[]).await, 413, "one is on its way");
    assert_eq!(b.import(&b.alice, &one, json!({"method": {"name": "glance-direct"}})).await, 202);
    assert_eq!(b.task(&one).await["status"], "success");
    assert_eq!(b.upload(&two, &vec![1; 2 << 20]).await.status, 413);
    assert_eq!(b.upload(&two, &vec![1; 1 << 20]).await.status, 204);
    assert_eq!(b.upload(&three, &[1; 10]).await.status, 413);
    let usage = b.call(&b.alice, "GET", "/v2/info/usage", None).await.body["usage"].clone();
    assert_eq!(usage["image_size_total"], json!({"limit": 2, "usage": 2}));
    assert_eq!(usage["image_count_total"], json!({"limit": 3, "usage": 3}));
    assert_eq!(usage["image_count_uploading"], json!({"limit": 1, "usage": 0}));
    let free = Bench::new().await;
    assert_eq!(
        free.call(&free.alice, "GET", "/v2/info/usage", None).await.body["usage"]["image_stage_total"]["limit"],
        -1
    );
}

#[tokio::test]
async fn an_image_comes_from_another_region() {
    let bytes: Vec<u8> = (0..100_000u32).map(|i| (i % 199) as u8).collect();
    let hash = hex::encode(<sha2::Sha512 as sha2::Digest>::digest(&bytes));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let good = "36d4b546-64a2-4bb9-bdd0-ba676aa48f2c";
    let described = move |headers: HeaderMap| {
        let body = json!({"id": good, "status": "active", "disk_format": "raw", "container_format": "bare", "size": 100_000,
            "os_hash_algo": "sha512", "os_hash_value": hash, "hw_cpu_cores": "5", "speed": "88"});
        async move {
            match headers.get("x-auth-token") {
                Some(_) => http::Response::new(Body::from(body.to_string())),
                None => http::Response::builder().status(401).body(Body::empty()).unwrap(),
            }
        }
    };
    let app = Router::new()
        .route(&format!("/image/v2/images/{good}"), get(described))
        .route(&format!("/image/v2/images/{good}/file"), get(move || async move { bytes }));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let b = Bench::new().await;
    b.svc.set_cloud(Arc::new(Limited(BTreeMap::new(), Some(format!("http://127.0.0.1:{port}/image")))));
    let import = |region: &str, image: &str| json!({"method": {"name": "glance-download", "glance_region": region, "glance_image_id": image}});
    for (region, image, ends) in [
        ("RegionThree", good, "failure"),
        ("RegionTwo", "00000000-0000-4000-8000-000000000000", "failure"),
        ("RegionTwo", good, "success"),
    ] {
        let id =
            b.create(json!({"name": "x", "disk_format": "iso", "container_format": "ovf", "hw_cpu_cores": "1"})).await;
        assert_eq!(b.import(&b.alice, &id, import(region, image)).await, 202);
        let task = b.task(&id).await;
        assert_eq!(task["status"], ends, "{region} {image}: {task}");
        let shown = b.shown(&id).await;
        let wanted = if ends == "success" { ("active", "raw", "5") } else { ("queued", "iso", "1") };
        assert_eq!(
            (shown["status"].as_str(), shown["disk_format"].as_str(), shown["hw_cpu_cores"].as_str()),
            (Some(wanted.0), Some(wanted.1), Some(wanted.2))
        );
        assert!(shown.get("speed").is_none());
    }
}
