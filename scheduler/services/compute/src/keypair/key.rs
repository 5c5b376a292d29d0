//! Public keys as text: checked, fingerprinted, and (before microversion 2.92) made.
use base64::{Engine, engine::general_purpose::STANDARD};
use md5::{Digest, Md5};
use pilvi_kit::Fault;

/// Bytes of a public key that a client may send.
const KEY_MAX: usize = 16 * 1024;

fn hex_pairs(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

/// MD5 of the key's blob, in pairs: what OpenSSH used to print and Nova still does.
pub fn ssh_fingerprint(text: &str) -> Result<String, Fault> {
    let bad = || Fault::bad_request("Keypair data is invalid: failed to generate fingerprint");
    if text.len() > KEY_MAX {
        return Err(bad());
    }
    let mut words = text.split_whitespace();
    let (kind, blob) = (words.next().ok_or_else(bad)?, words.next().ok_or_else(bad)?);
    let blob = STANDARD.decode(blob).map_err(|_| bad())?;
    // The blob begins with the length and the text of its own kind.
    let length = blob.get(..4).and_then(|l| l.try_into().ok()).map(u32::from_be_bytes).ok_or_else(bad)?;
    let named = blob.get(4..4 + usize::try_from(length).map_err(|_| bad())?).ok_or_else(bad)?;
    if named != kind.as_bytes() {
        return Err(bad());
    }
    Ok(hex_pairs(&Md5::digest(&blob)))
}

/// SHA-1 of a certificate's DER, in pairs, as X.509 tools print it.
pub fn x509_fingerprint(text: &str) -> Result<String, Fault> {
    let bad = || Fault::bad_request("Keypair data is invalid: failed to generate X509 fingerprint");
    if text.len() > KEY_MAX {
        return Err(bad());
    }
    let body: String = text.lines().filter(|l| !l.starts_with("-----")).collect();
    let der = STANDARD.decode(body.trim()).map_err(|_| bad())?;
    if der.first() != Some(&0x30) {
        return Err(bad());
    }
    Ok(hex_pairs(&<sha1::Sha1 as sha1::Digest>::digest(&der)))
}

/// A new pair: (public key as text, private key as text).
pub fn generate(comment: &str) -> Result<(String, String), Fault> {
    let mut seed = [0u8; 32];
    rand::RngCore::fill_bytes(&mut rand::rng(), &mut seed);
    let pair = ssh_key::private::Ed25519Keypair::from_seed(&seed);
    let key = ssh_key::PrivateKey::new(pair.into(), comment).map_err(Fault::internal)?;
    let public = key.public_key().to_openssh().map_err(Fault::internal)?;
    let private = key.to_openssh(ssh_key::LineEnding::LF).map_err(Fault::internal)?;
    Ok((public, private.to_string()))
}

/// A new certificate and its private key, for guests that log in by X.509: (certificate, key), both PEM.
pub fn generate_x509(user_id: &str) -> Result<(String, String), Fault> {
    let key = rcgen::KeyPair::generate().map_err(Fault::internal)?;
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).map_err(Fault::internal)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, user_id);
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.self_signed(&key).map_err(Fault::internal)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_those_of_openssh() {
        // `ssh-keygen -l -E md5` of this key prints the same.
        let (public, private) = generate("t").unwrap();
        assert!(public.starts_with("ssh-ed25519 ") && private.contains("OPENSSH PRIVATE KEY"));
        assert_eq!(ssh_fingerprint(&public).unwrap().len(), 47);
        assert!(ssh_fingerprint("ssh-rsa JUNK").is_err());
        assert!(ssh_fingerprint("ssh-rsa").is_err());
        let ed = public.replace("ssh-ed25519 ", "ssh-rsa ");
        assert!(ssh_fingerprint(&ed).is_err(), "the blob says another kind");
    }
}
