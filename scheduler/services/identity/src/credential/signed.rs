//! `/v3/ec2tokens` and `/v3/s3tokens`: a service shows what a client signed, and gets a token of the signer.
//!
//! Only services and administrators may ask, since whoever may could act with any signed request he has
//! seen. The token stands for one project (or for the trust or application credential that the key was made
//! with), says that it came from a key, and cannot be exchanged for another.
use super::{ec2_id, signature};
use crate::{
    Identity, fault,
    tables::{ApplicationCredential, Credential, Trust},
    token::{Method, TokenScope, resolve::Resolved},
};
use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use pilvi_kit::{Call, Fault, Reply, Route, Schema, clock};
use serde_json::{Map, Value, json};
use std::sync::{Arc, LazyLock};
use subtle::ConstantTimeEq;

/// Bytes of a request; headers and parameters of the signed one are in it.
const LIMIT: usize = 256 * 1024;
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

static BODY: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let (text, map) = (json!({"type": "string"}), json!({"type": "object", "maxProperties": 1000}));
        let signed = json!({"type": "object", "properties": {"access": text, "signature": text, "token": text, "host": text, "verb": text,
            "path": text, "body_hash": text, "params": map, "headers": map}});
        json!({"type": "object", "minProperties": 1, "properties": {"credentials": signed, "credential": signed, "ec2Credentials": signed}})
    })
});

pub(super) fn routes() -> Vec<Route<Identity>> {
    vec![
        Route::post("/v3/ec2tokens", ec2)
            .rule("identity:ec2tokens_validate")
            .schema(&BODY)
            .limit(LIMIT)
            .summary("Get a token for a signed EC2 request"),
        Route::post("/v3/s3tokens", s3)
            .rule("identity:s3tokens_validate")
            .schema(&BODY)
            .limit(LIMIT)
            .summary("Get a token for a signed S3 request"),
    ]
}

fn mismatch() -> Fault {
    Fault::new(401, "Invalid EC2 signature.")
}

/// What was signed, whatever its member is called.
fn shown(call: &Call) -> Result<&Map<String, Value>, Fault> {
    let names = ["credentials", "credential", "ec2Credentials"];
    let found = names.iter().filter_map(|n| call.body.get(n)).find_map(Value::as_object);
    found.ok_or_else(|| Fault::new(401, "EC2 signature not supplied."))
}

fn text<'v>(map: &'v Map<String, Value>, name: &str) -> &'v str {
    map.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn same(given: &str, right: Option<&str>) -> bool {
    right.is_some_and(|right| bool::from(right.as_bytes().ct_eq(given.as_bytes())))
}

/// An EC2 key, opened.
struct Key {
    credential: Credential,
    secret: String,
    trust_id: Option<String>,
    app_credential_id: Option<String>,
}

impl Identity {
    async fn key(&self, access: &str) -> Result<Key, Fault> {
        let gone = || Fault::not_found("EC2 access key not found.");
        let credential = self.store.get::<Credential>(&ec2_id(access)).await?.ok_or_else(gone)?.record;
        if !credential.kind.eq_ignore_ascii_case("ec2") {
            return Err(gone());
        }
        let blob: Value = serde_json::from_str(&self.open_blob(&credential)?).map_err(|_| gone())?;
        let text = |name: &str| blob.get(name).and_then(Value::as_str).map(str::to_owned);
        Ok(Key {
            secret: text("secret").ok_or_else(gone)?,
            trust_id: text("trust_id"),
            app_credential_id: text("app_cred_id"),
            credential,
        })
    }

    /// A token of the key's owner, as the key was made.
    async fn token_of(&self, key: Key) -> Result<(String, Arc<Resolved>), Fault> {
        let refused = || Fault::new(401, "User not valid for project.");
        let project = key.credential.project_id.clone().ok_or_else(refused)?;
        let mut user = key.credential.user_id.clone();
        if let Some(id) = &key.trust_id {
            let trust = self.store.get::<Trust>(id).await?.filter(|t| t.deleted_us.is_none()).ok_or_else(refused)?;
            // A trust that impersonates gave the key to its trustor, but its tokens are the trustee's.
            user.clone_from(&trust.trustee_user_id);
            if trust.project_id.as_ref() != Some(&project) {
                return Err(refused());
            }
        }
        if let Some(id) = &key.app_credential_id {
            let found = self.store.get::<ApplicationCredential>(id).await?.ok_or_else(refused)?;
            if found.project_id != project || found.user_id != user {
                return Err(refused());
            }
        }
        let token = self.fresh_token(user, vec![Method::Ec2], TokenScope::Project(project));
        let token = crate::token::Token { trust_id: key.trust_id, app_credential_id: key.app_credential_id, ..token };
        self.seal_token(token, false).await
    }
}

/// 401 for a request that was signed too long ago, or too far in the future. A signer may leave the time out.
fn check_time(time: Option<&str>, allowed_s: u64) -> Result<(), Fault> {
    let Some(time) = time else { return Ok(()) };
    let wrong = || Fault::new(401, format!("Credential timestamp is invalid: {time}"));
    let at = clock::parse(&extended(time)).ok_or_else(wrong)?;
    let allowed = i64::try_from(allowed_s).unwrap_or(i64::MAX).saturating_mul(1_000_000);
    if clock::now_us().saturating_sub(at).saturating_abs() > allowed {
        return Err(Fault::new(401, "Credential is expired"));
    }
    Ok(())
}

/// `20261126T100000Z` as `2026-11-26T10:00:00Z`; anything else as it is.
fn extended(time: &str) -> String {
    let basic = time.len() == 16 && time.is_ascii() && time.as_bytes()[8] == b'T' && time.ends_with('Z');
    if !basic {
        return time.to_owned();
    }
    let (day, clock) = time.split_at(8);
    format!("{}-{}-{}T{}:{}:{}Z", &day[..4], &day[4..6], &day[6..], &clock[1..3], &clock[3..5], &clock[5..7])
}

async fn ec2(svc: Arc<Identity>, call: Call) -> Reply {
    let signed = shown(&call)?;
    let key = svc.key(text(signed, "access")).await?;
    let empty = Map::new();
    let map = |name: &str| signed.get(name).and_then(Value::as_object).unwrap_or(&empty);
    let mut request = signature::Request {
        params: map("params"),
        headers: map("headers"),
        verb: text(signed, "verb"),
        host: text(signed, "host"),
        path: text(signed, "path"),
        body_hash: text(signed, "body_hash"),
    };
    let given = text(signed, "signature");
    let mut right = same(given, request.signature(&key.secret).as_deref());
    if let Some((name, _)) = request.host.rsplit_once(':').filter(|_| !right) {
        // Some clients leave the port out of what they sign.
        request.host = name;
        right = same(given, request.signature(&key.secret).as_deref());
    }
    if !right {
        return Err(mismatch());
    }
    check_time(request.time(), svc.config.signed_request_seconds)?;
    let (text, resolved) = svc.token_of(key).await?;
    Ok(svc.token_document(&resolved, true).await?.header("x-subject-token", text))
}

async fn s3(svc: Arc<Identity>, call: Call) -> Reply {
    let signed = shown(&call)?;
    let key = svc.key(text(signed, "access")).await?;
    let plain = text(signed, "token").replace('-', "+").replace('_', "/");
    let string_to_sign = LENIENT.decode(plain).map_err(|_| fault::unauthorized())?;
    if !same(text(signed, "signature"), signature::s3(&key.secret, &string_to_sign).as_deref()) {
        return Err(Fault::new(401, "Credential signature mismatch"));
    }
    let (_, resolved) = svc.token_of(key).await?;
    svc.token_document(&resolved, true).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_write_a_time_are_read() {
        let now = clock::now_us();
        let basic: String = clock::seconds_z(now).chars().filter(|c| !"-:".contains(*c)).collect();
        assert_eq!(basic.len(), 16, "{basic}");
        for (time, fits) in [
            (Some(clock::seconds_z(now)), true),
            (Some(basic), true),
            (Some(clock::seconds_z(now - 901_000_000)), false),
            (Some(clock::seconds_z(now + 902_000_000)), false),
            (Some("soon".to_owned()), false),
            (None, true),
        ] {
            assert_eq!(check_time(time.as_deref(), 900).is_ok(), fits, "{time:?}");
        }
    }
}
