//! A key as name servers keep it in files (`tsig-keygen` writes such): `key "NAME" { algorithm hmac-sha256; secret "..."; };`
use base64::{Engine, engine::general_purpose::STANDARD};
use hickory_proto::rr::{Name, TSigner, rdata::tsig::TsigAlgorithm};

/// Seconds that the two clocks may differ.
const FUDGE: u16 = 300;
/// Bytes of a file.
pub const FILE_MAX: u64 = 64 << 10;

/// A key that is not printed.
pub struct Key(pub(crate) TSigner);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({}, ..)", self.0.signer_name())
    }
}

/// Words, quoted or not, and the marks between them; comments of all three kinds are left out.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, length) = if rest.starts_with('#') || rest.starts_with("//") {
            (None, rest.find('\n').unwrap_or(rest.len()))
        } else if rest.starts_with("/*") {
            (None, rest.find("*/").map_or(rest.len(), |end| end + 2))
        } else if first == '"' {
            let end = rest[1..].find('"').map_or(rest.len(), |end| end + 1);
            (Some(&rest[1..end]), (end + 1).min(rest.len()))
        } else if "{};".contains(first) {
            (Some(&rest[..1]), 1)
        } else {
            let end = rest.find(|c: char| c.is_whitespace() || "{};\"".contains(c)).unwrap_or(rest.len());
            (Some(&rest[..end]), end)
        };
        words.extend(word.map(str::to_owned));
        rest = rest[length..].trim_start();
    }
    words
}

impl Key {
    /// The first key of a file's text. What is wrong is told without the secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words = words(text);
        let mut words = words.iter().map(String::as_str);
        if words.next() != Some("key") {
            return Err("it does not begin with a key (as tsig-keygen writes it)".into());
        }
        let name = words.next().unwrap_or_default();
        let name = Name::from_ascii(name).map_err(|_| "the key's name is none".to_owned())?;
        if name.num_labels() == 0 || words.next() != Some("{") {
            return Err("the key has no name, or nothing follows it".into());
        }
        let (mut algorithm, mut secret) = (None, None);
        while let Some(word) = words.next().filter(|w| *w != "}") {
            let value = words.next().unwrap_or_default();
            match word {
                "algorithm" => algorithm = Some(value),
                "secret" => secret = Some(value),
                _ => return Err("the key has a statement that is not known".into()),
            }
            if words.next() != Some(";") {
                return Err(format!("';' is missing after the {word}"));
            }
        }
        let algorithm = match algorithm.map(str::to_ascii_lowercase).as_deref() {
            Some("hmac-sha256") => TsigAlgorithm::HmacSha256,
            Some("hmac-sha384") => TsigAlgorithm::HmacSha384,
            Some("hmac-sha512") => TsigAlgorithm::HmacSha512,
            _ => return Err("the algorithm must be hmac-sha256, hmac-sha384 or hmac-sha512".into()),
        };
        let secret = secret.and_then(|s| STANDARD.decode(s).ok()).filter(|s| !s.is_empty());
        let secret = secret.ok_or_else(|| "the secret must be base64".to_owned())?;
        TSigner::new(secret, algorithm, name, FUDGE).map(Key).map_err(|_| "the key cannot be used".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_are_read_as_name_servers_write_them_and_not_shown() {
        let text = "// made by hand\nkey \"cloud.\" { # comment\n\talgorithm HMAC-SHA512; /* which */\n\tsecret \"c2VjcmV0\";\n};\n";
        let key = Key::parse(text).unwrap();
        assert_eq!(format!("{key:?}"), "Key(cloud., ..)");
        assert_eq!((key.0.key(), key.0.algorithm()), (b"secret".as_slice(), &TsigAlgorithm::HmacSha512));
        assert!(Key::parse("key cloud{algorithm hmac-sha256;secret c2VjcmV0;};").is_ok());
        for bad in [
            "",
            "key",
            "key \"\" { algorithm hmac-sha256; secret \"c2VjcmV0\"; };",
            "key cloud { algorithm hmac-md5; secret \"c2VjcmV0\"; };",
            "key cloud { algorithm hmac-sha256; secret \"!\"; };",
            "key cloud { algorithm hmac-sha256; };",
            "key cloud { algorithm hmac-sha256 secret \"c2VjcmV0\"; };",
            "key cloud { algorithm hmac-sha256; secret \"\"; };",
            "zone x { };",
        ] {
            let why = Key::parse(bad).unwrap_err();
            assert!(!why.contains("c2VjcmV0"), "{why}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_fall_over(text in ".{0,200}", quoted in "key \"[^;]{0,20}\"[{};/*#a-z\" é]{0,60}") {
            let _ = (Key::parse(&text), Key::parse(&quoted));
        }
    }
}
