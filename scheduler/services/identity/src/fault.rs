//! What goes wrong in identity, in Keystone's words, and its JSON envelope.
use pilvi_kit::Fault;
use serde_json::{Value, json};

/// `{"error": {"code", "title", "message"}}`
pub fn shape(fault: &Fault, _request_id: &str) -> Value {
    if let Some(whole) = fault.extra.get("whole") {
        // A receipt is no error to its reader, and has no such envelope.
        return whole.clone();
    }
    let mut error = json!({"code": fault.code(), "title": fault.title(), "message": fault.message});
    if let Some(identity) = fault.extra.get("identity") {
        error["identity"] = identity.clone();
    }
    json!({ "error": error })
}

/// 404 `Could not find user: X.`
pub fn missing(what: &str, id: &str) -> Fault {
    Fault::not_found(format!("Could not find {what}: {id}."))
}

/// 400 `Expecting to find X in Y. ...`
pub fn expecting(attribute: &str, target: &str) -> Fault {
    Fault::bad_request(format!(
        "Expecting to find {attribute} in {target}. The server could not comply with the request since it is either malformed or otherwise incorrect. The client is assumed to be in error."
    ))
}

/// 409 `Conflict occurred attempting to store user - ...`
pub fn duplicate(what: &str, detail: impl std::fmt::Display) -> Fault {
    Fault::conflict(format!("Conflict occurred attempting to store {what} - {detail}."))
}

/// 409 in terms of the record, where the store says only that a claim is taken.
pub fn named_twice(error: pilvi_store::Error, what: &str, name: &str, domain: Option<&str>) -> Fault {
    match error {
        pilvi_store::Error::Claimed { .. } | pilvi_store::Error::Exists { .. } => match domain {
            Some(domain) => {
                duplicate(what, format_args!("Duplicate entry found with name {name} at domain ID {domain}"))
            }
            None => duplicate(what, format_args!("Duplicate entry found with name {name}")),
        },
        other => other.into(),
    }
}

/// 403 of a resource whose `immutable` option is set.
pub fn immutable(what: &str, id: &str) -> Fault {
    Fault::forbidden(format!(
        "Cannot change or delete {what} {id}: it is immutable; unset the resource option immutable first."
    ))
}

/// 401 with the one sentence that says nothing about why.
pub fn unauthorized() -> Fault {
    Fault::unauthorized()
}

/// 403 without a rule's name.
pub fn forbidden() -> Fault {
    Fault::forbidden("You are not authorized to perform the requested action.")
}
