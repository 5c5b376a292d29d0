//! Every resource: made, shown, listed, changed, deleted; and the rules of each.
use crate::world::{World, id};
use serde_json::{Value, json};

/// (path of the collection, member, collection, body to make one, change, attribute that changes)
fn table() -> Vec<(&'static str, &'static str, &'static str, Value, Value)> {
    vec![
        (
            "/v3/users",
            "user",
            "users",
            json!({"name": "n", "email": "a@b", "favourite": {"colour": "red"}}),
            json!({"name": "m"}),
        ),
        (
            "/v3/groups",
            "group",
            "groups",
            json!({"name": "n", "domain_id": "default", "colour": 1}),
            json!({"description": "new"}),
        ),
        ("/v3/projects", "project", "projects", json!({"name": "n", "colour": [1]}), json!({"description": "new"})),
        ("/v3/domains", "domain", "domains", json!({"name": "n", "enabled": false}), json!({"description": "new"})),
        ("/v3/roles", "role", "roles", json!({"name": "n", "colour": "red"}), json!({"name": "m"})),
        ("/v3/regions", "region", "regions", json!({"description": "d"}), json!({"description": "new"})),
        ("/v3/services", "service", "services", json!({"type": "t", "name": "n"}), json!({"description": "new"})),
        (
            "/v3/policies",
            "policy",
            "policies",
            json!({"type": "application/json", "blob": "{}"}),
            json!({"blob": "[]"}),
        ),
        (
            "/v3/OS-OAUTH1/consumers",
            "consumer",
            "consumers",
            json!({"description": "d"}),
            json!({"description": "new"}),
        ),
        (
            "/v3/OS-EP-FILTER/endpoint_groups",
            "endpoint_group",
            "endpoint_groups",
            json!({"name": "n", "filters": {"interface": "public"}}),
            json!({"name": "m"}),
        ),
    ]
}

#[tokio::test]
async fn each_resource_lives_and_dies() {
    let world = World::new().await;
    for (path, member, collection, body, change) in table() {
        let made = world.call("POST", path, &world.admin, Some(json!({ member: body }))).await;
        assert_eq!(made.status, 201, "{path}: {}", made.body);
        let made = &made.body[member];
        for (name, value) in body.as_object().unwrap() {
            assert_eq!(&made[name], value, "{path}: {name}");
        }
        let one = format!("{path}/{}", id(made));
        assert!(
            made["links"]["self"].as_str().unwrap().ends_with(&format!("/identity{one}")),
            "{path}: {}",
            made["links"]
        );
        let mut shown = world.admin("GET", &one, None).await;
        let mut wanted = made.clone();
        // A consumer's secret is shown once.
        wanted.as_object_mut().unwrap().remove("secret");
        assert_eq!(shown[member], wanted, "{path}");
        let list = world.admin("GET", path, None).await;
        assert!(list[collection].as_array().unwrap().contains(&wanted), "{path}");
        assert!(list["links"]["self"].is_string(), "{path}");
        let changed = world.admin("PATCH", &one, Some(json!({ member: change }))).await;
        for (name, value) in change.as_object().unwrap() {
            assert_eq!(&changed[member][name], value, "{path}: {name}");
        }
        shown = world.admin("GET", &one, None).await;
        assert_eq!(shown[member], changed[member], "{path}");
        assert_eq!(world.call("DELETE", &one, &world.admin, None).await.status, 204, "{path}");
        for method in ["GET", "HEAD", "DELETE"] {
            assert_eq!(world.status(method, &one, None).await, 404, "{method} {path}");
        }
        assert_eq!(world.status("PATCH", &one, Some(json!({ member: change }))).await, 404, "{path}");
    }
}

#[tokio::test]
async fn names_are_unique_in_their_domain() {
    let world = World::new().await;
    let domain = world.domain("other").await;
    for (path, member, body) in [
        ("/v3/users", "user", json!({"name": "n", "domain_id": "default"})),
        ("/v3/groups", "group", json!({"name": "n", "domain_id": "default"})),
        ("/v3/projects", "project", json!({"name": "n", "domain_id": "default"})),
        ("/v3/roles", "role", json!({"name": "n"})),
    ] {
        assert_eq!(world.status("POST", path, Some(json!({ member: body }))).await, 201, "{path}");
        assert_eq!(world.status("POST", path, Some(json!({ member: body }))).await, 409, "{path}");
        let mut elsewhere = body.clone();
        elsewhere["domain_id"] = domain.clone().into();
        let other = world.admin("POST", path, Some(json!({ member: elsewhere }))).await;
        elsewhere["name"] = "m".into();
        let third = world.admin("POST", path, Some(json!({ member: elsewhere }))).await;
        let rename = json!({member: {"name": other[member]["name"]}});
        assert_eq!(world.status("PATCH", &format!("{path}/{}", id(&third[member])), Some(rename)).await, 409, "{path}");
    }
    assert_eq!(world.status("POST", "/v3/domains", Some(json!({"domain": {"name": "other"}}))).await, 409);
}

#[tokio::test]
async fn a_domain_goes_only_when_disabled_and_with_all_in_it() {
    let world = World::new().await;
    let domain = world.domain("d").await;
    let user = world.user_in("u", &domain).await;
    let project = id(&world
        .admin("POST", "/v3/projects", Some(json!({"project": {"name": "p", "domain_id": domain}})))
        .await["project"]);
    let role =
        id(&world.admin("POST", "/v3/roles", Some(json!({"role": {"name": "r", "domain_id": domain}}))).await["role"]);
    let path = format!("/v3/domains/{domain}");
    assert_eq!(world.status("DELETE", &path, None).await, 403);
    world.admin("PATCH", &path, Some(json!({"domain": {"enabled": false}}))).await;
    assert_eq!(world.status("DELETE", &path, None).await, 204);
    for gone in [path, format!("/v3/users/{user}"), format!("/v3/projects/{project}"), format!("/v3/roles/{role}")] {
        assert_eq!(world.status("GET", &gone, None).await, 404, "{gone}");
    }
}

#[tokio::test]
async fn projects_form_a_tree() {
    let world = World::with(|config| config.max_project_depth = 4).await;
    let child = async |name: &str, parent: String| {
        id(
            &world.admin("POST", "/v3/projects", Some(json!({"project": {"name": name, "parent_id": parent}}))).await["project"],
        )
    };
    let top = world.project("top").await;
    let middle = child("middle", top.clone()).await;
    let leaf = child("leaf", middle.clone()).await;
    assert_eq!(
        world.status("POST", "/v3/projects", Some(json!({"project": {"name": "x", "parent_id": leaf}}))).await,
        403,
        "too deep"
    );
    let shown = world.admin("GET", &format!("/v3/projects/{leaf}?parents_as_ids"), None).await;
    assert_eq!(shown["project"]["parents"], json!({middle.clone(): {top.clone(): {"default": null}}}));
    let shown = world.admin("GET", &format!("/v3/projects/{leaf}?parents_as_list"), None).await;
    let parents: Vec<String> =
        shown["project"]["parents"].as_array().unwrap().iter().map(|p| id(&p["project"])).collect();
    assert_eq!(parents, [middle.clone(), top.clone()]);
    let shown = world.admin("GET", &format!("/v3/projects/{top}?subtree_as_ids"), None).await;
    assert_eq!(shown["project"]["subtree"], json!({middle.clone(): {leaf.clone(): null}}));
    let both = format!("/v3/projects/{top}?subtree_as_ids&subtree_as_list");
    assert_eq!(world.status("GET", &both, None).await, 400);
    let below = world.admin("GET", &format!("/v3/projects?parent_id={top}"), None).await;
    assert_eq!(below["projects"].as_array().unwrap().len(), 1);
    assert_eq!(world.status("DELETE", &format!("/v3/projects/{top}"), None).await, 403, "not a leaf");
    let off = Some(json!({"project": {"enabled": false}}));
    assert_eq!(world.status("PATCH", &format!("/v3/projects/{top}"), off.clone()).await, 403, "enabled ones below");
    for project in [&leaf, &middle, &top] {
        assert_eq!(world.status("DELETE", &format!("/v3/projects/{top}/cascade"), None).await, 403);
        world.admin("PATCH", &format!("/v3/projects/{project}"), off.clone()).await;
    }
    assert_eq!(
        world.status("PATCH", &format!("/v3/projects/{leaf}"), Some(json!({"project": {"enabled": true}}))).await,
        403,
        "disabled above"
    );
    assert_eq!(world.status("DELETE", &format!("/v3/projects/{top}/cascade"), None).await, 204);
    assert_eq!(world.status("GET", &format!("/v3/projects/{leaf}"), None).await, 404);
}

#[tokio::test]
async fn a_project_that_is_a_domain_is_one() {
    let world = World::new().await;
    let made = world.admin("POST", "/v3/projects", Some(json!({"project": {"name": "d", "is_domain": true}}))).await["project"].clone();
    assert_eq!(
        (&made["domain_id"], &made["parent_id"], &made["is_domain"]),
        (&Value::Null, &Value::Null, &json!(true))
    );
    assert_eq!(world.admin("GET", &format!("/v3/domains/{}", id(&made)), None).await["domain"]["name"], "d");
    let listed = |path: &'static str| async {
        world.admin("GET", path, None).await["projects"].as_array().unwrap().iter().any(|p| p["name"] == "d")
    };
    assert!(!listed("/v3/projects").await);
    assert!(listed("/v3/projects?is_domain=true").await);
}

#[tokio::test]
async fn tags_find_projects() {
    let world = World::new().await;
    let (one, two) = (world.project("one").await, world.project("two").await);
    world.admin("PUT", &format!("/v3/projects/{one}/tags"), Some(json!({"tags": ["a", "b"]}))).await;
    assert_eq!(world.status("PUT", &format!("/v3/projects/{two}/tags/b"), None).await, 201);
    assert_eq!(world.status("PUT", &format!("/v3/projects/{two}/tags/b"), None).await, 201, "again");
    assert_eq!(world.status("GET", &format!("/v3/projects/{two}/tags/a"), None).await, 404);
    for (query, expected) in [
        ("tags=a,b", vec!["one"]),
        ("tags-any=a,b", vec!["one", "two"]),
        ("not-tags=a,b", vec!["admin", "two"]),
        ("not-tags-any=a,b", vec!["admin"]),
    ] {
        let list = world.admin("GET", &format!("/v3/projects?{query}"), None).await;
        let mut names: Vec<&str> =
            list["projects"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, expected, "{query}");
    }
    assert_eq!(world.status("DELETE", &format!("/v3/projects/{one}/tags/a"), None).await, 204);
    assert_eq!(world.admin("GET", &format!("/v3/projects/{one}/tags"), None).await["tags"], json!(["b"]));
}

#[tokio::test]
async fn immutable_things_do_not_change() {
    let world = World::new().await;
    let role = world.role("member").await;
    let path = format!("/v3/roles/{role}");
    assert_eq!(world.status("DELETE", &path, None).await, 403);
    assert_eq!(world.status("PATCH", &path, Some(json!({"role": {"name": "x"}}))).await, 403);
    world.admin("PATCH", &path, Some(json!({"role": {"options": {"immutable": null}}}))).await;
    world.admin("PATCH", &path, Some(json!({"role": {"description": "x"}}))).await;
    let made = world
        .admin("POST", "/v3/projects", Some(json!({"project": {"name": "p", "options": {"immutable": true}}})))
        .await["project"]
        .clone();
    let path = format!("/v3/projects/{}", id(&made));
    assert_eq!(world.status("DELETE", &path, None).await, 403);
    world.admin("PATCH", &path, Some(json!({"project": {"options": {"immutable": false}}}))).await;
    assert_eq!(world.status("DELETE", &path, None).await, 204);
}

#[tokio::test]
async fn the_catalogue_follows_what_is_written() {
    let world = World::new().await;
    let seen = || async {
        let body = world.admin("GET", "/v3/auth/catalog", None).await;
        body["catalog"]
            .as_array()
            .unwrap()
            .iter()
            .find(|s| s["type"] == "t")
            .map(|s| s["endpoints"].as_array().unwrap().len())
    };
    let service =
        id(&world.admin("POST", "/v3/services", Some(json!({"service": {"type": "t", "name": "n"}}))).await["service"]);
    assert_eq!(seen().await, Some(0));
    let body = json!({"endpoint": {"service_id": service, "interface": "public", "url": "https://h/$(tenant_id)s", "region": "North"}});
    let endpoint = id(&world.admin("POST", "/v3/endpoints", Some(body)).await["endpoint"]);
    assert_eq!(seen().await, Some(1));
    assert_eq!(world.status("GET", "/v3/regions/North", None).await, 200, "made on the way");
    assert_eq!(world.status("DELETE", "/v3/regions/North", None).await, 403, "in use");
    let path = format!("/v3/endpoints/{endpoint}");
    world.admin("PATCH", &path, Some(json!({"endpoint": {"enabled": false}}))).await;
    assert_eq!(seen().await, Some(0));
    world.admin("PATCH", &format!("/v3/services/{service}"), Some(json!({"service": {"enabled": false}}))).await;
    assert_eq!(seen().await, None);
    assert_eq!(world.status("DELETE", &format!("/v3/services/{service}"), None).await, 204);
    assert_eq!(world.status("GET", &path, None).await, 404, "gone with its service");
    assert_eq!(world.status("DELETE", "/v3/regions/North", None).await, 204);
}

#[tokio::test]
async fn a_project_sees_only_the_endpoints_it_was_given() {
    let world = World::new().await;
    let count = || async {
        let body = world.admin("GET", "/v3/auth/catalog", None).await;
        body["catalog"].as_array().unwrap().iter().map(|s| s["endpoints"].as_array().unwrap().len()).sum::<usize>()
    };
    assert_eq!(count().await, 6);
    let group = json!({"endpoint_group": {"name": "g", "filters": {"interface": "public"}}});
    let group = id(&world.admin("POST", "/v3/OS-EP-FILTER/endpoint_groups", Some(group)).await["endpoint_group"]);
    let link = format!("/v3/OS-EP-FILTER/endpoint_groups/{group}/projects/{}", world.made.admin_project_id);
    world.admin("PUT", &link, None).await;
    assert_eq!(count().await, 2);
    world.admin("DELETE", &link, None).await;
    assert_eq!(count().await, 6);
}

#[tokio::test]
async fn regions_do_not_run_in_circles() {
    let world = World::new().await;
    for (name, parent) in [("a", Value::Null), ("b", json!("a")), ("c", json!("b"))] {
        assert_eq!(
            world
                .status("PUT", &format!("/v3/regions/{name}"), Some(json!({"region": {"parent_region_id": parent}})))
                .await,
            201
        );
    }
    assert_eq!(world.status("PATCH", "/v3/regions/a", Some(json!({"region": {"parent_region_id": "c"}}))).await, 400);
    assert_eq!(world.status("PUT", "/v3/regions/a", Some(json!({"region": {}}))).await, 409);
    assert_eq!(world.status("DELETE", "/v3/regions/a", None).await, 204);
    assert_eq!(world.status("GET", "/v3/regions/c", None).await, 404, "children go too");
}

#[tokio::test]
async fn lists_are_filtered_and_cut() {
    let world = World::new().await;
    for name in ["Anna", "Anton", "Berta"] {
        world.user(name).await;
    }
    for (query, expected) in [
        ("name=Anna", 1),
        ("name__startswith=An", 2),
        ("name__icontains=ANN", 1),
        ("enabled=false", 0),
        ("nonsense=1", 4),
        ("domain_id=nowhere", 0),
    ] {
        let list = world.admin("GET", &format!("/v3/users?{query}"), None).await;
        assert_eq!(list["users"].as_array().unwrap().len(), expected, "{query}");
    }
    let first = world.admin("GET", "/v3/users?limit=3", None).await;
    let next = first["links"]["next"].as_str().unwrap();
    let next = next.split_once("/identity").unwrap().1;
    let second = world.admin("GET", next, None).await;
    assert_eq!((first["users"].as_array().unwrap().len(), second["users"].as_array().unwrap().len()), (3, 1));
    assert!(second["links"]["next"].is_null());
}

#[tokio::test]
async fn settings_of_a_domain() {
    let world = World::new().await;
    let domain = world.domain("d").await;
    let path = format!("/v3/domains/{domain}/config");
    assert_eq!(world.status("GET", &path, None).await, 404);
    let config = json!({"config": {"ldap": {"url": "ldap://h", "password": "secret"}}});
    let made = world.call("PUT", &path, &world.admin, Some(config)).await;
    assert_eq!(
        (made.status, &made.body),
        (201, &json!({"config": {"ldap": {"url": "ldap://h"}}})),
        "a password is never shown"
    );
    assert_eq!(world.status("PATCH", &path, Some(json!({"config": {"ldap": {"nonsense": 1}}}))).await, 403);
    assert_eq!(world.status("PUT", &path, Some(json!({"config": {"nonsense": {"a": 1}}}))).await, 403);
    let changed = world.admin("PATCH", &format!("{path}/ldap/url"), Some(json!({"config": {"url": "ldap://i"}}))).await;
    assert_eq!(changed["config"]["ldap"]["url"], "ldap://i");
    assert_eq!(world.status("DELETE", &format!("{path}/ldap/url"), None).await, 204);
    assert_eq!(world.status("GET", &format!("{path}/ldap/url"), None).await, 404);
    assert_eq!(
        world.admin("GET", "/v3/domains/config/identity/driver/default", None).await["config"],
        json!({"driver": "sql"})
    );
}

#[tokio::test]
async fn limits_need_a_registered_one() {
    let world = World::new().await;
    let (project, service) = (
        world.project("p").await,
        world.admin("GET", "/v3/services?type=identity", None).await["services"][0]["id"].clone(),
    );
    let own = json!({"limits": [{"project_id": project, "service_id": service, "resource_name": "cores", "resource_limit": 5}]});
    assert_eq!(world.status("POST", "/v3/limits", Some(own.clone())).await, 403);
    let registered =
        json!({"registered_limits": [{"service_id": service, "resource_name": "cores", "default_limit": 10}]});
    let made = world.admin("POST", "/v3/registered_limits", Some(registered.clone())).await;
    assert_eq!(world.status("POST", "/v3/registered_limits", Some(registered)).await, 409);
    let limit = world.admin("POST", "/v3/limits", Some(own.clone())).await["limits"][0].clone();
    assert_eq!(world.status("POST", "/v3/limits", Some(own)).await, 409);
    let path = format!("/v3/registered_limits/{}", id(&made["registered_limits"][0]));
    assert_eq!(world.status("DELETE", &path, None).await, 403, "in use");
    assert_eq!(world.status("DELETE", &format!("/v3/limits/{}", id(&limit)), None).await, 204);
    assert_eq!(world.status("DELETE", &path, None).await, 204);
    assert_eq!(world.admin("GET", "/v3/limits/model", None).await["model"]["name"], "flat");
}

#[tokio::test]
async fn a_deleted_project_is_nobodys_default() {
    let world = World::new().await;
    let project = world.project("p").await;
    let body = json!({"user": {"name": "u", "domain_id": "default", "default_project_id": project}});
    let user = world.admin("POST", "/v3/users", Some(body)).await["user"]["id"].as_str().unwrap().to_owned();
    let found = world.admin("GET", &format!("/v3/users?default_project_id={project}"), None).await;
    assert_eq!(found["users"][0]["id"], user.as_str());
    world.admin("DELETE", &format!("/v3/projects/{project}"), None).await;
    let shown = world.admin("GET", &format!("/v3/users/{user}"), None).await;
    assert!(shown["user"].get("default_project_id").is_none());
}
