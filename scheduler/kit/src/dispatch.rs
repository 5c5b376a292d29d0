//! One request through the kit, from the matched service to the finished answer.
use crate::{
    audit,
    auth::{self, Caller},
    body,
    call::{BodyStream, Call, Ctx, Gate, Query},
    fault::Fault,
    metric::Metrics,
    response::{Body, Response},
    route::{Asked, Found, Route},
    service::Mounted,
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

/// Answers one request to `service`; `path` is below its prefix.
pub(crate) async fn dispatch(
    service: &Mounted,
    metrics: &Metrics,
    arrival: &Arrival,
    request: axum::extract::Request,
    path: &str,
) -> axum::response::Response {
    let started = Instant::now();
    let (method, request_id) = (request.method().clone(), format!("req-{}", crate::id::new()));
    let mut caller = Arc::new(Caller::anonymous());
    let mut version = service.versions.as_ref().map(|v| v.default);
    metrics.in_flight.inc();
    let outcome = answer(service, arrival, request, path, &request_id, &mut caller, &mut version).await;
    metrics.in_flight.dec();
    let response = match outcome {
        Ok(response) => response,
        Err(mut fault) => {
            fault.spoken = version;
            refusal(service, &fault, &request_id, &method, path)
        }
    };
    metrics.answered(service.name, &method, response.status, started.elapsed());
    if audit::wanted(&method, response.status) {
        audit::emit(&audit::event(
            service.name,
            &method,
            path,
            response.status,
            &caller,
            &request_id,
            &arrival.peer.ip().to_string(),
        ));
    }
    tracing::info!(target: "api", service = service.name, %method, path, status = response.status, ms = started.elapsed().as_millis() as u64, request_id);
    finish(service, response, version, &request_id, method == Method::HEAD)
}

fn refusal(service: &Mounted, fault: &Fault, request_id: &str, method: &Method, path: &str) -> Response {
    if fault.status.is_server_error() {
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
    arrival: &Arrival,
    request: axum::extract::Request,
    path: &str,
    request_id: &str,
    caller: &mut Arc<Caller>,
    version: &mut Option<Version>,
) -> Result<Response, Fault> {
    let (parts, stream) = request.into_parts();
    if let Some(versions) = &service.versions {
        *version = Some(versions.negotiate(&parts.headers)?);
    }
    let spoken = version.unwrap_or(Version(0, 0));
    let (index, params) = match service.matcher.find(&parts.method, path, spoken) {
        Found::Route(index, params) => (index, params),
        found => {
            // Whoever has no token learns nothing about what exists.
            token(service, &parts.headers, caller).await?;
            return Err(unmatched(found));
        }
    };
    let route = &service.routes[index];
    if route.asked != Asked::Public {
        token(service, &parts.headers, caller).await?;
        check_access(service, route, caller, &parts.method, path)?;
    } else if parts.headers.contains_key("x-auth-token") {
        // A public route may look at the caller, but a bad token does not close it.
        let _ = token(service, &parts.headers, caller).await;
    }
    let base_url = base_url(&parts.headers, arrival, service.prefix);
    let gate = Arc::new(Gate { enforcer: service.enforcer.clone(), rule: route.rule, asked: AtomicBool::new(false) });
    let mut call = Call {
        method: parts.method,
        path: path.to_owned(),
        params,
        query: Query::parse(parts.uri.query().unwrap_or_default()),
        headers: parts.headers,
        version: spoken,
        body: serde_json::Value::Null,
        stream: None,
        ctx: Ctx { caller: caller.clone(), request_id: request_id.to_owned() },
        base_url,
        gate: gate.clone(),
    };
    if route.asked == Asked::Before {
        call.authorize(&call.target())?;
    }
    if route.bytes {
        call.stream =
            Some(BodyStream::new(TryStreamExt::map_err(stream.into_data_stream(), std::io::Error::other).boxed()));
    } else {
        if route.json_only {
            body::require_json(call.header("content-type"), call.header("content-length"))?;
        }
        call.body = read_json(route, stream).await?;
    }
    run(route, call, &gate).await
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
        return Err(Fault::internal(format!("handler of {route:?} did not ask its rule {}", route.rule)));
    }
    Ok(response)
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

async fn token(service: &Mounted, headers: &HeaderMap, caller: &mut Arc<Caller>) -> Result<(), Fault> {
    let text = headers.get("x-auth-token").and_then(|v| v.to_str().ok()).ok_or_else(Fault::unauthorized)?;
    let found = service.authenticator.caller(text).await?;
    *caller = match headers.get("x-service-token").and_then(|v| v.to_str().ok()) {
        None => found,
        Some(service_token) => {
            let by = service.authenticator.caller(service_token).await?;
            let mut both = (*found).clone();
            both.service_roles = by.roles.iter().map(|(_, n)| n.clone()).collect();
            Arc::new(both)
        }
    };
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
