//! TLS towards the scheduler: pinned at the first contact, mutually authenticated ever after.
//!
//! ```text
//! first contact: the chain that the scheduler presents must hold the certificate whose SHA-256
//!                the join token names; with that one as the only root the chain is verified
//! afterwards:    root = the CA that Join returned; our certificate is presented
//! ```
use crate::error::Error;
use crate::link::Addresses;
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
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// For one address; with others to try, not long.
const CONNECT_LIMIT: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(2));
/// A scheduler whose machine is gone says nothing at all: asked so often, with so long to answer.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(3));

/// Where a scheduler is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
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

    /// Parses several, separated by commas; at least one.
    ///
    /// # Errors
    /// [`Error::Config`] says what is expected.
    pub fn parse_all(urls: &str) -> Result<Vec<Self>, Error> {
        urls.split(',').map(|url| Self::parse(url.trim())).collect()
    }

    /// As [`Target::parse`] reads it.
    #[must_use]
    pub fn url(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("https://{host}:{}", self.port)
    }

    async fn dial(&self, tls: TlsConnector, limit: Duration) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        let dial = async {
            let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
            tcp.set_nodelay(true)?;
            tls.connect(name, tcp).await
        };
        tokio::time::timeout(limit, dial).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// A channel that connects when it is first used, and again whenever it was lost, to the first of `addresses` that
/// answers.
///
/// # Errors
/// [`Error::Config`] when there is none.
pub fn channel(addresses: Addresses, tls: Arc<ClientConfig>) -> Result<Channel, Error> {
    let bad = |e: &dyn std::fmt::Display| Error::Config(format!("scheduler_url: {e}"));
    let first = addresses.all().into_iter().next().ok_or_else(|| bad(&"there is none"))?;
    // Tonic must not add TLS of its own to what the connector brings.
    let origin: Uri = first.url().parse().map_err(|e| bad(&e))?;
    let endpoint = Endpoint::from_shared(first.url().replacen("https", "http", 1))
        .map_err(|e| bad(&e))?
        .origin(origin)
        .http2_keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1)
        .keep_alive_while_idle(true);
    let connector = TlsConnector::from(tls);
    let connect = tower::service_fn(move |_: Uri| {
        let (addresses, connector) = (addresses.clone(), connector.clone());
        async move {
            let all = addresses.all();
            let limit = if all.len() < 2 { CONNECT_LIMIT.0 } else { CONNECT_LIMIT.1 };
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            for target in all {
                match target.dial(connector.clone(), limit).await {
                    Ok(stream) => {
                        addresses.answered(&target);
                        return Ok(TokioIo::new(stream));
                    }
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connect))
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

/// What every configuration of ours for whoever calls begins with.
pub(crate) fn client() -> Result<Builder, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(|e| Error::Tls(e.to_string()))
}

/// The authority's certificates, as roots.
pub(crate) fn roots(ca: &str) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for root in certificates(ca)? {
        roots.add(root).map_err(|e| Error::Tls(format!("CA: {e}")))?;
    }
    Ok(roots)
}

fn config_with(build: impl FnOnce(Builder) -> Result<ClientConfig, Error>) -> Result<Arc<ClientConfig>, Error> {
    let mut config = build(client()?)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// TLS for the first contact: only a scheduler under the CA with this SHA-256 is talked to.
///
/// # Errors
/// [`Error::Tls`] when TLS itself cannot be set up.
pub fn pinned(pin: [u8; 32]) -> Result<Arc<ClientConfig>, Error> {
    config_with(|builder| {
        let verifier = Judged::by(move |shown| judge_pinned(pin, shown));
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
    let roots = roots(ca)?;
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

/// Judges a server's chain by what `J` says; its signatures as everybody does.
pub(crate) struct Judged<J>(Arc<CryptoProvider>, J);

impl<J> Judged<J>
where
    J: Fn(&Shown<'_>) -> Result<ServerCertVerified, rustls::Error> + Send + Sync + 'static,
{
    pub(crate) fn by(judge: J) -> Arc<dyn ServerCertVerifier> {
        Arc::new(Self(Arc::new(ring::default_provider()), judge))
    }
}

/// What a server shows.
pub(crate) struct Shown<'a> {
    pub end_entity: &'a CertificateDer<'a>,
    pub intermediates: &'a [CertificateDer<'a>],
    pub name: &'a ServerName<'a>,
    pub ocsp_response: &'a [u8],
    pub now: UnixTime,
}

impl<J> std::fmt::Debug for Judged<J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Judged")
    }
}

/// Verifies a chain against the one certificate in it that has the pinned hash.
fn judge_pinned(pin: [u8; 32], shown: &Shown<'_>) -> Result<ServerCertVerified, rustls::Error> {
    let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
    let root = shown.intermediates.iter().find(|c| fingerprint(c) == pin);
    let mut roots = RootCertStore::empty();
    roots.add(root.ok_or_else(unknown)?.clone().into_owned())?;
    let verifier = verifier(roots).map_err(|_| unknown())?;
    let Shown { end_entity, intermediates, name, ocsp_response, now } = *shown;
    verifier.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
}

impl<J> ServerCertVerifier for Judged<J>
where
    J: Fn(&Shown<'_>) -> Result<ServerCertVerified, rustls::Error> + Send + Sync,
{
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        (self.1)(&Shown { end_entity, intermediates, name, ocsp_response, now })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
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
        let two = Target::parse_all("https://a:1, https://[::1]:2").unwrap();
        assert_eq!(two.iter().map(Target::url).collect::<Vec<_>>(), ["https://a:1", "https://[::1]:2"]);
        assert!(Target::parse_all("https://a:1,").is_err());
    }
}
