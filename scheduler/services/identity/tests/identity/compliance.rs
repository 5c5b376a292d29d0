//! What an operator may demand of passwords and of their owners.
use crate::world::World;
use serde_json::{Value, json};

async fn change(world: &World, user: &str, from: &str, to: &str) -> u16 {
    let body = json!({"user": {"original_password": from, "password": to}});
    world.call("POST", &format!("/v3/users/{user}/password"), "", Some(body)).await.status
}

async fn options(world: &World, user: &str, options: Value) {
    world.admin("PATCH", &format!("/v3/users/{user}"), Some(json!({"user": {"options": options}}))).await;
}

#[tokio::test]
async fn a_password_must_have_the_form_that_is_demanded() {
    let world = World::with(|c| {
        c.password_regex = Some(r"^(?=.*\d)(?=.*[a-z]).{7,}$".into());
        c.password_regex_description = Some("seven characters, a digit among them".into());
    })
    .await;
    let make = |password: &'static str| {
        let body = json!({"user": {"name": password, "password": password, "domain_id": "default"}});
        world.call("POST", "/v3/users", &world.admin, Some(body))
    };
    let refused = make("short1").await;
    assert_eq!(refused.status, 400);
    assert!(refused.body["error"]["message"].as_str().unwrap().contains("seven characters"));
    let user = make("longenough1").await.body["user"]["id"].as_str().unwrap().to_owned();
    assert_eq!(change(&world, &user, "longenough1", "nodigits").await, 400);
    assert_eq!(change(&world, &user, "longenough1", "longenough2").await, 204);
    let reset = json!({"user": {"password": "x"}});
    assert_eq!(world.status("PATCH", &format!("/v3/users/{user}"), Some(reset)).await, 400, "administrators too");
}

#[tokio::test]
async fn a_password_of_an_administrator_is_changed_before_the_first_use() {
    let world = World::with(|c| c.change_password_upon_first_use = true).await;
    let user = world.user("u").await;
    let refused = world.by_password("u", "u", None).await;
    assert_eq!(refused.status, 401);
    assert!(refused.body["error"]["message"].as_str().unwrap().contains("expired"));
    assert_eq!(change(&world, &user, "u", "own").await, 204);
    assert_eq!(world.by_password("u", "own", None).await.status, 201);
    world.admin("PATCH", &format!("/v3/users/{user}"), Some(json!({"user": {"password": "reset"}}))).await;
    assert_eq!(world.by_password("u", "reset", None).await.status, 401, "a reset counts as well");
    options(&world, &user, json!({"ignore_change_password_upon_first_use": true})).await;
    world.admin("PATCH", &format!("/v3/users/{user}"), Some(json!({"user": {"password": "again"}}))).await;
    assert_eq!(world.by_password("u", "again", None).await.status, 201);
}

#[tokio::test]
async fn a_chosen_password_is_kept_for_some_days() {
    let world = World::with(|c| c.minimum_password_age_days = 2).await;
    let user = world.user("u").await;
    assert_eq!(change(&world, &user, "u", "own").await, 204, "the administrator's choice has no age");
    assert_eq!(change(&world, &user, "own", "other").await, 400);
    options(&world, &user, json!({"lock_password": true})).await;
    assert_eq!(change(&world, &user, "own", "other").await, 400);
}

#[tokio::test]
async fn passwords_run_out_and_are_found_by_when() {
    let world = World::with(|c| c.password_expires_days = Some(10)).await;
    let user = world.user("u").await;
    let shown = world.admin("GET", &format!("/v3/users/{user}"), None).await;
    assert!(shown["user"]["password_expires_at"].is_string());
    let free = json!({"user": {"name": "free", "password": "free", "domain_id": "default", "options": {"ignore_password_expiry": true}}});
    let free = world.admin("POST", "/v3/users", Some(free)).await;
    assert!(free["user"]["password_expires_at"].is_null());
    let found = |query: &'static str| world.call("GET", query, &world.admin, None);
    for (query, count) in [
        ("/v3/users?password_expires_at=gt:2020-01-01T00:00:00Z", 2),
        ("/v3/users?password_expires_at=lt:2020-01-01T00:00:00Z", 0),
        ("/v3/users?password_expires_at=gt:2020-01-01T00:00:00Z&name=u", 1),
        ("/v3/users?password_expires_at=gte:2020-01-01T00:00:00Z&password_expires_at=lt:2020-01-02T00:00:00Z", 0),
    ] {
        let answer = found(query).await;
        assert_eq!(answer.body["users"].as_array().unwrap().len(), count, "{query} {}", answer.body);
    }
    for bad in ["2020-01-01T00:00:00Z", "lt:soon", "below:2020-01-01T00:00:00Z", ""] {
        assert_eq!(world.status("GET", &format!("/v3/users?password_expires_at={bad}"), None).await, 400, "{bad}");
    }
    let group = world.admin("POST", "/v3/groups", Some(json!({"group": {"name": "g", "domain_id": "default"}}))).await;
    let group = group["group"]["id"].as_str().unwrap();
    world.admin("PUT", &format!("/v3/groups/{group}/users/{user}"), None).await;
    let path = format!("/v3/groups/{group}/users?password_expires_at=lt:2020-01-01T00:00:00Z");
    assert_eq!(world.admin("GET", &path, None).await["users"], json!([]));
}

#[tokio::test]
async fn whoever_stays_away_for_too_long_is_disabled() {
    let world = World::with(|c| c.disable_inactive_days = Some(3)).await;
    let user = world.user("u").await;
    let token = world.token("u", "u", None).await;
    let path = format!("/v3/users/{user}");
    assert_eq!(world.admin("GET", &path, None).await["user"]["enabled"], true);
    world.set_last_login(&user, 4).await;
    assert_eq!(world.by_password("u", "u", None).await.status, 401);
    assert_eq!(world.admin("GET", &path, None).await["user"]["enabled"], false);
    let disabled = world.admin("GET", "/v3/users?enabled=false", None).await;
    assert_eq!(disabled["users"][0]["id"], user.as_str());
    assert_eq!(world.call("GET", "/v3/auth/projects", &token, None).await.status, 401, "his tokens end");
    options(&world, &user, json!({"ignore_user_inactivity": true})).await;
    assert_eq!(world.by_password("u", "u", None).await.status, 201);
    options(&world, &user, json!({"ignore_user_inactivity": null})).await;
    world.set_last_login(&user, 4).await;
    assert_eq!(world.by_password("u", "u", None).await.status, 401);
    world.admin("PATCH", &path, Some(json!({"user": {"enabled": true}}))).await;
    assert_eq!(world.by_password("u", "u", None).await.status, 201, "enabled again by hand");
}

#[tokio::test]
async fn an_endless_lock_out_ends_with_a_new_password() {
    let world = World::with(|c| (c.lockout_attempts, c.lockout_seconds) = (Some(1), 0)).await;
    let user = world.user("u").await;
    assert_eq!(world.by_password("u", "wrong", None).await.status, 401);
    assert_eq!(world.by_password("u", "u", None).await.status, 401);
    assert_eq!(change(&world, &user, "u", "own").await, 401, "the lock holds there too");
    world.admin("PATCH", &format!("/v3/users/{user}"), Some(json!({"user": {"password": "new"}}))).await;
    assert_eq!(world.by_password("u", "new", None).await.status, 201);
}
