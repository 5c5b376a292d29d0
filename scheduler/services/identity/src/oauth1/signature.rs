//! The signature of an OAuth 1 request: reading the header, building what was signed, comparing. Pure.
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha1::Sha1;
use sha2::{Sha256, Sha512};

/// What RFC 3986 calls unreserved stays as it is.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// How far the client's clock may be from ours.
pub(super) const CLOCK_SECONDS: i64 = 600;
/// Parameters of one header.
const PARAMETERS_MAX: usize = 64;
/// Longest nonce, in bytes.
const NONCE_MAX: usize = 128;

/// Why a request is not taken, for the client.
pub(super) type Reason = String;

/// The `oauth_*` parameters of an `Authorization: OAuth ...` header, decoded; `realm` is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header(Vec<(String, String)>);

fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

fn decode(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

impl Header {
    /// `None` when the text is no such header, or names a parameter twice.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once(char::is_whitespace)?;
        if !scheme.eq_ignore_ascii_case("oauth") {
            return None;
        }
        let mut all: Vec<(String, String)> = Vec::new();
        for item in rest.split(',') {
            let (name, value) = item.trim().split_once('=')?;
            let value = value.trim().strip_prefix('"')?.strip_suffix('"')?;
            let (name, value) = (decode(name.trim())?, decode(value)?);
            if name == "realm" {
                continue;
            }
            if all.len() >= PARAMETERS_MAX || all.iter().any(|(n, _)| *n == name) {
                return None;
            }
            all.push((name, value));
        }
        Some(Header(all))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// Version, clock and nonce: what can be said before any secret is known. Gives the nonce's key.
    pub fn check(&self, now_seconds: i64) -> Result<String, Reason> {
        if self.get("oauth_version").is_some_and(|v| v != "1.0") {
            return Err("oauth_version must be 1.0".to_owned());
        }
        let stamp: i64 = self
            .get("oauth_timestamp")
            .and_then(|t| t.parse().ok())
            .ok_or_else(|| "oauth_timestamp must be a number of seconds".to_owned())?;
        if (now_seconds.saturating_sub(stamp)).saturating_abs() > CLOCK_SECONDS {
            return Err(format!("oauth_timestamp is more than {CLOCK_SECONDS} seconds off"));
        }
        let nonce = self.get("oauth_nonce").filter(|n| n.len() <= NONCE_MAX);
        let nonce = nonce.ok_or_else(|| format!("oauth_nonce must have 1 to {NONCE_MAX} characters"))?;
        let consumer = self.get("oauth_consumer_key").unwrap_or_default();
        Ok(format!("{consumer}\n{stamp}\n{nonce}"))
    }
}

/// What is signed beside the header.
#[derive(Debug)]
pub(super) struct Signed<'r> {
    pub method: &'r str,
    /// `https://host:port/path`, without query.
    pub url: &'r str,
    /// Of the query and of a form in the body, decoded.
    pub fields: Vec<(String, String)>,
}

/// Scheme and host in small letters, the scheme's own port left out.
fn base_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (scheme, host) = (scheme.to_ascii_lowercase(), host.to_ascii_lowercase());
    let usual = if scheme == "https" { ":443" } else { ":80" };
    let host = host.strip_suffix(usual).unwrap_or(&host);
    format!("{scheme}://{host}{}", if path.is_empty() { "/" } else { path })
}

fn base_string(header: &Header, signed: &Signed<'_>) -> String {
    let own = header.0.iter().filter(|(name, _)| name != "oauth_signature");
    let mut pairs: Vec<(String, String)> =
        own.chain(&signed.fields).map(|(name, value)| (encode(name), encode(value))).collect();
    pairs.sort();
    let joined: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{}&{}&{}", signed.method.to_ascii_uppercase(), encode(&base_url(signed.url)), encode(&joined.join("&")))
}

fn matches<M: Mac + KeyInit>(key: &str, text: &str, signature: &[u8]) -> bool {
    // Any key length will do, and the comparison takes the same time wherever they differ.
    <M as KeyInit>::new_from_slice(key.as_bytes())
        .is_ok_and(|mac| mac.chain_update(text).verify_slice(signature).is_ok())
}

/// Was the request signed with these secrets?
pub(super) fn verify(header: &Header, signed: &Signed<'_>, consumer_secret: &str, token_secret: &str) -> bool {
    let Some(signature) = header.get("oauth_signature").and_then(|s| STANDARD.decode(s).ok()) else { return false };
    let (key, text) = (format!("{}&{}", encode(consumer_secret), encode(token_secret)), base_string(header, signed));
    match header.get("oauth_signature_method") {
        Some("HMAC-SHA1") => matches::<Hmac<Sha1>>(&key, &text, &signature),
        Some("HMAC-SHA256") => matches::<Hmac<Sha256>>(&key, &text, &signature),
        Some("HMAC-SHA512") => matches::<Hmac<Sha512>>(&key, &text, &signature),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example of RFC 5849, section 3.4.1.1.
    const EXAMPLE: &str = r#"OAuth realm="Example", oauth_consumer_key="9djdj82h48djs9d2", oauth_token="kkk9d7dh3k39sjv7",
        oauth_signature_method="HMAC-SHA1", oauth_timestamp="137131201", oauth_nonce="7d8f3e4a",
        oauth_signature="bYT5CMsGcbgUdFHObYMEfcx6bsw%3D""#;

    fn example() -> Signed<'static> {
        let pairs = [("b5", "=%3D"), ("a3", "a"), ("c@", ""), ("a2", "r b"), ("c2", ""), ("a3", "2 q")];
        Signed {
            method: "post",
            url: "http://EXAMPLE.com:80/request",
            fields: pairs.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec(),
        }
    }

    #[test]
    fn the_base_string_is_that_of_the_standard() {
        let header = Header::parse(EXAMPLE).unwrap();
        assert_eq!(
            base_string(&header, &example()),
            "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3D2%2520q%26a3%3Da%26b5%3D%253D%25253D%26c%2540%3D%26c2%3D%26oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3e4a%26oauth_signature_method%3DHMAC-SHA1%26oauth_timestamp%3D137131201%26oauth_token%3Dkkk9d7dh3k39sjv7"
        );
    }

    #[test]
    fn signatures_hold_for_what_was_signed_alone() {
        for (method, sign) in [
            ("HMAC-SHA1", sign::<Hmac<Sha1>> as fn(&str, &str) -> String),
            ("HMAC-SHA256", sign::<Hmac<Sha256>>),
            ("HMAC-SHA512", sign::<Hmac<Sha512>>),
        ] {
            let text = EXAMPLE.replace("HMAC-SHA1", method);
            let unsigned = Header::parse(&text).unwrap();
            let made = sign("one&two", &base_string(&unsigned, &example()));
            let text = text.replace("bYT5CMsGcbgUdFHObYMEfcx6bsw%3D", &encode(&made));
            let header = Header::parse(&text).unwrap();
            assert!(verify(&header, &example(), "one", "two"), "{method}");
            assert!(!verify(&header, &example(), "one", "three"), "{method}");
            let other = Signed { url: "http://example.com/other", ..example() };
            assert!(!verify(&header, &other, "one", "two"), "{method}");
        }
        let plain = EXAMPLE.replace("HMAC-SHA1", "PLAINTEXT").replace("bYT5CMsGcbgUdFHObYMEfcx6bsw%3D", "one%26two");
        assert!(!verify(&Header::parse(&plain).unwrap(), &example(), "one", "two"), "secrets are not sent in the open");
    }

    fn sign<M: Mac + KeyInit>(key: &str, text: &str) -> String {
        STANDARD
            .encode(<M as KeyInit>::new_from_slice(key.as_bytes()).unwrap().chain_update(text).finalize().into_bytes())
    }

    #[test]
    fn clocks_nonces_and_versions_are_looked_at() {
        let header = Header::parse(EXAMPLE).unwrap();
        assert_eq!(header.check(137_131_201).unwrap(), "9djdj82h48djs9d2\n137131201\n7d8f3e4a");
        assert!(header.check(137_131_201 + 601).is_err());
        assert!(Header::parse(r#"OAuth oauth_timestamp="1""#).unwrap().check(1).is_err());
        assert!(
            Header::parse(r#"OAuth oauth_version="2.0", oauth_timestamp="1", oauth_nonce="n""#)
                .unwrap()
                .check(1)
                .is_err()
        );
        assert_eq!(Header::parse("Bearer abc"), None);
        assert_eq!(Header::parse(r#"OAuth a="1", a="2""#), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,200}", url in "\\PC{0,60}") {
            if let Some(header) = Header::parse(&format!("OAuth {text}")) {
                let _ = header.check(0);
                let signed = Signed { method: "POST", url: &url, fields: Vec::new() };
                prop_assert!(!verify(&header, &signed, "a", "b"));
            }
        }
    }
}
