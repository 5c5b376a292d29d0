//! REST as one user: calls and their answers as they are, so that refusals can be looked at.
use anyhow::{Context, Result, bail};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::runtime::Runtime;

/// Compute's newest microversion that the stories speak.
const COMPUTE: &str = "compute 2.90";
const PLACEMENT: &str = "placement 1.39";

#[derive(Clone)]
pub struct Api {
    runtime: Arc<Runtime>,
    client: Client,
    base: String,
    pub token: String,
    pub project_id: String,
    pub user_id: String,
}

/// An answer: status, JSON (null when there is none), and the text.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub json: Value,
    pub text: String,
    pub headers: reqwest::header::HeaderMap,
}

impl Api {
    /// Trusts `ca` and nothing else; nobody is logged in.
    pub fn open(base: &str, ca: &Path) -> Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let pem = std::fs::read(ca).with_context(|| ca.display().to_string())?;
        let ca = reqwest::Certificate::from_pem(&pem)?;
        let client = Client::builder().tls_certs_only([ca]).no_proxy().timeout(Duration::from_secs(60)).build()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Api {
            runtime: Arc::new(runtime),
            client,
            base: base.to_owned(),
            token: String::new(),
            project_id: String::new(),
            user_id: String::new(),
        })
    }

    pub fn login(&self, user: &str, password: &str, project: &str) -> Result<Self> {
        self.login_scope(user, password, json!({"project": {"name": project, "domain": {"id": "default"}}}))
    }

    pub fn login_scope(&self, user: &str, password: &str, scope: Value) -> Result<Self> {
        let body = json!({"auth": {"scope": scope, "identity": {"methods": ["password"], "password": {
            "user": {"name": user, "domain": {"id": "default"}, "password": password}}}}});
        let answer =
            self.send(Method::POST, "/identity/v3/auth/tokens", "application/json", body.to_string().into())?;
        if answer.status != 201 {
            bail!("{user} could not log in: {} {}", answer.status, answer.text);
        }
        let token = answer.headers.get("x-subject-token").and_then(|t| t.to_str().ok()).unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(Api {
            token: token.to_owned(),
            project_id: text(&answer.json["token"]["project"]["id"]),
            user_id: text(&answer.json["token"]["user"]["id"]),
            ..self.clone()
        })
    }

    /// The same, with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Api { token: token.to_owned(), ..self.clone() }
    }

    /// Any call; only a lost connection is an error.
    pub fn send(&self, method: Method, path: &str, kind: &str, body: Vec<u8>) -> Result<Answer> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if !self.token.is_empty() {
            request = request.header("x-auth-token", &self.token);
        }
        if path.starts_with("/compute") {
            request = request.header("openstack-api-version", COMPUTE);
        } else if path.starts_with("/placement") {
            request = request.header("openstack-api-version", PLACEMENT);
        }
        if !kind.is_empty() {
            request = request.header("content-type", kind).body(body);
        }
        self.runtime.block_on(async {
            let answer = request.send().await?;
            let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
            let text = answer.text().await?;
            Ok(Answer { status, json: serde_json::from_str(&text).unwrap_or(Value::Null), text, headers })
        })
    }

    /// The bytes behind a path.
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        let request = self.client.get(format!("{}{path}", self.base)).header("x-auth-token", &self.token);
        self.runtime.block_on(async {
            let answer = request.send().await?;
            let status = answer.status();
            anyhow::ensure!(status.is_success(), "GET {path}: {status}");
            Ok(answer.bytes().await?.to_vec())
        })
    }

    /// Any call with a JSON body (null: none).
    pub fn call(&self, method: Method, path: &str, body: &Value) -> Result<Answer> {
        if body.is_null() {
            return self.send(method, path, "", Vec::new());
        }
        self.send(method, path, "application/json", body.to_string().into())
    }

    fn good(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let answer = self.call(method.clone(), path, body)?;
        if !(200..300).contains(&answer.status) {
            bail!("{method} {path}: {} {}", answer.status, answer.text);
        }
        Ok(answer.json)
    }
    pub fn get(&self, path: &str) -> Result<Value> {
        self.good(Method::GET, path, &Value::Null)
    }
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.good(Method::POST, path, body)
    }
    pub fn put(&self, path: &str, body: &Value) -> Result<Value> {
        self.good(Method::PUT, path, body)
    }
    /// Revokes the caller's own token.
    pub fn revoke(&self) -> Result<Answer> {
        let request = self.client.delete(format!("{}/identity/v3/auth/tokens", self.base));
        let request = request.header("x-auth-token", &self.token).header("x-subject-token", &self.token);
        self.runtime.block_on(async {
            let answer = request.send().await?;
            let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
            Ok(Answer { status, json: Value::Null, text: answer.text().await?, headers })
        })
    }
    pub fn delete(&self, path: &str) -> Result<Value> {
        self.good(Method::DELETE, path, &Value::Null)
    }
}

/// The text of a member that must be there.
pub fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}")).to_owned()
}
