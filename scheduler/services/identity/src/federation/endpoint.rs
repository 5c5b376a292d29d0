//! Where somebody from outside gets his unscoped token: `.../identity_providers/{idp}/protocols/{protocol}/auth`.
use crate::{Identity, auth::Proof, token::Method};
use pilvi_kit::{Call, Reply, Route};
use serde_json::json;
use std::sync::Arc;

pub(super) fn routes() -> Vec<Route<Identity>> {
    const AUTH: &str = "/v3/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}/auth";
    const WHY: &str = "the provider's word is the proof";
    vec![
        Route::get(AUTH, auth).public(WHY).summary("Get an unscoped token for a user from outside"),
        Route::post(AUTH, auth).public(WHY).takes_bytes().summary("Get an unscoped token for a user from outside"),
    ]
}

/// What a token calls this way of proving oneself.
pub(super) fn method(protocol_id: &str) -> Method {
    match protocol_id {
        "saml2" => Method::Saml2,
        "openid" => Method::OpenId,
        _ => Method::Mapped,
    }
}

async fn auth(svc: Arc<Identity>, call: Call) -> Reply {
    if let Some(request) = svc.saml_request(&call).await? {
        return Ok(request);
    }
    let (idp_id, protocol_id) = (call.param("idp_id"), call.param("protocol_id"));
    let mut proof = Proof::default();
    let payload = json!({"identity_provider": idp_id, "protocol": protocol_id});
    proof.user_id = svc.by_assertion(&payload, &call, &mut proof).await?;
    proof.methods = vec![method(protocol_id)];
    let (text, resolved) = svc.log_in_proven(proof, None).await?;
    let document = svc.token_document(&resolved, true).await?;
    Ok(document.status(201).header("x-subject-token", text))
}
