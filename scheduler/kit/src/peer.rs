//! A client of a JSON server that the operator names: an identity provider, say.
//!
//! Spoken to with TLS, or without on this machine alone; no redirects, and limits on time and size.
use http::header;
use reqwest::{Certificate, Client, RequestBuilder, redirect::Policy};
use serde_json::Value;
use std::time::Duration;
use url::{Host, Url};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of one answer.
const ANSWER_MAX: usize = 1024 * 1024;

/// A client; clones share its connections.
#[derive(Debug, Clone)]
pub struct Peer(Client);

/// May this address be spoken to? HTTPS, or loopback.
pub fn check_address(address: &str) -> Result<(), String> {
    let url = Url::parse(address).map_err(|e| format!("{address}: {e}"))?;
    let loopback = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => Ok(()),
        "http" if loopback => Ok(()),
        _ => Err(format!("{address} is neither https nor on this machine")),
    }
}

impl Peer {
    /// Trusts the authorities in `ca_pem`, or the system's.
    pub fn new(ca_pem: Option<&[u8]>) -> Result<Self, String> {
        // Whoever is first chooses; there is one choice.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder =
            Client::builder().timeout(TIMEOUT).connect_timeout(TIMEOUT).redirect(Policy::none()).no_proxy();
        if let Some(pem) = ca_pem {
            builder = builder.tls_certs_only(Certificate::from_pem_bundle(pem).map_err(|e| e.to_string())?);
        }
        builder.build().map(Peer).map_err(|e| e.to_string())
    }

    /// The object at `address`. `authorization` goes into the header of that name.
    pub async fn get(&self, address: &str, authorization: Option<&str>) -> Result<Value, String> {
        check_address(address)?;
        object(self.0.get(address), authorization).await
    }

    /// The object that a form is answered with.
    pub async fn post(
        &self,
        address: &str,
        fields: &[(&str, &str)],
        authorization: Option<&str>,
    ) -> Result<Value, String> {
        check_address(address)?;
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = self.0.post(address).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
        object(request, authorization).await
    }
}

async fn object(mut request: RequestBuilder, authorization: Option<&str>) -> Result<Value, String> {
    if let Some(text) = authorization {
        request = request.header(header::AUTHORIZATION, text);
    }
    let quiet = |e: reqwest::Error| e.without_url().to_string();
    let mut answer = request.header(header::ACCEPT, "application/json").send().await.map_err(quiet)?;
    let (status, mut bytes) = (answer.status(), Vec::new());
    while let Some(piece) = answer.chunk().await.map_err(quiet)? {
        if bytes.len() + piece.len() > ANSWER_MAX {
            return Err(format!("an answer of more than {ANSWER_MAX} bytes"));
        }
        bytes.extend_from_slice(&piece);
    }
    let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    if !status.is_success() {
        let why = value.get("error").and_then(Value::as_str).unwrap_or_default();
        return Err(format!("the answer was {status} {why}"));
    }
    if value.is_object() { Ok(value) } else { Err("the answer is no JSON object".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_spoken_to_with_tls_or_on_this_machine() {
        for (address, good) in [
            ("https://login.example.org/realm", true),
            ("http://127.0.0.1:8080", true),
            ("http://[::1]:8080/x", true),
            ("http://localhost/", true),
            ("http://login.example.org", false),
            ("http://localhost.example.org", false),
            ("file:///etc/passwd", false),
            ("no address", false),
        ] {
            assert_eq!(check_address(address).is_ok(), good, "{address}");
        }
    }
}
