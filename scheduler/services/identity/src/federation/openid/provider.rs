//! One provider as we know it: its addresses and keys, read over HTTPS and remembered for a while.
//!
//! Everything comes from the issuer that the operator named; only loopback may be spoken to without TLS.
use super::jwt::{self, Expected, Key, Reason};
use crate::config::OpenIdConfig;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use pilvi_kit::{
    clock,
    peer::{Peer, check_address},
};
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::Mutex;

/// How long addresses and keys are believed.
const FRESH_US: i64 = 3_600_000_000;
/// A key that is not known makes us ask again, but not more often than this.
const AGAIN_US: i64 = 30_000_000;
/// How long they are believed when the provider cannot be asked again.
const KEPT_US: i64 = 24 * 3_600_000_000;

pub(super) struct Provider {
    pub config: OpenIdConfig,
    http: Peer,
    known: Mutex<Option<Arc<Known>>>,
}

/// What the provider says of itself.
#[derive(Debug)]
pub(super) struct Known {
    metadata: Value,
    pub keys: Vec<Key>,
    read_us: i64,
}

impl Known {
    pub fn address(&self, name: &str) -> Result<&str, Reason> {
        let text = self.metadata.get(name).and_then(Value::as_str).ok_or_else(|| format!("it has no {name}"))?;
        check_address(text).map(|()| text)
    }
}

impl Provider {
    pub fn new(config: OpenIdConfig) -> Result<Self, String> {
        check_address(&config.issuer)?;
        let http = Peer::new(config.ca_pem.as_deref()).map_err(|e| format!("{}: {e}", config.issuer))?;
        Ok(Provider { config, http, known: Mutex::new(None) })
    }

    async fn read(&self) -> Result<Known, Reason> {
        let issuer = &self.config.issuer;
        let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let metadata = self.http.get(&address, None).await?;
        if metadata.get("issuer").and_then(Value::as_str) != Some(issuer) {
            return Err(format!("{issuer} calls itself {}", metadata.get("issuer").unwrap_or(&Value::Null)));
        }
        let mut known = Known { metadata, keys: Vec::new(), read_us: clock::now_us() };
        let document = self.http.get(known.address("jwks_uri")?, None).await?;
        known.keys = jwt::keys(&document);
        Ok(known)
    }

    /// Addresses and keys; `key_id` is looked for again when it is not among them.
    pub async fn known(&self, key_id: Option<&str>) -> Result<Arc<Known>, Reason> {
        // Held while asking, so that many logins at once ask once.
        let mut known = self.known.lock().await;
        if let Some(found) = known.as_ref() {
            let age = clock::now_us().saturating_sub(found.read_us);
            let has = key_id.is_none_or(|id| found.keys.iter().any(|k| k.id.as_deref() == Some(id)));
            if age < AGAIN_US || (has && age < FRESH_US) {
                return Ok(found.clone());
            }
        }
        match (self.read().await, known.as_ref()) {
            (Ok(fresh), _) => Ok(known.insert(Arc::new(fresh)).clone()),
            // A provider that is away for a moment does not end what its keys can still prove.
            (Err(why), Some(old)) if clock::now_us().saturating_sub(old.read_us) < KEPT_US => {
                tracing::warn!(issuer = self.config.issuer, why, "the OpenID provider cannot be read again");
                Ok(old.clone())
            }
            (Err(why), _) => Err(why),
        }
    }

    fn expected(&self) -> Expected<'_> {
        Expected {
            issuer: &self.config.issuer,
            client_id: &self.config.client_id,
            audiences: &self.config.audiences,
            now_seconds: clock::now_us() / 1_000_000,
        }
    }

    /// The claims of a token that this provider signed for us.
    pub async fn claims(&self, token: &str) -> Result<Value, Reason> {
        let unproven = jwt::read(token)?;
        let known = self.known(unproven.key_id.as_deref()).await?;
        let claims = unproven.prove(&known.keys)?;
        jwt::check(&claims, &self.expected())?;
        Ok(claims)
    }

    /// A form sent with our client's secret.
    async fn ask(&self, address: &str, fields: &[(&str, &str)]) -> Result<Value, Reason> {
        let mut fields = fields.to_vec();
        let Some(secret) = &self.config.client_secret else {
            fields.push(("client_id", &self.config.client_id));
            return self.http.post(address, &fields, None).await;
        };
        // RFC 6749, 2.3.1: both are form-encoded before they are joined.
        let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let both = format!("{}:{}", encode(&self.config.client_id), encode(secret.reveal()));
        self.http.post(address, &fields, Some(&format!("Basic {}", STANDARD.encode(both)))).await
    }

    /// What the provider says of an access token that only it can read.
    pub async fn introspect(&self, token: &str) -> Result<Value, Reason> {
        let known = self.known(None).await?;
        let fields = [("token", token), ("token_type_hint", "access_token")];
        let mut claims = self.ask(known.address("introspection_endpoint")?, &fields).await?;
        if claims.get("active").and_then(Value::as_bool) != Some(true) {
            return Err("the token is not active".to_owned());
        }
        // What the answer leaves out, the provider's own address says.
        if claims.get("iss").is_none() {
            claims["iss"] = self.config.issuer.clone().into();
        }
        jwt::check(&claims, &self.expected())?;
        Ok(claims)
    }

    /// What the provider tells the holder of an access token of himself; it must be the one that `claims` name.
    pub async fn add_user_info(&self, token: &str, claims: &mut Value) -> Result<(), Reason> {
        let known = self.known(None).await?;
        let address = known.address("userinfo_endpoint")?;
        let told = self.http.get(address, Some(&format!("Bearer {token}"))).await?;
        if told.get("sub") != claims.get("sub") {
            return Err("the user information is of somebody else".to_owned());
        }
        for (name, value) in told.as_object().into_iter().flatten() {
            if claims.get(name).is_none() {
                claims[name] = value.clone();
            }
        }
        Ok(())
    }

    /// Exchanges the code that a browser brought for an ID token and an access token.
    pub async fn redeem(&self, code: &str, redirect_uri: &str, verifier: &str) -> Result<(Value, String), Reason> {
        let known = self.known(None).await?;
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier),
        ];
        let answer = self.ask(known.address("token_endpoint")?, &fields).await?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
        let claims = self.claims(&text("id_token").ok_or("the provider gave no ID token")?).await?;
        Ok((claims, text("access_token").unwrap_or_default()))
    }
}
