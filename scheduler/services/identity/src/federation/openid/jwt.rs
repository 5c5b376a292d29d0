//! Signed tokens: reading one, checking its signature with the provider's keys, and what it claims. Pure.
//!
//! Only public-key signatures are taken, and the key decides which: a token cannot choose to be checked with
//! something else. A token without signature, or with a shared secret, is refused.
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::Value;

/// Longest token, in bytes.
const TOKEN_MAX: usize = 64 * 1024;
/// Keys of one provider.
const KEYS_MAX: usize = 64;
/// How far clocks may differ.
const LEEWAY_SECONDS: i64 = 60;

/// Why a token is not taken, for the log.
pub(super) type Reason = String;

/// A public key of the provider.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub id: Option<String>,
    /// The only algorithm it is for, if it says so.
    algorithm: Option<String>,
    material: Material,
}

#[derive(Debug, Clone)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

fn bytes(value: &Value, name: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(value.get(name)?.as_str()?.trim_end_matches('=')).ok()
}

/// An uncompressed point.
fn point(jwk: &Value, length: usize) -> Option<Vec<u8>> {
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    (x.len() == length && y.len() == length).then(|| [&[4u8][..], &x, &y].concat())
}

fn key(jwk: &Value) -> Option<Key> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    if text("use").is_some_and(|u| u != "sig") {
        return None;
    }
    let material = match (text("kty")?, text("crv")) {
        ("RSA", _) => Material::Rsa { n: bytes(jwk, "n")?, e: bytes(jwk, "e")? },
        ("EC", Some("P-256")) => Material::P256(point(jwk, 32)?),
        ("EC", Some("P-384")) => Material::P384(point(jwk, 48)?),
        ("OKP", Some("Ed25519")) => Material::Ed25519(bytes(jwk, "x").filter(|x| x.len() == 32)?),
        _ => return None,
    };
    Some(Key { id: text("kid").map(str::to_owned), algorithm: text("alg").map(str::to_owned), material })
}

/// The keys of a JWKS document that can check signatures here.
pub(super) fn keys(document: &Value) -> Vec<Key> {
    document.get("keys").and_then(Value::as_array).into_iter().flatten().take(KEYS_MAX).filter_map(key).collect()
}

impl Key {
    fn holds(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        if self.algorithm.as_ref().is_some_and(|only| only != algorithm) {
            return false;
        }
        let rsa: Option<&RsaParameters> = match algorithm {
            "RS256" => Some(&RSA_PKCS1_2048_8192_SHA256),
            "RS384" => Some(&RSA_PKCS1_2048_8192_SHA384),
            "RS512" => Some(&RSA_PKCS1_2048_8192_SHA512),
            "PS256" => Some(&RSA_PSS_2048_8192_SHA256),
            "PS384" => Some(&RSA_PSS_2048_8192_SHA384),
            "PS512" => Some(&RSA_PSS_2048_8192_SHA512),
            _ => None,
        };
        let plain = |how: &'static dyn VerificationAlgorithm, public: &[u8]| {
            UnparsedPublicKey::new(how, public).verify(message, signature).is_ok()
        };
        match (&self.material, algorithm, rsa) {
            (Material::Rsa { n, e }, _, Some(how)) => {
                RsaPublicKeyComponents { n, e }.verify(how, message, signature).is_ok()
            }
            (Material::P256(public), "ES256", _) => plain(&ECDSA_P256_SHA256_FIXED, public),
            (Material::P384(public), "ES384", _) => plain(&ECDSA_P384_SHA384_FIXED, public),
            (Material::Ed25519(public), "EdDSA" | "Ed25519", _) => plain(&ED25519, public),
            _ => false,
        }
    }
}

/// A token that was read and not yet believed.
#[derive(Debug)]
pub(super) struct Unproven<'t> {
    algorithm: String,
    pub key_id: Option<String>,
    message: &'t str,
    signature: Vec<u8>,
    claims: Value,
}

/// Reads `header.claims.signature`.
pub(super) fn read(token: &str) -> Result<Unproven<'_>, Reason> {
    if token.len() > TOKEN_MAX {
        return Err(format!("longer than {TOKEN_MAX} bytes"));
    }
    let (message, signature) = token.rsplit_once('.').ok_or("not three parts")?;
    let (header, claims) = message.split_once('.').filter(|(_, c)| !c.contains('.')).ok_or("not three parts")?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| "a part is not base64url".to_owned());
    let parse = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).map_err(|_| "a part is not JSON".to_owned());
    let (header, claims) = (parse(decode(header)?)?, parse(decode(claims)?)?);
    if header.get("crit").is_some() {
        return Err("it demands an extension".to_owned());
    }
    let text = |name: &str| header.get(name).and_then(Value::as_str).map(str::to_owned);
    if !claims.is_object() {
        return Err("the claims are no object".to_owned());
    }
    let signature = decode(signature)?;
    Ok(Unproven { algorithm: text("alg").ok_or("no algorithm")?, key_id: text("kid"), message, signature, claims })
}

impl Unproven<'_> {
    /// The claims, if one of `keys` made the signature. A token that names its key is held to it.
    pub fn prove(self, keys: &[Key]) -> Result<Value, Reason> {
        let named = |key: &&Key| self.key_id.is_none() || key.id.is_none() || key.id == self.key_id;
        let message = self.message.as_bytes();
        match keys.iter().filter(named).any(|k| k.holds(&self.algorithm, message, &self.signature)) {
            true => Ok(self.claims),
            false => Err(format!("no key of the provider made its {} signature", self.algorithm)),
        }
    }
}

/// Whom a token must be from and for.
#[derive(Debug)]
pub(super) struct Expected<'e> {
    pub issuer: &'e str,
    pub client_id: &'e str,
    /// Audiences that are taken beside the client itself.
    pub audiences: &'e [String],
    pub now_seconds: i64,
}

fn names(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Issuer, audience and time. A token made for our client (`azp`) is one for us, whatever its audience.
pub(super) fn check(claims: &Value, expected: &Expected<'_>) -> Result<(), Reason> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(expected.issuer) {
        return Err(format!("issued by {:?}", text("iss")));
    }
    let ours = |name: &&str| *name == expected.client_id || expected.audiences.iter().any(|a| a == name);
    let client = text("azp").or_else(|| text("client_id"));
    if !names(claims.get("aud")).iter().any(ours) && client != Some(expected.client_id) {
        return Err(format!("for {:?} and the client {client:?}", names(claims.get("aud"))));
    }
    check_time(claims, expected.now_seconds)
}

/// Not over, and begun.
pub(super) fn check_time(claims: &Value, now: i64) -> Result<(), Reason> {
    let time = |name: &str| claims.get(name).and_then(|v| v.as_i64().or_else(|| v.as_f64().map(|f| f as i64)));
    let end = time("exp").ok_or("it has no end")?;
    if end.saturating_add(LEEWAY_SECONDS) <= now {
        return Err("it is over".to_owned());
    }
    for name in ["nbf", "iat"] {
        if time(name).is_some_and(|at| at.saturating_sub(LEEWAY_SECONDS) > now) {
            return Err(format!("its {name} has not come yet"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ring::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
    };
    use serde_json::json;

    fn part(value: &Value) -> String {
        URL_SAFE_NO_PAD.encode(value.to_string())
    }

    fn token(header: Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
        let message = format!("{}.{}", part(&header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
        format!("{message}.{signature}")
    }

    fn ed25519() -> (Ed25519KeyPair, Value) {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(made.as_ref()).unwrap();
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "e", "x": URL_SAFE_NO_PAD.encode(pair.public_key())});
        (pair, jwk)
    }

    #[test]
    fn signatures_hold_for_their_key_and_text_alone() {
        let random = SystemRandom::new();
        let (ed, ed_jwk) = ed25519();
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &random).unwrap();
        let public = ec.public_key().as_ref();
        let ec_jwk = json!({"kty": "EC", "crv": "P-256", "kid": "p", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(&public[1..33]), "y": URL_SAFE_NO_PAD.encode(&public[33..])});
        let all = keys(&json!({"keys": [ed_jwk, ec_jwk, {"kty": "oct", "k": "AAAA"}, {"kty": "RSA"}, 1]}));
        assert_eq!(all.len(), 2);
        let claims = json!({"sub": "bob"});
        let good =
            token(json!({"alg": "ES256", "kid": "p"}), &claims, |m| ec.sign(&random, m).unwrap().as_ref().to_vec());
        let also = token(json!({"alg": "EdDSA"}), &claims, |m| ed.sign(m).as_ref().to_vec());
        for good in [&good, &also] {
            assert_eq!(read(good).unwrap().prove(&all).unwrap(), claims);
            assert!(read(good).unwrap().prove(&all[..0]).is_err());
        }
        let other_key = token(json!({"alg": "EdDSA", "kid": "p"}), &claims, |m| ed.sign(m).as_ref().to_vec());
        assert!(read(&other_key).unwrap().prove(&all).is_err(), "held to the key it names");
        let (head, rest) = good.split_once('.').unwrap();
        let (_, signature) = rest.split_once('.').unwrap();
        let forged = format!("{head}.{}.{signature}", part(&json!({"sub": "eve"})));
        assert!(read(&forged).unwrap().prove(&all).is_err());
    }

    #[test]
    fn unsigned_and_shared_secrets_are_refused() {
        let (_, jwk) = ed25519();
        let all = keys(&json!({"keys": [jwk]}));
        for algorithm in ["none", "HS256", "RS256", "ES256", ""] {
            for signature in [vec![], vec![0; 64]] {
                let bad = token(json!({"alg": algorithm}), &json!({"sub": "eve"}), |_| signature);
                assert!(read(&bad).unwrap().prove(&all).is_err(), "{algorithm}");
            }
        }
        assert!(read(&token(json!({"alg": "EdDSA", "crit": ["x"]}), &json!({}), |_| vec![])).is_err());
        assert!(read(&token(json!({"alg": "EdDSA"}), &json!([]), |_| vec![])).is_err());
        for bad in ["", ".", "..", "a.b", "a.b.c.d", "e30.e30.!"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn issuer_audience_and_time_are_checked() {
        let audiences = ["cloud".to_owned()];
        let expected = Expected { issuer: "https://i", client_id: "me", audiences: &audiences, now_seconds: 1000 };
        let with = |change: Value| {
            let mut claims = json!({"iss": "https://i", "aud": "me", "exp": 1010, "iat": 990});
            for (name, value) in change.as_object().unwrap() {
                claims[name] = value.clone();
            }
            check(&claims, &expected).is_ok()
        };
        for (change, good) in [
            (json!({}), true),
            (json!({"aud": ["x", "cloud"]}), true),
            (json!({"aud": "x"}), false),
            (json!({"aud": "x", "azp": "me"}), true),
            (json!({"aud": null}), false),
            (json!({"iss": "https://i/"}), false),
            (json!({"exp": 940}), false),
            (json!({"exp": 945}), true),
            (json!({"exp": null}), false),
            (json!({"exp": "1010"}), false),
            (json!({"nbf": 1100}), false),
            (json!({"iat": 1100}), false),
            (json!({"exp": 1010.5}), true),
        ] {
            assert_eq!(with(change.clone()), good, "{change}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[A-Za-z0-9_.=-]{0,200}") {
            if let Ok(unproven) = read(&text) {
                prop_assert!(unproven.prove(&[]).is_err());
            }
        }
    }
}
