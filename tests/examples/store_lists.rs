//! How long lists of 10,000 users and 10,000 images take, through the whole kit and without a socket:
//! `cargo run --release -p pilvi-tests --example store_lists [records] [directory]`.
//!
//! It prints the median and the 99th percentile of each list, from a store on disk, and fails above 50 ms.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic)] // as in any test
use pilvi_identity::{Bootstrap, Config, EndpointSpec, Identity, Secret};
use pilvi_image::Image;
use pilvi_kit::{
    Caller,
    service::Mounting,
    testing::{App, caller},
};
use pilvi_store::Store;
use serde_json::{Value, json};
use std::{path::Path, time::Instant};

const ROUNDS: usize = 200;
const LIMIT_MS: f64 = 50.0;
const AT_ONCE: usize = 64;

async fn identity(dir: &Path) -> App {
    let url = format!("sqlite:{}", dir.join("identity.db").display());
    let store = Store::open(&url, pilvi_identity::kinds()).await.unwrap();
    let identity = Identity::open(store, Config::cheap(dir)).await.unwrap();
    let endpoints =
        vec![EndpointSpec { service_type: "identity".into(), name: "k".into(), url: "https://h/identity".into() }];
    let first = Bootstrap { admin_password: Some(Secret::new("of nobody")), region: "RegionOne".into(), endpoints };
    identity.bootstrap(first).await.unwrap();
    App::new(|authenticator| {
        pilvi_identity::service().mount(identity, Mounting { authenticator, policy_file: None }).unwrap()
    })
}

async fn image(dir: &Path) -> App {
    let url = format!("sqlite:{}", dir.join("image.db").display());
    let mut kinds = pilvi_image::kinds();
    kinds.push(pilvi_store::KindSpec::of::<pilvi_kit::quota::QuotaOverride>());
    let store = Store::open(&url, kinds).await.unwrap();
    let image = Image::new(store, pilvi_image::Config::new(dir.join("images"))).unwrap();
    App::new(|authenticator| {
        pilvi_image::service().mount(image, Mounting { authenticator, policy_file: None }).unwrap()
    })
}

async fn post(app: &App, path: &str, who: &Caller, body: Value) {
    let answer = app.call("POST", path, Some(who), Some(body)).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
}

/// Makes `count` of them, many at once, so that commits are shared.
async fn fill(app: &App, path: &str, who: &Caller, count: usize, body: impl Fn(usize) -> Value) {
    for start in (0..count).step_by(AT_ONCE) {
        let end = count.min(start + AT_ONCE);
        let mut calls: Vec<_> = (start..end).map(|n| Box::pin(post(app, path, who, body(n)))).collect();
        // All are polled in turn by one task: no runtime of their own is needed.
        std::future::poll_fn(|cx| {
            calls.retain_mut(|call| call.as_mut().poll(cx).is_pending());
            if calls.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }
}

/// Follows `page` pages first; then times the next one.
async fn measure(app: &App, who: &Caller, name: &str, path: &str, worst: &mut f64) {
    let mut times = Vec::with_capacity(ROUNDS);
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let at = Instant::now();
        let answer = app.call("GET", path, Some(who), None).await;
        times.push(at.elapsed().as_secs_f64() * 1000.0);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        bytes = answer.bytes.len();
    }
    times.sort_by(f64::total_cmp);
    let (p50, p99) = (times[ROUNDS / 2], times[ROUNDS * 99 / 100]);
    *worst = worst.max(p99);
    println!("{name:<44} p50 {p50:>7.2} ms   p99 {p99:>7.2} ms   {bytes:>8} bytes");
}

async fn id_at(app: &App, who: &Caller, path: &str, collection: &str) -> String {
    let answer = app.call("GET", path, Some(who), None).await;
    answer.body[collection].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned()
}

async fn users(dir: &Path, count: usize, worst: &mut f64) {
    let (app, admin) = (identity(dir).await, caller("p", &["admin", "member", "reader"]));
    fill(&app, "/v3/users", &admin, count, |n| {
        json!({"user": {"name": format!("user-{:05}", (n * 7919) % count), "domain_id": "default", "email": format!("u{n}@example.org"),
            "enabled": n % 2 == 0, "description": "one of many"}})
    })
    .await;
    let deep = id_at(&app, &admin, "/v3/users?limit=1000&name__startswith=user-06&sort_key=name", "users").await;
    for (name, path) in [
        ("first 100", "/v3/users?limit=100".to_owned()),
        ("100 of the middle, by name", format!("/v3/users?limit=100&sort_key=name&marker={deep}")),
        (
            "100 of the middle, by name, descending",
            format!("/v3/users?limit=100&sort_key=name&sort_dir=desc&marker={deep}"),
        ),
        ("by name, exactly", "/v3/users?name=user-05000".to_owned()),
        ("name contains, 10 found", "/v3/users?name__contains=r-0500&limit=100".to_owned()),
        ("name starts with, 100", "/v3/users?name__startswith=user-02&limit=100".to_owned()),
        ("enabled only, 100", "/v3/users?enabled=true&limit=100".to_owned()),
        ("of a domain, 100", "/v3/users?domain_id=default&limit=100&sort_key=name".to_owned()),
        ("1000 at once", "/v3/users?limit=1000".to_owned()),
    ] {
        measure(&app, &admin, &format!("users: {name}"), &path, worst).await;
    }
}

async fn images(dir: &Path, count: usize, worst: &mut f64) {
    let (app, admin) = (image(dir).await, caller("p", &["admin", "member", "reader"]));
    let member = caller("p-3", &["member", "reader"]);
    fill(&app, "/v2/images", &admin, count, |n| {
        let visibility = if n % 10 == 0 { "public" } else { "private" };
        json!({"name": format!("image-{:05}", (n * 7919) % count), "visibility": visibility, "owner": format!("p-{}", n % 20),
            "disk_format": if n % 3 == 0 { "raw" } else { "qcow2" }, "container_format": "bare", "tags": ["a", format!("t{}", n % 7)],
            "os_distro": "debian", "min_ram": n % 512})
    })
    .await;
    let deep = id_at(&app, &admin, "/v2/images?limit=1000&sort=name:asc", "images").await;
    for (name, path) in [
        ("first 25, newest first", "/v2/images".to_owned()),
        ("100 of the middle, by name", format!("/v2/images?limit=100&sort=name:asc&marker={deep}")),
        ("100 of the middle, newest first", format!("/v2/images?limit=100&marker={deep}")),
        ("by name, exactly", "/v2/images?name=image-05000".to_owned()),
        ("raw ones, by name", "/v2/images?disk_format=raw&limit=100&sort=name:asc".to_owned()),
        ("public ones", "/v2/images?visibility=public&limit=100".to_owned()),
        ("with a tag", "/v2/images?tag=t3&limit=100".to_owned()),
        ("1000 at once", "/v2/images?limit=1000".to_owned()),
    ] {
        measure(&app, &admin, &format!("images, administrator: {name}"), &path, worst).await;
    }
    measure(&app, &member, "images, member: first 100", "/v2/images?limit=100", worst).await;
    measure(&app, &member, "images, member: 100 by name", "/v2/images?limit=100&sort=name:asc", worst).await;
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let count: usize = arguments.next().map_or(10_000, |n| n.parse().unwrap());
    let folder = match arguments.next() {
        Some(folder) => tempfile::tempdir_in(folder).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    let mut worst = 0.0;
    users(folder.path(), count, &mut worst).await;
    images(folder.path(), count, &mut worst).await;
    println!("{count} records each, {ROUNDS} rounds; worst p99 {worst:.2} ms of {LIMIT_MS} ms");
    assert!(worst < LIMIT_MS, "too slow");
}
