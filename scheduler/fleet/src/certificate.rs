//! The cloud's own certificate authority: one key, made at first start, that signs the server's
//! certificate and one certificate per node.
//!
//! The key lives in a file only root reads. A node's certificate says which node it is (common name) and
//! that it is a client; nothing in a signing request but the public key is believed.
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{path}: {error}")]
    File { path: PathBuf, error: std::io::Error },
    #[error("certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("TLS: {0}")]
    Tls(String),
}

const CA_FILE: &str = "ca.pem";
const CA_KEY_FILE: &str = "ca.key";
const YEARS_CA: i64 = 10;
const YEARS_LEAF: i64 = 2;

/// The authority, loaded.
pub struct Authority {
    ca_pem: String,
    ca_der: CertificateDer<'static>,
    key: KeyPair,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(..)")
    }
}

/// A node's new certificate.
#[derive(Debug)]
pub struct Issued {
    pub pem: String,
    /// SHA-256 of the DER, hex.
    pub fingerprint: String,
}

impl Authority {
    /// Opens the authority in `folder`, making it at first.
    pub fn open(folder: &Path) -> Result<Self, CertificateError> {
        let file = |path: &Path| {
            let path = path.to_owned();
            move |error| CertificateError::File { path, error }
        };
        fs::create_dir_all(folder).map_err(file(folder))?;
        let (ca, key) = (folder.join(CA_FILE), folder.join(CA_KEY_FILE));
        // The certificate is written last: with it, the key is whole.
        if !ca.exists() {
            let (pem, key_pem) = make_ca()?;
            write_secret(&key, key_pem.as_bytes()).map_err(file(&key))?;
            write_whole(&ca, pem.as_bytes(), 0o644).map_err(file(&ca))?;
        }
        let ca_pem = fs::read_to_string(&ca).map_err(file(&ca))?;
        let key_pem = fs::read_to_string(&key).map_err(file(&key))?;
        let ca_der =
            CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|e| CertificateError::Tls(e.to_string()))?;
        Ok(Authority { ca_pem, ca_der, key: KeyPair::from_pem(&key_pem)? })
    }

    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// SHA-256 of the CA's DER: what a join token pins.
    pub fn pin(&self) -> [u8; 32] {
        Sha256::digest(&self.ca_der).into()
    }

    fn issuer(&self) -> Result<Issuer<'_, &KeyPair>, CertificateError> {
        Ok(Issuer::from_ca_cert_der(&self.ca_der, &self.key)?)
    }

    /// A certificate for the node that made `csr_pem`.
    pub fn issue_node(&self, node_id: &str, csr_pem: &str) -> Result<Issued, CertificateError> {
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem)?;
        request.params = leaf(node_id, &[])?;
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = request.signed_by(&self.issuer()?)?;
        Ok(Issued { pem: certificate.pem(), fingerprint: fingerprint(certificate.der()) })
    }

    /// TLS for our port: a fresh certificate for `names` (host names and addresses), client certificates
    /// of this authority welcome but not demanded.
    pub fn server_config(&self, names: &[String]) -> Result<Arc<ServerConfig>, CertificateError> {
        let tls = |e: &dyn std::fmt::Display| CertificateError::Tls(e.to_string());
        let key = KeyPair::generate()?;
        let mut params = leaf("pilvi", names)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer()?)?;
        let mut roots = RootCertStore::empty();
        roots.add(self.ca_der.clone()).map_err(|e| tls(&e))?;
        let verifier =
            WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build().map_err(|e| tls(&e))?;
        let chain = vec![certificate.der().clone(), self.ca_der.clone()];
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, private)
            .map_err(|e| tls(&e))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// SHA-256 of a certificate's DER, hex.
pub fn fingerprint(der: &[u8]) -> String {
    hex::encode(Sha256::digest(der))
}

fn leaf(name: &str, names: &[String]) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::NoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from_slice(&rand::random::<[u8; 15]>()));
    validity(&mut params, YEARS_LEAF);
    Ok(params)
}

fn validity(params: &mut CertificateParams, years: i64) {
    let now = std::time::SystemTime::now();
    let day = std::time::Duration::from_secs(86_400);
    // A day back: clocks of fresh machines differ.
    params.not_before = (now - day).into();
    params.not_after = (now + day * (365 * u32::try_from(years).unwrap_or(1))).into();
}

fn make_ca() -> Result<(String, String), CertificateError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Pilvi cloud authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, YEARS_CA);
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn write_secret(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    write_whole(path, bytes, 0o600)
}

/// All or nothing: a crash leaves the old file or the new one.
fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let part = path.with_extension("part");
    let _ = fs::remove_file(&part);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_survives_a_restart_and_signs_nodes() {
        let folder = std::env::temp_dir().join(format!("pilvi-ca-{}", pilvi_kit::id::hex()));
        let first = Authority::open(&folder).unwrap();
        let again = Authority::open(&folder).unwrap();
        assert_eq!(first.pin(), again.pin());
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let csr = params.serialize_request(&key).unwrap().pem().unwrap();
        let issued = again.issue_node("node-1", &csr).unwrap();
        let der = CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
        assert_eq!(parsed.subject().to_string(), "CN=node-1");
        assert!(!parsed.is_ca(), "what the request asks for is not believed");
        assert!(parsed.subject_alternative_name().unwrap().is_none());
        assert!(again.issue_node("node-1", "garbage").is_err());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
