//! What users hand to programs: application credentials, trusts, sealed blobs.
use crate::world::{World, project_scope, subject};
use pilvi_kit::testing::Answer;
use serde_json::{Value, json};

struct Owner {
    world: World,
    user: String,
    project: String,
    token: String,
}

async fn owner() -> Owner {
    let world = World::new().await;
    let (user, project) = (world.user("u").await, world.project("p").await);
    world.grant(&format!("projects/{project}"), &user, "member").await;
    let token = world.token("u", "u", project_scope(&project)).await;
    Owner { world, user, project, token }
}

impl Owner {
    async fn make(&self, wanted: Value) -> Answer {
        let body = json!({"application_credential": wanted});
        self.world
            .call("POST", &format!("/v3/users/{}/application_credentials", self.user), &self.token, Some(body))
            .await
    }
    async fn log_in(&self, made: &Value) -> Answer {
        let proof = json!({"id": made["id"], "secret": made["secret"]});
        self.world
            .log_in(json!({"identity": {"methods": ["application_credential"], "application_credential": proof}}))
            .await
    }
}

#[tokio::test]
async fn an_application_credential_is_a_login_of_its_own() {
    let o = owner().await;
    let made = o.make(json!({"name": "one"})).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let made = made.body["application_credential"].clone();
    assert_eq!(made["project_id"], o.project.as_str());
    let answer = o.log_in(&made).await;
    let token = &answer.body["token"];
    assert_eq!((&token["project"]["id"], &token["methods"]), (&json!(o.project), &json!(["application_credential"])));
    assert_eq!(token["application_credential"]["restricted"], true);
    assert!(subject(&answer).len() < 255);
    let path = format!("/v3/users/{}/application_credentials/{}", o.user, made["id"].as_str().unwrap());
    let shown = o.world.call("GET", &path, &o.token, None).await;
    assert!(shown.body["application_credential"].get("secret").is_none(), "shown once");
    assert_eq!(o.make(json!({"name": "one"})).await.status, 409);
    let wrong = json!({"id": made["id"], "secret": "wrong"});
    let wrong = o
        .world
        .log_in(json!({"identity": {"methods": ["application_credential"], "application_credential": wrong}}))
        .await;
    assert_eq!(wrong.status, 401);
    let named = json!({"name": "one", "user": {"id": o.user}, "secret": made["secret"]});
    let named = o
        .world
        .log_in(json!({"identity": {"methods": ["application_credential"], "application_credential": named}}))
        .await;
    assert_eq!(named.status, 201);
    assert_eq!(o.world.call("DELETE", &path, &o.token, None).await.status, 204);
    assert_eq!(o.world.validate(&subject(&answer)).await, 404, "its tokens end with it");
    assert_eq!(o.log_in(&made).await.status, 401);
}

#[tokio::test]
async fn it_carries_no_more_than_it_was_given() {
    let o = owner().await;
    let made =
        o.make(json!({"name": "reader", "roles": [{"name": "reader"}]})).await.body["application_credential"].clone();
    let answer = o.log_in(&made).await;
    let names: Vec<&str> =
        answer.body["token"]["roles"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["reader"]);
    assert_eq!(o.make(json!({"name": "x", "roles": [{"name": "admin"}]})).await.status, 400, "not his to give");
    let token = subject(&answer);
    let body = Some(json!({"application_credential": {"name": "child"}}));
    let path = format!("/v3/users/{}/application_credentials", o.user);
    assert_eq!(o.world.call("POST", &path, &token, body.clone()).await.status, 403, "restricted");
    assert_eq!(o.world.by_token(&token, None).await.status, 403, "no exchange");
    let scoped = json!({"identity": {"methods": ["application_credential"], "application_credential": {"id": made["id"], "secret": made["secret"]}},
        "scope": {"project": {"id": o.project}}});
    assert_eq!(o.world.log_in(scoped).await.status, 401, "no choice of scope");
    let free = o.make(json!({"name": "free", "unrestricted": true})).await.body["application_credential"].clone();
    let free = subject(&o.log_in(&free).await);
    assert_eq!(o.world.call("POST", &path, &free, body).await.status, 201);
    let member = o.world.role("member").await;
    o.world.admin("DELETE", &format!("/v3/projects/{}/users/{}/roles/{member}", o.project, o.user), None).await;
    assert_eq!(o.log_in(&made).await.status, 401, "gone with the role");
}

#[tokio::test]
async fn access_rules_allow_the_calls_they_name_and_no_other() {
    let o = owner().await;
    let rules = json!([{"service": "identity", "method": "GET", "path": "/v3/auth/projects"}]);
    let made = o.make(json!({"name": "narrow", "access_rules": rules})).await.body["application_credential"].clone();
    let token = subject(&o.log_in(&made).await);
    assert_eq!(o.world.call("GET", "/v3/auth/projects", &token, None).await.status, 200);
    assert_eq!(o.world.call("GET", "/v3/auth/catalog", &token, None).await.status, 403);
    assert_eq!(o.world.validate(&token).await, 404, "to whoever does not know access rules");
    let header = [("x-subject-token", token.as_str()), ("openstack-identity-access-rules", "1")];
    let shown = o.world.call_with("GET", "/v3/auth/tokens", &o.world.admin, None, &header).await;
    assert_eq!(shown.body["token"]["application_credential"]["access_rules"][0]["path"], "/v3/auth/projects");
    let rule = format!("/v3/users/{}/access_rules/{}", o.user, made["access_rules"][0]["id"].as_str().unwrap());
    assert_eq!(o.world.call("DELETE", &rule, &o.token, None).await.status, 403, "in use");
    let path = format!("/v3/users/{}/application_credentials/{}", o.user, made["id"].as_str().unwrap());
    o.world.call("DELETE", &path, &o.token, None).await;
    assert_eq!(o.world.call("GET", &rule, &o.token, None).await.status, 200, "outlives it");
    assert_eq!(o.world.call("DELETE", &rule, &o.token, None).await.status, 204);
}

#[tokio::test]
async fn an_application_credential_can_run_out() {
    let o = owner().await;
    assert_eq!(o.make(json!({"name": "past", "expires_at": "2001-01-01T00:00:00"})).await.status, 400);
    assert_eq!(o.make(json!({"name": "odd", "expires_at": "soon"})).await.status, 400);
    let at = pilvi_kit::clock::micros(pilvi_kit::clock::now_us() + 1_000_000);
    let made = o.make(json!({"name": "short", "expires_at": at})).await.body["application_credential"].clone();
    assert_eq!(made["expires_at"], at.as_str());
    assert_eq!(o.log_in(&made).await.status, 201);
    tokio::time::sleep(std::time::Duration::from_millis(1050)).await;
    assert_eq!(o.log_in(&made).await.status, 401);
}

#[tokio::test]
async fn a_trust_lends_roles_until_it_is_taken_back() {
    let o = owner().await;
    let trustee = o.world.user("helper").await;
    let wanted = |more: Value| {
        let mut trust = json!({"trustor_user_id": o.user, "trustee_user_id": trustee, "project_id": o.project, "impersonation": true, "roles": [{"name": "reader"}]});
        trust.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Some(json!({ "trust": trust }))
    };
    let make = |more: Value| o.world.call("POST", "/v3/OS-TRUST/trusts", &o.token, wanted(more));
    assert_eq!(make(json!({"roles": [{"name": "admin"}]})).await.status, 404, "not his to lend");
    assert_eq!(make(json!({"roles": []})).await.status, 403);
    assert_eq!(make(json!({"trustor_user_id": trustee})).await.status, 403);
    assert_eq!(make(json!({"expires_at": "bad"})).await.status, 400);
    let trust = make(json!({"remaining_uses": 1})).await.body["trust"].clone();
    let scope = Some(json!({"OS-TRUST:trust": {"id": trust["id"]}}));
    assert_eq!(o.world.by_password("u", "u", scope.clone()).await.status, 403, "he is not the trustee");
    let answer = o.world.by_password("helper", "helper", scope.clone()).await;
    let token = &answer.body["token"];
    assert_eq!((&token["user"]["id"], &token["project"]["id"]), (&json!(o.user), &json!(o.project)), "impersonated");
    assert_eq!(token["roles"].as_array().unwrap().len(), 1);
    let text = subject(&answer);
    assert!(text.len() < 255);
    assert_eq!(o.world.by_password("helper", "helper", scope).await.status, 404, "used up");
    assert_eq!(
        o.world
            .call(
                "POST",
                &format!("/v3/users/{}/application_credentials", o.user),
                &text,
                Some(json!({"application_credential": {"name": "x"}}))
            )
            .await
            .status,
        403
    );
    assert_eq!(o.world.by_token(&text, None).await.status, 403);
    let path = format!("/v3/OS-TRUST/trusts/{}", trust["id"].as_str().unwrap());
    let stranger = o.world.user("eve").await;
    assert!(!stranger.is_empty());
    let eve = o.world.token("eve", "eve", None).await;
    assert_eq!(o.world.call("GET", &path, &eve, None).await.status, 403);
    assert_eq!(o.world.call("DELETE", &path, &o.token, None).await.status, 204);
    assert_eq!(o.world.validate(&text).await, 404);
}

#[tokio::test]
async fn blobs_are_sealed_and_seen_by_their_owner_alone() {
    let o = owner().await;
    o.world.user("eve").await;
    let eve = o.world.token("eve", "eve", None).await;
    let blob = r#"{"access": "key", "secret": "hidden"}"#;
    let body = json!({"credential": {"user_id": o.user, "project_id": o.project, "type": "ec2", "blob": blob}});
    assert_eq!(o.world.call("POST", "/v3/credentials", &eve, Some(body.clone())).await.status, 403);
    let made = o.world.call("POST", "/v3/credentials", &o.token, Some(body.clone())).await;
    assert_eq!((made.status, &made.body["credential"]["blob"]), (201, &json!(blob)));
    assert_eq!(
        o.world.call("POST", "/v3/credentials", &o.token, Some(body)).await.status,
        409,
        "the access key is taken"
    );
    let path = format!("/v3/credentials/{}", made.body["credential"]["id"].as_str().unwrap());
    assert_eq!(o.world.call("GET", &path, &eve, None).await.status, 403);
    assert_eq!(o.world.call("GET", "/v3/credentials", &eve, None).await.body["credentials"], json!([]));
    assert_eq!(
        o.world.call("GET", "/v3/credentials", &o.token, None).await.body["credentials"].as_array().unwrap().len(),
        1
    );
    assert_eq!(o.world.call("PATCH", &path, &o.token, Some(json!({"credential": {"type": "cert"}}))).await.status, 400);
    assert_eq!(
        o.world.call("PATCH", &path, &o.token, Some(json!({"credential": {"blob": "no json"}}))).await.status,
        400
    );
    assert_eq!(o.world.call("DELETE", &path, &o.token, None).await.status, 204);
    let ec2 = format!("/v3/users/{}/credentials/OS-EC2", o.user);
    let made = o.world.call("POST", &ec2, &o.token, Some(json!({"tenant_id": o.project}))).await;
    assert_eq!(made.status, 201);
    let one = format!("{ec2}/{}", made.body["credential"]["access"].as_str().unwrap());
    assert_eq!(o.world.call("GET", &one, &o.token, None).await.body, made.body);
    assert_eq!(o.world.call("GET", &one, &eve, None).await.status, 403);
    assert_eq!(o.world.call("DELETE", &one, &o.token, None).await.status, 204);
}
