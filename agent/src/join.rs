//! How a host becomes a member: a one-time token is traded for a certificate.
//!
//! ```text
//! no identity --key made and kept--> has key --Join(token, CSR), TLS pinned by the token--> member
//!                                       ^                 |  no answer: again, with the same key
//!                                       +-----------------+
//! ```
//! The key never leaves the host. It is on disk before the token is spent, so that an agent that
//! dies in between asks again with the same request and the scheduler can tell it is the same host.
use crate::config::Config;
use crate::durable::{self, Loaded};
use crate::error::Error;
use crate::link::Addresses;
use crate::peer::Proof;
use crate::tls;
use pilvi_agent_api::token::JoinToken;
use pilvi_agent_api::v1::{JoinRequest, agent_client::AgentClient};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Who this host is in the cloud.
#[derive(Clone, Serialize, Deserialize)]
pub struct Identity {
    /// UUID that the scheduler gave it.
    pub node_id: String,
    pub(crate) certificate_pem: String,
    pub(crate) ca_pem: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

/// Who this host is, and the TLS set-up that proves it.
#[derive(Debug, Clone)]
pub struct Member {
    pub node_id: String,
    pub tls: Arc<rustls::ClientConfig>,
    /// The same towards other hosts.
    pub proof: Arc<Proof>,
}

fn identity_path(state_dir: &Path) -> PathBuf {
    state_dir.join("tls").join("identity")
}

/// Reads the identity that an earlier run got; `None` when the host has not joined.
///
/// # Errors
/// [`Error::Io`], or [`Error::Tls`] when what was kept does not fit together.
pub fn known(state_dir: &Path) -> Result<Option<Member>, Error> {
    let path = identity_path(state_dir);
    let body = match durable::load(&path).map_err(Error::io(&path))? {
        Loaded::Missing => return Ok(None),
        Loaded::Sound(body) => body,
        Loaded::Damaged(why) => return Err(Error::Tls(format!("{}: {why}", path.display()))),
    };
    let identity: Identity =
        serde_json::from_slice(&body).map_err(|e| Error::Tls(format!("{}: {e}", path.display())))?;
    let key = key(state_dir)?;
    let key = key.serialize_pem();
    let tls = tls::mutual(&identity.ca_pem, &identity.certificate_pem, &key)?;
    let proof = Arc::new(Proof::new(&identity.ca_pem, &identity.certificate_pem, &key)?);
    Ok(Some(Member { node_id: identity.node_id, tls, proof }))
}

/// The host's key, made when there is none.
fn key(state_dir: &Path) -> Result<KeyPair, Error> {
    let path = state_dir.join("tls").join("key.pem");
    match std::fs::read_to_string(&path) {
        Ok(pem) => KeyPair::from_pem(&pem).map_err(|e| Error::Tls(format!("{}: {e}", path.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| Error::Tls(e.to_string()))?;
            let pem = key.serialize_pem();
            durable::save_plain(&path, pem.as_bytes()).map_err(Error::io(&path))?;
            Ok(key)
        }
        Err(e) => Err(Error::io(&path)(e)),
    }
}

/// Makes this host a member, or returns what it already is. Tries until the scheduler answers.
///
/// # Errors
/// [`Error::Join`] when the scheduler refuses or there is no token; others when the host is at fault.
pub async fn join(config: &Config) -> Result<Member, Error> {
    if let Some(member) = known(&config.state_dir)? {
        return Ok(member);
    }
    let Some(token) = config.token()? else {
        let text = "this host has not joined a cloud yet: give it a join token (`pilvi node token`)";
        return Err(Error::Join(text.into()));
    };
    let token = JoinToken::parse(token.expose()).map_err(|e| Error::Join(e.to_string()))?;
    let key = key(&config.state_dir)?;
    let csr = CertificateParams::new(vec![config.name.clone()])
        .and_then(|params| params.serialize_request(&key))
        .and_then(|csr| csr.pem())
        .map_err(|e| Error::Tls(e.to_string()))?;
    let addresses = Addresses::open(config)?;
    let channel = tls::channel(addresses.clone(), tls::pinned(token.pin)?)?;
    let request = JoinRequest { token: token.secret.clone(), name: config.name.clone(), csr_pem: csr };
    let mut pause = Duration::from_millis(200);
    let reply = loop {
        let mut client = AgentClient::new(channel.clone());
        match client.join(request.clone()).await {
            Ok(reply) => break reply.into_inner(),
            Err(status) if passing(&status) => {
                tracing::warn!(reason = %reason(&status), "scheduler not reached, joining later");
            }
            Err(status) => return Err(Error::Join(reason(&status))),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(15));
    };
    let roots = tls::certificates(&reply.ca_pem)?;
    if !roots.iter().any(|root| tls::fingerprint(root) == token.pin) {
        return Err(Error::Join("the CA that came back is not the one the token names".into()));
    }
    let identity = Identity { node_id: reply.node_id, certificate_pem: reply.certificate_pem, ca_pem: reply.ca_pem };
    // Proves that certificate and key fit before anything is kept.
    tls::mutual(&identity.ca_pem, &identity.certificate_pem, &key.serialize_pem())?;
    let body = serde_json::to_vec(&identity).map_err(|e| Error::Tls(e.to_string()))?;
    let path = identity_path(&config.state_dir);
    durable::save(&path, &body).map_err(Error::io(&path))?;
    addresses.told(&reply.schedulers);
    tracing::info!(node = identity.node_id, "joined");
    known(&config.state_dir)?.ok_or_else(|| Error::Join("the identity vanished".into()))
}

/// Whether trying again may help. A certificate that does not fit the pin never will.
fn passing(status: &tonic::Status) -> bool {
    matches!(status.code(), tonic::Code::Unavailable | tonic::Code::DeadlineExceeded | tonic::Code::ResourceExhausted)
        && !reason(status).contains("certificate")
}

/// The status' text and those of its causes.
pub(crate) fn reason(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    if text.is_empty() { status.code().to_string() } else { text }
}
