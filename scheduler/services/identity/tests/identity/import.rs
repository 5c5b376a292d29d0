//! A real Keystone's database, made by its own code (`keystone_dump.sql`), taken over.
use crate::world::{World, project_scope};
use serde_json::{Value, json};
use std::io::BufReader;

/// Keystone 30 on SQLite, as `sqlite3 .dump` writes it; how it was made stands in its first lines.
const DUMP: &str = include_str!("keystone_dump.sql");

async fn import(world: &World, dump: &str) -> String {
    world.identity.import_keystone(BufReader::new(dump.as_bytes())).await.unwrap().to_string()
}

async fn named(world: &World, collection: &str, name: &str) -> Value {
    let found = world.admin("GET", &format!("/v3/{collection}?name={name}"), None).await;
    found[collection][0].clone()
}

/// The text at a place of the row of `table` that holds `needle`.
fn dumped(table: &str, needle: &str, place: usize) -> String {
    let start = format!("INSERT INTO \"{table}\" ");
    let line = DUMP.lines().find(|l| l.starts_with(&start) && l.contains(&format!("'{needle}'"))).unwrap();
    line.split('\'').nth(place * 2 + 1).unwrap().to_owned()
}

#[tokio::test]
async fn people_log_in_with_the_passwords_they_had() {
    let world = World::new().await;
    let report = import(&world, DUMP).await;
    for name in ["by-bcrypt", "by-scrypt", "by-pbkdf2", "by-bcrypt-sha256"] {
        let user = named(&world, "users", name).await;
        assert_eq!(user["id"], dumped("local_user", name, 0).as_str(), "{report}");
        assert_eq!(world.by_password(name, "wrong", None).await.status, 401);
        assert_eq!(world.by_password(name, &format!("{name} pässword"), None).await.status, 201, "{name}");
        // By our own hash from now on.
        assert_eq!(world.by_password(name, &format!("{name} pässword"), None).await.status, 201, "{name}");
    }
    assert_eq!(world.by_password("disabled", "disabled pässword", None).await.status, 401);
    assert_eq!(
        world.by_password("admin", crate::world::PASSWORD, None).await.status,
        201,
        "ours stays the administrator"
    );
}

#[tokio::test]
async fn places_roles_and_groups_come_along() {
    let world = World::new().await;
    let report = import(&world, DUMP).await;
    let (parent, child) = (named(&world, "projects", "parent").await, named(&world, "projects", "child").await);
    assert_eq!(child["parent_id"], parent["id"], "{report}");
    assert_eq!(parent["tags"], json!(["blue"]));
    assert_eq!(named(&world, "domains", "other").await["description"], "another domain");
    let scoped =
        world.by_password("by-bcrypt", "by-bcrypt pässword", project_scope(child["id"].as_str().unwrap())).await;
    assert_eq!(scoped.status, 201, "by inheritance from the parent: {}", scoped.body);
    let names = |answer: &Value| -> Vec<String> {
        answer["token"]["roles"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&scoped.body), ["member", "reader"]);
    let by_group =
        world.by_password("by-scrypt", "by-scrypt pässword", project_scope(parent["id"].as_str().unwrap())).await;
    assert_eq!(by_group.status, 201);
    assert_eq!(names(&by_group.body), ["special"]);
    let member = world.role("member").await;
    assert_eq!(member, dumped("role", "member", 0), "roles have the imported ids");
    let services = world.admin("GET", "/v3/services?type=volumev3", None).await;
    assert_eq!(services["services"][0]["name"], "cinderv3");
    assert!(report.contains("identity: this cloud offers it itself"), "{report}");
    assert_eq!(
        world.call("GET", "/v3/users", &world.admin, None).await.status,
        200,
        "the administrator's token still works"
    );
}

#[tokio::test]
async fn a_second_run_adds_nothing_and_breaks_nothing() {
    let world = World::new().await;
    let first = import(&world, DUMP).await;
    let user = named(&world, "users", "by-bcrypt").await["id"].as_str().unwrap().to_owned();
    world.admin("PATCH", &format!("/v3/users/{user}"), Some(json!({"user": {"password": "new"}}))).await;
    let second = import(&world, DUMP).await;
    assert!(first.contains("users: 5 added"), "{first}");
    assert!(second.contains("users: 0 added, 5 there already"), "{second}");
    assert_eq!(world.by_password("by-bcrypt", "new", None).await.status, 201, "what changed since stays");
    for broken in ["", "SELECT 1;\n", "CREATE TABLE user (id text);\nINSERT INTO user VALUES ('x');\n"] {
        assert!(world.identity.import_keystone(BufReader::new(broken.as_bytes())).await.is_err(), "{broken}");
    }
}
