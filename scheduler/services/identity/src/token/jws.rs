//! Tokens as signed claims (JWS, ES256), with the claims that Keystone writes.
//!
//! ```text
//!  header . claims . signature        each base64url; the signature is ECDSA P-256 over the first two
//!  sub, iat, exp, openstack_methods, openstack_audit_ids, openstack_project_id | domain_id | system, ...
//! ```
//! Private keys rotate as Fernet's do (staged, primary, secondary). Public ones lie beside them in `public/`,
//! for whoever wants to verify our tokens, and keys that others put there are trusted like our own.
use super::{
    Federation, Method, Token, TokenScope,
    keys::{KeyError, KeyRepository, RepositoryKey},
    payload::GROUPS_MAX,
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use parking_lot::RwLock;
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
    },
};
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, pem::PemObject};
use serde_json::{Map, Value, json};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What comes before the 65 bytes of a P-256 point in a public key's DER.
const SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// Public keys of others that are read.
const FOREIGN_MAX: usize = 64;
const OWN: &str = "own-";
const AUDIT_IDS_MAX: usize = 2;
const ID_MAX: usize = 64;

/// A private key with its public one.
#[derive(Clone)]
pub struct SigningKey {
    pkcs8: Arc<Vec<u8>>,
    pair: Arc<EcdsaKeyPair>,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

impl SigningKey {
    fn of_pkcs8(der: &[u8]) -> Result<Self, String> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &SystemRandom::new())
            .map_err(|_| "is not a private key of the curve P-256 (PKCS#8)".to_owned())?;
        Ok(SigningKey { pkcs8: Arc::new(der.to_vec()), pair: Arc::new(pair) })
    }

    fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }
}

impl RepositoryKey for SigningKey {
    fn fresh() -> Result<Self, String> {
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| "no key could be made".to_owned())?;
        Self::of_pkcs8(der.as_ref())
    }
    fn to_text(&self) -> String {
        pem("PRIVATE KEY", &self.pkcs8)
    }
    fn of_text(text: &str) -> Result<Self, String> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|e| format!("is not PEM: {e}"))?;
        Self::of_pkcs8(der.secret_pkcs8_der())
    }
}

/// Our private keys, and all public ones that are trusted.
#[derive(Debug)]
pub struct JwsKeys {
    private: KeyRepository<SigningKey>,
    directory: PathBuf,
    foreign: RwLock<Arc<Vec<Vec<u8>>>>,
}

impl JwsKeys {
    pub fn open(directory: &Path, max_active: usize) -> Result<Self, KeyError> {
        let private = KeyRepository::open(directory, max_active)?;
        let keys = JwsKeys { private, directory: directory.join("public"), foreign: RwLock::default() };
        keys.publish()?;
        Ok(keys)
    }

    pub fn rotate(&self) -> Result<(), KeyError> {
        self.private.rotate()?;
        self.publish()
    }

    /// Takes up what another program changed.
    pub fn refresh(&self) {
        self.private.refresh();
        if let Err(error) = self.publish() {
            tracing::warn!(%error, "public keys were not read again");
        }
    }

    /// Writes our public keys beside the private ones, and reads those of others.
    fn publish(&self) -> Result<(), KeyError> {
        let fail = |error: io::Error| KeyError::Io { path: self.directory.clone(), error };
        fs::create_dir_all(&self.directory).map_err(fail)?;
        let mut own = Vec::new();
        for key in self.private.ring().iter() {
            let name = format!("{OWN}{}.pem", hex::encode(&key.public()[1..9]));
            let path = self.directory.join(&name);
            if !path.exists() {
                let beside = path.with_extension("new");
                fs::write(&beside, pem("PUBLIC KEY", &[&SPKI[..], key.public()].concat())).map_err(fail)?;
                fs::rename(&beside, &path).map_err(fail)?;
            }
            own.push(name);
        }
        let mut foreign = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(fail)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if own.contains(&name) || !name.ends_with(".pem") {
                continue;
            }
            if name.starts_with(OWN) {
                // Its private key is gone: so is the trust in it.
                fs::remove_file(entry.path()).map_err(fail)?;
                continue;
            }
            let text = fs::read(entry.path()).map_err(fail)?;
            match public_of(&text) {
                Some(point) if foreign.len() < FOREIGN_MAX => foreign.push(point),
                _ => tracing::warn!(file = %entry.path().display(), "not a public key of the curve P-256; left out"),
            }
        }
        *self.foreign.write() = Arc::new(foreign);
        Ok(())
    }

    fn sign(&self, text: &str) -> Option<String> {
        let ring = self.private.ring();
        let signature = ring.first()?.pair.sign(&SystemRandom::new(), text.as_bytes()).ok()?;
        Some(URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    fn is_signed(&self, text: &str, signature: &[u8]) -> bool {
        let by = |point: &[u8]| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(text.as_bytes(), signature).is_ok()
        };
        self.private.ring().iter().any(|k| by(k.public())) || self.foreign.read().iter().any(|point| by(point))
    }
}

fn public_of(text: &[u8]) -> Option<Vec<u8>> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(text).ok()?;
    let point = der.as_ref().strip_prefix(&SPKI)?;
    (point.len() == 65).then(|| point.to_vec())
}

fn claims(token: &Token) -> Value {
    let mut out = json!({
        "sub": token.user_id, "iat": token.issued_us.div_euclid(1_000_000), "exp": token.expires_us.div_euclid(1_000_000),
        // Whole seconds would make a token look older than a revocation just before it.
        "iat_us": token.issued_us.rem_euclid(1_000_000),
        "openstack_methods": token.methods.iter().map(|m| m.name()).collect::<Vec<_>>(),
        "openstack_audit_ids": token.audit_ids,
    });
    match &token.scope {
        TokenScope::Unscoped => {}
        TokenScope::System => out["openstack_system"] = "all".into(),
        TokenScope::Domain(id) => out["openstack_domain_id"] = id.clone().into(),
        TokenScope::Project(id) => out["openstack_project_id"] = id.clone().into(),
    }
    let further = [
        ("openstack_trust_id", &token.trust_id),
        ("openstack_app_cred_id", &token.app_credential_id),
        ("openstack_access_token_id", &token.access_token_id),
        ("openstack_thumbprint", &token.thumbprint),
    ];
    for (name, value) in further {
        if let Some(value) = value {
            out[name] = value.clone().into();
        }
    }
    if let Some(federation) = &token.federation {
        out["openstack_idp_id"] = federation.idp_id.clone().into();
        out["openstack_protocol_id"] = federation.protocol_id.clone().into();
        out["openstack_group_ids"] = federation.group_ids.clone().into();
    }
    out
}

/// A signed token; `None` when there is no key.
pub fn write(keys: &JwsKeys, token: &Token) -> Option<String> {
    let header = json!({"alg": "ES256", "typ": "JWT"});
    let text =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims(token).to_string()));
    let signature = keys.sign(&text)?;
    Some(format!("{text}.{signature}"))
}

fn object(part: &str) -> Option<Map<String, Value>> {
    match serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()? {
        Value::Object(map) => Some(map),
        _ => None,
    }
}

fn id(map: &Map<String, Value>, name: &str) -> Option<Option<String>> {
    match map.get(name) {
        None | Some(Value::Null) => Some(None),
        Some(Value::String(text)) if !text.is_empty() && text.len() <= ID_MAX => Some(Some(text.clone())),
        Some(_) => None,
    }
}

/// Who vouched for the user: all of it or nothing.
fn federation(map: &Map<String, Value>) -> Option<Option<Federation>> {
    match (id(map, "openstack_idp_id")?, id(map, "openstack_protocol_id")?) {
        (None, None) => Some(None),
        (Some(idp_id), Some(protocol_id)) => {
            let group_ids = texts(map, "openstack_group_ids").filter(|ids| ids.len() <= GROUPS_MAX)?;
            Some(Some(Federation { idp_id, protocol_id, group_ids }))
        }
        _ => None,
    }
}

fn texts(map: &Map<String, Value>, name: &str) -> Option<Vec<String>> {
    map.get(name)?.as_array()?.iter().map(|v| v.as_str().map(str::to_owned)).collect()
}

/// The token in `text`, if a key that is trusted signed it.
pub fn read(keys: &JwsKeys, text: &str) -> Option<Token> {
    let (signed, signature) = text.rsplit_once('.')?;
    let (header, body) = signed.split_once('.')?;
    // The algorithm is ours to choose, never the token's.
    if object(header)?.get("alg")?.as_str()? != "ES256" {
        return None;
    }
    if !keys.is_signed(signed, &URL_SAFE_NO_PAD.decode(signature).ok()?) {
        return None;
    }
    let map = object(body)?;
    let scope =
        match (id(&map, "openstack_project_id")?, id(&map, "openstack_domain_id")?, id(&map, "openstack_system")?) {
            (None, None, None) => TokenScope::Unscoped,
            (Some(project), None, None) => TokenScope::Project(project),
            (None, Some(domain), None) => TokenScope::Domain(domain),
            (None, None, Some(_)) => TokenScope::System,
            _ => return None,
        };
    let audit_ids = texts(&map, "openstack_audit_ids")?;
    if audit_ids.is_empty() || audit_ids.len() > AUDIT_IDS_MAX {
        return None;
    }
    let micros = map.get("iat_us").and_then(Value::as_i64).filter(|m| (0..1_000_000).contains(m)).unwrap_or_default();
    Some(Token {
        user_id: id(&map, "sub")??,
        methods: texts(&map, "openstack_methods")?.iter().map(|m| Method::parse(m)).collect::<Option<_>>()?,
        scope,
        issued_us: map.get("iat")?.as_i64()?.checked_mul(1_000_000)?.checked_add(micros)?,
        expires_us: map.get("exp")?.as_i64()?.checked_mul(1_000_000)?,
        audit_ids,
        trust_id: id(&map, "openstack_trust_id")?,
        app_credential_id: id(&map, "openstack_app_cred_id")?,
        federation: federation(&map)?,
        access_token_id: id(&map, "openstack_access_token_id")?,
        thumbprint: id(&map, "openstack_thumbprint")?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::new_audit_id;
    use super::*;
    use proptest::prelude::*;

    fn token(scope: TokenScope) -> Token {
        Token {
            user_id: "u".into(),
            methods: vec![Method::Password, Method::Totp],
            scope,
            issued_us: 1_700_000_000_123_456,
            expires_us: 1_700_003_600_000_000,
            audit_ids: vec![new_audit_id(), new_audit_id()],
            trust_id: None,
            app_credential_id: None,
            federation: None,
            access_token_id: None,
            thumbprint: None,
        }
    }

    fn keys(dir: &tempfile::TempDir) -> JwsKeys {
        JwsKeys::open(&dir.path().join("jws-keys"), 3).unwrap()
    }

    #[test]
    fn every_scope_reads_back_and_rotation_ends_the_oldest() {
        let dir = tempfile::tempdir().unwrap();
        let keys = keys(&dir);
        for scope in
            [TokenScope::Unscoped, TokenScope::System, TokenScope::Domain("d".into()), TokenScope::Project("p".into())]
        {
            let token = token(scope);
            let text = write(&keys, &token).unwrap();
            assert_eq!(read(&keys, &text).as_ref(), Some(&token), "{text}");
        }
        let federation = Federation { idp_id: "i".into(), protocol_id: "p".into(), group_ids: vec!["g".into()] };
        let plain = token(TokenScope::Project("p".into()));
        for token in [
            Token { federation: Some(federation), ..plain.clone() },
            Token { access_token_id: Some("a".into()), ..plain.clone() },
            Token { thumbprint: Some("t".into()), ..plain },
        ] {
            assert_eq!(read(&keys, &write(&keys, &token).unwrap()).as_ref(), Some(&token));
        }
        let old = write(&keys, &token(TokenScope::System)).unwrap();
        keys.rotate().unwrap();
        assert!(read(&keys, &old).is_some());
        keys.rotate().unwrap();
        assert!(read(&keys, &old).is_none());
        assert_eq!(fs::read_dir(dir.path().join("jws-keys/public")).unwrap().count(), 3, "as many as are trusted");
    }

    #[test]
    fn keys_of_others_are_trusted_when_they_are_put_there() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (here, there) = (keys(&dir), keys(&other));
        let text = write(&there, &token(TokenScope::System)).unwrap();
        assert!(read(&here, &text).is_none());
        for entry in fs::read_dir(other.path().join("jws-keys/public")).unwrap().flatten() {
            let name = format!("theirs-{}", entry.file_name().to_string_lossy());
            fs::copy(entry.path(), dir.path().join("jws-keys/public").join(name)).unwrap();
        }
        fs::write(dir.path().join("jws-keys/public/broken.pem"), "no key").unwrap();
        here.refresh();
        assert!(read(&here, &text).is_some());
    }

    #[test]
    fn another_algorithm_or_no_signature_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let keys = keys(&dir);
        let text = write(&keys, &token(TokenScope::System)).unwrap();
        let parts: Vec<&str> = text.split('.').collect();
        for header in [json!({"alg": "none"}), json!({"alg": "HS256"}), json!({}), json!([])] {
            let header = URL_SAFE_NO_PAD.encode(header.to_string());
            assert!(read(&keys, &format!("{header}.{}.{}", parts[1], parts[2])).is_none());
            assert!(read(&keys, &format!("{header}.{}.", parts[1])).is_none());
        }
        assert!(read(&keys, &format!("{}.{}", parts[0], parts[1])).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn any_text_is_refused(text in "[a-zA-Z0-9_.-]{0,300}") {
            let dir = tempfile::tempdir().unwrap();
            prop_assert!(read(&keys(&dir), &text).is_none());
        }
    }
}
