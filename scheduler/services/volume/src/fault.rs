//! What can go wrong with volumes, and how Cinder spells it: `{"badRequest": {"code": 400, "message": "..."}}`.
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
        413 | 429 => "overLimit",
        415 => "badMediaType",
        501 => "notImplemented",
        503 => "serviceUnavailable",
        _ => "computeFault",
    }
}

/// The envelope.
pub fn shape(fault: &Fault, _request_id: &str) -> Value {
    if let Some(rule) = fault.extra.get("rule").and_then(Value::as_str)
        && fault.code() == 403
    {
        return json!({"forbidden": {"code": 403, "message": format!("Policy doesn't allow {rule} to be performed.")}});
    }
    let mut told = json!({"code": fault.code(), "message": fault.message});
    if fault.code() == 413 {
        told["retryAfter"] = json!("0");
    }
    json!({word(fault.code()): told})
}

pub fn no_volume(id: &str) -> Fault {
    Fault::not_found(format!("Volume {id} could not be found.")).kind("VolumeNotFound")
}

pub fn no_snapshot(id: &str) -> Fault {
    Fault::not_found(format!("Snapshot {id} could not be found.")).kind("SnapshotNotFound")
}

pub fn no_attachment(id: &str) -> Fault {
    let text = format!("Volume attachment could not be found with filter: attachment_id = {id}.");
    Fault::not_found(text).kind("VolumeAttachmentNotFound")
}

pub fn no_type(id: &str) -> Fault {
    Fault::not_found(format!("Volume type {id} could not be found.")).kind("VolumeTypeNotFound")
}

pub fn invalid_volume(reason: impl std::fmt::Display) -> Fault {
    Fault::bad_request(format!("Invalid volume: {reason}")).kind("InvalidVolume")
}

pub fn invalid_snapshot(reason: impl std::fmt::Display) -> Fault {
    Fault::bad_request(format!("Invalid snapshot: {reason}")).kind("InvalidSnapshot")
}

pub fn invalid_input(reason: impl std::fmt::Display) -> Fault {
    Fault::bad_request(format!("Invalid input received: {reason}")).kind("InvalidInput")
}

/// A status that stands in the way, as a sentence.
pub fn wrong_status(what: &str, id: &str, wanted: &str, to: &str, now: &str) -> Fault {
    let text = format!("{what} {id} status must be {wanted} to {to}, but the current status is {now}.");
    if what == "Snapshot" { invalid_snapshot(text) } else { invalid_volume(text) }
}
