//! An OpenID provider in this process: it signs whatever a test wants signed.
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use pilvi_identity::{OpenIdConfig, Secret};
use pilvi_kit::clock;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Value, json};
use std::{collections::HashMap, sync::Arc};

pub struct Provider {
    pub issuer: String,
    key: EcdsaKeyPair,
    /// Access token -> what introspection and user information say.
    pub told: Mutex<HashMap<String, Value>>,
    /// Forms that came to the token and introspection addresses, with their `Authorization`.
    pub asked: Mutex<Vec<(String, String)>>,
}

type Shared = State<Arc<Provider>>;

impl Provider {
    pub async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let random = SystemRandom::new();
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let provider = Arc::new(Provider {
            issuer: format!("http://{}", listener.local_addr().unwrap()),
            key: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &random).unwrap(),
            told: Mutex::default(),
            asked: Mutex::default(),
        });
        let app = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(jwks))
            .route("/token", post(token))
            .route("/introspect", post(introspect))
            .route("/userinfo", get(user_info))
            .with_state(provider.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        provider
    }

    /// How the cloud is told of it.
    pub fn config(&self) -> OpenIdConfig {
        OpenIdConfig {
            idp: "acme".into(),
            protocol: "openid".into(),
            issuer: self.issuer.clone(),
            client_id: "cloud".into(),
            client_secret: Some(Secret::new("hush")),
            audiences: vec!["api".into()],
            scopes: vec!["openid".into(), "profile".into()],
            introspect: false,
            userinfo: false,
            ca_pem: None,
        }
    }

    /// A signed token: good for ten minutes and for the client `cloud` unless `change` says otherwise.
    pub fn sign(&self, change: Value) -> String {
        let now = clock::now_us() / 1_000_000;
        let mut claims = json!({"iss": self.issuer, "aud": "cloud", "sub": "bob", "iat": now, "exp": now + 600});
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(json!({"alg": "ES256", "kid": "one"})), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

async fn discovery(State(p): Shared) -> String {
    let at = |path: &str| format!("{}/{path}", p.issuer);
    json!({"issuer": p.issuer, "authorization_endpoint": at("authorize"), "token_endpoint": at("token"),
        "jwks_uri": at("jwks"), "introspection_endpoint": at("introspect"), "userinfo_endpoint": at("userinfo")})
    .to_string()
}

async fn jwks(State(p): Shared) -> String {
    let public = p.key.public_key().as_ref();
    json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "one", "use": "sig", "alg": "ES256",
        "x": URL_SAFE_NO_PAD.encode(&public[1..33]), "y": URL_SAFE_NO_PAD.encode(&public[33..])}]})
    .to_string()
}

fn note(p: &Provider, headers: &HeaderMap, body: &Bytes) -> HashMap<String, String> {
    let authorization = headers.get("authorization").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    let form = String::from_utf8(body.to_vec()).unwrap();
    p.asked.lock().push((form.clone(), authorization));
    url::form_urlencoded::parse(form.as_bytes()).into_owned().collect()
}

/// The code is the nonce that the ID token is to have.
async fn token(State(p): Shared, headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    let form = note(&p, &headers, &body);
    match form["code"].as_str() {
        "bad" => (StatusCode::BAD_REQUEST, json!({"error": "invalid_grant"}).to_string()),
        nonce => (
            StatusCode::OK,
            json!({"id_token": p.sign(json!({"nonce": nonce})), "access_token": "opaque", "token_type": "Bearer"})
                .to_string(),
        ),
    }
}

async fn introspect(State(p): Shared, headers: HeaderMap, body: Bytes) -> String {
    let form = note(&p, &headers, &body);
    p.told.lock().get(&form["token"]).cloned().unwrap_or_else(|| json!({"active": false})).to_string()
}

async fn user_info(State(p): Shared, headers: HeaderMap) -> (StatusCode, String) {
    let token = headers["authorization"].to_str().unwrap().trim_start_matches("Bearer ").to_owned();
    match p.told.lock().get(&token) {
        Some(told) => (StatusCode::OK, told.to_string()),
        None => (StatusCode::UNAUTHORIZED, json!({"error": "invalid_token"}).to_string()),
    }
}
