//! What can go wrong in placement, and how it is spelled:
//! `{"errors": [{"status", "title", "detail", "code", "request_id"}]}`.
//!
//! `code` is a promise to programs: compute retries on `placement.concurrent_update` and on nothing else.
use crate::version;
use pilvi_kit::{Call, Fault};
use serde_json::{Value, json};
use std::borrow::Cow;

pub const UNDEFINED: &str = "placement.undefined_code";
pub const INVENTORY_IN_USE: &str = "placement.inventory.inuse";
pub const CONCURRENT_UPDATE: &str = "placement.concurrent_update";
pub const DUPLICATE_NAME: &str = "placement.duplicate_name";
pub const PROVIDER_IN_USE: &str = "placement.resource_provider.inuse";
pub const PROVIDER_HAS_CHILDREN: &str = "placement.resource_provider.cannot_delete_parent";
pub const PROVIDER_NOT_FOUND: &str = "placement.resource_provider.not_found";
pub const QUERY_DUPLICATE: &str = "placement.query.duplicate_key";
pub const QUERY_BAD_VALUE: &str = "placement.query.bad_value";
pub const QUERY_MISSING: &str = "placement.query.missing_value";

/// Renders a fault.
pub fn shape(fault: &Fault, request_id: &str) -> Value {
    let code = match fault.kind.as_ref() {
        "Conflict" => CONCURRENT_UPDATE,
        kind if kind.starts_with("placement.") => kind,
        _ => UNDEFINED,
    };
    let detail = worded(&fault.message);
    let mut error = json!({"status": fault.code(), "title": fault.title(), "detail": detail, "request_id": request_id});
    let bounds = fault.extra.contains_key("max_version");
    if !bounds && fault.spoken.is_none_or(|v| v >= version::ERROR_CODES) {
        error["code"] = json!(code);
    }
    for bound in ["max_version", "min_version"] {
        if let Some(value) = fault.extra.get(bound) {
            error[bound] = value.clone();
        }
    }
    json!({"errors": [error]})
}

/// What the kit says of bodies, as clients of placement know it.
fn worded(message: &str) -> Cow<'_, str> {
    match message.strip_prefix("Malformed request body: ") {
        Some(rest) => format!("Malformed JSON: {rest}").into(),
        None if message.starts_with("Invalid input for ") => format!("JSON does not validate: {message}").into(),
        None => message.into(),
    }
}

pub fn no_provider(uuid: &str) -> Fault {
    Fault::not_found(format!("No resource provider with uuid {uuid} found"))
}

/// The provider's generation is not the one the caller knew.
pub fn generation_conflict() -> Fault {
    Fault::conflict("Resource provider's generation already changed. Please update the generation and try again.")
        .kind(CONCURRENT_UPDATE)
}

/// 415 unless the body says that it is JSON.
pub fn require_json(call: &Call) -> Result<(), Fault> {
    let kind = call.header("content-type").unwrap_or("None");
    if kind.split(';').next().is_some_and(|k| k.trim().eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    Err(Fault::new(415, format!("The media type {kind} is not supported, use application/json")))
}

/// 406 unless the client takes JSON.
pub fn accepts_json(call: &Call) -> Result<(), Fault> {
    let Some(accept) = call.header("accept").filter(|text| !text.trim().is_empty()) else { return Ok(()) };
    let takes = |part: &str| {
        let mut words = part.split(';').map(str::trim);
        let kind = words.next().unwrap_or_default().to_ascii_lowercase();
        let refused = words.any(|word| word.strip_prefix("q=").is_some_and(|q| q.parse::<f64>() == Ok(0.0)));
        matches!(kind.as_str(), "application/json" | "application/*" | "*/*") && !refused
    };
    if accept.split(',').any(takes) {
        return Ok(());
    }
    Err(Fault::new(406, "Only application/json is provided"))
}

/// 400 for a query key that the route does not know: placement refuses rather than ignores.
pub fn only_keys(call: &Call, known: impl Fn(&str) -> bool) -> Result<(), Fault> {
    match call.query.0.iter().find(|(key, _)| !known(key)) {
        None => Ok(()),
        Some((key, _)) => Err(Fault::bad_request(format!(
            "Invalid query string parameters: Additional properties are not allowed ('{key}' was unexpected)"
        ))),
    }
}
