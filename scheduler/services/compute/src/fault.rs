//! How compute spells a fault: `{"itemNotFound": {"code": 404, "message": "..."}}`.
use pilvi_kit::Fault;
use serde_json::{Value, json};

fn word(code: u16) -> &'static str {
    match code {
        400 => "badRequest",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "itemNotFound",
        405 => "badMethod",
        409 => "conflictingRequest",
        413 => "overLimit",
        415 => "badMediaType",
        429 => "overLimit",
        501 => "notImplemented",
        503 => "serviceUnavailable",
        _ => "computeFault",
    }
}

/// The envelope. A microversion out of range has one of its own, as clients expect it.
pub fn shape(fault: &Fault, request_id: &str) -> Value {
    if fault.code() == 406 {
        return json!({"errors": [{
            "status": 406, "request_id": request_id, "code": "", "title": "Requested microversion is unsupported",
            "detail": fault.message, "max_version": fault.extra.get("max_version"), "min_version": fault.extra.get("min_version"),
            "links": [{"rel": "help", "href": "http://developer.openstack.org/api-guide/compute/microversions.html"}],
        }], "computeFault": {"code": 406, "message": fault.message}});
    }
    if let Some(rule) = fault.extra.get("rule").and_then(Value::as_str)
        && fault.code() == 403
    {
        return json!({"forbidden": {"code": 403, "message": format!("Policy doesn't allow {rule} to be performed.")}});
    }
    json!({word(fault.code()): {"code": fault.code(), "message": fault.message}})
}

pub fn server_not_found(id: &str) -> Fault {
    Fault::not_found(format!("Instance {id} could not be found."))
}

pub fn over_quota(resource: &str, asked: u64, used: u64, limit: i64) -> Fault {
    Fault::forbidden(format!(
        "Quota exceeded for {resource}: Requested {asked}, but already used {used} of {limit} {resource}"
    ))
}
