//! SAML 2 through the whole kit: a cloud that takes its own word (Keystone-to-Keystone), clients that bring what a
//! provider outside said, and libraries that others wrote as judges.
use crate::world::{World, id, project_scope, subject};
use pilvi_identity::{Config, SamlTrust};
use pilvi_kit::testing::Answer;
use serde_json::{Value, json};
use std::{io::Write as _, path::Path, sync::Mutex};

const URL: &str = "https://cloud.example.org";
const OWN: &str = "https://cloud.example.org/identity/v3/OS-FEDERATION/saml2/idp";
const CONSUMER: &str = "/Shibboleth.sso/SAML2/ECP";
const IDP: &str = "/v3/OS-FEDERATION/identity_providers/cloud";
const AUTH: &str = "/v3/OS-FEDERATION/identity_providers/cloud/protocols/mapped/auth";
const SP: &str = "/v3/OS-FEDERATION/service_providers/cloud";
const PAOS: (&str, &str) = ("content-type", "application/vnd.paos+xml");
const ENHANCED: [(&str, &str); 2] = [
    ("accept", "text/html, application/vnd.paos+xml"),
    ("paos", "ver=\"urn:liberty:paos:2003-08\";\"urn:oasis:names:tc:SAML:2.0:profiles:SSO:ecp\""),
];

/// Keys take a while to make: the first world's are those of all.
static KEYS: Mutex<Option<(String, String)>> = Mutex::new(None);

fn lend_keys(dir: &Path) {
    if let Some((staged, primary)) = KEYS.lock().unwrap().clone() {
        let dir = dir.join("saml-keys");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("0"), staged).unwrap();
        std::fs::write(dir.join("1"), primary).unwrap();
    }
}

/// A cloud that has SAML.
async fn world(change: impl FnOnce(&mut Config)) -> World {
    let world = World::with(|c| {
        lend_keys(&c.state_dir);
        c.federation.saml.url = URL.into();
        change(c);
    })
    .await;
    let read = |name: &str| std::fs::read_to_string(world.dir.path().join("saml-keys").join(name)).unwrap();
    *KEYS.lock().unwrap() = Some((read("0"), read("1")));
    world
}

/// An identity provider that goes by `remote`, whose users are called after an attribute and are in a group.
async fn register(world: &World, remote: &str, attribute: &str) -> String {
    let idp = json!({"identity_provider": {"enabled": true, "remote_ids": [remote]}});
    world.admin("PUT", IDP, Some(idp)).await;
    let group = id(&world.admin("POST", "/v3/groups", Some(json!({"group": {"name": "federated"}}))).await["group"]);
    let (project, role) = (world.project("shared").await, world.role("member").await);
    world.admin("PUT", &format!("/v3/projects/{project}/groups/{group}/roles/{role}"), None).await;
    let rules =
        json!([{"local": [{"user": {"name": "{0}"}}, {"group": {"id": group}}], "remote": [{"type": attribute}]}]);
    world.admin("PUT", "/v3/OS-FEDERATION/mappings/m", Some(json!({"mapping": {"rules": rules}}))).await;
    world.admin("PUT", &format!("{IDP}/protocols/mapped"), Some(json!({"protocol": {"mapping_id": "m"}}))).await;
    project
}

/// The cloud is its own service provider.
async fn to_itself(world: &World) {
    let sp =
        json!({"enabled": true, "sp_url": format!("{URL}{CONSUMER}"), "auth_url": format!("{URL}/identity{AUTH}")});
    world.admin("PUT", SP, Some(json!({"service_provider": sp}))).await;
}

async fn ask(world: &World, path: &str, token: &str, sp: &str) -> Answer {
    let body = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": token}},
        "scope": {"service_provider": {"id": sp}}}});
    world.call("POST", path, "", Some(body)).await
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.bytes.clone()).unwrap()
}

async fn envelope(world: &World, token: &str) -> String {
    let answer = ask(world, "/v3/auth/OS-FEDERATION/saml2/ecp", token, "cloud").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.headers["x-sp-url"], format!("{URL}{CONSUMER}").as_str());
    assert_eq!(answer.headers["x-auth-url"], format!("{URL}/identity{AUTH}").as_str());
    text(&answer)
}

async fn bring(world: &World, xml: &str) -> Answer {
    world.send("POST", CONSUMER, xml.to_owned(), &[PAOS], None).await
}

/// The cookie, checked for how it is set.
fn cookie(answer: &Answer) -> String {
    assert_eq!(answer.status, 302, "{}", answer.body);
    let set = answer.headers["set-cookie"].to_str().unwrap();
    for word in ["HttpOnly", "Secure", "SameSite=Lax", "Path=/identity;", "Max-Age=300"] {
        assert!(set.contains(word), "{set}");
    }
    set.split(';').next().unwrap().to_owned()
}

async fn enter(world: &World, cookie: &str) -> Answer {
    world.call_with("GET", AUTH, "", None, &[("cookie", cookie)]).await
}

#[tokio::test]
async fn a_cloud_takes_its_own_word() {
    let world = world(|_| {}).await;
    let project = register(&world, OWN, "openstack_user").await;
    to_itself(&world).await;
    let shown =
        world.call_with("GET", "/v3/auth/tokens", &world.admin, None, &[("x-subject-token", &world.admin)]).await;
    assert_eq!(shown.body["token"]["service_providers"][0]["id"], "cloud");
    let xml = envelope(&world, &world.admin).await;
    assert!(xml.contains("ss:mem:"), "{xml}");
    let brought = bring(&world, &xml).await;
    let cookie = cookie(&brought);
    let answer = enter(&world, &cookie).await;
    let token = subject(&answer);
    let user = &answer.body["token"]["user"];
    assert_eq!((&user["name"], &user["OS-FEDERATION"]["identity_provider"]["id"]), (&json!("admin"), &json!("cloud")));
    assert_eq!(answer.body["token"]["methods"], json!(["mapped"]));
    let scoped = world.by_token(&token, project_scope(&project)).await;
    assert_eq!(scoped.status, 201, "{}", scoped.body);
    // The same assertion is worth nothing the second time, and the cookie of nobody is none.
    assert_eq!(bring(&world, &xml).await.status, 401);
    assert_eq!(enter(&world, "pilvi_saml=AAAA").await.status, 401);
    let other = "/v3/OS-FEDERATION/identity_providers/open";
    world.admin("PUT", other, Some(json!({"identity_provider": {"enabled": true}}))).await;
    world.admin("PUT", &format!("{other}/protocols/mapped"), Some(json!({"protocol": {"mapping_id": "m"}}))).await;
    let wrong =
        world.call_with("GET", &format!("{other}/protocols/mapped/auth"), "", None, &[("cookie", &cookie)]).await;
    assert_eq!(wrong.status, 403, "a provider without names takes nobody's word");
}

#[tokio::test]
async fn nobody_is_vouched_for_who_may_not_be() {
    let world = world(|_| {}).await;
    let saml = "/v3/auth/OS-FEDERATION/saml2";
    assert_eq!(ask(&world, saml, &world.admin, "cloud").await.status, 404, "no such service provider");
    to_itself(&world).await;
    assert_eq!(ask(&world, saml, "none", "cloud").await.status, 404, "no such token");
    let unscoped = world.token("admin", crate::world::PASSWORD, Some(json!("unscoped"))).await;
    assert_eq!(ask(&world, saml, &unscoped, "cloud").await.status, 403, "not for a project");
    let own = world.call("POST", "/v3/users/admin/application_credentials", &world.admin, None).await;
    assert!(own.status >= 400);
    let user = world.by_token(&world.admin, None).await.body["token"]["user"]["id"].as_str().unwrap().to_owned();
    let path = format!("/v3/users/{user}/application_credentials");
    let made = world.admin("POST", &path, Some(json!({"application_credential": {"name": "a"}}))).await;
    let made = &made["application_credential"];
    let body = json!({"identity": {"methods": ["application_credential"],
        "application_credential": {"id": made["id"], "secret": made["secret"]}}});
    let delegated = subject(&world.log_in(body).await);
    assert_eq!(ask(&world, saml, &delegated, "cloud").await.status, 403, "handed on");
    let alone = ask(&world, saml, &world.admin, "cloud").await;
    assert_eq!((alone.status, &alone.headers["content-type"]), (200, &"text/xml".parse().unwrap()));
    assert!(text(&alone).contains("<samlp:Response"));
    world.admin("PATCH", SP, Some(json!({"service_provider": {"enabled": false}}))).await;
    assert_eq!(ask(&world, saml, &world.admin, "cloud").await.status, 403, "disabled");
    for body in [json!({}), json!({"auth": {}}), json!({"auth": {"identity": {"token": 1}, "scope": {}}})] {
        assert_eq!(world.call("POST", saml, "", Some(body)).await.status, 400);
    }
}

#[tokio::test]
async fn its_word_is_worth_nothing_where_nobody_registered_it() {
    let world = world(|_| {}).await;
    to_itself(&world).await;
    let xml = envelope(&world, &world.admin).await;
    assert_eq!(bring(&world, &xml).await.status, 401);
    register(&world, "https://another", "openstack_user").await;
    assert_eq!(bring(&world, &xml).await.status, 401);
    for (body, status) in [("", 400), ("<x/>", 400), ("\u{0}", 400), ("<!DOCTYPE x><x/>", 400)] {
        assert_eq!(bring(&world, body).await.status, status, "{body}");
    }
    let soap = "<S:Envelope xmlns:S=\"http://schemas.xmlsoap.org/soap/envelope/\"><S:Body/></S:Envelope>";
    assert_eq!(bring(&world, soap).await.status, 401);
    assert_eq!(bring(&world, &"x".repeat(300_000)).await.status, 413);
}

#[tokio::test]
async fn metadata_say_what_the_cloud_is() {
    let world = world(|_| {}).await;
    let idp = text(&world.call("GET", "/v3/OS-FEDERATION/saml2/metadata", "", None).await);
    assert!(idp.contains(&format!("entityID=\"{OWN}\"")) && idp.contains("IDPSSODescriptor"), "{idp}");
    let found = pilvi_identity::certificates_of_metadata(&idp, OWN).unwrap();
    assert_eq!(found.len(), 2, "the key in use and the next one");
    let sp = text(&world.call("GET", "/Shibboleth.sso/Metadata", "", None).await);
    assert!(sp.contains("entityID=\"https://cloud.example.org/shibboleth\"") && sp.contains(CONSUMER), "{sp}");
}

#[tokio::test]
async fn without_an_address_there_is_no_saml() {
    let world = World::new().await;
    to_itself(&world).await;
    assert_eq!(world.call("GET", "/v3/OS-FEDERATION/saml2/metadata", "", None).await.status, 501);
    assert_eq!(ask(&world, "/v3/auth/OS-FEDERATION/saml2", &world.admin, "cloud").await.status, 501);
    assert_eq!(bring(&world, "<x/>").await.status, 501);
}

/// Runs the judge: signxml on lxml, as others wrote them.
fn judge(words: &[&str], input: &str) -> Option<String> {
    let Some(python) = std::env::var_os("PILVI_SAML_PYTHON") else {
        eprintln!("skipped: PILVI_SAML_PYTHON names no Python with signxml in it");
        return None;
    };
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/provider/provider");
    let mut child = std::process::Command::new(python)
        .arg(program)
        .args(words)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("PILVI_SAML_PYTHON runs");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "the judge: {}", String::from_utf8_lossy(&done.stdout));
    Some(String::from_utf8(done.stdout).unwrap())
}

#[tokio::test]
async fn another_library_verifies_what_the_cloud_signs() {
    let world = world(|_| {}).await;
    to_itself(&world).await;
    let xml = envelope(&world, &world.admin).await;
    let idp = text(&world.call("GET", "/v3/OS-FEDERATION/saml2/metadata", "", None).await);
    let certificate = pilvi_identity::certificates_of_metadata(&idp, OWN).unwrap().remove(0);
    let file = world.dir.path().join("certificate.der");
    std::fs::write(&file, certificate).unwrap();
    let Some(said) = judge(&["verify", file.to_str().unwrap()], &xml) else { return };
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["openstack_user"], json!(["admin"]));
    assert_eq!(said["openstack_project"], json!(["admin"]));
}

/// A provider outside, its entity id, and a cloud that trusts it.
async fn outside(dir: &Path) -> Option<World> {
    judge(&["make", dir.to_str().unwrap(), "1"], "")?;
    let pem = std::fs::read_to_string(dir.join("certificate.pem")).unwrap();
    let body: String = pem.lines().filter(|l| !l.starts_with("---")).collect();
    let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, body).unwrap();
    let trust =
        SamlTrust { entity_id: "urn:idp".into(), certificates: vec![der], unsolicited: false, any_audience: false };
    let world = world(|c| c.federation.saml.trusted = vec![trust]).await;
    register(&world, "urn:idp", "uid").await;
    Some(world)
}

#[tokio::test]
async fn clients_bring_the_word_of_a_provider_outside() {
    let dir = tempfile::tempdir().unwrap();
    let Some(world) = outside(dir.path()).await else { return };
    let asked = world.call_with("GET", AUTH, "", None, &ENHANCED).await;
    assert_eq!((asked.status, &asked.headers["content-type"]), (200, &"application/vnd.paos+xml".parse().unwrap()));
    let asked = text(&asked);
    let folder = dir.path().to_str().unwrap();
    // Response signed, assertion signed; and what must not pass.
    for (what, status) in
        [("assertion", 302), ("response", 302), ("both", 401), ("none", 401), ("sha1", 401), ("inclusive", 401)]
    {
        let xml = judge(&["answer", folder, "alice", what], &asked).unwrap();
        let brought = bring(&world, &xml).await;
        assert_eq!(brought.status, status, "{what}");
        if status == 302 {
            assert_eq!(brought.headers["location"], format!("{URL}/identity{AUTH}").as_str());
            let answer = enter(&world, &cookie(&brought)).await;
            assert_eq!(
                (answer.status, &answer.body["token"]["user"]["name"]),
                (201, &json!("alice")),
                "{}",
                answer.body
            );
        }
    }
    // What canonical XML has rules for, and lxml writes in its own way.
    for name in ["<\u{e4} & \"b'\">", "\u{1f600}]]>", "a\tb  c"] {
        let xml = judge(&["answer", folder, name, "assertion"], &asked).unwrap();
        let answer = enter(&world, &cookie(&bring(&world, &xml).await)).await;
        assert_eq!((answer.status, &answer.body["token"]["user"]["name"]), (201, &json!(name)), "{}", answer.body);
    }
    // Without the relay state it answers no request of ours.
    let xml = judge(&["answer", folder, "alice", "assertion"], &asked).unwrap();
    let (before, rest) = xml.split_once("RelayState").unwrap();
    let (state, after) = rest.split_once("RelayState").unwrap();
    let other = state.replacen(">g", ">h", 1);
    assert_ne!(other, state);
    assert_eq!(bring(&world, &format!("{before}RelayState{other}RelayState{after}")).await.status, 401);
    assert_eq!(bring(&world, &xml).await.status, 302);
}
