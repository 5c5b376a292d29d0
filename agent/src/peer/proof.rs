//! Who is at the other end: a certificate of this cloud's authority, for the node that was named.
//!
//! Nodes' certificates say that their owner is a client. Between two nodes both sides are: each is verified as the
//! scheduler verifies them, and must then be the one node that is expected.
use crate::error::Error;
use crate::tls::certificates;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme, version,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
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
        let mut roots = RootCertStore::empty();
        for root in certificates(ca)? {
            roots.add(root).map_err(bad)?;
        }
        let provider = Arc::new(ring::default_provider());
        let members = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(bad)?;
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

    /// For whoever calls: talks to this node alone.
    pub(super) fn calling(&self, node_id: &str) -> Result<ClientConfig, Error> {
        let one = OneNode { node_id: node_id.to_owned(), members: self.members.clone() };
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(bad)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(one))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(bad)
    }
}

/// Which node a verified certificate is for.
pub(super) fn node_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}

/// Lets one node of this cloud answer, wherever it is.
#[derive(Debug)]
struct OneNode {
    node_id: String,
    members: Arc<dyn ClientCertVerifier>,
}

impl ServerCertVerifier for OneNode {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.members.verify_client_cert(end_entity, intermediates, now)?;
        if node_of(end_entity).is_some_and(|node| node == self.node_id) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForName))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.members.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.members.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.members.supported_verify_schemes()
    }
}
