//! One request through the kit, from the matched service to the finished answer.
use crate::{
    audit,
    auth::{self, Caller},
    body,
    call::{BodyStream, Call, Ctx, Gate, Query},
    fault::Fault,
    metric::Metrics,
    notify::{self, Kind, Outlet},
    probe::Probe,
    response::{Body, Response},
    route::{Asked, Found, Route},
    server::PeerCertificate,
    service::Mounted,
    subject::Subject,
    throttle::Throttle,
    token,
    trace::{self, Trace},
    version::Version,
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tracing::Instrument;

/// Time for a handler that takes and gives JSON.
const HANDLER_SECONDS: u64 = 60;
/// Time in which a JSON body must have arrived.
const BODY_SECONDS: u64 = 30;

/// Where a request came from.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Address of the client.
    pub peer: std::net::SocketAddr,
    /// `https` or `http`
    pub scheme: &'static str,
}

/// What all requests of a process share.
#[derive(Debug, Default)]
pub struct Front {
    pub metrics: Arc<Metrics>,
    /// Where audit events and notifications go.
    pub outlet: Outlet,
    pub throttle: Throttle,
}

/// What became known of a request while it was answered.
struct Told {
    caller: Arc<Caller>,
    version: Option<Version>,
    /// The route, its path's values, and the verb that the body named.
    matched: Option<(usize, Vec<(&'static str, String)>)>,
    verb: Option<String>,
}

/// Answers one request to `service`; `path` is below its prefix.
pub(crate) async fn dispatch(
    service: &Mounted,
    front: &Front,
    arrival: &Arrival,
    request: axum::extract::Request,
    path: &str,
) -> axum::response::Response {
    let started = Instant::now();
    let (method, request_id) = (request.method().clone(), format!("req-{}", crate::id::new()));
    let trace = Trace::of(request.headers());
    let span = tracing::info_span!("request", request_id, trace_id = trace.trace_id);
    let mut told = Told {
        caller: Arc::new(Caller::anonymous()),
        version: service.versions.as_ref().map(|v| v.default),
        matched: None,
        verb: None,
    };
    front.metrics.in_flight.inc();
    let outcome = match front.throttle.arrived(arrival.peer.ip()) {
        Ok(()) => answer(service, front, arrival, request, path, &request_id, &mut told).instrument(span.clone()).await,
        Err(fault) => Err(fault),
    };
    front.metrics.in_flight.dec();
    let _within = span.entered();
    let mut response = match outcome {
        Ok(response) => response,
        Err(mut fault) => {
            fault.spoken = told.version;
            refusal(service, &fault, &request_id, &method, path)
        }
    };
    if response.status == 401 {
        front.throttle.refused(arrival.peer.ip());
    }
    front.metrics.answered(service.name, &method, response.status, started.elapsed());
    announce(service, front, arrival, (&method, path), &response, &told, (&request_id, &trace));
    tracing::info!(target: "api", service = service.name, %method, path, status = response.status, ms = started.elapsed().as_millis() as u64,
        request_id, span_id = trace.span_id, parent_id = trace.parent_id, user = told.caller.user_id);
    response.headers.push((trace::HEADER, trace.to_string()));
    finish(service, response, told.version, &request_id, method == Method::HEAD)
}

/// The audit event and the notification of a call that deserves them.
fn announce(
    service: &Mounted,
    front: &Front,
    arrival: &Arrival,
    (method, path): (&Method, &str),
    response: &Response,
    told: &Told,
    (request_id, trace): (&str, &Trace),
) {
    let (status, change) = (response.status, audit::changes(method));
    if !audit::wanted(method, status) {
        return;
    }
    let nothing = serde_json::Value::Null;
    let body = if let Body::Json(value) = &response.body { value } else { &nothing };
    let subject = told
        .matched
        .as_ref()
        .map(|(index, params)| Subject::of(&service.routes[*index], params, told.verb.as_deref(), body));
    let about = audit::About { service: service.name, method, path, status, subject: subject.as_ref() };
    front.outlet.send(Kind::Audit, &audit::event(&about, &told.caller, request_id, &arrival.peer.ip().to_string()));
    if let (Some(subject), true) = (subject, change && status < 400) {
        let payload = notify::payload(&subject, &told.caller, request_id, &trace.trace_id, status);
        front.outlet.emit(service.name, &service.events.event_type(&subject), payload);
    }
}

fn refusal(service: &Mounted, fault: &Fault, request_id: &str, method: &Method, path: &str) -> Response {
    // 501 is no failure of ours: it says what is not offered.
    if fault.status.is_server_error() && fault.status != StatusCode::NOT_IMPLEMENTED {
        tracing::error!(service = service.name, %method, path, request_id, fault = %fault, "request failed");
    }
    let mut response = Response::json(fault.code(), (service.fault)(fault, request_id));
    response.headers.clone_from(&fault.headers);
    if fault.status == StatusCode::UNAUTHORIZED {
        response.headers.push(("www-authenticate", "Keystone uri=\"/identity/v3\"".to_owned()));
    }
    response
}

async fn answer(
    service: &Mounted,
    front: &Front,
    arrival: &Arrival,
    request: axum::extract::Request,
    path: &str,
    request_id: &str,
    told: &mut Told,
) -> Result<Response, Fault> {
    let (mut parts, stream) = request.into_parts();
    let certificate = parts.extensions.remove::<PeerCertificate>();
    service.authenticator.catch_up().await?;
    if let Some(versions) = &service.versions {
        told.version = Some(versions.negotiate(&parts.headers)?);
    }
    let spoken = told.version.unwrap_or(Version(0, 0));
    let caller = &mut told.caller;
    let found = match service.literal && lacks_a_segment(path) {
        true => Found::Nothing,
        false => service.matcher.find(&parts.method, path, spoken),
    };
    let (index, params) = match found {
        Found::Route(index, params) => (index, params),
        found => {
            let found = if service.literal { Found::Nothing } else { found };
            // Whoever has no token learns nothing about what exists.
            token(service, &parts.headers, certificate.as_ref(), caller).await?;
            return Err(unmatched(found));
        }
    };
    let route = &service.routes[index];
    told.matched = Some((index, params.clone()));
    if route.asked != Asked::Public {
        token(service, &parts.headers, certificate.as_ref(), caller).await?;
        check_access(service, route, caller, &parts.method, path)?;
        front.throttle.authenticated(caller)?;
    } else if parts.headers.contains_key("x-auth-token") {
        // A public route may look at the caller, but a bad token does not close it.
        let _ = token(service, &parts.headers, certificate.as_ref(), caller).await;
    }
    let base_url = base_url(&parts.headers, arrival, service.prefix);
    let mut call = Call {
        method: parts.method,
        path: path.to_owned(),
        params,
        query: Query::parse(parts.uri.query().unwrap_or_default()),
        version: spoken,
        body: serde_json::Value::Null,
        stream: None,
        ctx: Ctx { caller: caller.clone(), request_id: request_id.to_owned() },
        certificate,
        base_url,
        gate: gate(service, route.rule, &parts.extensions),
        headers: parts.headers,
    };
    // Where the body names the verb, the verb's rule is the one to ask.
    let by_verb = !route.actions.is_empty();
    if route.asked == Asked::Before && !by_verb {
        call.authorize(&call.target())?;
    }
    take_body(route, &mut call, stream).await?;
    if by_verb {
        told.verb = verb(route, &call.body).map(|(name, _)| name.to_owned());
        call.gate = gate(service, verb(route, &call.body).map_or(route.rule, |(_, rule)| rule), &parts.extensions);
        if route.asked == Asked::Before {
            call.authorize(&call.target())?;
        }
    }
    let gate = call.gate.clone();
    run(route, call, &gate).await
}

/// The body as the route wants it: a stream of bytes, or JSON.
async fn take_body(route: &Route<()>, call: &mut Call, stream: axum::body::Body) -> Result<(), Fault> {
    if route.bytes {
        call.stream =
            Some(BodyStream::new(TryStreamExt::map_err(stream.into_data_stream(), std::io::Error::other).boxed()));
    } else {
        if route.json_only {
            body::require_json(call.header("content-type"), call.header("content-length"))?;
        }
        call.body = read_json(route, stream).await?;
    }
    Ok(())
}

fn gate(service: &Mounted, rule: &'static str, extensions: &http::Extensions) -> Arc<Gate> {
    let probe = extensions.get::<Arc<Probe>>().cloned();
    Arc::new(Gate { enforcer: service.enforcer.clone(), rule, asked: AtomicBool::new(false), probe })
}

/// The verb that the body's only member names, and its rule; `None` for one that is not known: the handler refuses it.
fn verb(route: &Route<()>, body: &serde_json::Value) -> Option<(&'static str, &'static str)> {
    let named = body.as_object().and_then(|o| o.keys().next())?;
    route.actions.iter().find(|(action, _)| action == named).copied()
}

async fn run(route: &Route<()>, call: Call, gate: &Gate) -> Result<Response, Fault> {
    let handler = AssertUnwindSafe((route.handler)(Arc::new(()), call)).catch_unwind();
    let outcome = if route.bytes {
        handler.await
    } else {
        tokio::time::timeout(Duration::from_secs(HANDLER_SECONDS), handler)
            .await
            .map_err(|_| Fault::unavailable("The request took too long."))?
    };
    let response = outcome.map_err(|_| Fault::internal(format!("handler of {route:?} panicked")))??;
    if route.asked == Asked::ByHandler && !gate.asked.load(Ordering::Relaxed) {
        return Err(Fault::internal(format!("handler of {route:?} did not ask its rule {}", gate.rule)));
    }
    Ok(response)
}

/// `/v3/volumes/`, `/v3/volumes//action`: the slash behind a version alone means nothing.
fn lacks_a_segment(path: &str) -> bool {
    let segments = path.strip_prefix('/').unwrap_or(path).split('/');
    path.trim_matches('/').contains('/') && segments.into_iter().any(str::is_empty)
}

fn unmatched(found: Found) -> Fault {
    match found {
        Found::WrongMethod(methods) => {
            let allow = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
            Fault::new(405, "The method is not allowed for this resource.").header("allow", allow)
        }
        _ => Fault::not_found("The resource could not be found."),
    }
}

async fn token(
    service: &Mounted,
    headers: &HeaderMap,
    certificate: Option<&PeerCertificate>,
    caller: &mut Arc<Caller>,
) -> Result<(), Fault> {
    *caller = token::caller(&service.authenticator, headers, certificate).await?;
    Ok(())
}

fn check_access(
    service: &Mounted,
    route: &Route<()>,
    caller: &Caller,
    method: &Method,
    path: &str,
) -> Result<(), Fault> {
    match &caller.access_rules {
        Some(rules) if !auth::access_allowed(rules, service.name, method.as_str(), path) => {
            Err(Fault::forbidden(format!("The application credential does not allow {route:?}.")))
        }
        _ => Ok(()),
    }
}

fn base_url(headers: &HeaderMap, arrival: &Arrival, prefix: &str) -> String {
    let host = headers
        .get(header::HOST)
        .and_then(|v| v.to_str().ok())
        .filter(|h| h.len() <= 255 && h.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b)));
    format!("{}://{}{prefix}", arrival.scheme, host.unwrap_or("localhost"))
}

async fn read_json(route: &Route<()>, stream: axum::body::Body) -> Result<serde_json::Value, Fault> {
    let limited = Limited::new(stream, route.limit).collect();
    let collected = tokio::time::timeout(Duration::from_secs(BODY_SECONDS), limited)
        .await
        .map_err(|_| Fault::new(408, "The request body did not arrive in time."))?;
    let bytes = match collected {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
            return Err(Fault::too_large(format!("The request body is larger than {} bytes.", route.limit)));
        }
        Err(_) => return Err(Fault::bad_request("The request body was cut off.")),
    };
    let value = body::parse(&bytes)?;
    if let Some(schema) = route.schema {
        schema.check(&value)?;
    }
    Ok(value)
}

fn finish(
    service: &Mounted,
    response: Response,
    version: Option<Version>,
    request_id: &str,
    head: bool,
) -> axum::response::Response {
    let mut out = http::Response::builder().status(response.status);
    let mut headers = HeaderMap::new();
    let mut add = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.append(HeaderName::from_static(name), value);
        }
    };
    add("x-openstack-request-id", request_id);
    if let (Some(versions), Some(version)) = (&service.versions, version) {
        for (name, value) in versions.answer(version) {
            add(name, &value);
        }
    }
    if !response.headers.iter().any(|(name, _)| *name == "vary") {
        add("vary", "X-Auth-Token");
    }
    for (name, value) in &response.headers {
        add(name, value);
    }
    let body = match response.body {
        Body::Empty => axum::body::Body::empty(),
        Body::Json(value) => {
            add("content-type", "application/json");
            let text = value.to_string();
            add("content-length", &text.len().to_string());
            axum::body::Body::from(text)
        }
        Body::Bytes { content_type, data } => {
            add("content-type", content_type);
            add("content-length", &data.len().to_string());
            axum::body::Body::from(data)
        }
        Body::Stream { content_type, length, data } => {
            add("content-type", content_type);
            if let Some(length) = length {
                add("content-length", &length.to_string());
            }
            axum::body::Body::from_stream(data.map_ok(Bytes::from))
        }
    };
    // Clients from before the common header look for the service's own.
    if let (Ok(name), Ok(value)) =
        (HeaderName::try_from(format!("x-{}-request-id", service.name)), HeaderValue::from_str(request_id))
    {
        headers.insert(name, value);
    }
    if let Some(all) = out.headers_mut() {
        all.extend(headers);
    }
    let body = if head { axum::body::Body::empty() } else { body };
    out.body(body).unwrap_or_else(|_| http::Response::new(axum::body::Body::empty()))
}
