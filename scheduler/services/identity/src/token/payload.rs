//! A token's content as compact MessagePack: an array whose first element is the kind.
//!
//! `[kind, user, methods, place, expires, micros, audit ids, app credential or trust]`. Ids that are 32
//! hex digits take 16 bytes, audit ids 16; with that every kind stays under 255 characters as Fernet.
//! A payload comes from behind a good signature, yet is read as hostile: any surprise is `None`.
use super::{Method, Token, TokenScope};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rmpv::Value;

/// Kinds of token by number; the numbers are on the wire and never change.
mod kind {
    pub const UNSCOPED: u64 = 0;
    pub const DOMAIN: u64 = 1;
    pub const PROJECT: u64 = 2;
    pub const TRUST: u64 = 3;
    pub const SYSTEM: u64 = 8;
    pub const APP_CREDENTIAL: u64 = 9;
}

fn id_value(id: &str) -> Value {
    let lower = id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    match (id.len() == 32 && lower).then(|| hex::decode(id)) {
        Some(Ok(bytes)) => Value::Binary(bytes),
        _ => Value::from(id),
    }
}

fn id_of(value: &Value) -> Option<String> {
    match value {
        Value::Binary(bytes) if bytes.len() == 16 => Some(hex::encode(bytes)),
        Value::String(text) => text.as_str().filter(|t| t.len() <= 64).map(str::to_owned),
        _ => None,
    }
}

fn audit_value(id: &str) -> Value {
    URL_SAFE_NO_PAD.decode(id).map_or_else(|_| Value::from(id), Value::Binary)
}

fn audit_of(value: &Value) -> Option<String> {
    value.as_slice().filter(|b| b.len() == 16).map(|b| URL_SAFE_NO_PAD.encode(b))
}

/// Nesting that is followed (the library counts the leaves and more).
const DEPTH_MAX: usize = 16;

/// The bytes of `token`.
pub fn encode(token: &Token) -> Vec<u8> {
    let (number, place, further) = match (&token.scope, &token.trust_id, &token.app_credential_id) {
        (TokenScope::Project(id), _, Some(credential)) => (kind::APP_CREDENTIAL, id_value(id), id_value(credential)),
        (TokenScope::Project(id), Some(trust), None) => (kind::TRUST, id_value(id), id_value(trust)),
        (TokenScope::Project(id), None, None) => (kind::PROJECT, id_value(id), Value::Nil),
        (TokenScope::Domain(id), _, _) => (kind::DOMAIN, id_value(id), Value::Nil),
        (TokenScope::System, _, _) => (kind::SYSTEM, Value::Nil, Value::Nil),
        (TokenScope::Unscoped, trust, _) => (kind::UNSCOPED, Value::Nil, trust.as_deref().map_or(Value::Nil, id_value)),
    };
    let array = Value::Array(vec![
        number.into(),
        id_value(&token.user_id),
        Method::bits(&token.methods).into(),
        place,
        (token.expires_us / 1_000_000).into(),
        (token.issued_us.rem_euclid(1_000_000)).into(),
        Value::Array(token.audit_ids.iter().map(|a| audit_value(a)).collect()),
        further,
    ]);
    let mut out = Vec::with_capacity(128);
    // Writing to memory does not fail.
    let _ = rmpv::encode::write_value(&mut out, &array);
    out
}

/// The token in `bytes`; `issued_seconds` stands in the Fernet header.
pub fn decode(bytes: &[u8], issued_seconds: u64) -> Option<Token> {
    let mut rest = bytes;
    let value = rmpv::decode::read_value_with_max_depth(&mut rest, DEPTH_MAX).ok()?;
    let [number, user, methods, place, expires, micros, audits, further] = value.as_array()?.as_slice() else {
        return None;
    };
    if !rest.is_empty() {
        return None;
    }
    let mut token = Token {
        user_id: id_of(user)?,
        methods: Method::of_bits(methods.as_u64()?),
        scope: TokenScope::Unscoped,
        issued_us: i64::try_from(issued_seconds)
            .ok()?
            .checked_mul(1_000_000)?
            .checked_add(micros.as_i64().filter(|m| (0..1_000_000).contains(m))?)?,
        expires_us: expires.as_i64()?.checked_mul(1_000_000)?,
        audit_ids: audits.as_array()?.iter().map(audit_of).collect::<Option<Vec<_>>>()?,
        trust_id: None,
        app_credential_id: None,
    };
    if token.audit_ids.is_empty() || token.audit_ids.len() > 2 {
        return None;
    }
    match number.as_u64()? {
        kind::UNSCOPED => {}
        kind::DOMAIN => token.scope = TokenScope::Domain(id_of(place)?),
        kind::SYSTEM => token.scope = TokenScope::System,
        kind::PROJECT => token.scope = TokenScope::Project(id_of(place)?),
        kind::TRUST => (token.scope, token.trust_id) = (TokenScope::Project(id_of(place)?), Some(id_of(further)?)),
        kind::APP_CREDENTIAL => {
            (token.scope, token.app_credential_id) = (TokenScope::Project(id_of(place)?), Some(id_of(further)?))
        }
        _ => return None,
    }
    if number.as_u64() == Some(kind::UNSCOPED) && !further.is_nil() {
        token.trust_id = Some(id_of(further)?);
    }
    Some(token)
}

#[cfg(test)]
mod tests {
    use super::super::new_audit_id;
    use super::*;
    use proptest::prelude::*;

    fn id() -> impl Strategy<Value = String> {
        prop_oneof![proptest::array::uniform16(any::<u8>()).prop_map(hex::encode), "[a-zA-Z0-9_-]{1,40}"]
    }

    fn token() -> impl Strategy<Value = Token> {
        let scope = prop_oneof![
            Just(TokenScope::Unscoped),
            Just(TokenScope::System),
            id().prop_map(TokenScope::Project),
            id().prop_map(TokenScope::Domain)
        ];
        (
            id(),
            0u64..32,
            scope,
            0i64..4_000_000_000_000_000,
            0i64..4_000_000_000,
            1usize..3,
            proptest::option::of(id()),
            proptest::option::of(id()),
        )
            .prop_map(|(user_id, bits, scope, issued_us, expires, audits, trust, credential)| {
                let project = matches!(scope, TokenScope::Project(_));
                let app_credential_id = credential.filter(|_| project);
                let trust_id =
                    trust.filter(|_| app_credential_id.is_none() && (project || scope == TokenScope::Unscoped));
                Token {
                    user_id,
                    methods: Method::of_bits(bits),
                    scope,
                    issued_us,
                    expires_us: expires * 1_000_000,
                    audit_ids: (0..audits).map(|_| new_audit_id()).collect(),
                    trust_id,
                    app_credential_id,
                }
            })
    }

    proptest! {
        #[test]
        fn any_token_reads_back(token in token()) {
            let seconds = (token.issued_us / 1_000_000) as u64;
            prop_assert_eq!(decode(&encode(&token), seconds), Some(token));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in any::<u64>()) {
            let _ = decode(&bytes, at);
        }
    }
}
