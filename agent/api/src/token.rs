//! How a join token is spelled: `pilvi1.<secret>.<pin>`.
//!
//! `secret` is 16 to 64 random bytes in base64url without padding: what [`crate::v1::JoinRequest`]
//! carries in `token`, and what the scheduler keeps a hash of. `pin` is the SHA-256 of the CA
//! certificate's DER in lower-case hex: with it the agent knows, at first contact, that it talks
//! to the scheduler that made the token.
use std::fmt;

const PREFIX: &str = "pilvi1";

/// A parsed join token. `Debug` hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The one-time secret as it is spelled, base64url without padding.
    pub secret: String,
    /// SHA-256 of the CA certificate in DER.
    pub pin: [u8; 32],
}

/// Why a string is no join token. The text never repeats the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadToken(&'static str);

impl fmt::Display for BadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a join token: {}", self.0)
    }
}
impl std::error::Error for BadToken {}

impl JoinToken {
    /// Parses `pilvi1.<secret>.<pin>`.
    ///
    /// # Errors
    /// [`BadToken`] says which part is wrong.
    pub fn parse(text: &str) -> Result<Self, BadToken> {
        let mut parts = text.trim().split('.');
        let (Some(PREFIX), Some(secret), Some(pin), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(BadToken("it must look like pilvi1.<secret>.<pin>"));
        };
        let spelled = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        if !(22..=86).contains(&secret.len()) || !secret.bytes().all(spelled) {
            return Err(BadToken("its secret is not 16 to 64 bytes of base64url"));
        }
        let pin = unhex(pin).ok_or(BadToken("its pin is not 64 hexadecimal digits"))?;
        Ok(Self { secret: secret.to_owned(), pin })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}.{}.", self.secret)?;
        self.pin.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(..)")
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let text = text.as_bytes();
    if text.len() != 64 {
        return None;
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |c: u8| (c as char).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let token = JoinToken { secret: "a".repeat(43), pin: [0xa5; 32] };
        assert_eq!(JoinToken::parse(&token.to_string()).unwrap(), token);
        assert!(!format!("{token:?}").contains("aaa"));
    }

    #[test]
    fn refuses_what_is_not_a_token() {
        let pin = "0".repeat(64);
        for bad in [
            String::new(),
            "pilvi1".into(),
            format!("pilvi2.{}.{pin}", "a".repeat(43)),
            format!("pilvi1.{}.{pin}", "a".repeat(3)),
            format!("pilvi1.{}.{pin}", "é".repeat(22)),
            format!("pilvi1.{}.{pin}.x", "a".repeat(43)),
            format!("pilvi1.{}.{}", "a".repeat(43), "g".repeat(64)),
            format!("pilvi1.{}.{}", "a".repeat(43), "é".repeat(32)),
        ] {
            assert!(JoinToken::parse(&bad).is_err(), "{bad}");
        }
    }
}
