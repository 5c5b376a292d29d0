//! Signed images: who made an image signs its bytes, and says so in four properties of the image.
//!
//! | property | what |
//! | --- | --- |
//! | `img_signature` | the signature, in base64 |
//! | `img_signature_hash_method` | `SHA-224`, `SHA-256`, `SHA-384`, `SHA-512` |
//! | `img_signature_key_type` | `RSA-PSS`, `ECC_SECP384R1`, `ECC_SECP521R1`, `ECC_SECP256R1` |
//! | `img_signature_certificate_uuid` | which certificate |
//!
//! With all four, bytes that the signature does not fit are refused. Certificates are files `<uuid>.pem` of one
//! directory that the operator keeps: there is no key manager yet. DSA and the binary curves (`ECC_SECT...`) are
//! refused: no kept library checks them, and nobody should sign with them any more.
use crate::image::model::Image;
use base64::{Engine, engine::general_purpose::STANDARD};
use pilvi_kit::{Fault, clock, id};
use rsa::signature::hazmat::PrehashVerifier;
use rsa::{pkcs8::DecodePublicKey, pss};
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use std::{io::Read, path::Path};

const SIGNATURE: &str = "img_signature";
const HASH_METHOD: &str = "img_signature_hash_method";
const KEY_TYPE: &str = "img_signature_key_type";
const CERTIFICATE: &str = "img_signature_certificate_uuid";
/// Bytes of a certificate's file at most.
const CERTIFICATE_MAX: u64 = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashMethod {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// The hash that a signature is about, while bytes go by.
#[derive(Debug, Clone)]
pub enum Prehash {
    Sha224(Sha224),
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl HashMethod {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "SHA-224" => Some(HashMethod::Sha224),
            "SHA-256" => Some(HashMethod::Sha256),
            "SHA-384" => Some(HashMethod::Sha384),
            "SHA-512" => Some(HashMethod::Sha512),
            _ => None,
        }
    }

    /// By the names that `os_hash_algo` has: `sha256` is `SHA-256` there.
    pub fn of_algorithm(name: &str) -> Option<Self> {
        Self::parse(&format!("SHA-{}", name.strip_prefix("sha")?))
    }

    /// Bytes of a hash.
    pub fn length(self) -> usize {
        match self {
            HashMethod::Sha224 => 28,
            HashMethod::Sha256 => 32,
            HashMethod::Sha384 => 48,
            HashMethod::Sha512 => 64,
        }
    }

    pub fn start(self) -> Prehash {
        match self {
            HashMethod::Sha224 => Prehash::Sha224(Sha224::new()),
            HashMethod::Sha256 => Prehash::Sha256(Sha256::new()),
            HashMethod::Sha384 => Prehash::Sha384(Sha384::new()),
            HashMethod::Sha512 => Prehash::Sha512(Sha512::new()),
        }
    }
}

impl Prehash {
    pub fn update(&mut self, chunk: &[u8]) {
        match self {
            Prehash::Sha224(hash) => hash.update(chunk),
            Prehash::Sha256(hash) => hash.update(chunk),
            Prehash::Sha384(hash) => hash.update(chunk),
            Prehash::Sha512(hash) => hash.update(chunk),
        }
    }

    pub fn finish(self) -> Vec<u8> {
        match self {
            Prehash::Sha224(hash) => hash.finalize().to_vec(),
            Prehash::Sha256(hash) => hash.finalize().to_vec(),
            Prehash::Sha384(hash) => hash.finalize().to_vec(),
            Prehash::Sha512(hash) => hash.finalize().to_vec(),
        }
    }
}

#[derive(Debug)]
enum Key {
    Rsa(rsa::PublicKey),
    P256(p256::ecdsa::VerifyingKey),
    P384(p384::ecdsa::VerifyingKey),
    P521(p521::ecdsa::VerifyingKey),
}

/// What an image's bytes have to fit.
#[derive(Debug)]
pub struct Signed {
    image: String,
    pub hash: HashMethod,
    key: Key,
    signature: Vec<u8>,
}

/// What the bytes of an image have to fit; none for an image that is not signed. 400 when its properties cannot be
/// used, so that this is known before the first byte.
pub fn required(certificates: Option<&Path>, image: &Image) -> Result<Option<Signed>, Fault> {
    let all = [SIGNATURE, HASH_METHOD, KEY_TYPE, CERTIFICATE].map(|name| image.property(name));
    let [Some(signature), Some(hash), Some(kind), Some(uuid)] = all else { return Ok(None) };
    let refused = |why: String| refusal(&image.id, &why);
    let signature = STANDARD
        .decode(signature.trim())
        .map_err(|_| refused("The signature data was not properly encoded using base64.".into()))?;
    let hash = HashMethod::parse(hash).ok_or_else(|| refused(format!("Invalid signature hash method: {hash}.")))?;
    let certificate = load(certificates, uuid).map_err(refused)?;
    let key = key(&certificate, kind).map_err(refused)?;
    Ok(Some(Signed { image: image.id.clone(), hash, key, signature }))
}

fn refusal(image: &str, why: &str) -> Fault {
    Fault::bad_request(format!("Signature verification failed for image {image}: {why}"))
}

/// A certificate in DER, by its uuid.
fn load(directory: Option<&Path>, uuid: &str) -> Result<Vec<u8>, String> {
    let directory = directory.ok_or("No certificates are kept here.")?;
    if !id::is_uuid(uuid) {
        return Err(format!("Unable to retrieve certificate with ID: {uuid}."));
    }
    let path = directory.join(format!("{}.pem", uuid.to_ascii_lowercase()));
    let mut text = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(CERTIFICATE_MAX).read_to_end(&mut text))
        .map_err(|_| format!("Unable to retrieve certificate with ID: {uuid}."))?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&text).map_err(|_| "The certificate is no PEM file.".to_owned())?;
    Ok(pem.contents)
}

/// The certificate's key, which must be of the kind that the image names, and the certificate in force.
fn key(der: &[u8], kind: &str) -> Result<Key, String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|_| "The certificate is malformed.")?;
    let (now, validity) = (clock::now_us() / 1_000_000, certificate.validity());
    if now < validity.not_before.timestamp() || now > validity.not_after.timestamp() {
        return Err("The certificate is not valid at this time.".to_owned());
    }
    let public = certificate.public_key();
    let point = public.subject_public_key.data.as_ref();
    let curve = public.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok()).map(|oid| oid.to_id_string());
    let on = |oid: &str| curve.as_deref() == Some(oid);
    let mismatch = || format!("Invalid public key type for signature key type: {kind}.");
    match kind {
        "RSA-PSS" => rsa::PublicKey::from_public_key_der(public.raw).map(Key::Rsa).map_err(|_| mismatch()),
        "ECC_SECP256R1" if on("1.2.840.10045.3.1.7") => {
            p256::ecdsa::VerifyingKey::from_sec1_bytes(point).map(Key::P256).map_err(|_| mismatch())
        }
        "ECC_SECP384R1" if on("1.3.132.0.34") => {
            p384::ecdsa::VerifyingKey::from_sec1_bytes(point).map(Key::P384).map_err(|_| mismatch())
        }
        "ECC_SECP521R1" if on("1.3.132.0.35") => {
            p521::ecdsa::VerifyingKey::from_sec1_bytes(point).map(Key::P521).map_err(|_| mismatch())
        }
        "ECC_SECP256R1" | "ECC_SECP384R1" | "ECC_SECP521R1" => Err(mismatch()),
        "DSA" => Err("DSA signatures are not supported.".to_owned()),
        other => Err(format!("Invalid signature key type: {other}.")),
    }
}

impl Signed {
    /// 400 unless the signature fits the hash of all bytes.
    pub fn verify(&self, hash: &[u8]) -> Result<(), Fault> {
        if self.fits(hash) { Ok(()) } else { Err(refusal(&self.image, "the signature does not fit the data.")) }
    }

    fn fits(&self, hash: &[u8]) -> bool {
        let bytes = self.signature.as_slice();
        match &self.key {
            Key::Rsa(key) => self.fits_rsa(key, hash),
            Key::P256(key) => {
                p256::ecdsa::DerSignature::try_from(bytes).is_ok_and(|s| key.verify_prehash(hash, &s).is_ok())
            }
            Key::P384(key) => {
                p384::ecdsa::DerSignature::try_from(bytes).is_ok_and(|s| key.verify_prehash(hash, &s).is_ok())
            }
            Key::P521(key) => {
                p521::ecdsa::DerSignature::try_from(bytes).is_ok_and(|s| key.verify_prehash(hash, &s).is_ok())
            }
        }
    }

    /// Salts of any length: signers here use the longest that fits, others the hash's.
    fn fits_rsa(&self, key: &rsa::PublicKey, hash: &[u8]) -> bool {
        let Ok(signature) = pss::Signature::try_from(self.signature.as_slice()) else { return false };
        let key = key.clone();
        match self.hash {
            HashMethod::Sha224 => {
                pss::VerifyingKey::<Sha224>::new_with_auto_salt_len(key).verify_prehash(hash, &signature)
            }
            HashMethod::Sha256 => {
                pss::VerifyingKey::<Sha256>::new_with_auto_salt_len(key).verify_prehash(hash, &signature)
            }
            HashMethod::Sha384 => {
                pss::VerifyingKey::<Sha384>::new_with_auto_salt_len(key).verify_prehash(hash, &signature)
            }
            HashMethod::Sha512 => {
                pss::VerifyingKey::<Sha512>::new_with_auto_salt_len(key).verify_prehash(hash, &signature)
            }
        }
        .is_ok()
    }
}

#[cfg(test)]
mod tests;
