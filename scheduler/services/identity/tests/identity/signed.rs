//! EC2 keys: who may make them, and what a signed request is worth.
use crate::world::{World, project_scope};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use pilvi_kit::{clock, testing::Answer};
use serde_json::{Value, json};
use sha1::Sha1;

struct Keyed {
    world: World,
    user: String,
    project: String,
    token: String,
    access: String,
    secret: String,
}

async fn keyed() -> Keyed {
    let world = World::new().await;
    let (user, project) = (world.user("u").await, world.project("p").await);
    world.grant(&format!("projects/{project}"), &user, "member").await;
    let token = world.token("u", "u", project_scope(&project)).await;
    let path = format!("/v3/users/{user}/credentials/OS-EC2");
    let made = world.call("POST", &path, &token, Some(json!({"tenant_id": project}))).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let text = |name: &str| made.body["credential"][name].as_str().unwrap().to_owned();
    let (access, secret) = (text("access"), text("secret"));
    Keyed { world, user, project, token, access, secret }
}

impl Keyed {
    /// Signed by version 0, which is enough to see what a signature is worth.
    fn signed(&self, secret: &str, time: &str) -> Value {
        let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(format!("Test{time}").as_bytes());
        json!({"access": self.access, "signature": STANDARD.encode(mac.finalize().into_bytes()), "host": "h", "verb": "GET", "path": "/",
            "params": {"SignatureVersion": "0", "Action": "Test", "Timestamp": time}})
    }

    async fn ask(&self, token: &str, credentials: Value) -> Answer {
        self.world.call("POST", "/v3/ec2tokens", token, Some(json!({ "credentials": credentials }))).await
    }

    fn now(&self) -> String {
        clock::seconds_z(clock::now_us())
    }
}

#[tokio::test]
async fn a_signed_request_gives_a_service_a_token_of_the_signer() {
    let k = keyed().await;
    let good = k.signed(&k.secret, &k.now());
    let answer = k.ask(&k.world.admin, good.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.body["token"]["user"]["id"], k.user.as_str());
    assert_eq!(answer.body["token"]["project"]["id"], k.project.as_str());
    assert_eq!(answer.body["token"]["methods"], json!(["ec2credential"]));
    assert_eq!(k.ask(&k.token, good.clone()).await.status, 403, "not for users");
    assert_eq!(k.ask("", good.clone()).await.status, 401);
    assert_eq!(k.ask(&k.world.admin, k.signed("wrong", &k.now())).await.status, 401);
    let old = clock::seconds_z(clock::now_us() - 3_600_000_000);
    assert_eq!(k.ask(&k.world.admin, k.signed(&k.secret, &old)).await.status, 401, "signed an hour ago");
    let mut unknown = good.clone();
    unknown["access"] = "unknown".into();
    assert_eq!(k.ask(&k.world.admin, unknown).await.status, 404);
    for bad in [json!({}), json!({"access": k.access}), json!({"access": k.access, "signature": "x", "params": {}})] {
        assert!([401, 404].contains(&k.ask(&k.world.admin, bad.clone()).await.status), "{bad}");
    }
    let by_key = answer.headers["x-subject-token"].to_str().unwrap();
    assert_eq!(k.world.validate(by_key).await, 200);
    assert_eq!(k.world.by_token(by_key, None).await.status, 403, "cannot be exchanged");
    assert_eq!(k.world.call("GET", "/v3/credentials", by_key, None).await.status, 403, "sees no secrets");
    let path = format!("/v3/users/{}/application_credentials", k.user);
    let body = json!({"application_credential": {"name": "x"}});
    assert_eq!(k.world.call("POST", &path, by_key, Some(body)).await.status, 403, "makes none either");
    let member = k.world.role("member").await;
    k.world.admin("DELETE", &format!("/v3/projects/{}/users/{}/roles/{member}", k.project, k.user), None).await;
    assert_eq!(k.ask(&k.world.admin, good).await.status, 401, "no role, no token");
}

#[tokio::test]
async fn services_may_ask_too() {
    let k = keyed().await;
    let (service, project) = (k.world.user("swift").await, k.world.project("service").await);
    k.world.grant(&format!("projects/{project}"), &service, "service").await;
    let token = k.world.token("swift", "swift", project_scope(&project)).await;
    assert_eq!(k.ask(&token, k.signed(&k.secret, &k.now())).await.status, 200);
    let to_sign = "GET\n\n\nTue, 27 Mar 2007 19:36:42 +0000\n/bucket/object";
    let mut mac = Hmac::<Sha1>::new_from_slice(k.secret.as_bytes()).unwrap();
    mac.update(to_sign.as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let s3 = |signature: &str, to_sign: &str| {
        let token_text = STANDARD.encode(to_sign).replace('+', "-").replace('/', "_");
        json!({"credentials": {"access": k.access, "signature": signature, "token": token_text}})
    };
    let answer = k.world.call("POST", "/v3/s3tokens", &token, Some(s3(&signature, to_sign))).await;
    assert_eq!((answer.status, &answer.body["token"]["project"]["id"]), (200, &json!(k.project)));
    assert!(!answer.headers.contains_key("x-subject-token"));
    assert_eq!(k.world.call("POST", "/v3/s3tokens", &token, Some(s3(&signature, "GET\n\n\nother"))).await.status, 401);
    let broken = json!({"credentials": {"access": k.access, "signature": signature, "token": "%%%"}});
    assert_eq!(k.world.call("POST", "/v3/s3tokens", &token, Some(broken)).await.status, 401);
}

#[tokio::test]
async fn readers_make_no_keys() {
    let k = keyed().await;
    let reader = k.world.user("reader").await;
    k.world.grant(&format!("projects/{}", k.project), &reader, "reader").await;
    k.world.grant("system", &reader, "reader").await;
    let path = format!("/v3/users/{reader}/credentials/OS-EC2");
    let body = || Some(json!({"tenant_id": k.project}));
    let in_project = k.world.token("reader", "reader", project_scope(&k.project)).await;
    let in_system = k.world.token("reader", "reader", Some(json!({"system": {"all": true}}))).await;
    assert_eq!(k.world.call("POST", &path, &in_project, body()).await.status, 403);
    assert_eq!(k.world.call("POST", &path, &in_system, body()).await.status, 403);
    k.world.grant(&format!("projects/{}", k.project), &reader, "member").await;
    let member = k.world.token("reader", "reader", project_scope(&k.project)).await;
    assert_eq!(k.world.call("POST", &path, &member, body()).await.status, 201);
    assert_eq!(k.world.call("GET", &path, &in_project, None).await.status, 200, "but they see their own");
}

#[tokio::test]
async fn keys_survive_new_seals() {
    let k = keyed().await;
    for round in 0..4 {
        assert_eq!(k.world.identity.rotate_credential_keys().await.unwrap(), 1, "round {round}");
        assert_eq!(k.ask(&k.world.admin, k.signed(&k.secret, &k.now())).await.status, 200, "round {round}");
    }
    let listed = k.world.call("GET", "/v3/credentials?type=ec2", &k.token, None).await;
    assert!(listed.body["credentials"][0]["blob"].as_str().unwrap().contains(&k.secret));
}
