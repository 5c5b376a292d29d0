//! Identifiers: random UUIDs, written with dashes (most services) or without (identity).
use uuid::Uuid;

/// A new random id, `8-4-4-4-12`.
pub fn new() -> String {
    Uuid::new_v4().to_string()
}

/// A new random id of 32 hex digits.
pub fn hex() -> String {
    Uuid::new_v4().simple().to_string()
}

/// Is `text` a UUID in either spelling?
pub fn is_uuid(text: &str) -> bool {
    matches!(text.len(), 32 | 36) && Uuid::try_parse(text).is_ok()
}
