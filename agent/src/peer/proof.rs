//! Who is at the other end: a certificate of this cloud's authority, for the node that was named.
//!
//! Nodes' certificates say that their owner is a client. Between two nodes both sides are: each is verified as the
//! scheduler verifies them, and must then be the one node that is expected.
use crate::error::Error;
use crate::tls::{self, Judged, certificates};
use rustls::client::danger::ServerCertVerified;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, ClientConfig, ServerConfig, version};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::sync::Arc;

/// What this host shows to others, and how it judges what they show.
pub struct Proof {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    members: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof")
    }
}

fn bad(e: impl fmt::Display) -> Error {
    Error::Tls(e.to_string())
}

impl Proof {
    /// From the authority's certificate, and this host's with its key, all PEM.
    ///
    /// # Errors
    /// [`Error::Tls`] when they are not what they should be.
    pub fn new(ca: &str, certificate: &str, key: &str) -> Result<Self, Error> {
        let (roots, provider) = (Arc::new(tls::roots(ca)?), Arc::new(ring::default_provider()));
        let members = WebPkiClientVerifier::builder_with_provider(roots, provider).build().map_err(bad)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(bad)?;
        Ok(Self { chain: certificates(certificate)?, key, members })
    }

    /// For whoever is called: lets members of this cloud in. Which of them it is must be asked then ([`node_of`]).
    pub(super) fn called(&self) -> Result<ServerConfig, Error> {
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(bad)?
            .with_client_cert_verifier(self.members.clone())
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(bad)
    }

    /// For whoever calls: talks to this node alone, wherever it is.
    pub(super) fn calling(&self, node_id: &str) -> Result<ClientConfig, Error> {
        let (node_id, members) = (node_id.to_owned(), self.members.clone());
        let verifier = Judged::by(move |shown| {
            members.verify_client_cert(shown.end_entity, shown.intermediates, shown.now)?;
            if node_of(shown.end_entity).is_some_and(|node| node == node_id) {
                Ok(ServerCertVerified::assertion())
            } else {
                Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForName))
            }
        });
        let builder = tls::client()?.dangerous().with_custom_certificate_verifier(verifier);
        builder.with_client_auth_cert(self.chain.clone(), self.key.clone_key()).map_err(bad)
    }
}

/// Which node a verified certificate is for.
pub(super) fn node_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}
