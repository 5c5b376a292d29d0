//! Signing on with a browser (websso): the authorization-code flow, with PKCE, and a page that carries the
//! token to the dashboard.
//!
//! What has to be known when the browser comes back (state, nonce, verifier, dashboard) is in a cookie that is
//! sealed with our keys, so any scheduler can go on, and the browser that started is the one that ends.
use super::{REMOTE_ID, assertion, provider::Provider};
use crate::{
    Identity,
    auth::Proof,
    federation::{endpoint::method, login::Said},
    token::fernet,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use pilvi_kit::{Call, Fault, Reply, Response, Route, clock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use subtle::ConstantTimeEq;
use url::Url;

const CALLBACK: &str = "/v3/auth/OS-FEDERATION/openid/callback";
const COOKIE: &str = "pilvi_websso";
/// Time to sign on at the provider.
const SECONDS: i64 = 600;
const ORIGIN_MAX: usize = 1024;

pub(super) fn routes() -> Vec<Route<Identity>> {
    const ONE: &str = "/v3/auth/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}/websso";
    const ANY: &str = "/v3/auth/OS-FEDERATION/websso/{protocol_id}";
    const WHY: &str = "one signs on at the provider";
    vec![
        Route::get(ONE, start).public(WHY).summary("Sign on at an identity provider with a browser"),
        Route::post(ONE, start).public(WHY).takes_bytes().summary("Sign on at an identity provider with a browser"),
        Route::get(ANY, start).public(WHY).summary("Sign on with a browser"),
        Route::post(ANY, start).public(WHY).takes_bytes().summary("Sign on with a browser"),
        Route::get(CALLBACK, finish)
            .public("the provider's code and the browser's cookie are the proof")
            .summary("Come back from the identity provider"),
    ]
}

/// What the browser keeps for us while it is at the provider.
#[derive(Debug, Serialize, Deserialize)]
struct Journey {
    idp: String,
    protocol: String,
    origin: String,
    state: String,
    nonce: String,
    verifier: String,
    until_s: i64,
}

fn random() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

fn refuse<T>(why: &str) -> Result<T, Fault> {
    tracing::warn!(why, "sign-on refused");
    Err(Fault::new(401, "The sign-on at the identity provider failed; please start again."))
}

/// Scheme and host in small letters, as an operator may have written them otherwise.
fn same_address(a: &str, b: &str) -> bool {
    match (Url::parse(a), Url::parse(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

impl Identity {
    /// The dashboard to go to: one that the operator trusts with tokens.
    fn origin(&self, call: &Call) -> Result<String, Fault> {
        let origin = call.query.get("origin").filter(|o| !o.is_empty());
        let origin = origin.ok_or_else(|| Fault::bad_request("Request must have an origin query parameter"))?;
        let trusted = &self.config.federation.trusted_dashboards;
        if origin.len() > ORIGIN_MAX || !trusted.iter().any(|t| same_address(t, origin)) {
            return Err(Fault::new(401, format!("{} is not a trusted dashboard host", shorten(origin))));
        }
        Ok(origin.to_owned())
    }

    fn seal(&self, journey: &Journey) -> Result<String, Fault> {
        let text = serde_json::to_vec(journey).map_err(Fault::internal)?;
        let seconds = u64::try_from(clock::now_us() / 1_000_000).unwrap_or_default();
        Ok(fernet::seal(&self.credential_keys.ring(), &text, seconds))
    }

    fn unseal(&self, call: &Call) -> Option<Journey> {
        let cookies = call.header("cookie")?;
        let sealed = cookies.split(';').find_map(|c| c.trim().strip_prefix(COOKIE)?.strip_prefix('='))?;
        let (text, _) = fernet::open(&self.credential_keys.ring(), sealed)?;
        let journey: Journey = serde_json::from_slice(&text).ok()?;
        (journey.until_s > clock::now_us() / 1_000_000).then_some(journey)
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(256).collect()
}

/// A cookie that only our callback sees; over plain HTTP on loopback it cannot be `Secure`.
fn cookie(call: &Call, value: &str, seconds: i64) -> String {
    let secure = if call.base_url.starts_with("https:") { "; Secure" } else { "" };
    let path = Url::parse(&call.url(CALLBACK)).map(|u| u.path().to_owned()).unwrap_or_else(|_| "/".to_owned());
    format!("{COOKIE}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}")
}

fn authorization_address(provider: &Provider, start: &str, call: &Call, journey: &Journey) -> Result<String, Fault> {
    let mut address = Url::parse(start).map_err(Fault::internal)?;
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(journey.verifier.as_bytes()));
    address
        .query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", &provider.config.client_id)
        .append_pair("redirect_uri", &call.url(CALLBACK))
        .append_pair("scope", &provider.config.scopes.join(" "))
        .append_pair("state", &journey.state)
        .append_pair("nonce", &journey.nonce)
        .append_pair("code_challenge", &challenge)
        .append_pair("code_challenge_method", "S256");
    Ok(address.into())
}

/// Sends the browser to the provider.
async fn start(svc: Arc<Identity>, call: Call) -> Reply {
    let origin = svc.origin(&call)?;
    let protocol = call.param("protocol_id");
    let found = match call.param("idp_id") {
        "" => svc.openid.only(protocol),
        idp => svc.openid.find(idp, protocol),
    };
    let Some(provider) = found else {
        return Err(Fault::not_found(format!(
            "No single OpenID provider is configured for the protocol {}; name the identity provider too.",
            shorten(protocol)
        )));
    };
    svc.trusted_provider(&provider.config.idp).await?;
    let known = match provider.known(None).await {
        Ok(known) => known,
        Err(why) => return refuse(&why),
    };
    let address = match known.address("authorization_endpoint") {
        Ok(address) => address,
        Err(why) => return refuse(&why),
    };
    let journey = Journey {
        idp: provider.config.idp.clone(),
        protocol: provider.config.protocol.clone(),
        origin,
        state: random(),
        nonce: random(),
        verifier: random(),
        until_s: clock::now_us() / 1_000_000 + SECONDS,
    };
    let location = authorization_address(provider, address, &call, &journey)?;
    let sealed = svc.seal(&journey)?;
    Ok(Response::empty(302)
        .header("location", location)
        .header("set-cookie", cookie(&call, &sealed, SECONDS))
        .header("cache-control", "no-store"))
}

/// The claims of whoever came back.
async fn claims(provider: &Provider, call: &Call, code: &str, journey: &Journey) -> Result<serde_json::Value, String> {
    let (mut claims, access) = provider.redeem(code, &call.url(CALLBACK), &journey.verifier).await?;
    let nonce = claims.get("nonce").and_then(serde_json::Value::as_str).unwrap_or_default();
    if !bool::from(nonce.as_bytes().ct_eq(journey.nonce.as_bytes())) {
        return Err("the ID token has another nonce".to_owned());
    }
    if provider.config.userinfo && !access.is_empty() {
        provider.add_user_info(&access, &mut claims).await?;
    }
    Ok(claims)
}

/// The browser is back.
async fn finish(svc: Arc<Identity>, call: Call) -> Reply {
    let Some(journey) = svc.unseal(&call) else { return refuse("no cookie, or one that is over") };
    let state = call.query.get("state").unwrap_or_default();
    if !bool::from(state.as_bytes().ct_eq(journey.state.as_bytes())) {
        return refuse("the state is another browser's");
    }
    if let Some(error) = call.query.get("error") {
        return refuse(&format!("the provider says {}", shorten(error)));
    }
    let Some(code) = call.query.get("code") else { return refuse("the provider gave no code") };
    let Some(provider) = svc.openid.find(&journey.idp, &journey.protocol) else {
        return refuse("the provider is configured no more");
    };
    let claims = match claims(provider, &call, code, &journey).await {
        Ok(claims) => claims,
        Err(why) => return refuse(&why),
    };
    let said = Said { assertion: assertion(&claims), remote_id: REMOTE_ID };
    let mut proof = Proof::default();
    proof.user_id = svc.by_word(&journey.idp, &journey.protocol, &said, &mut proof).await?;
    proof.methods = vec![method(&journey.protocol)];
    let (token, _) = svc.log_in_proven(proof, None).await?;
    Ok(page(&journey.origin, &token).header("set-cookie", cookie(&call, "", 0)))
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A form that sends itself to the dashboard; the button is for browsers without scripts.
fn page(origin: &str, token: &str) -> Response {
    const SCRIPT: &str = "document.forms[0].submit();";
    let (origin, token) = (escaped(origin), escaped(token));
    let html = format!(
        "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>Signing on</title></head><body>\
         <form id=\"sso\" name=\"sso\" action=\"{origin}\" method=\"post\">\
         <input type=\"hidden\" name=\"token\" id=\"token\" value=\"{token}\">\
         <noscript><input type=\"submit\" value=\"Continue\"></noscript></form>\
         <script>{SCRIPT}</script></body></html>\n"
    );
    let digest = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(SCRIPT.as_bytes()));
    Response::text(200, "text/html; charset=utf-8", html)
        .header("cache-control", "no-store")
        .header("referrer-policy", "no-referrer")
        .header(
            "content-security-policy",
            format!("default-src 'none'; script-src 'sha256-{digest}'; frame-ancestors 'none'; base-uri 'none'"),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashboards_are_compared_as_addresses() {
        assert!(same_address("https://Dash.example.org/auth/websso/", "https://dash.example.org/auth/websso/"));
        assert!(!same_address("https://dash.example.org/auth", "https://dash.example.org/auth/websso/"));
        assert!(!same_address("https://dash.example.org", "https://dash.example.org.evil"));
        assert!(!same_address("", ""));
    }

    #[test]
    fn the_page_holds_texts_and_no_markup_of_others() {
        let page = page("https://d/\"><script>alert(1)</script>", "t<");
        let crate::federation::openid::browser::Response { body, .. } = page;
        let pilvi_kit::response::Body::Bytes { data, .. } = body else { panic!("a page") };
        let text = String::from_utf8(data.to_vec()).unwrap();
        assert!(!text.contains("<script>alert") && text.contains("t&lt;"), "{text}");
    }
}
