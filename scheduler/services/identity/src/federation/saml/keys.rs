//! The keys that this cloud signs its assertions with, each with a certificate that carries the public half.
//!
//! Kept as Fernet's are (staged, primary, secondary), in `saml-keys`: other clouds find all of them in our metadata,
//! so they know the next one before it signs.
use super::signature::PublicKey;
use crate::token::keys::RepositoryKey;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{rand::SecureRandom as _, signature::RsaKeyPair};
use rsa::{
    pkcs8::EncodePrivateKey,
    rand_core::{TryCryptoRng, TryRng},
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
use std::sync::Arc;

const BITS: usize = 2048;
/// The certificate is an envelope; its dates are not what ends the key.
const YEARS: i32 = 20;

#[derive(Clone)]
pub struct SamlKey {
    pkcs8: Arc<Vec<u8>>,
    pair: Arc<RsaKeyPair>,
    certificate: Arc<Vec<u8>>,
}

impl std::fmt::Debug for SamlKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SamlKey(..)")
    }
}

impl SamlKey {
    pub fn pair(&self) -> &RsaKeyPair {
        &self.pair
    }
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }
    pub fn public(&self) -> Result<PublicKey, String> {
        PublicKey::of_certificate(&self.certificate)
    }

    fn new(pkcs8: Vec<u8>, certificate: Vec<u8>) -> Result<Self, String> {
        let pair = RsaKeyPair::from_pkcs8(&pkcs8).map_err(|_| "is not an RSA key (PKCS#8)".to_owned())?;
        let public = PublicKey::of_certificate(&certificate)?;
        if !public.is_rsa(pair.public().as_ref()) {
            return Err("has a certificate of another key".into());
        }
        Ok(SamlKey { pkcs8: Arc::new(pkcs8), pair: Arc::new(pair), certificate: Arc::new(certificate) })
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

impl RepositoryKey for SamlKey {
    fn fresh() -> Result<Self, String> {
        let key = rsa::PrivateKey::new(&mut Random, BITS).map_err(|e| format!("no RSA key could be made: {e}"))?;
        let pkcs8 = key.to_pkcs8_der().map_err(|e| e.to_string())?.as_bytes().to_vec();
        let certificate = self_signed(&pkcs8).map_err(|e| format!("no certificate could be made: {e}"))?;
        Self::new(pkcs8, certificate)
    }
    fn to_text(&self) -> String {
        pem("PRIVATE KEY", &self.pkcs8) + &pem("CERTIFICATE", &self.certificate)
    }
    fn of_text(text: &str) -> Result<Self, String> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|e| format!("is not PEM: {e}"))?;
        let certificate = CertificateDer::from_pem_slice(text.as_bytes()).map_err(|e| format!("is not PEM: {e}"))?;
        Self::new(key.secret_pkcs8_der().to_vec(), certificate.to_vec())
    }
}

fn self_signed(pkcs8: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
    let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8.into(), &rcgen::PKCS_RSA_SHA256)?;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "pilvi saml");
    params.not_before = rcgen::date_time_ymd(2024, 1, 1);
    params.not_after = rcgen::date_time_ymd(2024 + YEARS, 1, 1);
    Ok(params.self_signed(&pair)?.der().to_vec())
}

/// The system's random numbers, in the shape that the maker of keys wants.
struct Random;

#[derive(Debug, thiserror::Error)]
#[error("the system gives no random numbers")]
struct NoRandom;

impl TryRng for Random {
    type Error = NoRandom;
    fn try_next_u32(&mut self) -> Result<u32, NoRandom> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes).map(|()| u32::from_ne_bytes(bytes))
    }
    fn try_next_u64(&mut self) -> Result<u64, NoRandom> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes).map(|()| u64::from_ne_bytes(bytes))
    }
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), NoRandom> {
        ring::rand::SystemRandom::new().fill(out).map_err(|_| NoRandom)
    }
}

impl TryCryptoRng for Random {}
