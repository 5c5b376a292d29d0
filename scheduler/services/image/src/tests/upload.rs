//! Bytes that come in: broken, refused, staged, shared, cut off by a crash, too many, and a great many.
use super::*;
use crate::data;
use bytes::Bytes;
use futures::{StreamExt, stream};

#[tokio::test]
async fn broken_uploads_leave_a_queued_image_and_no_bytes() {
    let b = Bench::with(|c| c.size_max = 1000).await;
    let id = b.raw().await;
    let path = format!("/v2/images/{id}/file");
    assert_eq!(b.upload(&id, &[0; 2000]).await.status, 413);
    let lied = b.app.upload("PUT", &path, &b.alice, vec![0; 10], &[OCTETS[0], ("x-openstack-image-size", "20")]).await;
    assert_eq!(lied.status, 400, "{:?}", lied.body);
    let plain = b.app.upload("PUT", &path, &b.alice, vec![0; 10], &[("content-type", "text/plain")]).await;
    assert_eq!(plain.status, 415);
    let cut = stream::iter([Ok(Bytes::from_static(b"half")), Err(std::io::Error::other("gone"))]);
    let cut = data::ops::upload(&b.svc, &id, pilvi_kit::call::BodyStream::new(cut.boxed()), None).await;
    assert_eq!(cut.unwrap_err().code(), 400);
    assert_eq!(b.upload(&id, b"KDMV this is no raw disk").await.status, 415);
    assert_eq!(b.status(&id).await, "queued");
    assert!(b.files().await.is_empty());
    assert_eq!(b.upload(&id, &[1; 1000]).await.status, 204);
    let bare = b.create(json!({"name": "no format"})).await;
    assert_eq!(b.upload(&bare, b"x").await.status, 400);
}

#[tokio::test]
async fn qcow2_that_reaches_outside_is_refused() {
    let b = Bench::new().await;
    let good = pilvi_disk::samples::qcow2(1 << 30);
    let id = b.create(json!({"name": "q", "disk_format": "qcow2", "container_format": "bare"})).await;
    for (at, byte) in [(15usize, 120u8), (79, 4), (24, 0x10)] {
        let mut bad = good.clone();
        bad[at] = byte;
        let answer = b.upload(&id, &bad).await;
        assert_eq!(answer.status, 415, "{at}: {:?}", answer.body);
    }
    assert_eq!(b.status(&id).await, "queued");
    assert_eq!(b.upload(&id, &good).await.status, 204);
    let shown = b.call(&b.alice, "GET", &format!("/v2/images/{id}"), None).await.body;
    assert_eq!(shown["virtual_size"], json!(1 << 30));
    let raw = b.raw().await;
    assert_eq!(b.upload(&raw, &good).await.status, 415, "a qcow2 that says it is raw");
}

#[tokio::test]
async fn a_staged_image_is_imported() {
    let b = Bench::new().await;
    let import = |id: &str| (format!("/v2/images/{id}/import"), json!({"method": {"name": "glance-direct"}}));
    for (data, status, progress) in [(&b"good"[..], "active", "success"), (b"QFI\xfbbad", "queued", "failure")] {
        let id = b.raw().await;
        let (path, body) = import(&id);
        assert_eq!(b.call(&b.alice, "POST", &path, Some(body.clone())).await.status, 409);
        let staged = b.app.upload("PUT", &format!("/v2/images/{id}/stage"), &b.alice, data.to_vec(), OCTETS).await;
        assert_eq!(staged.status, 204, "{:?}", staged.body);
        assert_eq!(b.status(&id).await, "uploading");
        assert_eq!(b.call(&b.alice, "POST", &path, Some(body)).await.status, 202);
        let mut task = Value::Null;
        for _ in 0..200 {
            task = b.call(&b.alice, "GET", &format!("/v2/images/{id}/tasks"), None).await.body["tasks"][0].clone();
            if task["status"] == progress {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(task["status"], progress, "{task}");
        assert_eq!(b.status(&id).await, status);
    }
    assert_eq!(b.files().await.len(), 1);
}

#[tokio::test]
async fn an_image_is_imported_from_another() {
    let b = Bench::new().await;
    let from = b.create(json!({"name": "from", "disk_format": "raw", "container_format": "bare", "hw_cpu_cores": "5", "speed": "88"})).await;
    assert_eq!(b.upload(&from, b"bytes").await.status, 204);
    let to = b.create(json!({"name": "to", "disk_format": "iso", "container_format": "ovf"})).await;
    let import = async |who: &Caller, source: &str, region: &str| {
        let body = json!({"method": {"name": "glance-download", "glance_image_id": source, "glance_region": region}});
        let answer = b.call(who, "POST", &format!("/v2/images/{to}/import"), Some(body)).await;
        for _ in 0..200 {
            if matches!(b.status(&to).await.as_str(), Some("active" | "queued")) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        (answer.status, b.status(&to).await)
    };
    assert_eq!(import(&b.alice, "foo", "RegionOne").await, (400, json!("queued")));
    assert_eq!(import(&b.alice, &from, "elsewhere").await, (202, json!("queued")));
    assert_eq!(import(&b.bob, &from, "RegionOne").await.0, 404);
    assert_eq!(import(&b.alice, &from, "RegionOne").await, (202, json!("active")));
    let shown = b.call(&b.alice, "GET", &format!("/v2/images/{to}"), None).await.body;
    assert_eq!((&shown["disk_format"], &shown["hw_cpu_cores"], shown.get("speed")), (&json!("raw"), &json!("5"), None));
    assert_eq!(b.call(&b.alice, "DELETE", &format!("/v2/images/{from}"), None).await.status, 204);
    assert_eq!(b.call(&b.alice, "GET", &format!("/v2/images/{to}/file"), None).await.bytes, b"bytes");
}

#[tokio::test]
async fn a_start_cleans_up_what_a_crash_left() {
    let b = Bench::new().await;
    let (kept, cut, staged) = (b.raw().await, b.raw().await, b.raw().await);
    assert_eq!(b.upload(&kept, b"kept").await.status, 204);
    b.app.upload("PUT", &format!("/v2/images/{staged}/stage"), &b.alice, b"staged".to_vec(), OCTETS).await;
    image::ops::step(&b.svc.store, &cut, image::model::Event::UploadBegins, |_| {}).await.unwrap();
    for name in
        [format!("{cut}.part"), pilvi_kit::id::new(), format!("{}.staged", pilvi_kit::id::new()), "lost+found".into()]
    {
        std::fs::write(b.svc.files.path(&name), b"x").unwrap();
    }
    b.svc.recover(&Default::default()).await.unwrap();
    assert_eq!(
        (b.status(&kept).await, b.status(&cut).await, b.status(&staged).await),
        (json!("active"), json!("queued"), json!("uploading"))
    );
    let mut left = b.files().await;
    left.sort();
    let mut wanted = vec![kept, format!("{staged}.staged"), "lost+found".into()];
    wanted.sort();
    assert_eq!(left, wanted);
}

#[tokio::test]
async fn an_image_deleted_during_its_upload_leaves_nothing() {
    let b = Bench::new().await;
    let id = b.raw().await;
    let (send, receive) = futures::channel::mpsc::unbounded();
    let (svc, upload) = (b.svc.clone(), id.clone());
    let task = tokio::spawn(async move {
        data::ops::upload(&svc, &upload, pilvi_kit::call::BodyStream::new(receive.boxed()), None).await
    });
    send.unbounded_send(Ok(Bytes::from_static(b"part"))).unwrap();
    while b.status(&id).await != "saving" {
        tokio::task::yield_now().await;
    }
    assert_eq!(b.upload(&id, b"second").await.status, 409);
    assert_eq!(b.call(&b.alice, "DELETE", &format!("/v2/images/{id}"), None).await.status, 204);
    drop(send);
    assert!(task.await.unwrap().is_err());
    assert!(b.files().await.is_empty());
}

#[tokio::test]
async fn quotas_hold() {
    let b = Bench::with(|c| c.project_size_max = Some(100)).await;
    let (one, two) = (b.raw().await, b.raw().await);
    assert_eq!(b.upload(&one, &[0; 60]).await.status, 204);
    assert_eq!(b.upload(&two, &[0; 60]).await.status, 413);
    assert_eq!(b.upload(&two, &[0; 40]).await.status, 204);
}

/// Resident memory of this process, in KiB, at its highest.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// 1 GiB in and out through the kit: `cargo test --release -p pilvi-image -- --ignored one_gib --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes 1 GiB"]
async fn one_gib_goes_through_little_memory() {
    const CHUNKS: u64 = 16 * 1024;
    let b = Bench::new().await;
    let id = b.raw().await;
    assert_eq!(b.upload(&b.raw().await, &[0; 1 << 20]).await.status, 204);
    let before = peak();
    // A new buffer each time, as the network gives them.
    let body = stream::iter(0..CHUNKS).map(|i| Ok::<_, std::io::Error>(Bytes::from(vec![i as u8; 64 * 1024])));
    let request = http::Request::put(format!("/v2/images/{id}/file"))
        .header("x-auth-token", b.app.tokens.issue(b.alice.clone()))
        .header("content-type", "application/octet-stream")
        .header("content-length", (CHUNKS * 65536).to_string())
        .body(axum::body::Body::from_stream(body))
        .unwrap();
    assert_eq!(b.app.send(request).await.status, 204);
    let (size, mut out) = data::ops::open(&b.svc, &id, 0).await.unwrap();
    let mut read = 0;
    while let Some(chunk) = out.next().await {
        let chunk = chunk.unwrap();
        assert!(chunk.len() <= 1 << 20);
        read += chunk.len() as u64;
    }
    let grown = peak() - before;
    println!("1 GiB up and down: peak of resident memory grew by {grown} KiB");
    assert_eq!((size, read), (1 << 30, 1 << 30));
    assert!(grown < 32 * 1024, "{grown} KiB");
}

/// Signed by OpenSSL's command: `signature` has the kinds of keys, this is the way of an upload and of an import.
#[tokio::test]
async fn signed_images_must_fit_their_signature() {
    use base64::Engine;
    let home = tempfile::tempdir().unwrap();
    let uuid = "0b1a2c3d-0000-4000-8000-000000000002";
    std::fs::write(home.path().join("data"), b"signed bytes").unwrap();
    for words in [
        "genrsa -out key 2048".to_owned(),
        format!("req -new -x509 -key key -subj /CN=signer -days 2 -out {uuid}.pem"),
        "dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:max -sign key -out signature data"
            .to_owned(),
    ] {
        let done = std::process::Command::new("openssl").args(words.split(' ')).current_dir(home.path()).output();
        let Ok(done) = done else {
            println!("skipped: no openssl here");
            return;
        };
        assert!(done.status.success(), "{words}");
    }
    let signature =
        base64::engine::general_purpose::STANDARD.encode(std::fs::read(home.path().join("signature")).unwrap());
    let b = Bench::with(|c| c.certificates = Some(home.path().to_owned())).await;
    let body = json!({"name": "signed", "disk_format": "raw", "container_format": "bare", "img_signature": signature,
        "img_signature_hash_method": "SHA-256", "img_signature_key_type": "RSA-PSS", "img_signature_certificate_uuid": uuid});
    let id = b.create(body.clone()).await;
    assert_eq!(b.upload(&id, b"other bytes!").await.status, 400);
    assert_eq!(b.status(&id).await, "queued");
    assert_eq!(b.upload(&id, b"signed bytes").await.status, 204);
    for (data, status) in [(&b"other bytes!"[..], "queued"), (b"signed bytes", "active")] {
        let id = b.create(body.clone()).await;
        b.app.upload("PUT", &format!("/v2/images/{id}/stage"), &b.alice, data.to_vec(), OCTETS).await;
        let import = json!({"method": {"name": "glance-direct"}});
        assert_eq!(b.call(&b.alice, "POST", &format!("/v2/images/{id}/import"), Some(import)).await.status, 202);
        for _ in 0..500 {
            if b.status(&id).await == status {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(b.status(&id).await, status);
    }
    let mut unknown = body;
    unknown["img_signature_certificate_uuid"] = json!("0b1a2c3d-0000-4000-8000-000000000003");
    let id = b.create(unknown).await;
    assert_eq!(b.upload(&id, b"signed bytes").await.status, 400);
}
