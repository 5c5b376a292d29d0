//! What a token can be for, and how one is exchanged for another.
use crate::world::{PASSWORD, World, project_scope, subject};
use serde_json::{Value, json};

#[tokio::test]
async fn each_scope_shows_its_place_and_its_roles() {
    let world = World::new().await;
    let project = world.made.admin_project_id.clone();
    let cases = [
        (json!({"project": {"id": project}}), "project"),
        (json!({"project": {"name": "admin", "domain": {"name": "Default"}}}), "project"),
        (json!({"domain": {"name": "Default"}}), "domain"),
        (json!({"system": {"all": true}}), "system"),
    ];
    for (scope, member) in cases {
        let answer = world.by_password("admin", PASSWORD, Some(scope.clone())).await;
        let token = &answer.body["token"];
        assert_eq!(answer.status, 201, "{scope}");
        for name in ["project", "domain", "system"] {
            assert_eq!(token.get(name).is_some(), name == member, "{scope}: {name}");
        }
        assert_eq!(token["roles"].as_array().unwrap().len(), 4, "{scope}");
        assert!(token["catalog"].is_array(), "{scope}");
        let again = world
            .call_with("GET", "/v3/auth/tokens", &world.admin, None, &[("x-subject-token", &subject(&answer))])
            .await;
        assert_eq!(again.body, answer.body, "{scope}");
    }
    for scope in [None, Some(json!("unscoped")), Some(json!({"unscoped": {}}))] {
        let answer = world.by_password("admin", PASSWORD, scope).await;
        let token = answer.body["token"].as_object().unwrap();
        assert!(!token.contains_key("roles") && !token.contains_key("catalog") && !token.contains_key("project"));
    }
}

#[tokio::test]
async fn the_default_project_is_chosen_when_one_has_a_role_there() {
    let world = World::new().await;
    let (user, project) = (world.user("u").await, world.project("p").await);
    world.admin("PATCH", &format!("/v3/users/{user}"), Some(json!({"user": {"default_project_id": project}}))).await;
    assert!(world.by_password("u", "u", None).await.body["token"].get("project").is_none(), "no role there");
    world.grant(&format!("projects/{project}"), &user, "member").await;
    assert_eq!(world.by_password("u", "u", None).await.body["token"]["project"]["id"], project.as_str());
    assert!(world.by_password("u", "u", Some(json!("unscoped"))).await.body["token"].get("project").is_none());
    world.admin("PATCH", &format!("/v3/projects/{project}"), Some(json!({"project": {"enabled": false}}))).await;
    assert!(world.by_password("u", "u", None).await.body["token"].get("project").is_none(), "disabled");
}

#[tokio::test]
async fn places_without_a_role_are_refused() {
    let world = World::new().await;
    let (_user, project) = (world.user("u").await, world.project("p").await);
    let cases = [
        json!({"project": {"id": project}}),
        json!({"project": {"id": "nowhere"}}),
        json!({"project": {"id": "default"}}),
        json!({"project": {"name": "p", "domain": {"id": "nowhere"}}}),
        json!({"domain": {"id": "default"}}),
        json!({"domain": {"name": "nowhere"}}),
        json!({"system": {"all": true}}),
    ];
    for scope in cases {
        assert_eq!(world.by_password("u", "u", Some(scope.clone())).await.status, 401, "{scope}");
    }
}

#[tokio::test]
async fn a_token_is_exchanged_within_its_life_and_chain() {
    let world = World::new().await;
    let first = world.by_password("admin", PASSWORD, None).await;
    let second = world.by_token(&subject(&first), project_scope(&world.made.admin_project_id)).await;
    let (one, two) = (&first.body["token"], &second.body["token"]);
    assert_eq!(two["methods"], json!(["password", "token"]));
    assert_eq!(one["expires_at"], two["expires_at"], "no token renews itself");
    assert_eq!(two["audit_ids"].as_array().unwrap().len(), 2);
    assert_eq!(two["audit_ids"][1], one["audit_ids"][0]);
    let third = world.by_token(&subject(&second), Some(json!({"domain": {"id": "default"}}))).await;
    assert_eq!(third.body["token"]["audit_ids"][1], one["audit_ids"][0]);
}

#[tokio::test]
async fn a_system_token_is_not_exchanged_for_a_project() {
    let world = World::new().await;
    let system = world.token("admin", PASSWORD, Some(json!({"system": {"all": true}}))).await;
    assert_eq!(world.by_token(&system, project_scope(&world.made.admin_project_id)).await.status, 403);
    assert_eq!(world.by_token(&system, Some(json!({"system": {"all": true}}))).await.status, 201);
}

#[tokio::test]
async fn scoped_tokens_are_not_exchanged_where_the_operator_forbids_it() {
    let world = World::with(|config| config.allow_rescope = false).await;
    assert_eq!(world.by_token(&world.admin, None).await.status, 403);
    let bare = world.token("admin", PASSWORD, None).await;
    assert_eq!(world.by_token(&bare, project_scope(&world.made.admin_project_id)).await.status, 201);
}

#[tokio::test]
async fn one_learns_where_one_could_go() {
    let world = World::new().await;
    let (user, project, domain) = (world.user("u").await, world.project("p").await, world.domain("d").await);
    world.project("other").await;
    let token = world.token("u", "u", None).await;
    let names = |body: Value, list: &str| -> Vec<String> {
        body[list].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap_or("all").to_owned()).collect()
    };
    assert!(names(world.call("GET", "/v3/auth/projects", &token, None).await.body, "projects").is_empty());
    world.grant(&format!("projects/{project}"), &user, "reader").await;
    world.grant(&format!("domains/{domain}"), &user, "reader").await;
    assert_eq!(names(world.call("GET", "/v3/auth/projects", &token, None).await.body, "projects"), ["p"]);
    assert_eq!(names(world.call("GET", "/v3/auth/domains", &token, None).await.body, "domains"), ["d"]);
    assert!(names(world.call("GET", "/v3/auth/system", &token, None).await.body, "system").is_empty());
    assert_eq!(world.call("GET", "/v3/auth/catalog", &token, None).await.status, 403, "for a project only");
    world.grant("system", &user, "reader").await;
    assert_eq!(names(world.call("GET", "/v3/auth/system", &token, None).await.body, "system"), ["all"]);
    assert_eq!(
        world.call("GET", "/v3/auth/catalog", &world.admin, None).await.body["catalog"].as_array().unwrap().len(),
        2
    );
}

#[tokio::test]
async fn versions_are_told_to_everybody() {
    let world = World::new().await;
    let all = world.call("GET", "/", "", None).await;
    assert_eq!((all.status, &all.body["versions"]["values"][0]["id"]), (300, &json!("v3.14")));
    let one = world.call("GET", "/v3", "", None).await;
    assert_eq!((one.status, &one.body["version"]["status"]), (200, &json!("stable")));
    assert!(one.body["version"]["links"][0]["href"].as_str().unwrap().ends_with("/identity/v3/"));
}
