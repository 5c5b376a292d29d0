//! The access that a user has given to programs: list, show, take back.
use crate::{Identity, delegation, directory::Area, fault, listing, role, tables::OauthAccessToken};
use pilvi_kit::{Call, Fault, Reply, Response, Route, clock};
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn routes() -> Vec<Route<Identity>> {
    const ALL: &str = "/v3/users/{user_id}/OS-OAUTH1/access_tokens";
    const ONE: &str = "/v3/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}";
    const ROLES: &str = "/v3/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}/roles";
    const ROLE: &str = "/v3/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}/roles/{role_id}";
    vec![
        Route::get(ALL, list).rule("identity:list_access_tokens").summary("List a user's access tokens"),
        Route::get(ONE, show).rule("identity:get_access_token").summary("Show an access token"),
        Route::delete(ONE, delete).rule("identity:delete_access_token").summary("Take access back"),
        Route::get(ROLES, list_roles).rule("identity:list_access_token_roles").summary("List roles of an access token"),
        Route::get(ROLE, show_role).rule("identity:get_access_token_role").summary("Show a role of an access token"),
    ]
}

fn view(call: &Call, token: &OauthAccessToken) -> Value {
    let path = format!("/v3/users/{}/OS-OAUTH1/access_tokens/{}", token.user_id, token.id);
    let links = json!({"self": call.url(&path), "roles": call.url(&format!("{path}/roles"))});
    json!({"id": token.id, "consumer_id": token.consumer_id, "project_id": token.project_id,
        "authorizing_user_id": token.user_id, "expires_at": token.expires_us.map(clock::micros_z), "links": links})
}

async fn find(svc: &Identity, call: &Call) -> Result<OauthAccessToken, Fault> {
    let id = call.param("access_token_id");
    let found = svc.store.get::<OauthAccessToken>(id).await?.map(|t| t.record);
    found.filter(|t| t.user_id == call.param("user_id")).ok_or_else(|| fault::missing("access token", id))
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    delegation::primary_only(&call)?;
    let found = svc.store.list::<OauthAccessToken>(OauthAccessToken::of_user(call.param("user_id"))).await?;
    listing::answer(&svc, &call, "access_tokens", found.iter().map(|t| view(&call, t)).collect(), &[])
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    delegation::primary_only(&call)?;
    let token = find(&svc, &call).await?;
    Ok(Response::ok(json!({"access_token": view(&call, &token)})))
}

/// Tokens made from it end with it.
async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    delegation::primary_only(&call)?;
    let token = find(&svc, &call).await?;
    svc.write(Area::People, move |tx| {
        let id = token.id.clone();
        Box::pin(async move {
            match tx.delete::<OauthAccessToken>(&id).await? {
                true => Ok(()),
                false => Err(fault::missing("access token", &id)),
            }
        })
    })
    .await?;
    Ok(Response::no_content())
}

async fn roles(svc: &Identity, call: &Call, token: &OauthAccessToken) -> Result<Vec<Value>, Fault> {
    let graph = svc.directory.role_graph().await?;
    let known = token.roles.iter().filter_map(|id| graph.roles.get(id));
    Ok(known.map(|r| role::view(call, r)).collect())
}

async fn list_roles(svc: Arc<Identity>, call: Call) -> Reply {
    let token = find(&svc, &call).await?;
    let items = roles(&svc, &call, &token).await?;
    listing::answer(&svc, &call, "roles", items, &[])
}

async fn show_role(svc: Arc<Identity>, call: Call) -> Reply {
    let token = find(&svc, &call).await?;
    let id = call.param("role_id");
    let found = roles(&svc, &call, &token).await?.into_iter().find(|r| r["id"] == id);
    let role = found.ok_or_else(|| fault::missing("role", id))?;
    Ok(Response::ok(json!({ "role": role })))
}
