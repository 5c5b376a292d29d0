//! Outgoing requests to addresses that users name: the only place where services open connections.
//!
//! A user who may name a URL may try to reach what only this machine reaches: its own services, the metadata
//! service of the cloud it runs in. So every URL, and every redirect, must pass the operator's lists of schemes,
//! hosts and ports; and every address that a name resolves to is checked before a connection is opened to it,
//! by the same resolver that the connection uses, so that a name cannot change its mind in between.
mod guard;
mod resume;

pub use guard::{Listed, Rules};
pub use resume::{Progress, Resume};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use guard::Resolver;
use http::{HeaderMap, StatusCode, header};
use std::{io, net::IpAddr, path::Path, sync::Arc, time::Duration};
use url::{Host, Url};

/// Redirects that are followed, at most.
const REDIRECTS: usize = 5;
const CONNECT: Duration = Duration::from_secs(20);
/// How long an answer may take to begin, and how long a sender may be silent.
const SILENCE: Duration = Duration::from_secs(60);
const AGENT: &str = concat!("pilvi/", env!("CARGO_PKG_VERSION"));

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("the URL {0} does not pass filtering")]
    Filtered(String),
    #[error("the address {0} may not be reached")]
    Address(IpAddr),
    #[error("more than {REDIRECTS} redirects")]
    Redirects,
    #[error("the answer was {0}")]
    Status(StatusCode),
    #[error("{0}")]
    Connection(String),
}

impl Refused {
    /// May the same request succeed a little later?
    pub fn is_passing(&self) -> bool {
        match self {
            Refused::Connection(_) => true,
            Refused::Status(status) => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            _ => false,
        }
    }
}

/// Whose word a URL is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// Everything is checked.
    ByUser,
    /// The catalogue's or the configuration's: taken as it is, but where it redirects to is checked.
    ByOperator,
}

/// What came back.
pub struct Got {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: BoxStream<'static, io::Result<Bytes>>,
}

impl std::fmt::Debug for Got {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Got({})", self.status)
    }
}

impl Got {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// The whole body, which may not be longer than `max`.
    pub async fn bytes(mut self, max: usize) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(chunk) = self.body.next().await {
            all.extend_from_slice(&chunk?);
            if all.len() > max {
                return Err(io::Error::other(format!("more than the {max} bytes allowed")));
            }
        }
        Ok(all)
    }
}

/// A client of other people's servers.
#[derive(Debug, Clone)]
pub struct Fetcher {
    rules: Arc<Rules>,
    /// Connects only where users may.
    guarded: reqwest::Client,
    open: reqwest::Client,
}

/// A header of a request; a secret one stays with the server that it was meant for.
#[derive(Debug, Clone, Copy)]
pub struct Header<'h> {
    pub name: &'static str,
    pub value: &'h str,
    pub secret: bool,
}

impl Fetcher {
    /// Trusts the system's authorities, and those in the file `ca` if there is one.
    pub fn new(rules: Rules, ca: Option<&Path>) -> io::Result<Self> {
        // Whoever is first chooses; there is one choice.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let rules = Arc::new(rules);
        let mut roots = Vec::new();
        if let Some(path) = ca {
            roots = reqwest::Certificate::from_pem_bundle(&std::fs::read(path)?).map_err(io::Error::other)?;
        }
        let builder = || {
            let client = reqwest::Client::builder().user_agent(AGENT).no_proxy().referer(false);
            let client = client.redirect(reqwest::redirect::Policy::none()).connect_timeout(CONNECT);
            // HTTP/1 alone: one connection a download, and a break of one is no break of others.
            client.read_timeout(SILENCE).http1_only().pool_max_idle_per_host(0).tls_certs_merge(roots.clone())
        };
        let guarded = builder().dns_resolver(Resolver { rules: rules.clone() }).build().map_err(io::Error::other)?;
        let open = builder().build().map_err(io::Error::other)?;
        Ok(Fetcher { rules, guarded, open })
    }

    /// The URL, if the operator's lists let it pass. What its name resolves to is checked when it is fetched.
    pub fn check(&self, url: &str) -> Result<Url, Refused> {
        let refused = || Refused::Filtered(url.chars().take(200).collect());
        let parsed = Url::parse(url).map_err(|_| refused())?;
        if !self.rules.pass(&parsed) || !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(refused());
        }
        let literal = match parsed.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => None,
        };
        match literal.filter(|address| !self.rules.may_reach(*address)) {
            Some(address) => Err(Refused::Address(address)),
            None => Ok(parsed),
        }
    }

    /// Asks for a URL; an answer that is no success is an error.
    pub async fn get(&self, url: &str, named: Named, headers: &[Header<'_>]) -> Result<Got, Refused> {
        let bad = || Refused::Filtered(url.chars().take(200).collect());
        let mut at = match named {
            Named::ByUser => self.check(url)?,
            Named::ByOperator => Url::parse(url).map_err(|_| bad())?,
        };
        let (mut client, first) = (if named == Named::ByUser { &self.guarded } else { &self.open }, at.origin());
        for _ in 0..=REDIRECTS {
            let mut request = client.get(at.clone());
            for header in headers.iter().filter(|h| !h.secret || at.origin() == first) {
                request = request.header(header.name, header.value);
            }
            let answer = tokio::time::timeout(SILENCE, request.send()).await;
            let answer = answer.map_err(|_| Refused::Connection("the server does not answer".to_owned()))?;
            let answer = answer.map_err(|error| reason(&error))?;
            let status = answer.status();
            if status.is_redirection() {
                let target = answer.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
                let target = target.and_then(|text| at.join(text).ok()).ok_or(Refused::Status(status))?;
                let same = target.origin() == first && named == Named::ByOperator;
                at = if same { target } else { self.check(target.as_str())? };
                client = if same { &self.open } else { &self.guarded };
                continue;
            }
            if !status.is_success() {
                return Err(Refused::Status(status));
            }
            let headers = answer.headers().clone();
            let body = answer.bytes_stream().map(|chunk| chunk.map_err(io::Error::other)).boxed();
            return Ok(Got { status, headers, body });
        }
        Err(Refused::Redirects)
    }
}

/// The innermost cause says most; an address that was refused is one.
fn reason(error: &reqwest::Error) -> Refused {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        if let Some(Refused::Address(address)) = inner.downcast_ref::<Refused>() {
            return Refused::Address(*address);
        }
        cause = inner;
    }
    Refused::Connection(cause.to_string())
}

#[cfg(test)]
mod tests;
