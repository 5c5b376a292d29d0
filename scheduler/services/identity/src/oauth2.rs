//! OAuth 2 client credentials (RFC 6749, 4.4): a program gets an access token, which is a token of ours.
//!
//! ```text
//! POST /v3/OS-OAUTH2/token  grant_type=client_credentials
//!   Authorization: Basic (application credential's id : secret)  -> its token
//!   client_id = a user, and a TLS client certificate (RFC 8705)  -> a token for his default project, which is
//!       bound to the certificate: the kit takes it on connections that show the certificate, and on no others
//! ```
//! Errors have OAuth's form, `{"error", "error_description"}`. A certificate is good for a user when the mapping
//! named in the configuration makes the user of what the certificate says of its subject and issuer.
mod certificate;

use crate::{Identity, auth::Proof, form, token::Method};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use pilvi_kit::{Call, Fault, Reply, Response, Route};
use serde_json::{Value, json};
use std::sync::Arc;

const TOKEN: &str = "/v3/OS-OAUTH2/token";
/// Longest client id and secret, in bytes.
const SECRET_MAX: usize = 4096;

pub(crate) fn routes() -> Vec<Route<Identity>> {
    vec![
        Route::post(TOKEN, token)
            .public("the client's secret or certificate is the proof")
            .takes_bytes()
            .body_type("application/x-www-form-urlencoded")
            .summary("Get an OAuth 2 access token"),
    ]
}

/// An error in OAuth's form.
fn refused(status: u16, error: &str, description: &str) -> Response {
    let out = Response::json(status, json!({"error": error, "error_description": description}))
        .header("cache-control", "no-store");
    match status {
        401 => out.header("www-authenticate", "Basic realm=\"identity\""),
        _ => out,
    }
}

fn unknown_client(why: &str) -> Response {
    tracing::info!(why, "OAuth 2 client refused");
    refused(401, "invalid_client", "Client authentication failed.")
}

/// A fault of the login, in OAuth's form.
fn translated(error: Fault) -> Reply {
    match error.code() {
        401 => Ok(refused(401, "invalid_client", "Client authentication failed.")),
        400 => Ok(refused(400, "invalid_request", &error.message)),
        500.. => Err(error),
        code => Ok(refused(code, "other_error", "An access token could not be made.")),
    }
}

/// Id and secret of `Authorization: Basic`.
fn basic(call: &Call) -> Option<(String, String)> {
    let (scheme, rest) = call.header("authorization")?.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || rest.len() > 2 * SECRET_MAX {
        return None;
    }
    let both = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (id, secret) = both.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}

async fn token(svc: Arc<Identity>, mut call: Call) -> Reply {
    let fields = form::fields(&mut call).await?;
    match form::field(&fields, "grant_type") {
        None => return Ok(refused(400, "invalid_request", "The parameter grant_type is required.")),
        Some("client_credentials") => {}
        Some(other) => {
            let other: String = other.chars().take(64).collect();
            let text = format!("The parameter grant_type {other} is not supported.");
            return Ok(refused(400, "unsupported_grant_type", &text));
        }
    }
    let named = |name: &str| form::field(&fields, name).filter(|v| !v.is_empty() && v.len() <= SECRET_MAX);
    let certificate = call.certificate.clone();
    let from_header = basic(&call).filter(|_| certificate.is_none());
    let (id, secret) = match from_header {
        Some((id, secret)) => (Some(id), Some(secret)),
        None => (named("client_id").map(str::to_owned), named("client_secret").map(str::to_owned)),
    };
    let Some(id) = id.filter(|id| !id.is_empty() && !id.contains('\0')) else {
        return Ok(unknown_client("no client id"));
    };
    match (certificate, secret) {
        (Some(der), None) => svc.by_certificate(&call, &id, &der.0).await,
        (_, Some(secret)) => svc.by_secret(&call, &id, &secret).await,
        (None, None) => Ok(unknown_client("neither secret nor certificate")),
    }
}

impl Identity {
    async fn by_secret(&self, call: &Call, id: &str, secret: &str) -> Reply {
        let auth = json!({"identity": {"methods": ["application_credential"],
            "application_credential": {"id": id, "secret": secret}}});
        match self.log_in(&auth, call).await {
            Ok((text, _)) => Ok(self.granted(text)),
            Err(error) => translated(error),
        }
    }

    async fn by_certificate(&self, _call: &Call, id: &str, der: &[u8]) -> Reply {
        let Some(subject) = certificate::Subject::read(der) else {
            return Ok(unknown_client("the certificate cannot be read"));
        };
        let user = match self.directory.user(id).await? {
            Some(user) if self.usable(&user).await? => user,
            _ => return Ok(unknown_client("no such user, or a disabled one")),
        };
        let Some(project) = user.default_project_id.clone() else {
            return Ok(unknown_client("the user has no default project"));
        };
        if let Err(why) = self.check_subject(&subject, &user).await? {
            return Ok(unknown_client(&why));
        }
        let proof = Proof {
            user_id: user.id.clone(),
            methods: vec![Method::Oauth2Credential],
            thumbprint: Some(pilvi_kit::auth::thumbprint(der)),
            ..Proof::default()
        };
        let scope: Value = json!({"project": {"id": project}});
        match self.log_in_proven(proof, Some(&scope)).await {
            Ok((text, _)) => Ok(self.granted(text)),
            Err(error) => translated(error),
        }
    }

    fn granted(&self, text: String) -> Response {
        Response::ok(json!({"access_token": text, "token_type": "Bearer", "expires_in": self.config.token_seconds}))
            .header("cache-control", "no-store")
            .header("pragma", "no-cache")
    }
}
