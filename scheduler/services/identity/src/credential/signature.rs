//! Signatures of EC2 and S3 requests: which one the secret key would have made. Pure.
//!
//! ```text
//!  0, 1  HMAC-SHA1 over action and time, or over all parameters      base64
//!  2     HMAC-SHA256 over verb, host, path, sorted query             base64
//!  4     HMAC-SHA256 by a key of day, region and service, over the   hex
//!        hash of the canonical request
//! ```
//! A request that is not complete has no signature: `None`.
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// Everything but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const V4: &str = "AWS4-HMAC-SHA256";
const TERMINATOR: &str = "aws4_request";
/// What S3 string-to-signs may be for.
const S3_SERVICES: [&str; 3] = ["s3", "iam", "sts"];

/// A signed request as the service that received it describes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'r> {
    pub params: &'r Map<String, Value>,
    pub headers: &'r Map<String, Value>,
    pub verb: &'r str,
    pub host: &'r str,
    pub path: &'r str,
    pub body_hash: &'r str,
}

fn sha1_base64(key: &[u8], parts: &[&[u8]]) -> Option<String> {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).ok()?;
    parts.iter().for_each(|part| mac.update(part));
    Some(STANDARD.encode(mac.finalize().into_bytes()))
}

fn sha256(key: &[u8], over: &[u8]) -> Option<Vec<u8>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(over);
    Some(mac.finalize().into_bytes().to_vec())
}

fn shown(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

fn named<'m>(map: &'m Map<String, Value>, name: &str) -> Option<&'m str> {
    map.iter().find(|(key, _)| key.trim().eq_ignore_ascii_case(name)).and_then(|(_, value)| value.as_str())
}

/// The key of version 4 for one day, region and service.
fn derived(secret: &str, day: &str, region: &str, service: &str) -> Option<Vec<u8>> {
    let mut key = sha256(format!("AWS4{secret}").as_bytes(), day.as_bytes())?;
    for part in [region, service, TERMINATOR] {
        key = sha256(&key, part.as_bytes())?;
    }
    Some(key)
}

impl Request<'_> {
    /// The signature that `secret` makes of this request.
    pub fn signature(&self, secret: &str) -> Option<String> {
        let key = secret.as_bytes();
        match self.params.get("SignatureVersion").map(shown).as_deref() {
            Some("0") => {
                let (action, time) = (self.params.get("Action")?.as_str()?, self.params.get("Timestamp")?.as_str()?);
                sha1_base64(key, &[action.as_bytes(), time.as_bytes()])
            }
            Some("1") => {
                let mut params: Vec<(&String, Cow<'_, str>)> = self.params.iter().map(|(k, v)| (k, shown(v))).collect();
                params.sort_by_key(|(name, _)| name.to_lowercase());
                let parts: Vec<&[u8]> = params.iter().flat_map(|(k, v)| [k.as_bytes(), v.as_bytes()]).collect();
                sha1_base64(key, &parts)
            }
            Some("2") => {
                let mut params = self.params.clone();
                params.insert("SignatureMethod".into(), "HmacSHA256".into());
                let text = format!("{}\n{}\n{}\n{}", self.verb, self.host, self.path, query(&params));
                Some(STANDARD.encode(sha256(key, text.as_bytes())?))
            }
            Some(_) => None,
            None => self.version_4(secret),
        }
    }

    /// When the request was signed, as its signer wrote it.
    pub fn time(&self) -> Option<&str> {
        let plain = self.params.get("Timestamp").and_then(Value::as_str);
        plain.or_else(|| named(self.headers, "x-amz-date")).or_else(|| named(self.params, "x-amz-date"))
    }

    /// A part of the `Authorization` header, or the parameter that stands for it.
    fn part(&self, name: &str) -> Option<&str> {
        if let Some(header) = named(self.headers, "authorization") {
            let (_, after) = header.split_once(&format!("{name}="))?;
            return after.split(',').next().map(str::trim);
        }
        self.params.get(&format!("X-Amz-{name}")).and_then(Value::as_str)
    }

    fn is_version_4(&self) -> bool {
        named(self.headers, "authorization").is_some_and(|a| a.starts_with(V4))
            || self.params.get("X-Amz-Algorithm").and_then(Value::as_str) == Some(V4)
    }

    fn version_4(&self, secret: &str) -> Option<String> {
        if !self.is_version_4() {
            return None;
        }
        let signed = self.part("SignedHeaders")?;
        let line = |name: &str| named(self.headers, name).map(|value| format!("{name}:{}\n", value.trim()));
        let headers: String = signed.split(';').filter_map(line).collect();
        // The parameters of a POST are its body.
        let query = if self.verb.eq_ignore_ascii_case("post") { String::new() } else { query(self.params) };
        let canonical =
            format!("{}\n{}\n{query}\n{headers}\n{signed}\n{}", self.verb.to_uppercase(), self.path, self.body_hash);
        let credential: Vec<&str> = self.part("Credential")?.split('/').collect();
        let [_, day, region, service, end] = credential.as_slice() else { return None };
        let time = named(self.headers, "x-amz-date").or_else(|| named(self.params, "x-amz-date"))?;
        if !time.starts_with(day) {
            return None;
        }
        let hash = hex::encode(Sha256::digest(canonical.as_bytes()));
        let text = format!("{V4}\n{time}\n{day}/{region}/{service}/{end}\n{hash}");
        Some(hex::encode(sha256(&derived(secret, day, region, service)?, text.as_bytes())?))
    }
}

/// The query string in its one canonical form, without a signature in it.
fn query(params: &Map<String, Value>) -> String {
    let mut pairs: Vec<(&String, Cow<'_, str>)> = params.iter().map(|(k, v)| (k, shown(v))).collect();
    pairs.sort();
    let quote = |text: &str| utf8_percent_encode(text, RESERVED).to_string();
    let pairs: Vec<String> = pairs.iter().map(|(k, v)| format!("{}={}", quote(k), quote(v))).collect();
    pairs.join("&")
}

/// The signature that `secret` makes of what an S3 client signed.
pub(super) fn s3(secret: &str, string_to_sign: &[u8]) -> Option<String> {
    if !string_to_sign.starts_with(b"AWS4") {
        return sha1_base64(secret.as_bytes(), &[string_to_sign]);
    }
    let text = std::str::from_utf8(string_to_sign).ok()?;
    let lines: Vec<&str> = text.split('\n').collect();
    let [V4, _time, scope, _hash] = lines.as_slice() else { return None };
    let scope: Vec<&str> = scope.split('/').collect();
    let [day, region, service, TERMINATOR] = scope.as_slice() else { return None };
    if !S3_SERVICES.contains(service) {
        return None;
    }
    Some(hex::encode(sha256(&derived(secret, day, region, service)?, string_to_sign)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SECRET: &str = "66e9d9a7a0b34a5ab0aa6c0fe7e9c2e1";

    /// What `keystoneclient.contrib.ec2.utils.Ec2Signer` gives for the same requests.
    #[test]
    fn signatures_are_those_of_keystones_client() {
        let cases = serde_json::from_str::<Value>(include_str!("signature_cases.json")).unwrap();
        for case in cases.as_array().unwrap() {
            let map = |name: &str| case["request"][name].as_object().unwrap();
            let text = |name: &str| case["request"][name].as_str().unwrap();
            let request = Request {
                params: map("params"),
                headers: map("headers"),
                verb: text("verb"),
                host: text("host"),
                path: text("path"),
                body_hash: text("body_hash"),
            };
            assert_eq!(request.signature(SECRET).as_deref(), case["signature"].as_str(), "{case}");
        }
    }

    /// The worked example of Amazon's documentation of signature version 4.
    #[test]
    fn version_4_is_amazons() {
        let (params, headers) = (
            json!({"Action": "ListUsers", "Version": "2010-05-08"}),
            json!({"Host": "iam.amazonaws.com", "Content-Type": "application/x-www-form-urlencoded; charset=utf-8", "X-Amz-Date": "20150830T123600Z",
                "Authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature=x"}),
        );
        let request = Request {
            params: params.as_object().unwrap(),
            headers: headers.as_object().unwrap(),
            verb: "GET",
            host: "iam.amazonaws.com",
            path: "/",
            body_hash: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        };
        let expected = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7";
        assert_eq!(request.signature("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY").as_deref(), Some(expected));
    }

    #[test]
    fn what_an_s3_client_signed() {
        let v1 = b"GET\n\n\nTue, 27 Mar 2007 19:36:42 +0000\n/awsexamplebucket1/photos/puppy.jpg";
        let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
        assert_eq!(s3(secret, v1).as_deref(), Some("qgk2+6Sv9/oM7G3qLEjTH1a1l1g="));
        let v4 = b"AWS4-HMAC-SHA256\n20130524T000000Z\n20130524/us-east-1/s3/aws4_request\n7344ae5b7ee6c3e7e6b0fe0640412a37625d1fbfff95c48bbb2dc43964946972";
        let expected = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        assert_eq!(s3(secret, v4).as_deref(), Some(expected));
        for bad in [
            &b"AWS4-HMAC-SHA256\n20130524T000000Z\n20130524/us-east-1/ec2/aws4_request\nx"[..],
            b"AWS4-HMAC-SHA256\nx\n20130524/us-east-1/s3\nx",
            b"AWS4",
            b"AWS4-HMAC-SHA256\n\xff\na/b/s3/aws4_request\nx",
        ] {
            assert!(s3(secret, bad).is_none());
        }
    }

    #[test]
    fn what_is_not_complete_has_no_signature() {
        let empty = Map::new();
        for (params, headers) in [
            (json!({}), json!({})),
            (json!({"SignatureVersion": "0"}), json!({})),
            (json!({"SignatureVersion": "9"}), json!({})),
            (json!({}), json!({"Authorization": "AWS4-HMAC-SHA256"})),
            (json!({}), json!({"Authorization": "AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=host"})),
            (json!({"X-Amz-Algorithm": "AWS4-HMAC-SHA256"}), json!({})),
        ] {
            let request = Request {
                params: params.as_object().unwrap_or(&empty),
                headers: headers.as_object().unwrap_or(&empty),
                verb: "GET",
                host: "h",
                path: "/",
                body_hash: "",
            };
            assert_eq!(request.signature("s"), None, "{params} {headers}");
        }
    }
}
