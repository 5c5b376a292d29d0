//! A token's content as compact MessagePack: an array whose first element is the kind.
//!
//! `[kind, user, methods, place, expires, micros, audit ids, further]`, where `further` is a trust, an application
//! credential, an OAuth access token, a certificate's thumbprint, or `[provider, protocol, [groups]]`. Ids that are
//! 32 or 64 hex digits take half as many bytes, audit ids 16; with that every kind stays under 255 characters as Fernet, but for
//! users from outside with many groups.
//! A payload comes from behind a good signature, yet is read as hostile: any surprise is `None`.
use super::{Federation, Method, Token, TokenScope};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rmpv::Value;

/// Kinds of token by number; the numbers are on the wire and never change.
mod kind {
    pub const UNSCOPED: u64 = 0;
    pub const DOMAIN: u64 = 1;
    pub const PROJECT: u64 = 2;
    pub const TRUST: u64 = 3;
    pub const FEDERATED_UNSCOPED: u64 = 4;
    pub const FEDERATED_PROJECT: u64 = 5;
    pub const FEDERATED_DOMAIN: u64 = 6;
    pub const OAUTH1: u64 = 7;
    pub const SYSTEM: u64 = 8;
    pub const APP_CREDENTIAL: u64 = 9;
    pub const CERTIFICATE: u64 = 10;
    pub const FEDERATED_SYSTEM: u64 = 11;
}

fn id_value(id: &str) -> Value {
    let lower = id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    match ((id.len() == 32 || id.len() == 64) && lower).then(|| hex::decode(id)) {
        Some(Ok(bytes)) => Value::Binary(bytes),
        _ => Value::from(id),
    }
}

fn id_of(value: &Value) -> Option<String> {
    match value {
        Value::Binary(bytes) if bytes.len() == 16 || bytes.len() == 32 => Some(hex::encode(bytes)),
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

/// Groups of one token, at most: 100 take about 2,400 characters of the 4,096 that a token may have.
pub const GROUPS_MAX: usize = 100;

fn federation_value(federation: &Federation) -> Value {
    Value::Array(vec![
        federation.idp_id.as_str().into(),
        federation.protocol_id.as_str().into(),
        Value::Array(federation.group_ids.iter().map(|id| id_value(id)).collect()),
    ])
}

fn federation_of(value: &Value) -> Option<Federation> {
    let [idp, protocol, groups] = value.as_array()?.as_slice() else { return None };
    let text = |v: &Value| v.as_str().filter(|t| !t.is_empty() && t.len() <= 256).map(str::to_owned);
    let groups = groups.as_array().filter(|g| g.len() <= GROUPS_MAX)?;
    Some(Federation {
        idp_id: text(idp)?,
        protocol_id: text(protocol)?,
        group_ids: groups.iter().map(id_of).collect::<Option<Vec<_>>>()?,
    })
}

/// The kind's number, the place, and what else it names.
fn parts(token: &Token) -> (u64, Value, Value) {
    let place = match &token.scope {
        TokenScope::Project(id) | TokenScope::Domain(id) => id_value(id),
        TokenScope::System | TokenScope::Unscoped => Value::Nil,
    };
    if let Some(federation) = &token.federation {
        let number = match &token.scope {
            TokenScope::Unscoped => kind::FEDERATED_UNSCOPED,
            TokenScope::Project(_) => kind::FEDERATED_PROJECT,
            TokenScope::Domain(_) => kind::FEDERATED_DOMAIN,
            TokenScope::System => kind::FEDERATED_SYSTEM,
        };
        return (number, place, federation_value(federation));
    }
    match &token.scope {
        TokenScope::Project(_) => {
            let (number, further) = if let Some(credential) = &token.app_credential_id {
                (kind::APP_CREDENTIAL, id_value(credential))
            } else if let Some(trust) = &token.trust_id {
                (kind::TRUST, id_value(trust))
            } else if let Some(access) = &token.access_token_id {
                (kind::OAUTH1, id_value(access))
            } else if let Some(thumbprint) = &token.thumbprint {
                (kind::CERTIFICATE, thumbprint.as_str().into())
            } else {
                (kind::PROJECT, Value::Nil)
            };
            (number, place, further)
        }
        TokenScope::Domain(_) => (kind::DOMAIN, place, Value::Nil),
        TokenScope::System => (kind::SYSTEM, place, Value::Nil),
        TokenScope::Unscoped => (kind::UNSCOPED, place, token.trust_id.as_deref().map_or(Value::Nil, id_value)),
    }
}

/// The bytes of `token`.
pub fn encode(token: &Token) -> Vec<u8> {
    let (number, place, further) = parts(token);
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
        federation: None,
        access_token_id: None,
        thumbprint: None,
    };
    if token.audit_ids.is_empty() || token.audit_ids.len() > 2 {
        return None;
    }
    read_kind(&mut token, number.as_u64()?, place, further)?;
    Some(token)
}

fn read_kind(token: &mut Token, number: u64, place: &Value, further: &Value) -> Option<()> {
    token.scope = match number {
        kind::UNSCOPED | kind::FEDERATED_UNSCOPED => TokenScope::Unscoped,
        kind::DOMAIN | kind::FEDERATED_DOMAIN => TokenScope::Domain(id_of(place)?),
        kind::SYSTEM | kind::FEDERATED_SYSTEM => TokenScope::System,
        kind::PROJECT
        | kind::FEDERATED_PROJECT
        | kind::TRUST
        | kind::OAUTH1
        | kind::APP_CREDENTIAL
        | kind::CERTIFICATE => TokenScope::Project(id_of(place)?),
        _ => return None,
    };
    match number {
        kind::UNSCOPED if !further.is_nil() => token.trust_id = Some(id_of(further)?),
        kind::TRUST => token.trust_id = Some(id_of(further)?),
        kind::APP_CREDENTIAL => token.app_credential_id = Some(id_of(further)?),
        kind::OAUTH1 => token.access_token_id = Some(id_of(further)?),
        kind::CERTIFICATE => token.thumbprint = Some(further.as_str().filter(|t| t.len() <= 64)?.to_owned()),
        kind::FEDERATED_UNSCOPED | kind::FEDERATED_PROJECT | kind::FEDERATED_DOMAIN | kind::FEDERATED_SYSTEM => {
            token.federation = Some(federation_of(further)?);
        }
        _ => {}
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::new_audit_id;
    use super::*;
    use proptest::prelude::*;

    fn id() -> impl Strategy<Value = String> {
        prop_oneof![
            proptest::array::uniform16(any::<u8>()).prop_map(hex::encode),
            proptest::array::uniform32(any::<u8>()).prop_map(hex::encode),
            "[a-zA-Z0-9_-]{1,40}"
        ]
    }

    /// Nothing, or one of the things that a token may further name.
    #[derive(Debug, Clone)]
    enum Further {
        Nothing,
        Trust(String),
        Credential(String),
        Access(String),
        Thumbprint(String),
        Federation(Federation),
    }

    fn further() -> impl Strategy<Value = Further> {
        let federation = ("\\PC{1,30}", "[a-z0-9]{1,20}", proptest::collection::vec(id(), 0..5)).prop_map(
            |(idp_id, protocol_id, group_ids)| Further::Federation(Federation { idp_id, protocol_id, group_ids }),
        );
        prop_oneof![
            Just(Further::Nothing),
            id().prop_map(Further::Trust),
            id().prop_map(Further::Credential),
            id().prop_map(Further::Access),
            "[A-Za-z0-9_-]{43}".prop_map(Further::Thumbprint),
            federation,
        ]
    }

    fn token() -> impl Strategy<Value = Token> {
        let scope = prop_oneof![
            Just(TokenScope::Unscoped),
            Just(TokenScope::System),
            id().prop_map(TokenScope::Project),
            id().prop_map(TokenScope::Domain)
        ];
        (id(), 0u64..1024, scope, 0i64..4_000_000_000_000_000, 0i64..4_000_000_000, 1usize..3, further()).prop_map(
            |(user_id, bits, scope, issued_us, expires, audits, further)| {
                let project = matches!(scope, TokenScope::Project(_));
                let mut token = Token {
                    user_id,
                    methods: Method::of_bits(bits),
                    issued_us,
                    expires_us: expires * 1_000_000,
                    audit_ids: (0..audits).map(|_| new_audit_id()).collect(),
                    trust_id: None,
                    app_credential_id: None,
                    federation: None,
                    access_token_id: None,
                    thumbprint: None,
                    scope,
                };
                match further {
                    Further::Trust(id) if project || token.scope == TokenScope::Unscoped => token.trust_id = Some(id),
                    Further::Credential(id) if project => token.app_credential_id = Some(id),
                    Further::Access(id) if project => token.access_token_id = Some(id),
                    Further::Thumbprint(text) if project => token.thumbprint = Some(text),
                    Further::Federation(federation) => token.federation = Some(federation),
                    _ => {}
                }
                token
            },
        )
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
