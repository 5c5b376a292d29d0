//! Receipts: what a user has proven already, when his rules ask for more than he gave at once.
//!
//! A sealed text like a token, but of a kind no token has, so that neither passes for the other. It is shown
//! in `Openstack-Auth-Receipt` together with the proofs that were missing.
use crate::{
    Identity, fault,
    tables::{Project, User},
    token::{Method, fernet},
};
use pilvi_kit::{Fault, clock};
use rmpv::Value as Packed;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The first element of a receipt's array; tokens count from 0.
const KIND: u64 = 64;
const TEXT_MAX: usize = 1024;
const DEPTH_MAX: usize = 8;
pub(super) const HEADER: &str = "openstack-auth-receipt";

/// A receipt as text, and what it says.
pub(super) struct Receipt {
    text: String,
    methods: Vec<Method>,
    issued_us: i64,
    expires_us: i64,
}

/// The user, methods and end in the bytes of a receipt.
fn decode(bytes: &[u8]) -> Option<(String, Vec<Method>, i64)> {
    let mut rest = bytes;
    let value = rmpv::decode::read_value_with_max_depth(&mut rest, DEPTH_MAX).ok()?;
    let [kind, user, methods, expires] = value.as_array()?.as_slice() else { return None };
    if !rest.is_empty() || kind.as_u64() != Some(KIND) {
        return None;
    }
    Some((user.as_str()?.to_owned(), Method::of_bits(methods.as_u64()?), expires.as_i64()?.checked_mul(1_000_000)?))
}

impl Identity {
    pub(super) fn make_receipt(&self, user: &User, methods: &[Method]) -> Result<Receipt, Fault> {
        let issued_us = clock::now_us();
        let seconds = issued_us / 1_000_000;
        let end = seconds.saturating_add(i64::try_from(self.config.receipt_seconds).unwrap_or(300));
        let array = Packed::Array(vec![KIND.into(), user.id.as_str().into(), Method::bits(methods).into(), end.into()]);
        let mut bytes = Vec::with_capacity(64);
        // Writing to memory does not fail.
        let _ = rmpv::encode::write_value(&mut bytes, &array);
        let text = fernet::seal(&self.fernet_keys.ring(), &bytes, u64::try_from(seconds).unwrap_or_default());
        if text.is_empty() {
            return Err(Fault::internal("there is no key to make receipts with"));
        }
        Ok(Receipt { text, methods: methods.to_vec(), issued_us, expires_us: end * 1_000_000 })
    }

    /// What the receipt proves, if it is one of ours, of this user, and not over.
    pub(super) fn read_receipt(&self, text: &str, user_id: &str) -> Result<Vec<Method>, Fault> {
        let opened = if text.len() > TEXT_MAX { None } else { fernet::open(&self.fernet_keys.ring(), text) };
        match opened.and_then(|(bytes, _)| decode(&bytes)) {
            Some((user, methods, expires_us)) if user == user_id && expires_us > clock::now_us() => Ok(methods),
            _ => {
                tracing::debug!("a receipt that is not good");
                Err(fault::unauthorized())
            }
        }
    }
}

/// 401 that carries the receipt, and says what may be given beside what it proves.
pub(super) fn demand(
    receipt: Receipt,
    user: &User,
    domain: Option<&Project>,
    rules: &[BTreeSet<&'static str>],
) -> Fault {
    let methods: Vec<&str> = receipt.methods.iter().map(|m| m.name()).collect();
    let domain = domain.map(|d| json!({"id": d.id, "name": d.name}));
    let mut body = Map::new();
    body.insert(
        "receipt".into(),
        json!({"methods": methods, "user": {"id": user.id, "name": user.name, "domain": domain},
            "issued_at": clock::micros_z(receipt.issued_us), "expires_at": clock::micros_z(receipt.expires_us)}),
    );
    body.insert("required_auth_methods".into(), json!(rules));
    Fault { extra: [("whole".to_owned(), Value::Object(body))].into_iter().collect(), ..fault::unauthorized() }
        .header(HEADER, receipt.text)
}
