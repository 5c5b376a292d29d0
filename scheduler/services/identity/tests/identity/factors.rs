//! Several proofs together: rules, receipts, one-time passcodes.
use crate::world::{World, subject};
use data_encoding::BASE32;
use hmac::{Hmac, KeyInit, Mac};
use pilvi_kit::{clock, testing::Answer};
use serde_json::{Value, json};
use sha1::Sha1;

const SECRET: &[u8] = b"a secret of twenty b";

/// RFC 6238, written apart from the service's own.
fn code(steps_back: i64) -> String {
    let step = clock::now_us() / 30_000_000 - steps_back;
    let mut mac = Hmac::<Sha1>::new_from_slice(SECRET).unwrap();
    mac.update(&(step as u64).to_be_bytes());
    let tag = mac.finalize().into_bytes();
    let at = (tag[19] & 15) as usize;
    let word = u32::from_be_bytes([tag[at], tag[at + 1], tag[at + 2], tag[at + 3]]) & 0x7fff_ffff;
    format!("{:06}", word % 1_000_000)
}

struct Two {
    world: World,
    user: String,
}

async fn two() -> Two {
    let world = World::with(|c| c.totp_previous_windows = 2).await;
    let user = world.user("u").await;
    let blob = json!({"credential": {"type": "totp", "blob": BASE32.encode(SECRET), "user_id": user}});
    world.admin("POST", "/v3/credentials", Some(blob)).await;
    let rules = json!({"user": {"options": {"multi_factor_auth_rules": [["password", "totp"]]}}});
    world.admin("PATCH", &format!("/v3/users/{user}"), Some(rules)).await;
    Two { world, user }
}

impl Two {
    async fn log_in(&self, methods: &[&str], password: &str, passcode: &str, receipt: Option<&str>) -> Answer {
        let mut identity = json!({ "methods": methods });
        if methods.contains(&"password") {
            identity["password"] = json!({"user": {"id": self.user, "password": password}});
        }
        if methods.contains(&"totp") {
            identity["totp"] = json!({"user": {"id": self.user, "passcode": passcode}});
        }
        let body = Some(json!({"auth": {"identity": identity}}));
        let headers: Vec<(&str, &str)> = receipt.map(|r| ("openstack-auth-receipt", r)).into_iter().collect();
        self.world.call_with("POST", "/v3/auth/tokens", "", body, &headers).await
    }
}

#[tokio::test]
async fn one_proof_gives_a_receipt_and_the_other_the_token() {
    let two = two().await;
    let first = two.log_in(&["password"], "u", "", None).await;
    assert_eq!(first.status, 401);
    assert_eq!(first.body["required_auth_methods"], json!([["password", "totp"]]));
    assert_eq!(first.body["receipt"]["methods"], json!(["password"]));
    assert_eq!(
        first.body["receipt"]["user"],
        json!({"id": two.user, "name": "u", "domain": {"id": "default", "name": "Default"}})
    );
    assert!(first.body["receipt"]["expires_at"].is_string() && first.body.get("error").is_none());
    let receipt = first.headers["openstack-auth-receipt"].to_str().unwrap().to_owned();
    assert_eq!(two.world.call("GET", "/v3/auth/projects", &receipt, None).await.status, 401, "no token");
    assert_eq!(two.world.validate(&receipt).await, 404);
    assert_eq!(two.log_in(&["totp"], "", "000000", Some(&receipt)).await.status, 401);
    let second = two.log_in(&["totp"], "", &code(0), Some(&receipt)).await;
    let token = subject(&second);
    let mut methods: Vec<&str> =
        second.body["token"]["methods"].as_array().unwrap().iter().map(|m| m.as_str().unwrap()).collect();
    methods.sort_unstable();
    assert_eq!(methods, ["password", "totp"]);
    let exchanged = two.world.by_token(&token, None).await;
    assert_eq!(exchanged.status, 201, "what was proven stays proven: {}", exchanged.body);
}

#[tokio::test]
async fn both_at_once_need_no_receipt_and_a_passcode_is_good_once() {
    let two = two().await;
    let now = code(0);
    assert_eq!(two.log_in(&["password", "totp"], "u", &now, None).await.status, 201);
    assert_eq!(two.log_in(&["password", "totp"], "u", &now, None).await.status, 401, "taken");
    assert_eq!(two.log_in(&["password", "totp"], "u", &code(1), None).await.status, 401, "older than the one taken");
    assert_eq!(two.log_in(&["password", "totp"], "u", "", None).await.status, 401);
    assert_eq!(two.log_in(&["password", "totp"], "wrong", &code(-1), None).await.status, 401);
}

#[tokio::test]
async fn a_receipt_is_for_its_user_and_for_a_while() {
    let two = two().await;
    let other = two.world.user("other").await;
    let first = two.log_in(&["password"], "u", "", None).await;
    let receipt = first.headers["openstack-auth-receipt"].to_str().unwrap().to_owned();
    let body = json!({"auth": {"identity": {"methods": ["password"], "password": {"user": {"id": other, "password": "other"}}}}});
    let headers = [("openstack-auth-receipt", receipt.as_str())];
    let stolen = two.world.call_with("POST", "/v3/auth/tokens", "", Some(body.clone()), &headers).await;
    assert_eq!(stolen.status, 401);
    for bad in ["", "broken", &two.world.admin] {
        let headers = [("openstack-auth-receipt", bad)];
        let answer = two.world.call_with("POST", "/v3/auth/tokens", "", Some(body.clone()), &headers).await;
        assert_eq!(answer.status, 401, "{bad}");
    }
}

#[tokio::test]
async fn rules_are_lists_of_lists_and_can_be_switched_off() {
    let two = two().await;
    let path = format!("/v3/users/{}", two.user);
    let with = |options: Value| two.world.status("PATCH", &path, Some(json!({"user": {"options": options}})));
    for bad in
        [json!("password"), json!(["password"]), json!([[]]), json!([["a", "a"]]), json!([["a"], ["a"]]), json!([[1]])]
    {
        assert_eq!(with(json!({"multi_factor_auth_rules": bad})).await, 400, "{bad}");
    }
    assert_eq!(with(json!({"multi_factor_auth_enabled": "yes"})).await, 400);
    assert_eq!(with(json!({"unknown_option": true})).await, 400);
    assert_eq!(with(json!({"multi_factor_auth_enabled": false})).await, 200);
    assert_eq!(two.log_in(&["password"], "u", "", None).await.status, 201);
    assert_eq!(with(json!({"multi_factor_auth_enabled": true})).await, 200);
    assert_eq!(two.log_in(&["password"], "u", "", None).await.status, 401);
    assert_eq!(with(json!({"multi_factor_auth_rules": null})).await, 200);
    assert_eq!(two.log_in(&["password"], "u", "", None).await.status, 201);
}

#[tokio::test]
async fn guessed_passcodes_lock_the_account_even_with_the_right_password() {
    let world = World::with(|c| (c.lockout_attempts, c.lockout_seconds) = (Some(3), 600)).await;
    let user = world.user("u").await;
    let blob = json!({"credential": {"type": "totp", "blob": BASE32.encode(SECRET), "user_id": user}});
    world.admin("POST", "/v3/credentials", Some(blob)).await;
    let two = Two { world, user };
    for _ in 0..3 {
        assert_eq!(two.log_in(&["password", "totp"], "u", "000000", None).await.status, 401);
    }
    assert_eq!(two.log_in(&["password", "totp"], "u", &code(0), None).await.status, 401, "locked");
}
