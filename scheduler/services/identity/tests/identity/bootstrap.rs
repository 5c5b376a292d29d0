//! The first start, and all later ones.
use crate::world::{World, bootstrap, endpoints};
use pilvi_identity::{Bootstrap, Config, Identity, kinds};
use pilvi_store::Store;
use serde_json::json;

#[tokio::test]
async fn a_second_start_changes_addresses_and_nothing_else() {
    let world = World::new().await;
    assert!(world.made.admin_password.is_some());
    world
        .admin(
            "PATCH",
            &format!("/v3/users/{}", world.made.admin_user_id),
            Some(json!({"user": {"password": "changed"}})),
        )
        .await;
    let again = world.identity.bootstrap(bootstrap(6000)).await.unwrap();
    assert!(again.admin_password.is_none(), "the changed password stays");
    assert_eq!(again.admin_user_id, world.made.admin_user_id);
    assert_eq!(again.admin_project_id, world.made.admin_project_id);
    let answer = world.by_password("admin", "changed", Some(json!({"project": {"id": again.admin_project_id}}))).await;
    assert_eq!(answer.status, 201);
    let catalog = answer.body["token"]["catalog"].as_array().unwrap().clone();
    assert_eq!(catalog.len(), 2, "no service twice");
    for service in catalog {
        let found = service["endpoints"].as_array().unwrap().clone();
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|e| e["url"].as_str().unwrap().contains(":6000/")), "{found:?}");
    }
}

#[tokio::test]
async fn the_administrator_has_all_scopes_and_implied_roles() {
    let world = World::new().await;
    for scope in [
        json!({"system": {"all": true}}),
        json!({"domain": {"id": "default"}}),
        json!({"project": {"id": world.made.admin_project_id}}),
    ] {
        let answer = world.by_password("admin", crate::world::PASSWORD, Some(scope)).await;
        let names: Vec<&str> =
            answer.body["token"]["roles"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["admin", "manager", "member", "reader"]);
    }
}

#[tokio::test]
async fn a_generated_password_works() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open("sqlite::memory:", kinds()).await.unwrap();
    let identity = Identity::open(store, Config::cheap(dir.path())).await.unwrap();
    let made = identity
        .bootstrap(Bootstrap { admin_password: None, region: "R".into(), endpoints: endpoints(1) })
        .await
        .unwrap();
    let password = made.admin_password.unwrap();
    assert!(password.reveal().len() >= 24);
    assert!(!format!("{password:?}").contains(password.reveal()));
}

#[tokio::test]
async fn an_address_that_is_none_is_refused() {
    let world = World::new().await;
    let mut wanted = bootstrap(1);
    wanted.endpoints[0].url = "not an address".into();
    assert_eq!(world.identity.bootstrap(wanted).await.unwrap_err().code(), 400);
}
