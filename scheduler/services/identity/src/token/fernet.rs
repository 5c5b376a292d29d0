//! The Fernet wire format: version, time, IV, AES-128-CBC, HMAC-SHA256, as base64url.
//!
//! ```text
//! 0x80 | seconds: u64 big-endian | IV: 16 | ciphertext: n x 16 | HMAC over all before it: 32
//! ```
//! The HMAC is checked in constant time before anything else of the text is believed.
use aes::Aes128;
use base64::{
    Engine as _,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::URL_SAFE_NO_PAD},
};
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, block_padding::Pkcs7};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

pub const KEY_BYTES: usize = 32;
const VERSION: u8 = 0x80;
const HEADER: usize = 1 + 8 + 16;
const MAC: usize = 32;
/// Longest text that is looked at; sealed credentials may be large.
const TEXT_MAX: usize = 256 * 1024;

/// Clients send tokens with and without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// 16 bytes that sign and 16 that encrypt.
#[derive(Clone)]
pub struct Key([u8; KEY_BYTES]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Key(bytes)
    }
    pub fn generate() -> Self {
        Key(rand::random())
    }
    pub fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
    fn mac(&self, over: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0[..16]).ok()?;
        mac.update(over);
        Some(mac)
    }
    fn encryption(&self) -> &[u8] {
        &self.0[16..]
    }
}

/// Seals `content` with the first key; `seconds` since 1970 stands readable in the header.
/// The text has no padding. An empty ring gives an empty text, which nobody accepts.
pub fn seal(ring: &[Key], content: &[u8], seconds: u64) -> String {
    let Some(key) = ring.first() else { return String::new() };
    let iv: [u8; 16] = rand::random();
    let Ok(cipher) = cbc::Encryptor::<Aes128>::new_from_slices(key.encryption(), &iv) else { return String::new() };
    let mut out = Vec::with_capacity(HEADER + content.len() + 16 + MAC);
    out.push(VERSION);
    out.extend_from_slice(&seconds.to_be_bytes());
    out.extend_from_slice(&iv);
    out.extend(cipher.encrypt_padded_vec::<Pkcs7>(content));
    let Some(mac) = key.mac(&out) else { return String::new() };
    out.extend_from_slice(&mac.finalize().into_bytes());
    URL_SAFE_NO_PAD.encode(out)
}

/// The content and time of `text` if one of the keys signed it.
pub fn open(ring: &[Key], text: &str) -> Option<(Vec<u8>, u64)> {
    if text.len() > TEXT_MAX {
        return None;
    }
    let bytes = LENIENT.decode(text).ok()?;
    if bytes.len() < HEADER + 16 + MAC || bytes[0] != VERSION || !(bytes.len() - HEADER - MAC).is_multiple_of(16) {
        return None;
    }
    let (signed, tag) = bytes.split_at(bytes.len() - MAC);
    // Every key is tried, so that the time taken does not tell which one fits.
    let mut found = None;
    for key in ring {
        if key.mac(signed)?.verify_slice(tag).is_ok() && found.is_none() {
            found = Some(key);
        }
    }
    let key = found?;
    let seconds = u64::from_be_bytes(signed.get(1..9)?.try_into().ok()?);
    let cipher = cbc::Decryptor::<Aes128>::new_from_slices(key.encryption(), signed.get(9..HEADER)?).ok()?;
    let content = cipher.decrypt_padded_vec::<Pkcs7>(signed.get(HEADER..)?).ok()?;
    Some((content, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::URL_SAFE as PADDED;
    use proptest::prelude::*;

    #[test]
    fn reads_the_example_of_the_specification() {
        // github.com/fernet/spec: generate.json
        let key = PADDED.decode("cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=").unwrap();
        let ring = [Key::new(key.try_into().unwrap())];
        let text =
            "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==";
        assert_eq!(open(&ring, text).unwrap(), (b"hello".to_vec(), 499_162_800));
        assert!(open(&ring, text.trim_end_matches('=')).is_some());
    }

    #[test]
    fn other_keys_do_not_open_and_no_keys_seal_nothing() {
        let text = seal(&[Key::generate()], b"x", 1);
        assert!(open(&[Key::generate()], &text).is_none());
        assert!(open(&[], &text).is_none());
        assert_eq!(seal(&[], b"x", 1), "");
    }

    proptest! {
        #[test]
        fn sealed_content_opens(content in proptest::collection::vec(any::<u8>(), 0..300), at in any::<u64>()) {
            let ring = [Key::generate(), Key::generate()];
            prop_assert_eq!(open(&ring, &seal(&ring, &content, at)), Some((content, at)));
        }

        #[test]
        fn any_tampered_byte_is_refused(content in proptest::collection::vec(any::<u8>(), 0..100), place in any::<prop::sample::Index>(), flip in 1u8..=255) {
            let ring = [Key::generate()];
            let mut bytes = URL_SAFE_NO_PAD.decode(seal(&ring, &content, 7)).unwrap();
            let at = place.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(open(&ring, &URL_SAFE_NO_PAD.encode(bytes)).is_none());
        }

        #[test]
        fn any_text_is_refused(text in ".{0,300}") {
            prop_assert!(open(&[Key::generate()], &text).is_none());
        }
    }
}
