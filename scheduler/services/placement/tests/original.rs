//! This service against the original: its own HTTP tests, as its package brings them, and random requests to both.
//!
//! ```text
//!  original/http_tests.py the package's tests and fixtures, whose objects are made through the API --.
//!  original/differ.py  random clouds and requests, to the package in its own process and to --------+
//!                                                                                        HTTP, loopback
//!  this process: a caller from X-Auth-Token and X-Roles -> kit -> placement  <----------------------'
//! ```
//! `PILVI_PLACEMENT_PYTHON` names a Python that has openstack-placement and gabbi; without it the tests say that they are
//! skipped. `POST /reset` begins a new store. Left out: the files about the rules from before the new default roles and
//! about files of rules that let everybody in (ours are tested in the kit), and what stands in [`DIFFERENT`].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // as in any test
use axum::{body::Body, extract::Request, response::Response};
use http_body_util::BodyExt;
use parking_lot::RwLock;
use pilvi_kit::{
    Caller, Scope,
    service::Mounting,
    testing::{App, caller},
};
use pilvi_placement::{Placement, kinds, service};
use pilvi_store::Store;
use std::{process::Stdio, sync::Arc};

/// Tests of the original that this service fails on purpose, and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("microversion_root_has_microversion_header", "Vary in capitals"),
    ("microversion_root_has_microversion_header,_with_no_auth", "Vary in capitals"),
    ("39", "Vary in capitals"),
    ("microversion_other_accept_header_bad_version", "faults are JSON, whatever is asked for"),
    ("bug-1674694_404_with_other_accept", "faults are JSON, whatever is asked for"),
    ("basic-http_405_on_bad_method_on_app", "the text does not repeat the method"),
    ("basic-http_405_on_bad_options_method_on_app", "the text does not repeat the method"),
    ("basic-http_bad_content_length_not_int", "refused below this service"),
    ("aggregate_put_aggregates_for_bad_resource_provider", "the body is judged before the provider is looked for"),
    ("aggregate_put_some_aggregates_-_new_payload_and_new_microversion", "aggregates have no order"),
    ("allocations_get_allocations_no_consumer_is_405", "404 before 1.13, when there was nothing there"),
    ("granular_bogus_suffix", "the words of a regular expression"),
    ("granular_bogus_length", "the words of a regular expression"),
    ("allocations-mappings_put_allocation_mapping_empty", "how the schema library puts it"),
    ("allocations-1-12_put_resource_provider_not_uuid", "how the schema library puts it"),
    ("allocations-1-12_put_resource_class_not_valid", "how the schema library puts it"),
    ("resource-classes-1-6_bodiless_put", "no body is not called malformed"),
    ("with-allocations_fail_to_delete_all_inventory", "classes in the order of their names"),
    ("23", "classes in the order of their names"),
];

async fn app() -> Arc<App> {
    let store = Store::open("sqlite::memory:", kinds()).await.unwrap();
    let state = Placement::new(store);
    Arc::new(App::new(|authenticator| service().mount(state, Mounting { authenticator, policy_file: None }).unwrap()))
}

/// As the original's test middleware reads it: `user:project`, roles in a header of their own.
fn who(request: &Request) -> Option<Caller> {
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
    let (user, project) = header("x-auth-token")?.split_once(':').unwrap_or((header("x-auth-token")?, ""));
    let project = if project.is_empty() { user } else { project };
    let roles: Vec<&str> = match header("x-roles") {
        Some(list) => list.split(',').collect(),
        None if user == "admin" => vec!["admin", "service"],
        None => vec![],
    };
    let mut found = caller(header("x-project-id").unwrap_or(project), &roles);
    user.clone_into(&mut found.user_id);
    if header("openstack-system-scope").is_some() {
        found.scope = Scope::System;
    }
    Some(found)
}

async fn answer(state: Arc<RwLock<Arc<App>>>, mut request: Request) -> Response {
    if request.uri().path() == "/reset" {
        *state.write() = app().await;
        return Response::new(Body::empty());
    }
    let app = state.read().clone();
    if let Some(caller) = who(&request) {
        let token = app.tokens.issue(caller);
        request.headers_mut().insert("x-auth-token", token.parse().unwrap());
    }
    let (parts, body) = request.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let found = app.send(Request::from_parts(parts, Body::from(bytes))).await;
    // The tests expect the service at the root.
    let text = String::from_utf8(found.bytes).unwrap().replace("/placement/", "/");
    let mut out = Response::builder().status(found.status);
    for (name, value) in &found.headers {
        match name.as_str() {
            "content-length" => {}
            "location" => {
                out =
                    out.header(name, value.to_str().unwrap().replace("https://", "http://").replace("/placement/", "/"))
            }
            _ => out = out.header(name, value),
        }
    }
    out.body(Body::from(text)).unwrap()
}

/// Runs a script against a server of its own; what it printed, or `None` when there is no original.
async fn judge(script: &str, arguments: &[&str]) -> Option<String> {
    let Some(python) = std::env::var_os("PILVI_PLACEMENT_PYTHON") else {
        println!("skipped: PILVI_PLACEMENT_PYTHON names no Python with openstack-placement and gabbi");
        return None;
    };
    let state = Arc::new(RwLock::new(app().await));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = axum::Router::new().fallback(move |request: Request| answer(state.clone(), request));
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let script = format!("{}/tests/original/{script}", env!("CARGO_MANIFEST_DIR"));
    let mut run = tokio::process::Command::new(python);
    run.arg(script).arg(port.to_string()).args(arguments).stdin(Stdio::null());
    let done = run.output().await.unwrap();
    server.abort();
    let (text, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    println!("{text}\n{errors}");
    assert!(done.status.success(), "the original's script failed");
    Some(text.into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_originals_http_tests_pass() {
    let only = std::env::var("PILVI_GABBI").unwrap_or_default();
    let Some(text) = judge("http_tests.py", &[&only]).await else { return };
    let failed: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("FAILED ")).collect();
    let known = |name: &&&str| !DIFFERENT.iter().any(|(n, _)| n == *name);
    let surprises: Vec<&&str> = failed.iter().filter(known).collect();
    assert!(surprises.is_empty(), "{} failed: {surprises:#?}", surprises.len());
    let ran = text.lines().find_map(|l| l.strip_prefix("RAN ")).and_then(|n| n.parse().ok());
    assert!(ran.unwrap_or(0) > if only.is_empty() { 1000 } else { 0 }, "hardly anything was run");
}

#[tokio::test(flavor = "multi_thread")]
async fn random_requests_are_answered_as_by_the_original() {
    let seed = std::env::var("PILVI_SEED").unwrap_or_else(|_| "20260101".into());
    let clouds = std::env::var("PILVI_CLOUDS").unwrap_or_else(|_| "25".into());
    let Some(text) = judge("differ.py", &[&clouds, &seed]).await else { return };
    assert!(
        text.lines().any(|l| l.starts_with("COMPARED ") && l.ends_with(" DIFFERENT 0")),
        "they differ (seed {seed})"
    );
}
