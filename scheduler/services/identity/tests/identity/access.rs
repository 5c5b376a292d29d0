//! Personas: what each role at each kind of place may do, and what nobody learns by asking.
use crate::world::{World, project_scope};
use serde_json::{Value, json};

/// Tokens of people with one role at one place; `home` is a domain of their own.
struct People {
    world: World,
    home: String,
    away_user: String,
    home_user: String,
    tokens: Vec<(&'static str, String)>,
}

async fn people() -> People {
    let world = World::new().await;
    let home = world.domain("home").await;
    let home_user = world.user_in("native", &home).await;
    let away_user = world.user("stranger").await;
    let project = world.project("p").await;
    let mut tokens = Vec::new();
    for (name, place, role) in [
        ("system reader", "system".to_owned(), "reader"),
        ("system admin", "system".to_owned(), "admin"),
        ("domain reader", format!("domains/{home}"), "reader"),
        ("domain manager", format!("domains/{home}"), "manager"),
        ("project member", format!("projects/{project}"), "member"),
        ("project admin", format!("projects/{project}"), "admin"),
    ] {
        let user = world.user(name).await;
        world.grant(&place, &user, role).await;
        let scope = match place.split_once('/') {
            None => Some(json!({"system": {"all": true}})),
            Some(("domains", id)) => Some(json!({"domain": {"id": id}})),
            Some((_, id)) => project_scope(id),
        };
        tokens.push((name, world.token(name, name, scope).await));
    }
    world.user("nobody").await;
    tokens.push(("nobody", world.token("nobody", "nobody", None).await));
    People { world, home, away_user, home_user, tokens }
}

#[tokio::test]
async fn personas_may_what_keystone_lets_them() {
    let p = people().await;
    // In the order of the people above.
    let table: Vec<(&str, String, Option<Value>, [u16; 7])> = vec![
        ("GET", "/v3/users".into(), None, [200, 200, 200, 200, 403, 200, 403]),
        ("GET", format!("/v3/users/{}", p.home_user), None, [200, 200, 200, 200, 403, 200, 403]),
        ("GET", format!("/v3/users/{}", p.away_user), None, [200, 200, 403, 403, 403, 200, 403]),
        ("GET", "/v3/users/nowhere".into(), None, [404, 404, 403, 403, 403, 404, 403]),
        (
            "PATCH",
            format!("/v3/users/{}", p.home_user),
            Some(json!({"user": {"email": "x"}})),
            [403, 200, 403, 200, 403, 200, 403],
        ),
        (
            "PATCH",
            format!("/v3/users/{}", p.away_user),
            Some(json!({"user": {"email": "x"}})),
            [403, 200, 403, 403, 403, 200, 403],
        ),
        ("GET", "/v3/domains".into(), None, [200, 200, 200, 200, 403, 200, 403]),
        ("GET", format!("/v3/domains/{}", p.home), None, [200, 200, 200, 200, 403, 200, 403]),
        (
            "PATCH",
            format!("/v3/domains/{}", p.home),
            Some(json!({"domain": {"description": "x"}})),
            [403, 200, 403, 403, 403, 200, 403],
        ),
        ("GET", "/v3/projects".into(), None, [200, 200, 200, 200, 403, 200, 403]),
        ("GET", "/v3/services".into(), None, [200, 200, 403, 403, 403, 200, 403]),
        ("GET", "/v3/regions".into(), None, [200, 200, 200, 200, 200, 200, 200]),
        ("GET", "/v3/role_assignments".into(), None, [200, 200, 200, 200, 403, 200, 403]),
        ("GET", "/v3/roles".into(), None, [200, 200, 403, 200, 403, 200, 403]),
        ("GET", "/v3/OS-REVOKE/events".into(), None, [403, 200, 403, 403, 403, 200, 403]),
        ("GET", "/v3/policies".into(), None, [200, 200, 403, 403, 403, 200, 403]),
    ];
    for (method, path, body, expected) in table {
        for ((name, token), expected) in p.tokens.iter().zip(expected) {
            let answer = p.world.call(method, &path, token, body.clone()).await;
            assert_eq!(answer.status, expected, "{name}: {method} {path}: {}", answer.body);
        }
    }
}

#[tokio::test]
async fn lists_for_a_domain_hold_nothing_from_outside() {
    let p = people().await;
    let reader = &p.tokens[2].1;
    let users = p.world.call("GET", "/v3/users", reader, None).await.body;
    let names: Vec<&str> = users["users"].as_array().unwrap().iter().map(|u| u["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["native"]);
    assert_eq!(p.world.call("GET", "/v3/users?domain_id=default", reader, None).await.body["users"], json!([]));
    assert_eq!(p.world.call("GET", "/v3/domains", reader, None).await.body["domains"].as_array().unwrap().len(), 1);
    assert_eq!(p.world.call("GET", "/v3/projects", reader, None).await.body["projects"], json!([]));
}

#[tokio::test]
async fn a_domain_manager_gives_only_harmless_roles_and_only_at_home() {
    let p = people().await;
    let manager = &p.tokens[3].1;
    let project = p
        .world
        .admin("POST", "/v3/projects", Some(json!({"project": {"name": "mine", "domain_id": p.home}})))
        .await["project"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    for (role, user, expected) in [
        ("member", &p.home_user, 204),
        ("reader", &p.home_user, 204),
        ("manager", &p.home_user, 204),
        ("admin", &p.home_user, 403),
        ("member", &p.away_user, 403),
    ] {
        let role_id = p.world.role(role).await;
        let path = format!("/v3/projects/{project}/users/{user}/roles/{role_id}");
        assert_eq!(p.world.call("PUT", &path, manager, None).await.status, expected, "{role}");
    }
    let made =
        p.world.call("POST", "/v3/users", manager, Some(json!({"user": {"name": "new", "domain_id": p.home}}))).await;
    assert_eq!(made.status, 201);
    for body in [json!({"user": {"name": "x", "domain_id": "default"}}), json!({"user": {"name": "x"}})] {
        assert_eq!(p.world.call("POST", "/v3/users", manager, Some(body)).await.status, 403);
    }
}

#[tokio::test]
async fn everybody_sees_himself_and_his_own() {
    let world = World::new().await;
    let user = world.user("u").await;
    let token = world.token("u", "u", None).await;
    for path in ["", "/groups", "/projects", "/application_credentials", "/access_rules"] {
        assert_eq!(world.call("GET", &format!("/v3/users/{user}{path}"), &token, None).await.status, 200, "{path}");
    }
    let other = world.user("other").await;
    for path in ["", "/groups", "/projects", "/application_credentials", "/access_rules"] {
        assert_eq!(world.call("GET", &format!("/v3/users/{other}{path}"), &token, None).await.status, 403, "{path}");
    }
    assert_eq!(
        world
            .call("PATCH", &format!("/v3/users/{user}"), &token, Some(json!({"user": {"enabled": true}})))
            .await
            .status,
        403
    );
}
