//! JSON bodies: parsed with limits, checked against a schema before a handler sees them.
use crate::fault::Fault;
use jsonschema::Validator;
use serde_json::Value;
use std::sync::LazyLock;

/// Bytes of a JSON body that a route takes unless it says otherwise.
pub const JSON_LIMIT: usize = 1024 * 1024;

type Compiled = Result<Validator, String>;

/// A JSON schema (draft 4), compiled at first use.
pub struct Schema {
    document: LazyLock<Value>,
    compiled: LazyLock<Compiled, Box<dyn FnOnce() -> Compiled + Send>>,
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Schema")
    }
}

impl Schema {
    /// From a function that returns the document, so that tables of schemas can be `static`:
    /// `static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| json!({..})));`
    pub fn new(document: fn() -> Value) -> Self {
        let compile = move || {
            jsonschema::draft4::options().should_validate_formats(true).build(&document()).map_err(|e| e.to_string())
        };
        Schema { document: LazyLock::new(document), compiled: LazyLock::new(Box::new(compile)) }
    }

    pub fn document(&self) -> &Value {
        &self.document
    }

    /// Is the schema itself well formed? Asked once, when a service is mounted.
    pub fn compile(&self) -> Result<(), String> {
        self.compiled.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    /// 400 with the path of the first offending member.
    pub fn check(&self, body: &Value) -> Result<(), Fault> {
        let validator = self.compiled.as_ref().map_err(Fault::internal)?;
        match validator.iter_errors(body).next() {
            None => Ok(()),
            Some(error) => {
                let at = error.instance_path().to_string();
                let at = at.trim_start_matches('/').to_owned();
                let mut text = error.to_string();
                if text.len() > 512 {
                    let cut = (0..=512).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
                    text.truncate(cut);
                    text.push_str("...");
                }
                let place = if at.is_empty() { "the request body".to_owned() } else { format!("field/attribute {at}") };
                Err(Fault::bad_request(format!("Invalid input for {place}. {text}")))
            }
        }
    }
}

/// What a body says of itself must be JSON: 415 otherwise, and 400 when it says nothing.
pub fn require_json(kind: Option<&str>, length: Option<&str>) -> Result<(), Fault> {
    if kind.is_none() && length.is_some_and(|n| n.parse::<u64>().is_ok_and(|n| n > 0)) {
        return Err(Fault::bad_request("content-type header required when content-length > 0"));
    }
    let kind = kind.unwrap_or("None");
    if kind.split(';').next().is_some_and(|k| k.trim().eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    Err(Fault::new(415, format!("The media type {kind} is not supported, use application/json")))
}

/// Parses a JSON body: an empty one is `null`.
pub fn parse(bytes: &[u8]) -> Result<Value, Fault> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    serde_json::from_slice(bytes).map_err(|e| {
        Fault::bad_request(format!("Malformed request body: invalid JSON at line {} column {}.", e.line(), e.column()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    static NAMED: LazyLock<Schema> = LazyLock::new(|| {
        Schema::new(|| {
            json!({"type": "object", "required": ["name"], "additionalProperties": false,
            "properties": {"name": {"type": "string", "maxLength": 4}}})
        })
    });

    #[test]
    fn names_the_offending_member() {
        assert!(NAMED.check(&json!({"name": "four"})).is_ok());
        assert!(NAMED.check(&json!({"name": "fiver"})).unwrap_err().message.contains("name"));
        assert_eq!(NAMED.check(&json!({"name": "a", "x": 1})).unwrap_err().code(), 400);
        assert_eq!(NAMED.check(&Value::Null).unwrap_err().code(), 400);
    }

    #[test]
    fn deep_nesting_is_refused_not_overflowed() {
        let deep = "[".repeat(100_000);
        assert_eq!(parse(deep.as_bytes()).unwrap_err().code(), 400);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            if let Ok(value) = parse(&bytes) { let _ = NAMED.check(&value); }
        }
    }
}
