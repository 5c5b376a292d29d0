//! Audit: one CADF event per call that could change something, and per refusal.
//!
//! Events go to the operator's sinks ([`crate::notify`]), first of all to the log under the target `audit`, as one JSON
//! document. The target of an event is the resource that was acted on. Bodies and tokens are never part of an event.
use crate::{auth::Caller, clock, id, subject::Subject};
use http::Method;
use serde_json::{Value, json};

/// Could this method change something?
pub(crate) fn changes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Is this call worth an event?
pub(crate) fn wanted(method: &Method, status: u16) -> bool {
    changes(method) || matches!(status, 401 | 403)
}

fn action(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT | Method::PATCH => "update",
        Method::DELETE => "delete",
        _ => "read",
    }
}

/// What the call was, and what it was about.
pub(crate) struct About<'c> {
    pub service: &'static str,
    pub method: &'c Method,
    pub path: &'c str,
    pub status: u16,
    /// `None`: no route was found.
    pub subject: Option<&'c Subject>,
}

/// The event, after the Cloud Auditing Data Federation's model.
pub(crate) fn event(about: &About<'_>, caller: &Caller, request_id: &str, peer: &str) -> Value {
    let service = about.service;
    let outcome = if about.status < 400 { "success" } else { "failure" };
    let known = about.subject.filter(|s| !s.id.is_empty());
    let target = match about.subject {
        Some(subject) => json!({"typeURI": format!("service/{service}/{}", subject.resource.replace('.', "/")),
            "id": known.map_or(service, |s| s.id.as_str()), "path": subject.path}),
        None => json!({"typeURI": format!("service/{service}"), "id": service}),
    };
    json!({
        "typeURI": "http://schemas.dmtf.org/cloud/audit/1.0/event",
        "eventType": "activity", "id": id::new(), "eventTime": clock::micros_z(clock::now_us()),
        "action": about.subject.map_or(action(about.method), |s| s.action.as_str()), "outcome": outcome,
        "reason": {"reasonType": "HTTP", "reasonCode": about.status.to_string()},
        "initiator": {"typeURI": "service/security/account/user", "id": caller.user_id, "project_id": caller.project_id(),
            "host": {"address": peer}, "request_id": request_id},
        "target": target, "observer": {"typeURI": format!("service/{service}"), "id": service},
        "requestPath": about.path,
    })
}
