//! Who has which role where, as given and as it works out.
use crate::world::{World, id, project_scope};
use serde_json::{Value, json};

fn names(answer: &Value) -> Vec<String> {
    answer["token"]["roles"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn every_actor_can_be_given_a_role_at_every_place() {
    let world = World::new().await;
    let (user, project, domain, role) =
        (world.user("u").await, world.project("p").await, world.domain("d").await, world.new_role("r").await);
    let group = id(&world.admin("POST", "/v3/groups", Some(json!({"group": {"name": "g"}}))).await["group"]);
    let places = [format!("projects/{project}"), format!("domains/{domain}"), "system".to_owned()];
    for place in &places {
        for actor in [format!("users/{user}"), format!("groups/{group}")] {
            let list = format!("/v3/{place}/{actor}/roles");
            let one = format!("{list}/{role}");
            assert_eq!(world.status("HEAD", &one, None).await, 404, "{one}");
            assert_eq!(world.status("DELETE", &one, None).await, 404, "{one}");
            assert_eq!(world.status("PUT", &one, None).await, 204, "{one}");
            assert_eq!(world.status("PUT", &one, None).await, 204, "again: {one}");
            assert_eq!(world.status("HEAD", &one, None).await, 204, "{one}");
            assert_eq!(world.status("GET", &one, None).await, 204, "{one}");
            assert_eq!(world.admin("GET", &list, None).await["roles"][0]["id"], role.as_str(), "{list}");
            assert_eq!(world.status("DELETE", &one, None).await, 204, "{one}");
            assert_eq!(world.admin("GET", &list, None).await["roles"], json!([]), "{list}");
            if place != "system" {
                let below = format!("/v3/OS-INHERIT/{place}/{actor}/roles/{role}/inherited_to_projects");
                assert_eq!(world.status("PUT", &below, None).await, 204, "{below}");
                assert_eq!(world.status("HEAD", &below, None).await, 204, "{below}");
                assert_eq!(world.status("HEAD", &one, None).await, 404, "inherited is not direct");
                assert_eq!(world.status("DELETE", &below, None).await, 204, "{below}");
            }
        }
    }
}

#[tokio::test]
async fn inherited_roles_hold_below_and_not_in_the_place_itself() {
    let world = World::new().await;
    let (user, top, role) = (world.user("u").await, world.project("top").await, world.role("member").await);
    let child = id(&world
        .admin("POST", "/v3/projects", Some(json!({"project": {"name": "c", "parent_id": top}})))
        .await["project"]);
    let log_in = async |project: String| world.by_password("u", "u", project_scope(&project)).await.status;
    let grant = |place: String| format!("/v3/OS-INHERIT/{place}/users/{user}/roles/{role}/inherited_to_projects");
    let on_top = grant(format!("projects/{top}"));
    world.admin("PUT", &on_top, None).await;
    assert_eq!((log_in(top.clone()).await, log_in(child.clone()).await), (401, 201));
    world.admin("DELETE", &on_top, None).await;
    assert_eq!(log_in(child.clone()).await, 401);
    world.admin("PUT", &grant("domains/default".into()), None).await;
    assert_eq!((log_in(top.clone()).await, log_in(child.clone()).await), (201, 201));
    assert_eq!(world.by_password("u", "u", Some(json!({"domain": {"id": "default"}}))).await.status, 401);
    let effective = world
        .admin(
            "GET",
            &format!("/v3/role_assignments?effective&user.id={user}&scope.project.id={child}&include_names"),
            None,
        )
        .await;
    let rows = effective["role_assignments"].as_array().unwrap().clone();
    let found: Vec<&str> = rows.iter().map(|r| r["role"]["name"].as_str().unwrap()).collect();
    assert_eq!(found, ["member", "reader"]);
    assert!(
        rows.iter()
            .all(|r| r["scope"]["project"]["name"] == "c" && r["scope"]["OS-INHERIT:inherited_to"] == "projects")
    );
}

#[tokio::test]
async fn roles_imply_others_in_tokens_and_lists() {
    let world = World::new().await;
    let (user, project) = (world.user("u").await, world.project("p").await);
    let (a, b, c) = (world.new_role("a").await, world.new_role("b").await, world.new_role("c").await);
    world.admin("PUT", &format!("/v3/projects/{project}/users/{user}/roles/{a}"), None).await;
    let roles = || async { names(&world.by_password("u", "u", project_scope(&project)).await.body) };
    assert_eq!(roles().await, ["a"]);
    for (prior, implied) in [(&a, &b), (&b, &c)] {
        assert_eq!(world.status("PUT", &format!("/v3/roles/{prior}/implies/{implied}"), None).await, 201);
    }
    assert_eq!(roles().await, ["a", "b", "c"]);
    assert_eq!(world.status("PUT", &format!("/v3/roles/{c}/implies/{a}"), None).await, 403, "a circle");
    let admin = world.role("admin").await;
    assert_eq!(
        world.status("PUT", &format!("/v3/roles/{c}/implies/{admin}"), None).await,
        403,
        "admin is implied by nothing"
    );
    assert_eq!(world.status("HEAD", &format!("/v3/roles/{a}/implies/{b}"), None).await, 204);
    assert_eq!(world.status("HEAD", &format!("/v3/roles/{a}/implies/{c}"), None).await, 404, "not directly");
    assert_eq!(world.admin("GET", "/v3/role_inferences", None).await["role_inferences"].as_array().unwrap().len(), 5);
    assert_eq!(world.status("DELETE", &format!("/v3/roles/{a}/implies/{b}"), None).await, 204);
    assert_eq!(roles().await, ["a"]);
}

#[tokio::test]
async fn roles_of_a_domain_show_only_by_what_they_imply() {
    let world = World::new().await;
    let domain = world.domain("d").await;
    let user = world.user_in("u", &domain).await;
    let own = id(
        &world.admin("POST", "/v3/roles", Some(json!({"role": {"name": "own", "domain_id": domain}}))).await["role"]
    );
    let project = id(&world
        .admin("POST", "/v3/projects", Some(json!({"project": {"name": "p", "domain_id": domain}})))
        .await["project"]);
    let foreign = world.project("foreign").await;
    assert_eq!(world.status("PUT", &format!("/v3/projects/{foreign}/users/{user}/roles/{own}"), None).await, 403);
    world.admin("PUT", &format!("/v3/projects/{project}/users/{user}/roles/{own}"), None).await;
    let log_in = || {
        let user = json!({"id": user, "password": "u"});
        world.log_in(json!({"identity": {"methods": ["password"], "password": {"user": user}}, "scope": {"project": {"id": project}}}))
    };
    assert_eq!(log_in().await.status, 401, "nothing to show");
    let reader = world.role("reader").await;
    world.admin("PUT", &format!("/v3/roles/{own}/implies/{reader}"), None).await;
    assert_eq!(names(&log_in().await.body), ["reader"]);
    assert!(
        world.admin("GET", "/v3/roles", None).await["roles"].as_array().unwrap().iter().all(|r| r["name"] != "own")
    );
    assert_eq!(
        world.admin("GET", &format!("/v3/roles?domain_id={domain}"), None).await["roles"].as_array().unwrap().len(),
        1
    );
}

#[tokio::test]
async fn the_list_of_assignments_is_filtered() {
    let world = World::new().await;
    let (user, project) = (world.user("u").await, world.project("p").await);
    world.grant(&format!("projects/{project}"), &user, "member").await;
    world.grant("system", &user, "reader").await;
    let member = world.role("member").await;
    let cases = [
        (String::new(), 5),
        (format!("user.id={user}"), 2),
        (format!("user.id={user}&effective"), 3),
        (format!("scope.project.id={project}"), 1),
        ("scope.system=all".to_owned(), 2),
        ("scope.domain.id=default".to_owned(), 1),
        (format!("role.id={member}"), 1),
        (format!("role.id={member}&effective&scope.project.id={project}"), 1),
        (format!("scope.project.id={project}&include_subtree=true"), 1),
        ("scope.OS-INHERIT:inherited_to=projects".to_owned(), 0),
    ];
    for (query, expected) in cases {
        let list = world.admin("GET", &format!("/v3/role_assignments?{query}"), None).await;
        assert_eq!(list["role_assignments"].as_array().unwrap().len(), expected, "{query}");
    }
    for query in
        ["user.id=a&group.id=b", "scope.project.id=a&scope.domain.id=b", "effective&group.id=a", "include_subtree"]
    {
        assert_eq!(world.status("GET", &format!("/v3/role_assignments?{query}"), None).await, 400, "{query}");
    }
}
