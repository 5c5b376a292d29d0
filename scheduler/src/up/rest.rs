//! A small client of the public API: what `up` does, any user could do with it.
use anyhow::{Context, Result, bail};
use reqwest::{Body, Client, Method, StatusCode};
use serde_json::{Value, json};
use std::{collections::HashMap, path::Path, time::Duration};

/// A connection, and after [`Rest::login`] a user's token and catalogue.
#[derive(Debug, Clone)]
pub struct Rest {
    client: Client,
    base: String,
    token: String,
    catalogue: HashMap<String, String>,
    pub project_id: String,
}

/// Who logs in.
#[derive(Debug, Clone)]
pub struct Login<'a> {
    pub user: &'a str,
    pub password: &'a str,
    pub project: &'a str,
}

impl Rest {
    /// Trusts the cloud's own authority and nothing else.
    pub fn new(base: &str, ca: &Path) -> Result<Self> {
        let pem = std::fs::read(ca).with_context(|| ca.display().to_string())?;
        let ca = reqwest::Certificate::from_pem(&pem)?;
        let client = Client::builder().tls_certs_only([ca]).no_proxy().timeout(Duration::from_secs(120)).build()?;
        Ok(Rest {
            client,
            base: base.to_owned(),
            token: String::new(),
            catalogue: HashMap::new(),
            project_id: String::new(),
        })
    }

    pub async fn healthy(&self) -> bool {
        let answer = self.client.get(format!("{}/healthcheck", self.base)).timeout(Duration::from_secs(5)).send().await;
        answer.is_ok_and(|a| a.status().is_success())
    }

    pub async fn login(&self, login: Login<'_>) -> Result<Self> {
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {"name": login.user, "domain": {"id": "default"}, "password": login.password}}},
            "scope": {"project": {"name": login.project, "domain": {"id": "default"}}}}});
        let answer = self.client.post(format!("{}/identity/v3/auth/tokens", self.base)).json(&body).send().await?;
        let status = answer.status();
        let token =
            answer.headers().get("x-subject-token").and_then(|t| t.to_str().ok()).unwrap_or_default().to_owned();
        let body: Value = answer.json().await.unwrap_or(Value::Null);
        if status != StatusCode::CREATED {
            bail!("{} could not log in: {status} {}", login.user, message(&body));
        }
        let mut catalogue = HashMap::new();
        for service in body["token"]["catalog"].as_array().into_iter().flatten() {
            let public = service["endpoints"].as_array().into_iter().flatten().find(|e| e["interface"] == "public");
            if let (Some(kind), Some(url)) = (service["type"].as_str(), public.and_then(|e| e["url"].as_str())) {
                catalogue.insert(kind.to_owned(), url.to_owned());
            }
        }
        let project_id = body["token"]["project"]["id"].as_str().unwrap_or_default().to_owned();
        Ok(Rest { token, catalogue, project_id, ..self.clone() })
    }

    fn url(&self, service: &str, path: &str) -> Result<String> {
        let base = self.catalogue.get(service).with_context(|| format!("the catalogue has no {service}"))?;
        Ok(format!("{base}{path}"))
    }

    /// One call; an answer that is no success is an error with the service's own words.
    pub async fn call(&self, method: Method, service: &str, path: &str, body: Option<Value>) -> Result<Value> {
        let url = self.url(service, path)?;
        let mut request = self.client.request(method.clone(), &url).header("x-auth-token", &self.token);
        if service == "compute" {
            request = request.header("openstack-api-version", "compute 2.90");
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.with_context(|| format!("{method} {url}"))?;
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        let body: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if !status.is_success() {
            bail!("{method} {url}: {status} {}", message(&body));
        }
        Ok(body)
    }

    pub async fn get(&self, service: &str, path: &str) -> Result<Value> {
        self.call(Method::GET, service, path, None).await
    }
    pub async fn post(&self, service: &str, path: &str, body: Value) -> Result<Value> {
        self.call(Method::POST, service, path, Some(body)).await
    }
    pub async fn put(&self, service: &str, path: &str, body: Value) -> Result<Value> {
        self.call(Method::PUT, service, path, Some(body)).await
    }

    /// Sends a file as a stream.
    pub async fn upload(&self, service: &str, path: &str, file: &Path) -> Result<()> {
        let file = tokio::fs::File::open(file).await?;
        let length = file.metadata().await?.len();
        let request = self
            .client
            .put(self.url(service, path)?)
            .header("x-auth-token", &self.token)
            .header("content-type", "application/octet-stream")
            .header("content-length", length)
            .body(Body::from(file));
        let answer = request.send().await?;
        let status = answer.status();
        if !status.is_success() {
            bail!("upload: {status} {}", answer.text().await.unwrap_or_default());
        }
        Ok(())
    }

    /// The first of a list whose `name` is this, or what `make` makes.
    pub async fn find(&self, service: &str, path: &str, list: &str, name: &str) -> Result<Option<Value>> {
        let all = self.get(service, path).await?;
        Ok(all[list].as_array().into_iter().flatten().find(|i| i["name"] == name).cloned())
    }
}

/// The words of a fault, whatever envelope it came in.
fn message(body: &Value) -> String {
    let inner = body.as_object().and_then(|o| o.values().find(|v| v.is_object()));
    let text = body["message"].as_str().or_else(|| inner.and_then(|i| i["message"].as_str()));
    text.map_or_else(|| body.to_string(), str::to_owned)
}
