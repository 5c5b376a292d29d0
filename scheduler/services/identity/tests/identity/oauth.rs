//! Programs that act for users: OAuth 1 from the first request to the end, OAuth 2 by secret and by certificate.
use crate::world::{World, id, project_scope, subject};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use pilvi_kit::{auth::thumbprint, clock, testing::Answer};
use serde_json::{Value, json};
use std::collections::HashMap;

const BASE: &str = "https://cloud.example.org/identity";

/// An OAuth 1 client, written from the standard and not from the service.
struct Program {
    key: String,
    secret: String,
    token: String,
    token_secret: String,
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}

impl Program {
    fn header(&self, path: &str, more: &[(&str, &str)]) -> String {
        let stamp = (clock::now_us() / 1_000_000).to_string();
        let nonce = pilvi_kit::id::hex();
        let mut pairs = vec![
            ("oauth_consumer_key", self.key.as_str()),
            ("oauth_nonce", &nonce),
            ("oauth_signature_method", "HMAC-SHA1"),
            ("oauth_timestamp", &stamp),
            ("oauth_version", "1.0"),
        ];
        if !self.token.is_empty() {
            pairs.push(("oauth_token", &self.token));
        }
        pairs.extend(more);
        let mut sorted: Vec<String> = pairs.iter().map(|(n, v)| format!("{}={}", encode(n), encode(v))).collect();
        sorted.sort();
        let base = format!("POST&{}&{}", encode(&format!("{BASE}{path}")), encode(&sorted.join("&")));
        let key = format!("{}&{}", encode(&self.secret), encode(&self.token_secret));
        let mac = <Hmac<sha1::Sha1> as KeyInit>::new_from_slice(key.as_bytes()).unwrap().chain_update(base).finalize();
        let signature = STANDARD.encode(mac.into_bytes());
        pairs.push(("oauth_signature", &signature));
        let shown: Vec<String> = pairs.iter().map(|(n, v)| format!("{n}=\"{}\"", encode(v))).collect();
        format!("OAuth {}", shown.join(", "))
    }

    async fn post(
        &self,
        world: &World,
        path: &str,
        more: &[(&str, &str)],
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let header = self.header(path, more);
        let mut all = vec![("authorization", header.as_str()), ("host", "cloud.example.org")];
        all.extend(headers);
        world.call_with("POST", path, "", body, &all).await
    }

    async fn log_in(&self, world: &World) -> Answer {
        let body = json!({"auth": {"identity": {"methods": ["oauth1"], "oauth1": {}}}});
        self.post(world, "/v3/auth/tokens", &[], &[], Some(body)).await
    }
}

fn form(answer: &Answer) -> HashMap<String, String> {
    assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.bytes));
    url::form_urlencoded::parse(&answer.bytes).into_owned().collect()
}

struct Consent {
    world: World,
    program: Program,
    project: String,
    role: String,
}

impl Consent {
    /// A program, and a project in which the administrator has roles.
    async fn new() -> Self {
        let world = World::new().await;
        let made = world
            .admin("POST", "/v3/OS-OAUTH1/consumers", Some(json!({"consumer": {"description": "a program"}})))
            .await;
        let text = |name: &str| made["consumer"][name].as_str().unwrap().to_owned();
        let program =
            Program { key: text("id"), secret: text("secret"), token: String::new(), token_secret: String::new() };
        let (project, role) = (world.made.admin_project_id.clone(), world.role("member").await);
        Consent { world, program, project, role }
    }

    async fn ask(&self, more: &[(&str, &str)]) -> Answer {
        let headers = [("requested-project-id", self.project.as_str())];
        self.program.post(&self.world, "/v3/OS-OAUTH1/request_token", more, &headers, None).await
    }

    fn holds(&mut self, form: &HashMap<String, String>) {
        (self.program.token, self.program.token_secret) =
            (form["oauth_token"].clone(), form["oauth_token_secret"].clone());
    }

    async fn authorize(&self) -> Answer {
        let path = format!("/v3/OS-OAUTH1/authorize/{}", self.program.token);
        let body = json!({"roles": [{"id": self.role}]});
        self.world.call("PUT", &path, &self.world.admin, Some(body)).await
    }

    async fn collect(&self, verifier: &str) -> Answer {
        let more = [("oauth_verifier", verifier)];
        self.program.post(&self.world, "/v3/OS-OAUTH1/access_token", &more, &[], None).await
    }

    /// The whole way: the program has an access token.
    async fn given() -> Self {
        let mut c = Self::new().await;
        let asked = form(&c.ask(&[("oauth_callback", "oob")]).await);
        c.holds(&asked);
        let verifier = c.authorize().await.body["token"]["oauth_verifier"].as_str().unwrap().to_owned();
        let access = form(&c.collect(&verifier).await);
        c.holds(&access);
        c
    }
}

#[tokio::test]
async fn a_user_lets_a_program_act_with_some_of_his_roles() {
    let c = Consent::given().await;
    let answer = c.program.log_in(&c.world).await;
    let token = subject(&answer);
    let shown = &answer.body["token"];
    assert_eq!((&shown["methods"], &shown["project"]["id"]), (&json!(["oauth1"]), &json!(c.project)));
    assert_eq!(shown["OS-OAUTH1"], json!({"access_token_id": c.program.token, "consumer_id": c.program.key}));
    let names: Vec<_> = shown["roles"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["member", "reader"], "and what it implies, but not that he is an administrator");
    assert_eq!(c.world.call("GET", "/v3/users", &token, None).await.status, 403);
    assert_eq!(c.world.by_token(&token, None).await.status, 403, "no further tokens");
    let user = &c.world.made.admin_user_id;
    let all = format!("/v3/users/{user}/OS-OAUTH1/access_tokens");
    let one = format!("{all}/{}", c.program.token);
    let listed = c.world.admin("GET", &all, None).await;
    assert_eq!(listed["access_tokens"][0]["authorizing_user_id"], user.as_str());
    assert!(listed["access_tokens"][0].get("secret").is_none() && listed["access_tokens"][0].get("roles").is_none());
    assert_eq!(c.world.admin("GET", &one, None).await["access_token"]["project_id"], c.project.as_str());
    assert_eq!(id(&c.world.admin("GET", &format!("{one}/roles"), None).await["roles"][0]), c.role);
    assert_eq!(c.world.status("GET", &format!("{one}/roles/{}", c.role), None).await, 200);
    assert_eq!(c.world.status("GET", &format!("{one}/roles/none"), None).await, 404);
    assert_eq!(c.world.call("GET", &all, &token, None).await.status, 403);
    assert_eq!(c.world.status("DELETE", &one, None).await, 204);
    assert_eq!(c.world.status("GET", &one, None).await, 404);
    assert_eq!(c.world.validate(&token).await, 404, "taken back");
    assert_eq!(c.program.log_in(&c.world).await.status, 404);
}

#[tokio::test]
async fn a_program_and_all_it_was_given_go_together() {
    let c = Consent::given().await;
    let token = subject(&c.program.log_in(&c.world).await);
    assert_eq!(c.world.validate(&token).await, 200);
    c.world.admin("DELETE", &format!("/v3/OS-OAUTH1/consumers/{}", c.program.key), None).await;
    assert_eq!(c.world.validate(&token).await, 404);
    assert!(c.program.log_in(&c.world).await.status >= 400);
}

#[tokio::test]
async fn signatures_verifiers_and_names_are_checked() {
    let mut c = Consent::new().await;
    let asked = form(&c.ask(&[]).await);
    c.program.secret.push('x');
    assert_eq!(c.ask(&[]).await.status, 401, "another secret");
    c.program.secret.pop();
    let path = "/v3/OS-OAUTH1/request_token";
    let headers = |header: &str| {
        vec![
            ("authorization".to_owned(), header.to_owned()),
            ("host".to_owned(), "cloud.example.org".to_owned()),
            ("requested-project-id".to_owned(), c.project.clone()),
        ]
    };
    let header = c.program.header(path, &[]);
    for expected in [201, 401] {
        let all = headers(&header);
        let all: Vec<(&str, &str)> = all.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(c.world.call_with("POST", path, "", None, &all).await.status, expected, "good once");
    }
    assert_eq!(c.world.call("POST", path, "", None).await.status, 400, "no signature at all");
    let none = [("requested-project-id", "none")];
    assert_eq!(c.program.post(&c.world, path, &[], &none, None).await.status, 404);
    assert_eq!(c.program.post(&c.world, path, &[], &[], None).await.status, 400, "no project");
    c.holds(&asked);
    assert_eq!(c.collect("abcdefgh").await.status, 401, "not authorized yet");
    let user = c.world.user("u").await;
    c.world.grant(&format!("projects/{}", c.project), &user, "admin").await;
    let verifier = c.authorize().await.body["token"]["oauth_verifier"].as_str().unwrap().to_owned();
    let other = c.world.token("u", "u", project_scope(&c.project)).await;
    let authorize = format!("/v3/OS-OAUTH1/authorize/{}", c.program.token);
    let body = json!({"roles": [{"name": "member"}]});
    assert_eq!(c.world.call("PUT", &authorize, &other, Some(body)).await.status, 403, "somebody else's by now");
    assert_eq!(c.world.status("PUT", &authorize, Some(json!({"roles": []}))).await, 400);
    let fresh = c.world.new_role("fresh").await;
    assert_eq!(c.world.status("PUT", &authorize, Some(json!({"roles": [{"id": fresh}]}))).await, 401, "not his");
    assert_eq!(c.collect("abcdefgh").await.status, 401, "another verifier");
    assert_eq!(c.collect(&verifier).await.status, 201);
    assert_eq!(c.collect(&verifier).await.status, 404, "used up");
}

/// A form sent to the token address, on a connection with this certificate.
async fn grant(world: &World, fields: &str, headers: &[(&str, &str)], certificate: Option<&[u8]>) -> Answer {
    let mut all = vec![("content-type", "application/x-www-form-urlencoded")];
    all.extend(headers);
    world.send("POST", "/v3/OS-OAUTH2/token", fields.to_owned(), &all, certificate).await
}

#[tokio::test]
async fn an_application_credential_is_an_oauth2_client() {
    let world = World::new().await;
    let path = format!("/v3/users/{}/application_credentials", world.made.admin_user_id);
    let made =
        world.admin("POST", &path, Some(json!({"application_credential": {"name": "a", "secret": "s: ecret"}}))).await;
    let id = id(&made["application_credential"]);
    let basic = |secret: &str| format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    let good = grant(&world, "grant_type=client_credentials", &[("authorization", &basic("s: ecret"))], None).await;
    assert_eq!((good.status, &good.body["token_type"]), (200, &json!("Bearer")), "{}", good.body);
    assert_eq!(good.headers["cache-control"], "no-store");
    let bearer = format!("Bearer {}", good.body["access_token"].as_str().unwrap());
    let listed = world.call_with("GET", "/v3/users", "", None, &[("authorization", &bearer)]).await;
    assert_eq!(listed.status, 200, "the token is taken where OAuth clients put it");
    let posted = format!("grant_type=client_credentials&client_id={id}&client_secret=s%3A+ecret");
    assert_eq!(grant(&world, &posted, &[], None).await.status, 200);
    for (fields, authorization, status, error) in [
        ("", "", 400, "invalid_request"),
        ("grant_type=password", "", 400, "unsupported_grant_type"),
        ("grant_type=client_credentials", "", 401, "invalid_client"),
        ("grant_type=client_credentials", "Basic !", 401, "invalid_client"),
        ("grant_type=client_credentials&client_id=x", "", 401, "invalid_client"),
        ("grant_type=client_credentials", &basic("wrong"), 401, "invalid_client"),
    ] {
        let headers = [("authorization", authorization)];
        let answer = grant(&world, fields, if authorization.is_empty() { &[] } else { &headers }, None).await;
        assert_eq!((answer.status, &answer.body["error"]), (status, &json!(error)), "{fields} {authorization}");
        assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401);
    }
}

fn certificate(name: &str) -> Vec<u8> {
    let mut wanted = rcgen::CertificateParams::new(Vec::new()).unwrap();
    wanted.distinguished_name = rcgen::DistinguishedName::new();
    wanted.distinguished_name.push(rcgen::DnType::CommonName, name);
    wanted.distinguished_name.push(rcgen::DnType::OrganizationName, "Default");
    wanted.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

#[tokio::test]
async fn a_certificate_makes_a_token_that_is_worth_nothing_without_it() {
    let world = World::new().await;
    let project = world.project("p").await;
    let body = json!({"user": {"name": "robot", "domain_id": "default", "default_project_id": project}});
    let user = id(&world.admin("POST", "/v3/users", Some(body)).await["user"]);
    world.grant(&format!("projects/{project}"), &user, "admin").await;
    let (own, other) = (certificate("robot"), certificate("somebody"));
    let fields = format!("grant_type=client_credentials&client_id={user}");
    assert_eq!(grant(&world, &fields, &[], Some(&own)).await.status, 401, "there is no mapping");
    let rules = json!([{"local": [{"user": {"name": "{0}", "domain": {"name": "{1}"}}}],
        "remote": [{"type": "SSL_CLIENT_SUBJECT_DN_CN"}, {"type": "SSL_CLIENT_SUBJECT_DN_O"}]}]);
    world.admin("PUT", "/v3/OS-FEDERATION/mappings/oauth2_mapping", Some(json!({"mapping": {"rules": rules}}))).await;
    assert_eq!(grant(&world, &fields, &[], Some(&other)).await.status, 401, "another's certificate");
    assert_eq!(grant(&world, &fields, &[], Some(b"nothing")).await.status, 401);
    let good = grant(&world, &fields, &[], Some(&own)).await;
    assert_eq!(good.status, 200, "{}", good.body);
    let token = good.body["access_token"].as_str().unwrap();
    let shown = world.call_with("GET", "/v3/auth/tokens", &world.admin, None, &[("x-subject-token", token)]).await;
    assert_eq!(shown.body["token"]["oauth2_credential"]["x5t#S256"], thumbprint(&own));
    assert_eq!(shown.body["token"]["methods"], json!(["oauth2_credential"]));
    for (certificate, expected) in [(Some(own.as_slice()), 200), (Some(other.as_slice()), 401), (None, 401)] {
        let headers = [("x-auth-token", token)];
        assert_eq!(world.send("GET", "/v3/users", String::new(), &headers, certificate).await.status, expected);
    }
    assert_eq!(world.by_token(token, None).await.status, 403, "nor can it be exchanged for one that is not bound");
}
