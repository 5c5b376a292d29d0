//! Tokens that are signed instead of sealed.
use crate::world::{PASSWORD, World, project_scope};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use pilvi_identity::{Config, Identity, TokenProvider};
use pilvi_kit::auth::TokenAuthority;
use serde_json::Value;

#[tokio::test]
async fn signed_tokens_do_all_that_sealed_ones_do() {
    let world = World::with(|c| c.token_provider = TokenProvider::Jws).await;
    let parts: Vec<&str> = world.admin.split('.').collect();
    assert_eq!(parts.len(), 3);
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    assert_eq!(claims["sub"], world.made.admin_user_id.as_str());
    assert_eq!(claims["openstack_project_id"], world.made.admin_project_id.as_str());
    assert_eq!(claims["openstack_methods"][0], "password");
    assert_eq!(world.validate(&world.admin).await, 200);
    let exchanged = world.by_token(&world.admin, None).await;
    assert_eq!(exchanged.status, 201);
    let text = exchanged.headers["x-subject-token"].to_str().unwrap().to_owned();
    let gone = world.call_with("DELETE", "/v3/auth/tokens", &world.admin, None, &[("x-subject-token", &text)]).await;
    assert_eq!(gone.status, 204);
    assert_eq!(world.validate(&text).await, 404);
    for at in [0, parts[0].len() + 3, parts[0].len() + parts[1].len() + 5] {
        let mut bad = world.admin.clone().into_bytes();
        bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
        assert_eq!(world.validate(std::str::from_utf8(&bad).unwrap()).await, 404, "byte {at}");
    }
    world.identity.rotate_keys().unwrap();
    assert_eq!(world.validate(&world.admin).await, 200, "by the key before");
    let fresh = world.token("admin", PASSWORD, project_scope(&world.made.admin_project_id)).await;
    world.identity.rotate_keys().unwrap();
    let old = world.call_with("GET", "/v3/auth/tokens", &fresh, None, &[("x-subject-token", &world.admin)]).await;
    assert_eq!(old.status, 404, "its key is gone");
}

#[tokio::test]
async fn a_change_of_provider_ends_no_token() {
    let world = World::new().await;
    let config = Config { token_provider: TokenProvider::Jws, ..Config::cheap(world.dir.path()) };
    let signing = Identity::open(world.store.clone(), config).await.unwrap();
    assert!(signing.authenticate(&world.admin).await.is_ok(), "a sealed token where tokens are signed");
    let back = Identity::open(world.store.clone(), Config::cheap(world.dir.path())).await.unwrap();
    assert!(back.authenticate(&world.admin).await.is_ok());
}

#[tokio::test]
async fn the_list_of_revoked_tokens_is_gone() {
    let world = World::new().await;
    assert_eq!(world.status("GET", "/v3/auth/tokens/OS-PKI/revoked", None).await, 410);
}
