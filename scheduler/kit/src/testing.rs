//! For tests of services: calls through the whole kit, without a socket.
//!
//! ```ignore
//! let app = testing::App::new(mounted);
//! let (status, body) = app.call("POST", "/v3/users", Some(&caller), Some(json!({..}))).await;
//! ```
use crate::{
    auth::{AuthError, Authenticator, Caller, Scope, TokenAuthority},
    clock,
    dispatch::{Arrival, Front, dispatch},
    probe::{Asking, Probe},
    service::Mounted,
};
use async_trait::async_trait;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::Value;
use std::{collections::HashMap, sync::Arc};

/// Hands out tokens for callers that a test made up.
#[derive(Default)]
pub struct Tokens {
    callers: Mutex<HashMap<String, Caller>>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

impl Tokens {
    pub fn issue(&self, caller: Caller) -> String {
        let token = crate::id::hex();
        self.callers.lock().insert(token.clone(), caller);
        token
    }
}

#[async_trait]
impl TokenAuthority for Tokens {
    async fn authenticate(&self, token: &str) -> Result<Caller, AuthError> {
        self.callers.lock().get(token).cloned().ok_or_else(|| AuthError::Refused("unknown".into()))
    }
    fn epoch(&self) -> u64 {
        0
    }
}

/// A caller with roles in a project.
pub fn caller(project: &str, roles: &[&str]) -> Caller {
    Caller {
        user_id: format!("user-of-{project}"),
        user_name: "tester".into(),
        user_domain_id: "default".into(),
        user_domain_name: "Default".into(),
        scope: Scope::Project {
            id: project.into(),
            name: project.into(),
            domain_id: "default".into(),
            domain_name: "Default".into(),
        },
        roles: roles.iter().map(|r| ((*r).to_owned(), (*r).to_owned())).collect(),
        expires_us: clock::now_us() + 3_600_000_000,
        ..Caller::default()
    }
}

/// A mounted service to call.
#[derive(Debug)]
pub struct App {
    pub service: Mounted,
    pub tokens: Arc<Tokens>,
    /// Sinks and limits can be set before the first call.
    pub front: Front,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Value,
    pub bytes: Vec<u8>,
}

impl App {
    /// `mount` gets the authenticator that knows this app's tokens.
    pub fn new(mount: impl FnOnce(Authenticator) -> Mounted) -> Self {
        let tokens = Arc::new(Tokens::default());
        App { service: mount(Authenticator::new(tokens.clone())), tokens, front: Front::default() }
    }

    /// Sends a request; `path` (with query) is below the service's prefix.
    pub async fn send(&self, request: http::Request<axum::body::Body>) -> Answer {
        let path = request.uri().path().to_owned();
        let arrival = Arrival { peer: ([127, 0, 0, 1], 1).into(), scheme: "https" };
        let response = dispatch(&self.service, &self.front, &arrival, request, &path).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.map(|b| b.to_bytes().to_vec()).unwrap_or_default();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: parts.status.as_u16(), headers: parts.headers, body, bytes }
    }

    fn request(
        &self,
        (method, path): (&str, &str),
        caller: Option<&Caller>,
        headers: &[(&str, &str)],
    ) -> http::request::Builder {
        let mut request = http::Request::builder().method(method).uri(path);
        if let Some(caller) = caller {
            request = request.header("x-auth-token", self.tokens.issue(caller.clone()));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request
    }

    /// Status 0 when the request itself cannot be made.
    async fn send_with(&self, request: http::request::Builder, body: axum::body::Body) -> Answer {
        match request.body(body) {
            Ok(request) => self.send(request).await,
            Err(error) => Answer {
                status: 0,
                headers: http::HeaderMap::new(),
                body: Value::String(error.to_string()),
                bytes: Vec::new(),
            },
        }
    }

    /// A JSON call by `caller` (or nobody), with further headers.
    pub async fn call_with(
        &self,
        method: &str,
        path: &str,
        caller: Option<&Caller>,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Answer {
        self.send_with(self.request((method, path), caller, headers), json_body(body)).await
    }

    /// The same, with a [`Probe`] looking on: what came back, and which rules were asked. `until` is the rule whose
    /// permission ends the call; `None`: the route's own.
    pub async fn probe(
        &self,
        to: (&str, &str),
        caller: Option<&Caller>,
        body: Option<Value>,
        headers: &[(&str, &str)],
        until: Option<&str>,
    ) -> (Answer, Vec<Asking>) {
        let probe = Arc::new(Probe::until(until));
        let request = self.request(to, caller, headers).extension(probe.clone());
        (self.send_with(request, json_body(body)).await, probe.asked())
    }

    pub async fn call(&self, method: &str, path: &str, caller: Option<&Caller>, body: Option<Value>) -> Answer {
        self.call_with(method, path, caller, body, &[]).await
    }

    /// Uploads bytes.
    pub async fn upload(
        &self,
        method: &str,
        path: &str,
        caller: &Caller,
        bytes: Vec<u8>,
        headers: &[(&str, &str)],
    ) -> Answer {
        self.send_with(self.request((method, path), Some(caller), headers), axum::body::Body::from(bytes)).await
    }
}

fn json_body(body: Option<Value>) -> axum::body::Body {
    body.map_or_else(axum::body::Body::empty, |b| axum::body::Body::from(b.to_string()))
}
