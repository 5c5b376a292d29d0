//! Where events go and how much may come in: the operator's settings, and the sink that posts to a URL.
//!
//! ```text
//!  Outlet ──► LogSink · FileSink (kit) · Webhook: queue (bounded) ──► one task: POST, retry with growing pauses, drop and count
//! ```
use crate::preflight::Refusal;
use anyhow::{Context, Result};
use hmac::{Hmac, KeyInit, Mac};
use pilvi_kit::{
    notify::{FileSink, Kind, LogSink, Outlet, Sink},
    throttle::{Limits, Rate},
};
use serde::Deserialize;
use serde_json::Value;
use sha2::Sha256;
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;

/// `[events]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventsConfig {
    /// Notifications to the log (target `notification`); audit events are there always (target `audit`).
    pub log: bool,
    /// A file for notifications and audit events.
    pub file: Option<PathBuf>,
    /// A file for audit events alone.
    pub audit_file: Option<PathBuf>,
    /// Size at which a file is renamed, in MiB, and how many old ones are kept.
    pub file_mib: u64,
    pub file_keep: usize,
    /// Notifications are posted there.
    pub webhook: Option<String>,
    /// Authority of the webhook's certificate; default: the system's.
    pub webhook_ca: Option<PathBuf>,
    /// Holds the key of `X-Pilvi-Signature`, the HMAC-SHA256 of the body in hex.
    pub webhook_key_file: Option<PathBuf>,
    /// Events that wait for the webhook at most.
    pub webhook_queue: usize,
}

impl Default for EventsConfig {
    fn default() -> Self {
        EventsConfig {
            log: false,
            file: None,
            audit_file: None,
            file_mib: 64,
            file_keep: 5,
            webhook: None,
            webhook_ca: None,
            webhook_key_file: None,
            webhook_queue: 10_000,
        }
    }
}

impl EventsConfig {
    pub fn check(&self) -> Result<(), Refusal> {
        if !(1..=65_536).contains(&self.file_mib) || self.file_keep > 1000 {
            return Err(Refusal("events: file_mib must be 1 to 65536, file_keep at most 1000.".into()));
        }
        if !(1..=1_000_000).contains(&self.webhook_queue) {
            return Err(Refusal("events: webhook_queue must be 1 to 1000000.".into()));
        }
        match self.webhook.as_deref().map(url::Url::parse) {
            Some(Ok(url)) if !matches!(url.scheme(), "http" | "https") => {
                Err(Refusal("events: webhook must be an http or https URL.".into()))
            }
            Some(Err(error)) => Err(Refusal(format!("events: webhook: {error}"))),
            _ => Ok(()),
        }
    }
}

/// `[rate_limits]`: requests a minute, and how many at once; 0 a minute: no limit.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimits {
    pub project_per_minute: f64,
    pub project_burst: f64,
    pub user_per_minute: f64,
    pub user_burst: f64,
    pub address_per_minute: f64,
    pub address_burst: f64,
    /// Refused authentications of one address (not of this machine's own).
    pub refused_per_minute: f64,
    pub refused_burst: f64,
}

impl Default for RateLimits {
    fn default() -> Self {
        let d = Limits::default();
        RateLimits {
            project_per_minute: d.project.per_minute,
            project_burst: d.project.burst,
            user_per_minute: d.user.per_minute,
            user_burst: d.user.burst,
            address_per_minute: d.address.per_minute,
            address_burst: d.address.burst,
            refused_per_minute: d.refused.per_minute,
            refused_burst: d.refused.burst,
        }
    }
}

impl RateLimits {
    fn all(&self) -> [f64; 8] {
        [
            self.project_per_minute,
            self.project_burst,
            self.user_per_minute,
            self.user_burst,
            self.address_per_minute,
            self.address_burst,
            self.refused_per_minute,
            self.refused_burst,
        ]
    }
    pub fn check(&self) -> Result<(), Refusal> {
        if self.all().iter().any(|n| !n.is_finite() || *n < 0.0) {
            return Err(Refusal("rate_limits: the numbers must be 0 or more.".into()));
        }
        Ok(())
    }
    pub fn limits(&self) -> Limits {
        Limits {
            project: Rate::new(self.project_per_minute, self.project_burst),
            user: Rate::new(self.user_per_minute, self.user_burst),
            address: Rate::new(self.address_per_minute, self.address_burst),
            refused: Rate::new(self.refused_per_minute, self.refused_burst),
        }
    }
}

/// The sinks of the operator's settings. Needs the runtime: the webhook has a task.
pub fn outlet(config: &EventsConfig) -> Result<Outlet> {
    let mut sinks: Vec<Box<dyn Sink>> = vec![Box::new(LogSink { notifications: config.log })];
    for (path, only) in [(&config.file, None), (&config.audit_file, Some(Kind::Audit))] {
        if let Some(path) = path {
            let file = FileSink::open(path, config.file_mib << 20, config.file_keep, only)
                .with_context(|| path.display().to_string())?;
            sinks.push(Box::new(file));
        }
    }
    if let Some(url) = &config.webhook {
        sinks.push(Box::new(Webhook::open(url, config)?));
    }
    let host = nix::unistd::gethostname().ok().and_then(|h| h.into_string().ok());
    Ok(Outlet::new(host.as_deref().unwrap_or("localhost"), sinks))
}

/// Pauses between the tries at one event; then it is lost.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(30),
];
const TIMEOUT: Duration = Duration::from_secs(10);

/// Posts notifications to a URL, one at a time and in their order.
#[derive(Debug)]
struct Webhook {
    queue: mpsc::Sender<String>,
    lost: Arc<AtomicU64>,
}

impl Webhook {
    fn open(url: &str, config: &EventsConfig) -> Result<Self> {
        let mut client = reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none());
        if let Some(ca) = &config.webhook_ca {
            let pem = std::fs::read(ca).with_context(|| ca.display().to_string())?;
            client = client.tls_certs_only([reqwest::Certificate::from_pem(&pem)?]);
        }
        let key = match &config.webhook_key_file {
            Some(path) => Some(crate::state::read_secret(path)?),
            None => None,
        };
        let (queue, events) = mpsc::channel(config.webhook_queue);
        let lost = Arc::new(AtomicU64::new(0));
        let poster = Poster { client: client.build()?, url: url.to_owned(), key, lost: lost.clone() };
        tokio::spawn(poster.run(events));
        Ok(Webhook { queue, lost })
    }
}

impl Sink for Webhook {
    fn send(&self, kind: Kind, event: &Value) {
        if kind == Kind::Notification && self.queue.try_send(event.to_string()).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
    fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

struct Poster {
    client: reqwest::Client,
    url: String,
    key: Option<String>,
    lost: Arc<AtomicU64>,
}

impl Poster {
    async fn run(self, mut events: mpsc::Receiver<String>) {
        while let Some(event) = events.recv().await {
            if let Err(error) = self.deliver(&event).await {
                let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
                tracing::warn!(error, lost, "an event did not reach the webhook");
            }
        }
    }

    async fn deliver(&self, event: &str) -> Result<(), String> {
        let mut last = String::new();
        for pause in std::iter::once(Duration::ZERO).chain(PAUSES) {
            tokio::time::sleep(pause).await;
            match self.post(event).await {
                Ok(()) => return Ok(()),
                // What it does not want today it will not want in a minute.
                Err((false, error)) => return Err(error),
                Err((true, error)) => last = error,
            }
        }
        Err(last)
    }

    /// An error with whether another try makes sense.
    async fn post(&self, event: &str) -> Result<(), (bool, String)> {
        let mut request = self.client.post(&self.url).header("content-type", "application/json");
        if let Some(key) = &self.key
            && let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes())
        {
            mac.update(event.as_bytes());
            request = request.header("x-pilvi-signature", hex::encode(mac.finalize().into_bytes()));
        }
        let answer = request.body(event.to_owned()).send().await.map_err(|e| (true, e.without_url().to_string()))?;
        match answer.status().as_u16() {
            200..=299 => Ok(()),
            code @ (408 | 429 | 500..=599) => Err((true, format!("status {code}"))),
            code => Err((false, format!("status {code}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A server that answers each connection with the next status, and gives what it read.
    async fn server(answers: &'static [u16]) -> (String, mpsc::Receiver<String>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (tell, told) = mpsc::channel(16);
        tokio::spawn(async move {
            for status in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (mut text, mut part) = (String::new(), [0_u8; 4096]);
                while !text.contains("\r\n\r\n") || !text.trim_end().ends_with('}') {
                    let n = stream.read(&mut part).await.unwrap();
                    text.push_str(&String::from_utf8_lossy(&part[..n]));
                }
                tell.send(text).await.unwrap();
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (url, told)
    }

    #[tokio::test]
    async fn the_webhook_tries_again_signs_and_keeps_the_order() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (url, mut told) = server(&[503, 204, 204]).await;
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        std::fs::write(&key, "k\n").unwrap();
        let config = EventsConfig { webhook: Some(url), webhook_key_file: Some(key), ..EventsConfig::default() };
        config.check().unwrap();
        let outlet = outlet(&config).unwrap();
        outlet.emit("image", "image.create", serde_json::json!({"n": 1}));
        outlet.emit("image", "image.delete", serde_json::json!({"n": 2}));
        let first = told.recv().await.unwrap();
        assert!(
            first.contains("image.create") && first.to_ascii_lowercase().contains("x-pilvi-signature: "),
            "{first}"
        );
        assert!(told.recv().await.unwrap().contains("image.create"), "again after 503");
        assert!(told.recv().await.unwrap().contains("image.delete"));
        assert_eq!(outlet.lost(), 0);
    }

    #[test]
    fn broken_settings_are_refused() {
        let bad = |text: &str| toml::from_str::<EventsConfig>(text).unwrap().check().is_err();
        assert!(bad("webhook = 'ftp://x'") && bad("file_mib = 0") && bad("webhook_queue = 0"));
        assert!(toml::from_str::<RateLimits>("user_burst = -1.0").unwrap().check().is_err());
    }
}
