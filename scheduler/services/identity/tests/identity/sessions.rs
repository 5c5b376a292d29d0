//! A token's life: issued, read, exchanged, ended.
use crate::world::{PASSWORD, World, project_scope, subject};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use pilvi_identity::{Config, Identity};
use pilvi_kit::auth::TokenAuthority;
use serde_json::json;

#[tokio::test]
async fn a_token_says_who_where_and_with_which_roles() {
    let world = World::new().await;
    let answer = world.by_password("admin", PASSWORD, project_scope(&world.made.admin_project_id)).await;
    let token = &answer.body["token"];
    assert_eq!(token["methods"], json!(["password"]));
    assert_eq!(token["user"]["domain"], json!({"id": "default", "name": "Default"}));
    assert_eq!(token["user"]["name"], "admin");
    assert_eq!(token["project"]["name"], "admin");
    assert_eq!(token["is_domain"], false);
    assert_eq!(token["audit_ids"].as_array().unwrap().len(), 1);
    let swift = token["catalog"].as_array().unwrap().iter().find(|s| s["type"] == "object-store").unwrap();
    assert!(swift["endpoints"][0]["url"].as_str().unwrap().ends_with(&format!("AUTH_{}", world.made.admin_project_id)));
    let text = subject(&answer);
    assert!(text.len() < 255, "{} characters", text.len());
    let shown = world.call_with("GET", "/v3/auth/tokens", &text, None, &[("x-subject-token", &text)]).await;
    assert_eq!((shown.status, &shown.body), (200, &answer.body));
    let bare = world.call_with("GET", "/v3/auth/tokens?nocatalog", &text, None, &[("x-subject-token", &text)]).await;
    assert!(bare.body["token"].get("catalog").is_none());
    let head = world.call_with("HEAD", "/v3/auth/tokens", &text, None, &[("x-subject-token", &text)]).await;
    assert_eq!((head.status, head.bytes.len()), (200, 0));
}

#[tokio::test]
async fn who_is_not_known_and_who_errs_read_the_same() {
    let world = World::new().await;
    let wrong = world.by_password("admin", "wrong", None).await;
    let unknown = world.by_password("nobody", "wrong", None).await;
    assert_eq!((wrong.status, unknown.status), (401, 401));
    assert_eq!(wrong.body, unknown.body);
}

#[tokio::test]
async fn forged_and_tampered_tokens_are_refused() {
    let world = World::new().await;
    let good = world.admin.clone();
    let bytes = URL_SAFE_NO_PAD.decode(&good).unwrap();
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        let bad = URL_SAFE_NO_PAD.encode(bad);
        assert_eq!(world.call("GET", "/v3/users", &bad, None).await.status, 401, "byte {at}");
        assert_eq!(world.validate(&bad).await, 404, "byte {at}");
    }
    assert_eq!(world.call("GET", "/v3/users", "", None).await.status, 401);
    let padded = format!("{good}{}", "=".repeat((4 - good.len() % 4) % 4));
    assert_eq!(world.validate(&padded).await, 200, "older clients keep the padding");
}

#[tokio::test]
async fn an_expired_token_is_refused_but_for_services_that_ask() {
    let world = World::with(|config| config.token_seconds = 2).await;
    let short = world.token("admin", PASSWORD, None).await;
    assert_eq!(world.validate(&short).await, 200);
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    let fresh = world.token("admin", PASSWORD, project_scope(&world.made.admin_project_id)).await;
    let subject = [("x-subject-token", short.as_str())];
    let asked = |path: &'static str| world.call_with("GET", path, &fresh, None, &subject);
    assert_eq!(asked("/v3/auth/tokens").await.status, 404);
    assert_eq!(asked("/v3/auth/tokens?allow_expired=1").await.status, 200);
    assert_eq!(world.call("GET", "/v3/users", &world.admin, None).await.status, 401, "ours ran out too");
}

#[tokio::test]
async fn a_service_goes_on_with_a_token_that_has_ended() {
    let world = World::with(|config| config.token_seconds = 2).await;
    let (user, service, project) = (world.user("u").await, world.user("nova").await, world.project("p").await);
    world.grant(&format!("projects/{project}"), &user, "member").await;
    world.grant(&format!("projects/{project}"), &service, "service").await;
    let old = world.token("u", "u", project_scope(&project)).await;
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    let fresh = world.token("nova", "nova", project_scope(&project)).await;
    let path = "/v3/auth/projects";
    assert_eq!(world.call("GET", path, &old, None).await.status, 401);
    let both = [("x-service-token", fresh.as_str())];
    assert_eq!(world.call_with("GET", path, &old, None, &both).await.status, 200);
    let same = [("x-service-token", old.as_str())];
    assert_eq!(world.call_with("GET", path, &fresh, None, &same).await.status, 401, "its own must be good");
}

#[tokio::test]
async fn a_revoked_token_is_dead_at_once_and_the_others_live() {
    let world = World::new().await;
    let one = world.token("admin", PASSWORD, None).await;
    let two = world.token("admin", PASSWORD, None).await;
    assert_eq!(world.call("GET", "/v3/auth/projects", &one, None).await.status, 200);
    let gone = world.call_with("DELETE", "/v3/auth/tokens", &one, None, &[("x-subject-token", &one)]).await;
    assert_eq!(gone.status, 204);
    assert_eq!(world.call("GET", "/v3/auth/projects", &one, None).await.status, 401);
    assert_eq!(world.validate(&one).await, 404);
    assert_eq!(world.by_token(&one, None).await.status, 404);
    assert_eq!(world.validate(&two).await, 200);
    let events = world.admin("GET", "/v3/OS-REVOKE/events", None).await;
    assert_eq!(events["events"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn nobody_reads_or_ends_the_token_of_another() {
    let world = World::new().await;
    world.user("eve").await;
    let eve = world.token("eve", "eve", None).await;
    for method in ["GET", "HEAD", "DELETE"] {
        let answer = world.call_with(method, "/v3/auth/tokens", &eve, None, &[("x-subject-token", &world.admin)]).await;
        assert_eq!(answer.status, 403, "{method}");
    }
    assert_eq!(world.call_with("GET", "/v3/auth/tokens", &eve, None, &[("x-subject-token", &eve)]).await.status, 200);
}

/// Everything that takes away what a token stands for ends it with the next call.
#[tokio::test]
async fn what_is_taken_away_ends_tokens() {
    type Case = (&'static str, fn(&str, &str, &str) -> (&'static str, String, serde_json::Value));
    let cases: [Case; 7] = [
        ("user disabled", |u, _, _| ("PATCH", format!("/v3/users/{u}"), json!({"user": {"enabled": false}}))),
        ("user deleted", |u, _, _| ("DELETE", format!("/v3/users/{u}"), json!(null))),
        ("password set", |u, _, _| ("PATCH", format!("/v3/users/{u}"), json!({"user": {"password": "other"}}))),
        ("project disabled", |_, p, _| ("PATCH", format!("/v3/projects/{p}"), json!({"project": {"enabled": false}}))),
        ("project deleted", |_, p, _| ("DELETE", format!("/v3/projects/{p}"), json!(null))),
        ("role taken", |u, p, r| ("DELETE", format!("/v3/projects/{p}/users/{u}/roles/{r}"), json!(null))),
        ("role deleted", |_, _, r| ("DELETE", format!("/v3/roles/{r}"), json!(null))),
    ];
    for (what, act) in cases {
        let world = World::new().await;
        let (user, project, role) = (world.user("u").await, world.project("p").await, world.new_role("worker").await);
        world.admin("PUT", &format!("/v3/projects/{project}/users/{user}/roles/{role}"), None).await;
        let token = world.token("u", "u", project_scope(&project)).await;
        assert_eq!(world.call("GET", "/v3/auth/projects", &token, None).await.status, 200, "{what}");
        assert_eq!(world.validate(&token).await, 200, "{what}");
        let (method, path, body) = act(&user, &project, &role);
        world.admin(method, &path, Some(body).filter(|b| !b.is_null())).await;
        assert_eq!(world.call("GET", "/v3/auth/projects", &token, None).await.status, 401, "{what}");
        assert_eq!(world.validate(&token).await, 404, "{what}");
    }
}

#[tokio::test]
async fn a_token_stays_dead_when_its_user_is_enabled_again() {
    let world = World::new().await;
    let user = world.user("u").await;
    let token = world.token("u", "u", None).await;
    for enabled in [false, true] {
        world.admin("PATCH", &format!("/v3/users/{user}"), Some(json!({"user": {"enabled": enabled}}))).await;
    }
    assert_eq!(world.validate(&token).await, 404);
    let new = world.token("u", "u", None).await;
    assert_eq!(world.validate(&new).await, 200);
}

#[tokio::test]
async fn a_group_gives_and_takes_roles() {
    let world = World::new().await;
    let (user, project, role) = (world.user("u").await, world.project("p").await, world.role("member").await);
    let group = world.admin("POST", "/v3/groups", Some(json!({"group": {"name": "g", "domain_id": "default"}}))).await
        ["group"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    world.admin("PUT", &format!("/v3/projects/{project}/groups/{group}/roles/{role}"), None).await;
    assert_eq!(world.by_password("u", "u", project_scope(&project)).await.status, 401);
    let member = format!("/v3/groups/{group}/users/{user}");
    world.admin("PUT", &member, None).await;
    let token = world.token("u", "u", project_scope(&project)).await;
    assert_eq!(world.validate(&token).await, 200);
    world.admin("DELETE", &member, None).await;
    assert_eq!(world.validate(&token).await, 404);
}

#[tokio::test]
async fn users_change_their_own_password() {
    let world = World::with(|config| config.unique_last_passwords = 2).await;
    let user = world.user("u").await;
    let token = world.token("u", "u", None).await;
    let path = format!("/v3/users/{user}/password");
    let change = |from: &'static str, to: &'static str| {
        world.call("POST", &path, "", Some(json!({"user": {"original_password": from, "password": to}})))
    };
    assert_eq!(change("wrong", "second").await.status, 401);
    assert_eq!(change("u", "u").await.status, 400, "the same again");
    assert_eq!(change("u", "second").await.status, 204);
    assert_eq!(world.validate(&token).await, 404);
    assert_eq!(world.by_password("u", "u", None).await.status, 401);
    assert_eq!(change("second", "u").await.status, 400, "one of the last two");
    assert_eq!(change("second", "third").await.status, 204);
    assert_eq!(change("third", "u").await.status, 204, "two others came between");
}

#[tokio::test]
async fn wrong_passwords_lock_an_account_for_a_while() {
    let world = World::with(|config| (config.lockout_attempts, config.lockout_seconds) = (Some(2), 1)).await;
    let user = world.user("u").await;
    for _ in 0..2 {
        assert_eq!(world.by_password("u", "wrong", None).await.status, 401);
    }
    assert_eq!(world.by_password("u", "u", None).await.status, 401, "locked");
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(world.by_password("u", "u", None).await.status, 201);
    assert_eq!(world.by_password("u", "wrong", None).await.status, 401, "counting starts anew");
    assert_eq!(world.by_password("u", "u", None).await.status, 201);
    let free = json!({"user": {"options": {"ignore_lockout_failure_attempts": true}}});
    world.admin("PATCH", &format!("/v3/users/{user}"), Some(free)).await;
    for _ in 0..3 {
        world.by_password("u", "wrong", None).await;
    }
    assert_eq!(world.by_password("u", "u", None).await.status, 201);
}

#[tokio::test]
async fn rotation_of_keys_keeps_tokens() {
    let world = World::new().await;
    let token = world.token("admin", PASSWORD, None).await;
    world.identity.rotate_keys().unwrap();
    assert_eq!(world.validate(&token).await, 200);
    world.identity.rotate_keys().unwrap();
    let fresh = world.token("admin", PASSWORD, project_scope(&world.made.admin_project_id)).await;
    let status = world.call_with("GET", "/v3/auth/tokens", &fresh, None, &[("x-subject-token", &token)]).await.status;
    assert_eq!(status, 404, "its key is gone");
}

/// Another scheduler over the same store and keys learns of everything by the change feed.
#[tokio::test]
async fn what_one_scheduler_ends_the_others_refuse() {
    let world = World::new().await;
    let other = Identity::open(world.store.clone(), Config::cheap(world.dir.path())).await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let running = tokio::spawn(other.clone().run(stopped));
    let (user, project) = (world.user("u").await, world.project("p").await);
    world.grant(&format!("projects/{project}"), &user, "member").await;
    let ended = [
        ("DELETE", "/v3/auth/tokens".to_owned(), None),
        ("PATCH", format!("/v3/users/{user}"), Some(json!({"user": {"password": "u"}}))),
        ("PATCH", format!("/v3/projects/{project}"), Some(json!({"project": {"enabled": false}}))),
    ];
    for (method, path, body) in ended {
        let token = world.token("u", "u", project_scope(&project)).await;
        // The other one may still have to hear that there is a user.
        let mut seen = other.authenticate(&token).await.is_ok();
        for _ in 0..100 {
            if seen {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            seen = other.authenticate(&token).await.is_ok();
        }
        assert!(seen, "{method} {path}");
        let before = other.epoch();
        let answer = world.call_with(method, &path, &world.admin, body, &[("x-subject-token", &token)]).await;
        assert!(answer.status < 300, "{method} {path}: {}", answer.body);
        let mut refused = false;
        for _ in 0..100 {
            refused = other.authenticate(&token).await.is_err();
            if refused {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(refused, "{method} {path}");
        assert!(other.epoch() > before, "the kit's cache of callers must be emptied too");
    }
    stop.send(true).unwrap();
    running.await.unwrap();
}
