//! What clients should not send: each is refused with a fault that says so, and none is a 500.
use crate::world::World;
use serde_json::{Value, json};

#[tokio::test]
async fn bad_bodies_are_400() {
    let world = World::new().await;
    let long = "x".repeat(300);
    let cases: Vec<(&str, &str, Value)> = vec![
        ("POST", "/v3/users", json!(null)),
        ("POST", "/v3/users", json!([])),
        ("POST", "/v3/users", json!({})),
        ("POST", "/v3/users", json!({"user": []})),
        ("POST", "/v3/users", json!({"user": {}})),
        ("POST", "/v3/users", json!({"user": {"name": ""}})),
        ("POST", "/v3/users", json!({"user": {"name": "  "}})),
        ("POST", "/v3/users", json!({"user": {"name": 5}})),
        ("POST", "/v3/users", json!({"user": {"name": long}})),
        ("POST", "/v3/users", json!({"user": {"name": "a\u{0}b"}})),
        ("POST", "/v3/users", json!({"user": {"name": "a", "x": {"deep": ["\u{0}"]}}})),
        ("POST", "/v3/users", json!({"user": {"name": "a", "enabled": "yes"}})),
        ("POST", "/v3/users", json!({"user": {"name": "a", "options": {"unknown": true}}})),
        ("POST", "/v3/users", json!({"user": {"name": "a", "default_project_id": "default"}})),
        ("POST", "/v3/projects", json!({"project": {"name": "x".repeat(65)}})),
        ("POST", "/v3/projects", json!({"project": {"name": "a", "tags": ["a", "a"]}})),
        ("POST", "/v3/projects", json!({"project": {"name": "a", "tags": ["a,b"]}})),
        ("POST", "/v3/projects", json!({"project": {"name": "a", "is_domain": true, "domain_id": "default"}})),
        ("POST", "/v3/domains", json!({"domain": {"name": ""}})),
        ("POST", "/v3/roles", json!({"role": {"name": null}})),
        (
            "POST",
            "/v3/endpoints",
            json!({"endpoint": {"service_id": "none", "interface": "public", "url": "https://h"}}),
        ),
        (
            "POST",
            "/v3/endpoints",
            json!({"endpoint": {"service_id": "none", "interface": "secret", "url": "https://h"}}),
        ),
        ("POST", "/v3/endpoints", json!({"endpoint": {"service_id": "none", "interface": "public", "url": "h"}})),
        ("POST", "/v3/limits", json!({"limits": []})),
        ("POST", "/v3/credentials", json!({"credential": {"user_id": "u", "type": "ec2", "blob": "{}"}})),
        ("POST", "/v3/auth/tokens", json!({"auth": {}})),
        ("POST", "/v3/auth/tokens", json!({"auth": {"identity": {"methods": []}}})),
        ("POST", "/v3/auth/tokens", json!({"auth": {"identity": {"methods": ["password"]}}})),
        ("POST", "/v3/auth/tokens", json!({"auth": {"identity": {"methods": ["password"], "password": {}}}})),
        (
            "POST",
            "/v3/auth/tokens",
            json!({"auth": {"identity": {"methods": ["password"], "password": {"user": {"password": "x"}}}}}),
        ),
        (
            "POST",
            "/v3/auth/tokens",
            json!({"auth": {"identity": {"methods": ["password"], "password": {"user": {"name": "admin", "password": "x"}}}}}),
        ),
        ("POST", "/v3/auth/tokens", json!({"auth": {"identity": {"methods": ["token"], "token": {}}}})),
    ];
    for (method, path, body) in cases {
        let answer = world.call(method, path, &world.admin, Some(body.clone())).await;
        assert_eq!(answer.status, 400, "{method} {path} {body}: {}", answer.body);
        assert!(
            answer.body["error"]["message"].is_string()
                && answer.body["error"]["code"] == 400
                && answer.body["error"]["title"] == "Bad Request"
        );
    }
}

#[tokio::test]
async fn bad_scopes_are_400_and_unknown_methods_401() {
    let world = World::new().await;
    for scope in [
        json!({}),
        json!({"project": {"id": "a"}, "domain": {"id": "b"}}),
        json!({"domain": {}}),
        json!({"project": {"name": "admin"}}),
        json!({"system": {"all": false}}),
    ] {
        assert_eq!(
            world.by_password("admin", crate::world::PASSWORD, Some(scope.clone())).await.status,
            400,
            "{scope}"
        );
    }
    assert_eq!(world.log_in(json!({"identity": {"methods": ["magic"], "magic": {}}})).await.status, 401);
}

/// Ids in paths and values in queries are whatever a client makes up.
#[tokio::test]
async fn odd_ids_and_queries_are_no_server_error() {
    let world = World::new().await;
    let odd = ["%00", "%2e%2e", "a%0ab", "%27%3b--", "%F0%9F%92%A9", &"x".repeat(400)];
    let paths = [
        "/v3/users/",
        "/v3/groups/",
        "/v3/projects/",
        "/v3/domains/",
        "/v3/roles/",
        "/v3/regions/",
        "/v3/services/",
        "/v3/endpoints/",
        "/v3/credentials/",
        "/v3/OS-TRUST/trusts/",
        "/v3/policies/",
        "/v3/limits/",
        "/v3/users?name=",
        "/v3/users?domain_id=",
        "/v3/projects?parent_id=",
        "/v3/projects?name=",
        "/v3/roles?domain_id=",
        "/v3/role_assignments?user.id=",
        "/v3/role_assignments?effective&scope.project.id=",
        "/v3/credentials?user_id=",
        "/v3/OS-TRUST/trusts?trustor_user_id=",
        "/v3/users?marker=",
        "/v3/users?limit=",
        "/v3/OS-REVOKE/events?since=",
        "/v3/limits?project_id=",
        "/v3/projects/default/users/",
        "/v3/auth/tokens?allow_expired=",
    ];
    for path in paths {
        for text in odd {
            let answer = world.call("GET", &format!("{path}{text}"), &world.admin, None).await;
            assert!(answer.status < 500, "{path}{text}: {} {}", answer.status, answer.body);
        }
    }
    for text in odd {
        let user = json!({"user": {"name": "admin", "password": "x", "domain": {"id": text}}});
        let answer = world.log_in(json!({"identity": {"methods": ["password"], "password": user}})).await;
        assert_eq!(answer.status, 401);
    }
    for name in ["a\u{0}", "\u{0}"] {
        let user = json!({"user": {"name": name, "password": "x", "domain": {"id": name}}});
        let answer = world.log_in(json!({"identity": {"methods": ["password"], "password": user}})).await;
        assert!(matches!(answer.status, 400 | 401), "{}", answer.status);
    }
}
