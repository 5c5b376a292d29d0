//! TLS towards the scheduler: pinned at the first contact, mutually authenticated ever after.
//!
//! ```text
//! first contact: the chain that the scheduler presents must hold the certificate whose SHA-256
//!                the join token names; with that one as the only root the chain is verified
//! afterwards:    root = the CA that Join returned; our certificate is presented
//! ```
use crate::error::Error;
use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Where the scheduler is.
#[derive(Debug, Clone)]
pub struct Target {
    host: String,
    port: u16,
}

impl Target {
    /// Parses `https://host:port`.
    ///
    /// # Errors
    /// [`Error::Config`] says what is expected.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let wrong = || Error::Config("scheduler_url must look like https://host:port".into());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let host = uri.host().ok_or_else(wrong)?;
        if uri.scheme_str() != Some("https") || !matches!(uri.path(), "" | "/") {
            return Err(wrong());
        }
        Ok(Self { host: host.trim_matches(['[', ']']).to_owned(), port: uri.port_u16().unwrap_or(443) })
    }

    /// A channel that connects when it is first used, and again whenever it was lost.
    ///
    /// # Errors
    /// [`Error::Config`] when the host cannot be a server name.
    pub fn channel(&self, tls: Arc<ClientConfig>) -> Result<Channel, Error> {
        let name = ServerName::try_from(self.host.clone()).map_err(|e| Error::Config(format!("scheduler_url: {e}")))?;
        let shown = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        // Tonic must not add TLS of its own to what the connector brings.
        let address = format!("http://{shown}:{}", self.port);
        let origin = format!("https://{shown}:{}", self.port);
        let bad = |e: &dyn std::fmt::Display| Error::Config(format!("scheduler_url: {e}"));
        let origin: Uri = origin.parse().map_err(|e| bad(&e))?;
        let endpoint = Endpoint::from_shared(address)
            .map_err(|e| bad(&e))?
            .origin(origin)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let (target, connector) = (self.clone(), TlsConnector::from(tls));
        let connect = tower::service_fn(move |_: Uri| {
            let (target, connector, name) = (target.clone(), connector.clone(), name.clone());
            async move {
                let dial = async {
                    let tcp = TcpStream::connect((target.host.as_str(), target.port)).await?;
                    tcp.set_nodelay(true)?;
                    connector.connect(name, tcp).await
                };
                match tokio::time::timeout(CONNECT_LIMIT, dial).await {
                    Ok(stream) => stream.map(TokioIo::new),
                    Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
                }
            }
        });
        Ok(endpoint.connect_with_connector_lazy(connect))
    }
}

fn config_with(
    build: impl FnOnce(rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>) -> Result<ClientConfig, Error>,
) -> Result<Arc<ClientConfig>, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| Error::Tls(e.to_string()))?;
    let mut config = build(builder)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// TLS for the first contact: only a scheduler under the CA with this SHA-256 is talked to.
///
/// # Errors
/// [`Error::Tls`] when TLS itself cannot be set up.
pub fn pinned(pin: [u8; 32]) -> Result<Arc<ClientConfig>, Error> {
    config_with(|builder| {
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(Pinned { pin, provider });
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        Ok(builder.with_no_client_auth())
    })
}

/// Mutual TLS with what Join returned, all in PEM.
///
/// # Errors
/// [`Error::Tls`] when one of the three cannot be read or they do not belong together.
pub fn mutual(ca: &str, certificate: &str, key: &str) -> Result<Arc<ClientConfig>, Error> {
    let bad = |what: &'static str| move |e: &dyn std::fmt::Display| Error::Tls(format!("{what}: {e}"));
    let mut roots = RootCertStore::empty();
    for root in certificates(ca)? {
        roots.add(root).map_err(|e| bad("CA")(&e))?;
    }
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| bad("key")(&e))?;
    config_with(|builder| {
        let verifier = verifier(roots)?;
        builder.with_webpki_verifier(verifier).with_client_auth_cert(chain, key).map_err(|e| bad("certificate")(&e))
    })
}

/// The certificates of a PEM text, at least one.
///
/// # Errors
/// [`Error::Tls`].
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(Error::Tls("no certificate in the PEM text".into())),
        Err(e) => Err(Error::Tls(e.to_string())),
    }
}

/// SHA-256 of a certificate, as a join token pins it.
#[must_use]
pub fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate.as_ref()).into()
}

fn verifier(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let provider = Arc::new(ring::default_provider());
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|e| Error::Tls(e.to_string()))
}

/// Verifies a chain against the one certificate in it that has the pinned hash.
#[derive(Debug)]
struct Pinned {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let root = intermediates.iter().find(|c| fingerprint(c) == self.pin);
        let root = root.ok_or_else(unknown)?.clone().into_owned();
        let mut roots = RootCertStore::empty();
        roots.add(root)?;
        let verifier = verifier(roots).map_err(|_| unknown())?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        assert_eq!(Target::parse("https://a.b:8774").unwrap().port, 8774);
        assert_eq!(Target::parse("https://[::1]:5/").unwrap().host, "::1");
        for bad in ["", "a:1", "http://a:1", "https://", "https://a/b"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }
}
