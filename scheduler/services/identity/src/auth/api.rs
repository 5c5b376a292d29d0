//! `/v3/auth/tokens`: issue, show, check and revoke tokens.
use super::places;
use crate::{
    Identity, fault, revocation,
    tables::RevocationEvent,
    target,
    token::resolve::{Refused, Resolved},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, clock};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

/// Bytes of a login request.
const LIMIT: usize = 64 * 1024;

fn login() -> Value {
    let id = json!({"type": "string"});
    let domain = json!({"type": "object", "properties": {"id": id, "name": {"type": "string"}}});
    let user = json!({"type": "object", "properties": {"id": id, "name": {"type": "string"}, "password": {"type": "string"}, "domain": domain}});
    let passcode = json!({"type": "object", "required": ["passcode"], "properties": {"id": id, "name": {"type": "string"}, "passcode": {"type": "string", "maxLength": 64}, "domain": domain}});
    let project = json!({"type": "object", "properties": {"id": {"type": ["string", "null"]}, "name": {"type": ["string", "null"]}, "domain": domain}});
    json!({"type": "object", "required": ["auth"], "properties": {"auth": {"type": "object", "required": ["identity"], "properties": {
        "identity": {"type": "object", "required": ["methods"], "properties": {
            "methods": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 16},
            "password": {"type": "object", "properties": {"user": user}},
            "totp": {"type": "object", "required": ["user"], "properties": {"user": passcode}},
            "token": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
            "application_credential": {"type": "object", "required": ["secret"], "properties": {
                "id": id, "name": {"type": "string"}, "secret": {"type": "string"}, "user": user}},
        }},
        "scope": {"type": ["object", "string"], "properties": {
            "project": project, "domain": domain, "OS-TRUST:trust": {"type": "object", "properties": {"id": id}},
            "system": {"type": "object", "required": ["all"], "properties": {"all": {"type": "boolean", "enum": [true]}}}}},
    }}}})
}

static LOGIN: LazyLock<Schema> = LazyLock::new(|| Schema::new(login));

pub(crate) fn routes() -> Vec<Route<Identity>> {
    let mut routes = vec![
        Route::post("/v3/auth/tokens", create)
            .public("this is how one gets a token")
            .schema(&LOGIN)
            .limit(LIMIT)
            .summary("Log in"),
        Route::get("/v3/auth/tokens", show).rule_by_handler("identity:validate_token").summary("Validate a token"),
        Route::delete("/v3/auth/tokens", revoke).rule_by_handler("identity:revoke_token").summary("Revoke a token"),
    ];
    routes.extend(places::routes());
    routes
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let (text, resolved) = svc.log_in(call.member("auth")?, &call).await?;
    let document = svc.token_document(&resolved, !call.query.has("nocatalog")).await?;
    Ok(document.status(201).header("x-subject-token", text))
}

/// The token in `X-Subject-Token`, after `rule` was asked about whose it is.
async fn subject(svc: &Identity, call: &Call, rule: &str) -> Result<(String, Arc<Resolved>), Fault> {
    let gone = || Fault::not_found("Failed to validate token");
    let Some(text) = call.header("x-subject-token").map(str::to_owned) else {
        call.enforce(rule, &call.target())?;
        return Err(Fault::not_found("No token in the request"));
    };
    let grace = match call.query.flag("allow_expired")? {
        Some(true) => svc.grace_us(),
        _ => 0,
    };
    let resolved = match svc.validate(&text, grace).await {
        Ok(resolved) => resolved,
        Err(Refused::Fault(fault)) if fault.status.is_server_error() => return Err(fault),
        Err(_) => {
            // Nothing is learned from it, so nothing needs asking; but the gate wants an answer.
            let _ = call.may(rule, &call.target());
            return Err(gone());
        }
    };
    let user = &resolved.acting().0;
    let token = json!({"user_id": user.id, "user": {"id": user.id, "domain": {"id": user.domain_id}}});
    call.enforce(rule, &target::about(call, [("token", Some(token))]))?;
    let has_rules = resolved.app_credential.as_ref().is_some_and(|(_, rules)| rules.is_some());
    if has_rules && call.method.as_str() != "DELETE" && call.header("openstack-identity-access-rules").is_none() {
        // Whoever asks does not know access rules, and would let the token do more than it may.
        return Err(gone());
    }
    Ok((text, resolved))
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    let rule = if call.method.as_str() == "HEAD" { "identity:check_token" } else { "identity:validate_token" };
    let (text, resolved) = subject(&svc, &call, rule).await?;
    let document = svc.token_document(&resolved, !call.query.has("nocatalog")).await?;
    Ok(document.header("x-subject-token", text))
}

async fn revoke(svc: Arc<Identity>, call: Call) -> Reply {
    let (_, resolved) = subject(&svc, &call, call.rule()).await?;
    if resolved.token.expires_us <= clock::now_us() {
        return Err(fault::missing("token", "expired"));
    }
    let event = RevocationEvent { audit_id: Some(resolved.token.audit_id().to_owned()), ..revocation() };
    svc.write_and_revoke(vec![event], |_tx| Box::pin(async { Ok(()) })).await?;
    Ok(Response::no_content())
}
