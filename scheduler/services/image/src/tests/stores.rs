//! Imports into several stores, and streams that are long.
use super::*;
use bytes::Bytes;
use futures::{StreamExt, stream};
use std::time::Duration;

/// Three stores, of which the last can be made to fail.
async fn several(directory: &std::path::Path) -> Bench {
    let store = |name: &str| crate::StoreConfig {
        description: None,
        weight: 0,
        read_only: false,
        kind: crate::store::Kind::File { directory: directory.join(name) },
    };
    Bench::with(|c| {
        c.stores = ["a", "b", "c"].map(|name| (name.to_owned(), store(name))).into();
        c.default_store = Some("a".into());
    })
    .await
}

#[tokio::test]
async fn stores_take_all_some_or_nothing() {
    let home = tempfile::tempdir().unwrap();
    let b = several(home.path()).await;
    let direct = |more: Value| {
        let mut body = json!({"method": {"name": "glance-direct"}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let staged = async |data: &[u8]| {
        let id = b.raw().await;
        assert_eq!(b.stage(&id, data, &[]).await, 204);
        id
    };
    let count = |name: &str| std::fs::read_dir(home.path().join(name)).unwrap().count();
    let all = staged(b"all").await;
    assert_eq!(b.import(&b.alice, &all, direct(json!({"all_stores": true}))).await, 202);
    assert_eq!(b.task(&all).await["status"], "success");
    assert_eq!(b.shown(&all).await["stores"], "a,b,c");
    // From now on the third store takes nothing.
    std::fs::remove_dir_all(home.path().join("c")).unwrap();
    std::fs::write(home.path().join("c"), b"no directory").unwrap();
    let must = staged(b"must").await;
    assert_eq!(b.import(&b.alice, &must, direct(json!({"stores": ["b", "c"]}))).await, 202);
    assert_eq!(b.task(&must).await["status"], "failure");
    let shown = b.shown(&must).await;
    assert_eq!((&shown["status"], &shown["os_glance_failed_import"]), (&json!("queued"), &json!("c")));
    assert_eq!((count("b"), b.files().await.len()), (1, 0), "what had arrived is taken back");
    let some = staged(b"some").await;
    let body = direct(json!({"stores": ["c", "b"], "all_stores_must_succeed": false}));
    assert_eq!(b.import(&b.alice, &some, body).await, 202);
    assert_eq!(b.task(&some).await["status"], "success");
    let shown = b.shown(&some).await;
    assert_eq!(
        (&shown["status"], &shown["stores"], &shown["os_glance_failed_import"]),
        (&json!("active"), &json!("b"), &json!("c"))
    );
    let none = staged(b"none").await;
    let body = direct(json!({"stores": ["c"], "all_stores_must_succeed": false}));
    assert_eq!(b.import(&b.alice, &none, body).await, 202);
    assert!(b.task(&none).await["message"].as_str().unwrap().contains("None of the uploads finished!"));
    assert_eq!(b.status(&none).await, "queued");
    let copy = |more: Value| {
        let mut body = direct(more);
        body["method"]["name"] = json!("copy-image");
        body
    };
    assert_eq!(b.import(&b.admin, &some, copy(json!({"stores": ["a"]}))).await, 202);
    assert_eq!(b.task(&some).await["status"], "success");
    assert_eq!(b.shown(&some).await["stores"], "b,a");
    assert_eq!(
        b.import(&b.admin, &some, copy(json!({"all_stores": true, "all_stores_must_succeed": false}))).await,
        202
    );
    assert_eq!(b.task(&some).await["status"], "success");
    let shown = b.shown(&some).await;
    assert_eq!(
        (&shown["status"], &shown["stores"], &shown["os_glance_failed_import"]),
        (&json!("active"), &json!("b,a"), &json!("c"))
    );
    assert_eq!(b.call(&b.alice, "GET", &format!("/v2/images/{some}/file"), None).await.bytes, b"some");
}

/// 10 GiB are measured by hand: `PILVI_STAGE_GIB=10 cargo test --release -p pilvi-image -- --ignored a_large_stream`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes a GiB or more"]
async fn a_large_stream_survives_a_break() {
    let gib: u64 = std::env::var("PILVI_STAGE_GIB").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let (b, total) = (Bench::new().await, gib << 30);
    let id = b.raw().await;
    let chunks = |from: u64, end: u64, cut: bool| {
        let whole = stream::iter(from >> 16..end >> 16).map(|i| Ok(Bytes::from(vec![(i % 251) as u8; 1 << 16])));
        let broken = stream::iter(cut.then(|| Err(std::io::Error::other("gone"))));
        pilvi_kit::call::BodyStream::new(whole.chain(broken).boxed())
    };
    let began = std::time::Instant::now();
    let half = total / 2 + (1 << 16);
    let broken = crate::data::stage::stage(&b.svc, &id, chunks(0, half, true), Some(total), None).await;
    assert_eq!(broken.unwrap_err().code(), 400);
    b.svc.recover(&Default::default()).await.unwrap();
    let have: u64 = b.shown(&id).await["os_glance_staged_bytes"].as_str().unwrap().parse().unwrap();
    assert_eq!(have, half, "nothing that came is lost");
    let piece = crate::data::stage::Piece { from: have, end: total, total };
    crate::data::stage::stage(&b.svc, &id, chunks(have, total, false), None, Some(piece)).await.unwrap();
    let staged = began.elapsed();
    assert_eq!(b.import(&b.alice, &id, json!({"method": {"name": "glance-direct"}})).await, 202);
    while b.status(&id).await == "importing" {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let shown = b.shown(&id).await;
    assert_eq!((&shown["status"], shown["size"].as_u64()), (&json!("active"), Some(total)));
    println!("{gib} GiB staged with one break in {staged:?}, imported after {:?}", began.elapsed() - staged);
}
