//! What can go wrong with volumes, and how Cinder spells it: `{"badRequest": {"code": 400, "message": "..."}}`.
use pilvi_kit::{Fault, fault::compute_shape};
use serde_json::{Value, json};

/// The envelope.
pub fn shape(fault: &Fault, _request_id: &str) -> Value {
    let mut told = compute_shape(fault);
    if fault.code() == 413 {
        told["overLimit"]["retryAfter"] = json!("0");
    }
    told
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
