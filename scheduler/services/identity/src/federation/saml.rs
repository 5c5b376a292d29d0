//! SAML 2, in both roles.
//!
//! ```text
//! for our users, at other clouds: token -> signed assertion                 issue, keys, metadata
//! for users of others, here:      envelope -> xml -> signature -> assertion -> session with a cookie   consumer
//!                                 cookie -> mapping -> token                 (login)
//! ```
//! `xml`, `signature` and `assertion` are pure, and are where strangers' bytes are judged. Canonical XML is a
//! library's (bergshamra); of XML signatures only the one profile that SAML uses is here, checked by ring.
//!
//! Whom to trust: the operator's configuration says which keys speak for which name, and an identity provider must
//! be registered that has the name among its `remote_ids`. The cloud's own keys speak for its own name; without such
//! a registration, which takes an administrator, that is worth nothing.
mod assertion;
mod consumer;
mod issue;
mod keys;
mod metadata;
mod signature;
#[cfg(test)]
mod tests;
mod xml;

pub use metadata::certificates_of_metadata;

use crate::{Config, Identity, StartError, config::SamlConfig, token::keys::KeyRepository};
use assertion::Trusted;
use keys::SamlKey;
use pilvi_kit::{Fault, Route};
use signature::PublicKey;

pub(super) fn routes() -> Vec<Route<Identity>> {
    [issue::routes(), metadata::routes(), consumer::routes()].into_iter().flatten().collect()
}

/// Keys and peers.
pub(crate) struct Saml {
    config: SamlConfig,
    pub(crate) keys: KeyRepository<SamlKey>,
    peers: Vec<Trusted>,
}

impl Saml {
    /// Reads the keys, or makes them at the first start.
    pub fn open(config: &Config) -> Result<Self, StartError> {
        let keys = KeyRepository::open(&config.state_dir.join("saml-keys"), config.max_active_keys)?;
        let mut config = config.federation.saml.clone();
        config.url.truncate(config.url.trim_end_matches('/').len());
        let mut peers = Vec::new();
        for peer in &config.trusted {
            let fail = |why: String| StartError::Saml(format!("{}: {why}", peer.entity_id));
            if peer.entity_id == config.entity_id() {
                return Err(fail("is what this cloud calls itself".into()));
            }
            let of = peer.certificates.iter().map(|der| PublicKey::of_certificate(der));
            let found: Vec<PublicKey> = of.collect::<Result<_, _>>().map_err(fail)?;
            if found.is_empty() {
                return Err(fail("has no certificate".into()));
            }
            peers.push(Trusted {
                entity_id: peer.entity_id.clone(),
                keys: found,
                unsolicited: peer.unsolicited,
                any_audience: peer.any_audience,
            });
        }
        Ok(Saml { config, keys, peers })
    }

    /// Where assertions are brought.
    fn consumer(&self) -> String {
        format!("{}{}", self.config.url, consumer::PATH)
    }

    /// Who speaks under this name.
    fn trusted(&self, name: &str) -> Option<Trusted> {
        if name == self.config.entity_id() {
            let keys = self.keys.ring().iter().filter_map(|key| key.public().ok()).collect();
            return Some(Trusted { entity_id: name.to_owned(), keys, unsolicited: true, any_audience: true });
        }
        self.peers.iter().find(|peer| peer.entity_id == name).cloned()
    }
}

impl Identity {
    pub(super) fn saml(&self) -> Result<&Saml, Fault> {
        self.saml.as_ref().ok_or_else(|| Fault::new(501, "This cloud has not been told its own address for SAML 2."))
    }
}
