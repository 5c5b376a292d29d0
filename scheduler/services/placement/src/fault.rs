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

/// What the kit says of bodies and versions, as clients of placement know it.
fn worded(message: &str) -> Cow<'_, str> {
    if let Some((version, _)) =
        message.strip_prefix("Version ").and_then(|rest| rest.split_once(" is not supported by the API"))
    {
        return format!("Unacceptable version header: {version}").into();
    }
    if let Some((text, _)) =
        message.strip_prefix("API Version String ").and_then(|rest| rest.split_once(" is of invalid format"))
    {
        return format!("invalid version string: {text}").into();
    }
    match message.strip_prefix("Malformed request body: ") {
        Some(rest) => format!("Malformed JSON: {rest}").into(),
        None => match message.strip_prefix("Invalid input for ").and_then(|rest| rest.split_once(". ")) {
            Some((place, why)) => format!("JSON does not validate: {} ({place})", why.replace('"', "'")).into(),
            None => message.into(),
        },
    }
}

pub fn no_provider(uuid: &str) -> Fault {
    Fault::not_found(format!("No resource provider with uuid {uuid} found"))
}

/// The provider's generation is not the one the caller knew.
pub fn generation_conflict() -> Fault {
    let text = "resource provider generation conflict: Resource provider's generation already changed. \
                Please update the generation and try again.";
    Fault::conflict(text).kind(CONCURRENT_UPDATE)
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
