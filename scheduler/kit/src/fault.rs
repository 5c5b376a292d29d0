//! What goes wrong, once for all services; each renders it in its own JSON envelope.
//!
//! A fault carries a message for the user and, apart from it, a cause for the log: internal errors
//! never show their text to a client.
use crate::version::Version;
use http::StatusCode;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// A refusal or failure, to be rendered by the service that answers.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{status}: {message}{}", cause.as_deref().map(|c| format!(" ({c})")).unwrap_or_default())]
pub struct Fault {
    pub status: StatusCode,
    /// The service's own name for this kind of fault (`NetworkNotFound`), "" for the usual of its status.
    pub kind: Cow<'static, str>,
    /// For the user.
    pub message: String,
    /// For the log alone.
    pub cause: Option<String>,
    pub headers: Vec<(&'static str, String)>,
    /// Further members of the envelope.
    pub extra: Map<String, Value>,
    /// The microversion of the request, where the service has them; set by the kit before the fault is rendered.
    pub spoken: Option<Version>,
}

/// How a service spells a fault: a JSON document from the fault and the request id.
pub type FaultShape = fn(&Fault, &str) -> Value;

impl Fault {
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Fault {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            kind: Cow::Borrowed(""),
            message: message.into(),
            cause: None,
            headers: Vec::new(),
            extra: Map::new(),
            spoken: None,
        }
    }
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }
    pub fn unauthorized() -> Self {
        Self::new(401, "The request you have made requires authentication.")
    }
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, message)
    }
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, message)
    }
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(409, message)
    }
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, message)
    }
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, message)
    }
    /// Our mistake: the client reads a fixed sentence, the log reads the cause.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        let mut fault = Self::new(500, "An unexpected error prevented the server from fulfilling your request.");
        fault.cause = Some(cause.to_string());
        fault
    }
    /// Names the kind of fault as the service's clients know it.
    pub fn kind(mut self, kind: impl Into<Cow<'static, str>>) -> Self {
        self.kind = kind.into();
        self
    }
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(member.to_owned(), value.into());
        self
    }
    pub fn code(&self) -> u16 {
        self.status.as_u16()
    }
    /// The reason phrase, as a title.
    pub fn title(&self) -> &'static str {
        self.status.canonical_reason().unwrap_or("Error")
    }
}

/// `{"error": {"code", "title", "message"}}`: the envelope of a path no service claims.
pub fn plain_shape(fault: &Fault, _request_id: &str) -> Value {
    json!({"error": {"code": fault.code(), "title": fault.title(), "message": fault.message}})
}

/// `{"itemNotFound": {"code": 404, "message": "..."}}`: the envelope of the services that grew out of compute.
pub fn compute_shape(fault: &Fault) -> Value {
    let word = match fault.code() {
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
    };
    let message = match fault.extra.get("rule").and_then(Value::as_str) {
        Some(rule) if fault.code() == 403 => format!("Policy doesn't allow {rule} to be performed."),
        _ => fault.message.clone(),
    };
    json!({word: {"code": fault.code(), "message": message}})
}

impl From<pilvi_store::Error> for Fault {
    fn from(error: pilvi_store::Error) -> Self {
        use pilvi_store::Error as E;
        match &error {
            E::Conflict { .. } => {
                Fault::conflict("The resource was changed by another request; please try again.").kind("Conflict")
            }
            E::Exists { .. } | E::Claimed { .. } => Fault::conflict("The resource exists already."),
            E::BadMarker { .. } => Fault::bad_request("The marker could not be found."),
            E::Invalid { .. } | E::BadQuery { .. } => Fault::bad_request("A value of the request cannot be kept."),
            E::Contention { .. } => Fault::unavailable("Too many requests change the same thing; please try again."),
            E::UnknownColumn { .. } => Fault::bad_request("Unknown sort or filter key."),
            _ => Fault::internal(error),
        }
    }
}
