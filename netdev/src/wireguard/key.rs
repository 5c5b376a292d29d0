//! Keys: X25519, as WireGuard has them. The private half shows in no log.
use crate::wanted::PublicKey;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use curve25519_dalek::montgomery::MontgomeryPoint;
use std::fmt;

/// The private half of a host's key.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey([u8; 32]);

impl PrivateKey {
    /// Of 32 random bytes, which are brought into the shape that every such key has.
    #[must_use]
    pub fn new(mut bytes: [u8; 32]) -> Self {
        bytes[0] &= 248;
        bytes[31] = bytes[31] & 127 | 64;
        Self(bytes)
    }

    /// As `wg genkey` writes it; `None`: it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        STANDARD.decode(text.trim()).ok()?.try_into().ok().map(Self::new)
    }

    /// What [`PrivateKey::parse`] takes: for the file that keeps it, and for nothing else.
    #[must_use]
    pub fn expose(&self) -> String {
        STANDARD.encode(self.0)
    }

    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(MontgomeryPoint::mul_base_clamped(self.0).to_bytes())
    }

    pub(crate) fn bytes(&self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key pairs that `wg genkey` and `wg pubkey` made.
    const PAIRS: [(&str, &str); 2] = [
        ("iBXRoxiL7XASjOcO1N2lfmNMPJ+i62fr+YsiMibzUUk=", "bsnBY1LLaWp6m3uiAJDroLrfzviA/oU/lnTgzR5OznI="),
        ("8CbZh1jz2iW4Pf2UdvII2K0xNL0bakFIS3/xM/wdYXQ=", "pU4zs1vBydOr5ELA8bDNBTRfrnRTE6uriUvNJOpOKRY="),
    ];

    #[test]
    fn the_public_half_is_the_one_that_others_find() {
        for (private, public) in PAIRS {
            let key = PrivateKey::parse(private).unwrap();
            assert_eq!((key.expose().as_str(), key.public().to_string().as_str()), (private, public));
        }
    }

    #[test]
    fn a_private_key_does_not_show() {
        let key = PrivateKey::new([7; 32]);
        assert_eq!(format!("{key:?}"), "***");
        assert_eq!(PrivateKey::parse(&key.expose()), Some(key));
        for bad in ["", "AAAA", "not base64 at all", &"A".repeat(64)] {
            assert_eq!(PrivateKey::parse(bad), None, "{bad}");
        }
    }
}
