//! One API call as a handler sees it: authenticated, versioned, its body parsed and checked.
use crate::{
    auth::Caller,
    fault::Fault,
    policy::{Enforcer, Target},
    probe::Probe,
    version::Version,
};
use bytes::Bytes;
use futures::stream::BoxStream;
use http::HeaderMap;
use serde_json::Value;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Who acts and under which request: what operations (`ops`) need of a call, also between services.
#[derive(Debug, Clone)]
pub struct Ctx {
    pub caller: Arc<Caller>,
    pub request_id: String,
}

impl Ctx {
    /// Our own programs at work, for no user.
    pub fn internal() -> Self {
        Ctx { caller: Arc::new(Caller::internal()), request_id: format!("req-{}", crate::id::new()) }
    }
    /// The project acted for; "" when the token has none.
    pub fn project_id(&self) -> &str {
        self.caller.project_id().unwrap_or_default()
    }
    /// "" where the project, or its name, is not known.
    pub fn project_name(&self) -> &str {
        match &self.caller.scope {
            crate::Scope::Project { name, .. } => name,
            _ => "",
        }
    }
    pub fn user_id(&self) -> &str {
        &self.caller.user_id
    }
}

/// The query string, in order, repeated keys kept.
#[derive(Debug, Clone, Default)]
pub struct Query(pub Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Self {
        Query(
            url::form_urlencoded::parse(text.as_bytes())
                .take(256)
                .map(|(k, v)| (k.into_owned(), v.into_owned()))
                .collect(),
        )
    }
    /// The first value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }
    /// `true`, `1`, `yes`, ... ; a key without value counts as true.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, Fault> {
        match self.get(key) {
            None => Ok(None),
            Some(text) => boolean(text)
                .map(Some)
                .ok_or_else(|| Fault::bad_request(format!("Invalid value for query parameter {key}: {text}"))),
        }
    }
}

/// A boolean as OpenStack's clients spell it in query strings and headers.
pub fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "" | "1" | "t" | "true" | "on" | "y" | "yes" => Some(true),
        "0" | "f" | "false" | "off" | "n" | "no" => Some(false),
        _ => None,
    }
}

/// The body of a route that takes bytes: it ends with an error when the client breaks off.
///
/// The lock is never taken; it is there because a stream is not `Sync`, and [`Call`] must be, so that
/// handlers may lend it to the functions they await.
pub struct BodyStream(parking_lot::Mutex<BoxStream<'static, Result<Bytes, std::io::Error>>>);

impl BodyStream {
    pub fn new(stream: BoxStream<'static, Result<Bytes, std::io::Error>>) -> Self {
        BodyStream(parking_lot::Mutex::new(stream))
    }
}

impl futures::Stream for BodyStream {
    type Item = Result<Bytes, std::io::Error>;
    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.get_mut().as_mut().poll_next(cx)
    }
}

pub struct Call {
    pub method: http::Method,
    /// Below the service's prefix, as the client sent it (still percent-encoded).
    pub path: String,
    pub(crate) params: Vec<(&'static str, String)>,
    pub query: Query,
    pub headers: HeaderMap,
    /// The microversion spoken; `Version(0, 0)` where the service has none.
    pub version: Version,
    /// `null` when there was none.
    pub body: Value,
    /// Only on routes that take bytes.
    pub stream: Option<BodyStream>,
    pub ctx: Ctx,
    /// The client's certificate, where the connection showed one that we trust.
    pub certificate: Option<crate::server::PeerCertificate>,
    /// `https://host:port/prefix` of this service as the client reached it, no slash at the end.
    pub base_url: String,
    pub(crate) gate: Arc<Gate>,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Call({} {} {})", self.method, self.path, self.ctx.request_id)
    }
}

/// The rule of the route that was hit, and whether it has been asked.
#[derive(Debug)]
pub(crate) struct Gate {
    pub enforcer: Arc<Enforcer>,
    pub rule: &'static str,
    pub asked: AtomicBool,
    /// Only in tests: writes down what is asked.
    pub probe: Option<Arc<Probe>>,
}

impl Gate {
    fn note(&self, rule: &str, allowed: bool, enforced: bool) -> Result<(), Fault> {
        self.asked.store(true, Ordering::Relaxed);
        match &self.probe {
            Some(probe) => probe.note(self.rule, rule, allowed, enforced),
            None => Ok(()),
        }
    }
}

impl Call {
    /// A segment of the path by its name in the route's pattern, decoded; "" if there is none.
    pub fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(n, _)| *n == name).map_or("", |(_, v)| v.as_str())
    }
    pub fn caller(&self) -> &Caller {
        &self.ctx.caller
    }
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }
    pub fn at_least(&self, major: u16, minor: u16) -> bool {
        self.version >= Version(major, minor)
    }
    /// The member `name` of the body's object.
    pub fn member(&self, name: &str) -> Result<&Value, Fault> {
        self.body.get(name).ok_or_else(|| Fault::bad_request(format!("Invalid input: '{name}' is a required property")))
    }
    /// The target that a rule sees when the handler adds nothing: the caller's own project, user and
    /// domain, and the parameters of the path.
    pub fn target(&self) -> Target {
        let mut target = Target::new();
        let caller = self.caller();
        if let Some(project) = caller.project_id() {
            target.insert("project_id".into(), project.into());
            target.insert("tenant_id".into(), project.into());
        }
        if let Some(domain) = caller.domain_id() {
            target.insert("domain_id".into(), domain.into());
        }
        target.insert("user_id".into(), caller.user_id.clone().into());
        for (name, value) in &self.params {
            target.insert((*name).to_owned(), value.clone().into());
        }
        target
    }
    /// Asks the route's rule about `target`: 403 unless it allows. Routes made with
    /// [`crate::Route::rule_by_handler`] must call this (or [`Call::enforce`] / [`Call::may`]) before they answer.
    pub fn authorize(&self, target: &Target) -> Result<(), Fault> {
        self.enforce(self.gate.rule, target)
    }
    /// Asks another rule of the same service.
    pub fn enforce(&self, rule: &str, target: &Target) -> Result<(), Fault> {
        let answer = self.gate.enforcer.check(rule, target, self.caller());
        self.gate.note(rule, answer.is_ok(), true)?;
        answer
    }
    /// Would `rule` allow it?
    pub fn may(&self, rule: &str, target: &Target) -> bool {
        let allowed = self.gate.enforcer.allows(rule, target, self.caller());
        // Looking on ends no call.
        let _ = self.gate.note(rule, allowed, false);
        allowed
    }
    /// The route's own rule name.
    pub fn rule(&self) -> &'static str {
        self.gate.rule
    }
    /// `base_url` + `path`, for links.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }
}

/// A target with the owner's project: what most rules need.
pub fn owned_by(project_id: &str) -> Target {
    let mut target = Target::new();
    target.insert("project_id".into(), project_id.into());
    target.insert("tenant_id".into(), project_id.into());
    target
}
