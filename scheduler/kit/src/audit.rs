//! Audit: one CADF event per call that could change something, and per refusal.
//!
//! Events go to the log under the target `audit`, as one JSON document; an operator routes them with the
//! log filter. Bodies and tokens are never part of an event.
use crate::{auth::Caller, clock, id};
use serde_json::{Value, json};

/// Is this call worth an event?
pub(crate) fn wanted(method: &http::Method, status: u16) -> bool {
    !matches!(*method, http::Method::GET | http::Method::HEAD | http::Method::OPTIONS) || matches!(status, 401 | 403)
}

fn action(method: &http::Method) -> &'static str {
    match *method {
        http::Method::POST => "create",
        http::Method::PUT | http::Method::PATCH => "update",
        http::Method::DELETE => "delete",
        _ => "read",
    }
}

/// The event, after the Cloud Auditing Data Federation's model.
pub(crate) fn event(
    service: &str,
    method: &http::Method,
    path: &str,
    status: u16,
    caller: &Caller,
    request_id: &str,
    peer: &str,
) -> Value {
    let outcome = if status < 400 { "success" } else { "failure" };
    json!({
        "typeURI": "http://schemas.dmtf.org/cloud/audit/1.0/event",
        "eventType": "activity", "id": id::new(), "eventTime": clock::micros_z(clock::now_us()),
        "action": action(method), "outcome": outcome,
        "reason": {"reasonType": "HTTP", "reasonCode": status.to_string()},
        "initiator": {"typeURI": "service/security/account/user", "id": caller.user_id, "project_id": caller.project_id(),
            "host": {"address": peer}, "request_id": request_id},
        "target": {"typeURI": format!("service/{service}"), "id": service}, "observer": {"typeURI": format!("service/{service}"), "id": service},
        "requestPath": path,
    })
}

pub(crate) fn emit(event: &Value) {
    tracing::info!(target: "audit", "{event}");
}
