//! Access rules: single calls that application credentials may be cut down to. A user's rules outlive the
//! credentials they were made for, and are shared between them.
use crate::{
    Identity, delegation,
    directory::Area,
    fault, listing,
    tables::{AccessRule, ApplicationCredential},
    target,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route};
use pilvi_store::Tx;
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) fn routes() -> Vec<Route<Identity>> {
    const ONE: &str = "/v3/users/{user_id}/access_rules/{access_rule_id}";
    vec![
        Route::get("/v3/users/{user_id}/access_rules", list)
            .rule_by_handler("identity:list_access_rules")
            .summary("List a user's access rules"),
        Route::get(ONE, show).rule_by_handler("identity:get_access_rule").summary("Show an access rule"),
        Route::delete(ONE, delete)
            .rule_by_handler("identity:delete_access_rule")
            .summary("Delete an access rule that no credential uses"),
    ]
}

/// A rule in a request: a new one, or the id of a known one.
pub(crate) fn item_schema() -> Value {
    json!({"type": "object", "additionalProperties": false, "properties": {
        "id": {"type": "string", "minLength": 1, "maxLength": 64},
        "path": {"type": "string", "maxLength": 225, "pattern": "^/"},
        "service": {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[a-zA-Z0-9-]+$"},
        "method": {"type": "string", "enum": ["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"]}},
        "anyOf": [{"required": ["id"]}, {"required": ["path", "service", "method"]}]})
}

/// A rule without links, as credentials and tokens show it.
pub(crate) fn brief(rule: &AccessRule) -> Value {
    json!({"id": rule.id, "service": rule.service, "path": rule.path, "method": rule.method})
}

fn view(call: &Call, rule: &AccessRule) -> Value {
    let mut out = brief(rule);
    out["links"] = listing::self_link(call, &format!("/v3/users/{}/access_rules/{}", rule.user_id, rule.id));
    out
}

/// The id of the user's rule that `wanted` names or describes.
pub(crate) async fn find_or_make_in(
    tx: &mut Tx,
    user_id: &str,
    wanted: &Value,
    new_id: String,
) -> Result<String, Fault> {
    let text = |name: &str| wanted.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let own = tx.list::<AccessRule>(AccessRule::of_user(user_id)).await?;
    if wanted.get("id").is_some() {
        let id = text("id");
        return own.iter().find(|r| r.id == id).map(|r| r.id.clone()).ok_or_else(|| fault::missing("access rule", &id));
    }
    let rule = AccessRule {
        id: new_id,
        user_id: user_id.to_owned(),
        service: text("service"),
        path: text("path"),
        method: text("method"),
    };
    if let Some(known) =
        own.iter().find(|r| r.service == rule.service && r.path == rule.path && r.method == rule.method)
    {
        return Ok(known.id.clone());
    }
    Ok(tx.insert(&rule).await?.record.id)
}

fn authorize(call: &Call) -> Result<(), Fault> {
    call.authorize(&target::about(call, [("user", Some(json!({"id": call.param("user_id")})))]))
}

async fn find(svc: &Identity, call: &Call) -> Result<AccessRule, Fault> {
    let id = call.param("access_rule_id");
    let found = svc.store.get::<AccessRule>(id).await?.map(|r| r.record);
    found.filter(|r| r.user_id == call.param("user_id")).ok_or_else(|| fault::missing("access rule", id))
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    authorize(&call)?;
    let rules = svc.store.list::<AccessRule>(AccessRule::of_user(call.param("user_id"))).await?;
    listing::answer(
        &svc,
        &call,
        "access_rules",
        rules.iter().map(|r| view(&call, r)).collect(),
        &["service", "path", "method"],
    )
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    authorize(&call)?;
    let rule = find(&svc, &call).await?;
    Ok(Response::ok(json!({"access_rule": view(&call, &rule)})))
}

async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    authorize(&call)?;
    delegation::unrestricted(&call)?;
    let rule = find(&svc, &call).await?;
    svc.write(Area::People, move |tx| {
        let rule = rule.clone();
        Box::pin(async move {
            let credentials = tx.list::<ApplicationCredential>(ApplicationCredential::of_user(&rule.user_id)).await?;
            if credentials.iter().any(|c| c.access_rules.as_ref().is_some_and(|ids| ids.contains(&rule.id))) {
                return Err(Fault::forbidden(format!("You are not authorized to perform the requested action: Access rule {} is in use by an application credential.", rule.id)));
            }
            if !tx.delete::<AccessRule>(&rule.id).await? {
                return Err(fault::missing("access rule", &rule.id));
            }
            Ok(())
        })
    })
    .await?;
    Ok(Response::no_content())
}
