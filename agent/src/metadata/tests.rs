//! Pages as cloud-init and people ask for them, and the server against rude clients.
use super::http::{Directory, Server};
use super::*;
use pilvi_agent_api::v1::{Key, Metadata};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) fn view() -> View {
    View {
        metadata: Metadata {
            uuid: "3f1c2b1e-0000-4000-8000-0000000000aa".into(),
            name: "web".into(),
            hostname: "web.novalocal".into(),
            project_id: "p1".into(),
            availability_zone: "nova".into(),
            keys: vec![Key { name: "mine".into(), public_key: "ssh-ed25519 AAAA me".into(), r#type: "ssh".into() }],
            meta: [("role".to_owned(), "db".to_owned())].into(),
            user_data: b"#!/bin/sh\n\xff".to_vec(),
            instance_type: "m1.tiny".into(),
            network_data: "{\"links\": [1]}".into(),
            ..Metadata::default()
        },
        local_ipv4: "10.0.0.5".into(),
        ..View::default()
    }
}

fn text(path: &str) -> Option<String> {
    page(path, &view()).map(|page| String::from_utf8_lossy(&page.body).into_owned())
}

#[test]
fn the_openstack_tree() {
    let versions = text("/openstack").unwrap();
    assert!(versions.starts_with("2012-08-10\n") && versions.ends_with("\nlatest"));
    let files = text("/openstack/latest/").unwrap();
    for name in ["meta_data.json", "user_data", "password", "vendor_data.json", "network_data.json"] {
        assert!(files.lines().any(|line| line == name), "{name}");
        assert!(text(&format!("/openstack/latest/{name}")).is_some(), "{name}");
    }
    assert_eq!(text("/openstack/2012-08-10").unwrap(), "meta_data.json\nuser_data");
    let doc = text("/openstack/latest/meta_data.json").unwrap();
    let doc: serde_json::Value = serde_json::from_str(&doc).unwrap();
    assert_eq!(doc["uuid"], "3f1c2b1e-0000-4000-8000-0000000000aa");
    assert_eq!(doc["public_keys"]["mine"], "ssh-ed25519 AAAA me");
    assert_eq!(doc["keys"][0]["type"], "ssh");
    assert_eq!((&doc["meta"]["role"], &doc["project_id"]), (&"db".into(), &"p1".into()));
    assert!(doc.get("admin_pass").is_none());
    let old = text("/openstack/2012-08-10/meta_data.json").unwrap();
    assert!(!old.contains("random_seed") && !old.contains("project_id"));
    let data = page("/openstack/latest/user_data", &view()).unwrap();
    assert_eq!(data.body, b"#!/bin/sh\n\xff");
    assert_eq!(text("/openstack/latest/network_data.json").unwrap(), "{\"links\": [1]}");
}

#[test]
fn the_ec2_tree() {
    assert!(text("/").unwrap().contains("2009-04-04"));
    assert_eq!(text("/latest").unwrap(), "meta-data/\nuser-data");
    for (path, want) in [
        ("hostname", "web.novalocal"),
        ("instance-id", "i-3f1c2b1e"),
        ("local-ipv4", "10.0.0.5"),
        ("public-keys/0/openssh-key", "ssh-ed25519 AAAA me"),
        ("public-keys/", "0=mine"),
        ("public-keys/0", "openssh-key"),
        ("placement/availability-zone", "nova"),
        ("placement/", "availability-zone"),
        ("instance-type", "m1.tiny"),
    ] {
        assert_eq!(text(&format!("/2009-04-04/meta-data/{path}")).as_deref(), Some(want), "{path}");
        assert_eq!(text(&format!("/latest/meta-data/{path}")).as_deref(), Some(want), "{path}");
    }
    assert!(text("/latest/meta-data").unwrap().lines().any(|line| line == "placement/"));
}

#[test]
fn what_is_not_there() {
    for path in [
        "/2009-04-05/meta-data",
        "/latest/meta-data/nothing",
        "/latest/meta-data/hostname/x",
        "/openstack/2099-01-01",
        "/openstack/latest/user_data/x",
        "/openstack/2012-08-10/network_data.json",
        "/etc/passwd",
    ] {
        assert_eq!(text(path), None, "{path}");
    }
    let mut bare = view();
    bare.metadata.user_data.clear();
    assert_eq!(page("/latest/user-data", &bare), None);
    assert_eq!(page("/openstack/latest/user_data", &bare), None);
}

proptest::proptest! {
    #[test]
    fn any_path_is_answered(path in "(/[a-z0-9.=_-]{0,12}){0,6}|\\PC*") {
        let _ = page(&path, &view());
    }
}

#[derive(Default)]
struct One(Mutex<Vec<u8>>);

impl Directory for One {
    fn view(&self, port: &str) -> Option<View> {
        let password = self.0.lock().unwrap().clone();
        (port == "p1").then(|| View { password, ..view() })
    }
    fn keep_password(&self, _port: &str, password: &[u8]) -> std::io::Result<bool> {
        let mut kept = self.0.lock().unwrap();
        let first = kept.is_empty();
        if first {
            *kept = password.to_vec();
        }
        Ok(first)
    }
}

async fn ask(server: &Arc<Server>, port: &str, request: &str) -> String {
    let (mut mine, theirs) = tokio::io::duplex(64 << 10);
    let serving = tokio::spawn(server.clone().serve(theirs, port.to_owned()));
    let _ = mine.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = mine.read_to_end(&mut answer).await;
    serving.await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn over_http() {
    let server = Server::new(Arc::new(One::default()));
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answer = ask(&server, "p1", &get("/latest/meta-data/hostname")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("web.novalocal"), "{answer}");
    assert!(ask(&server, "p1", &get("/nothing/here")).await.starts_with("HTTP/1.1 404"));
    assert!(ask(&server, "p2", &get("/")).await.starts_with("HTTP/1.1 404"));
    let delete = "DELETE / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(ask(&server, "p1", delete).await.starts_with("HTTP/1.1 405"));
    let rude = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(40 << 10));
    let answer = ask(&server, "p1", &rude).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert!(!ask(&server, "p1", "\0\0\0\r\n\r\n").await.starts_with("HTTP/1.1 2"));
}

#[tokio::test]
async fn a_password_is_kept_once() {
    let server = Server::new(Arc::new(One::default()));
    let post = |body: &str| {
        let length = body.len();
        format!(
            "POST /openstack/latest/password HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    assert!(ask(&server, "p1", &post(&"x".repeat(2000))).await.starts_with("HTTP/1.1 400"));
    assert!(ask(&server, "p1", &post("secret")).await.starts_with("HTTP/1.1 200"));
    assert!(ask(&server, "p1", &post("other")).await.starts_with("HTTP/1.1 409"));
    let get = "GET /openstack/latest/password HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(ask(&server, "p1", get).await.ends_with("secret"));
}

#[tokio::test]
async fn one_port_cannot_take_all_connections() {
    let server = Server::new(Arc::new(One::default()));
    let mut open = Vec::new();
    for _ in 0..8 {
        let (mine, theirs) = tokio::io::duplex(1024);
        open.push((mine, tokio::spawn(server.clone().serve(theirs, "p1".into()))));
    }
    tokio::task::yield_now().await;
    let get = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(ask(&server, "p1", get).await, "");
    assert!(ask(&server, "p2", get).await.starts_with("HTTP/1.1 404"));
    open.clear();
    for _ in 0..100 {
        if ask(&server, "p1", get).await.starts_with("HTTP/1.1 200") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("closed connections still count");
}
