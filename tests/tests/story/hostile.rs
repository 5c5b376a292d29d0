//! Hostile input at the API: each is refused with a fault that says what is wrong, the scheduler goes on, and
//! nothing panics.
use crate::world;
use pilvi_tests::{Api, Site, api::text, may_run};
use reqwest::Method;
use serde_json::{Value, json};
use std::{fs, time::Duration};

/// (method, path, content type, body, statuses that are right)
type Case = (Method, &'static str, &'static str, Vec<u8>, &'static [u16]);

const JSON: &str = "application/json";

fn cases() -> Vec<Case> {
    let (post, put, get) = (Method::POST, Method::PUT, Method::GET);
    let servers = "/compute/v2.1/servers";
    let networks = "/network/v2.0/networks";
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    let json = |v: Value| v.to_string().into_bytes();
    let subnet = json(
        json!({"subnet": {"network_id": "00000000-0000-0000-0000-000000000000", "ip_version": 4, "cidr": "10.0.0.0/99"}}),
    );
    vec![
        (post.clone(), servers, JSON, b"{\"server\": ".to_vec(), &[400]),
        (post.clone(), servers, JSON, b"\xff\xfe\x00".to_vec(), &[400]),
        (post.clone(), servers, JSON, deep, &[400]),
        (post.clone(), servers, JSON, b"[]".to_vec(), &[400]),
        (
            post.clone(),
            servers,
            JSON,
            json(json!({"server": {"name": 7, "flavorRef": "one", "imageRef": "x"}})),
            &[400],
        ),
        (
            post.clone(),
            servers,
            JSON,
            json(json!({"server": {"name": "n", "flavorRef": "one", "no_such_field": 1}})),
            &[400],
        ),
        (post.clone(), servers, JSON, json(json!({"server": {"name": "n".repeat(300), "flavorRef": "one"}})), &[400]),
        (post.clone(), servers, "text/plain", b"hello".to_vec(), &[400, 415]),
        (post.clone(), servers, JSON, vec![b' '; 8 << 20], &[400, 413]),
        (
            post.clone(),
            "/compute/v2.1/servers/%00/action",
            JSON,
            json(json!({"reboot": {"type": "SOFT"}})),
            &[400, 404],
        ),
        (get.clone(), "/compute/v2.1/servers?limit=-1", "", vec![], &[400]),
        (get.clone(), "/compute/v2.1/servers?marker=nobody", "", vec![], &[400]),
        (get.clone(), "/compute/v2.1/servers/../../identity/v3/users", "", vec![], &[400, 404, 200, 300]),
        (post.clone(), networks, JSON, json(json!({"network": {"name": ["x"]}})), &[400]),
        (post.clone(), networks, JSON, json(json!({"network": {"evil": true}})), &[400]),
        (post.clone(), "/network/v2.0/subnets", JSON, subnet, &[400, 404]),
        (put.clone(), "/network/v2.0/ports/nobody", JSON, json(json!({"port": {"name": "x"}})), &[404]),
        (
            post.clone(),
            "/identity/v3/auth/tokens",
            JSON,
            json(json!({"auth": {"identity": {"methods": ["magic"]}}})),
            &[400, 401],
        ),
        (post.clone(), "/identity/v3/auth/tokens", JSON, json(json!({"auth": 1})), &[400]),
        (post.clone(), "/identity/v3/users", JSON, json(json!({"user": {"name": {}}})), &[400]),
        (post.clone(), "/image/v2/images", JSON, json(json!({"name": 1, "disk_format": "exe"})), &[400]),
        (post.clone(), "/image/v2/images", JSON, json(json!({"id": "../../etc/passwd"})), &[400]),
        (put.clone(), "/image/v2/images/nobody/file", "application/octet-stream", vec![1; 4096], &[404]),
        (post.clone(), "/placement/resource_providers", JSON, json(json!({"name": 1})), &[400]),
        (
            put,
            "/placement/allocations/00000000-0000-0000-0000-000000000000",
            JSON,
            json(json!({"allocations": []})),
            &[400],
        ),
        (get, "/no/such/service", "", vec![], &[404]),
        (post, "/identity", JSON, b"{".to_vec(), &[300, 400, 404, 405]),
    ]
}

/// A fault has words in every service's envelope.
fn says_why(json: &Value, body: &str) -> bool {
    let inner = json.as_object().and_then(|o| o.values().find(|v| v.is_object()));
    let list = json["errors"][0]["detail"].as_str();
    let word = json["message"].as_str().or_else(|| inner.and_then(|i| i["message"].as_str())).or(list);
    word.map_or(body.len(), str::len) > 3
}

#[test]
fn every_refusal_is_a_fault_and_nothing_panics() {
    if !may_run("hostile") {
        return;
    }
    let mut site = Site::open("hostile").unwrap();
    site.configure("cheap_passwords = true\n").unwrap();
    let scheduler = site.serve().unwrap();
    let admin = site.admin().unwrap();
    world::flavor(&admin, "one", 128);
    let mut wrong = Vec::new();
    for (method, path, kind, body, good) in cases() {
        let start = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        match admin.send(method.clone(), path, kind, body) {
            Ok(answer)
                if good.contains(&answer.status) && (answer.status < 400 || says_why(&answer.json, &answer.text)) => {}
            Ok(answer) => wrong.push(format!("{method} {path} {start}: {} {}", answer.status, answer.text)),
            Err(error) => wrong.push(format!("{method} {path} {start}: {error:#}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    tokens(&site, &admin);
    scopes(&site, &admin);
    images(&admin, site.folder());
    join_tokens(&mut site);
    assert!(admin.get("/compute/v2.1/servers").is_ok(), "the scheduler answers as before");
    let panics: Vec<String> = site.logs().lines().filter(|l| l.contains("panicked")).map(str::to_owned).collect();
    assert!(panics.is_empty(), "{panics:#?}");
    assert!(scheduler.interrupt(Duration::from_secs(30)).unwrap().success());
    site.finish().unwrap();
}

fn tokens(site: &Site, admin: &Api) {
    let nobody = site.api().unwrap();
    let with =
        |token: &str| nobody.with_token(token).call(Method::GET, "/compute/v2.1/servers", &Value::Null).unwrap().status;
    assert_eq!(with(&admin.token), 200);
    let mut bent = admin.token.clone().into_bytes();
    let middle = bent.len() / 2;
    bent[middle] = if bent[middle] == b'A' { b'B' } else { b'A' };
    let bent = String::from_utf8(bent).unwrap();
    for forged in ["", "x", &bent, &admin.token[1..], &"A".repeat(7_000)] {
        assert_eq!(with(forged), 401, "forged token {}", &forged[..forged.len().min(40)]);
    }
    let extra = site.admin().unwrap();
    let revoked = nobody_revokes(&extra);
    assert_eq!(with(&revoked), 401, "a revoked token is good still");
    let wrong = site.api().unwrap().login("admin", "not the password", "admin");
    assert!(wrong.is_err_and(|e| e.to_string().contains("401")));
}

/// Revokes its own token and gives it.
fn nobody_revokes(api: &Api) -> String {
    let answer = api.call(Method::DELETE, "/identity/v3/auth/tokens", &Value::Null).unwrap();
    // Without X-Subject-Token there is nothing to revoke.
    assert_eq!(answer.status, 404, "{}", answer.text);
    let answer = api.revoke().unwrap();
    assert_eq!(answer.status, 204, "{}", answer.text);
    api.token.clone()
}

fn scopes(site: &Site, admin: &Api) {
    let tenant = world::tenant(site, admin, "mallory");
    let (network, _) = world::network(admin, "private", "10.66.0.0/24");
    let denied = [
        (Method::GET, "/identity/v3/users".to_owned(), Value::Null, 403),
        (Method::POST, "/identity/v3/projects".to_owned(), json!({"project": {"name": "mine"}}), 403),
        (Method::GET, format!("/network/v2.0/networks/{network}"), Value::Null, 404),
        (Method::DELETE, format!("/network/v2.0/networks/{network}"), Value::Null, 404),
        (Method::GET, "/compute/v2.1/os-hypervisors".to_owned(), Value::Null, 403),
        (Method::GET, "/placement/resource_providers".to_owned(), Value::Null, 403),
        (Method::GET, "/compute/v2.1/servers/detail?all_tenants=1".to_owned(), Value::Null, 403),
        (
            Method::PUT,
            format!("/compute/v2.1/os-quota-sets/{}", tenant.project_id),
            json!({"quota_set": {"cores": 999}}),
            403,
        ),
    ];
    for (method, path, body, status) in denied {
        let answer = tenant.call(method.clone(), &path, &body).unwrap();
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
    }
    let list = tenant.get("/network/v2.0/networks").unwrap();
    assert!(list["networks"].as_array().unwrap().iter().all(|n| n["id"] != network.as_str()), "{list}");
}

/// A qcow2 file that names a backing file must never be read through.
fn images(admin: &Api, folder: &std::path::Path) {
    fs::write(folder.join("secret.raw"), vec![1; 1 << 20]).unwrap();
    let evil = folder.join("evil.qcow2");
    let made = std::process::Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .args([folder.join("secret.raw"), evil.clone()])
        .status()
        .unwrap();
    assert!(made.success());
    let new = json!({"name": "evil", "disk_format": "qcow2", "container_format": "bare"});
    let id = text(&admin.post("/image/v2/images", &new).unwrap(), "id");
    let path = format!("/image/v2/images/{id}/file");
    let bytes = fs::read(evil).unwrap();
    let answer = admin.send(Method::PUT, &path, "application/octet-stream", bytes).unwrap();
    assert!((400..500).contains(&answer.status), "{} {}", answer.status, answer.text);
    let image = admin.get(&format!("/image/v2/images/{id}")).unwrap();
    assert_ne!(image["status"], "active", "{image}");
}

/// A join token works once.
fn join_tokens(site: &mut Site) {
    let settings = "runtimes = [\"fake\"]\nnetwork = \"none\"\nheartbeat_ms = 500";
    let first = site.host("honest", settings).unwrap();
    let agent = site.start_agent(&first).unwrap();
    pilvi_tests::until(30, "the first host joins", || {
        site.run("node", &["list"]).unwrap().contains("honest").then_some(())
    });
    let thief = site.host("thief", settings).unwrap();
    fs::copy(first.state.join("token"), thief.state.join("token")).unwrap();
    let mut stolen = site.start_agent(&thief).unwrap();
    pilvi_tests::pause(Duration::from_secs(5));
    assert!(!site.run("node", &["list"]).unwrap().contains("thief"), "a used token joined a second host");
    let said = stolen.said();
    assert!(said.contains("token"), "the thief is not told why:\n{said}");
    let _ = stolen.wait_exit(Duration::from_millis(1));
    drop((agent, stolen));
}
