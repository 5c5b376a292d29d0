//! What stands before a body: query strings, microversions, trace context, times, paths of access rules.
#![no_main]
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use pilvi_kit::{
    Version,
    auth::{AccessRule, access_allowed},
    call::Query,
    clock, trace::Trace,
    version::Microversions,
};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let query = Query::parse(text);
    let _ = (query.flag("x"), query.all("x").count());
    let _ = clock::parse(text);
    let (path, pattern) = text.split_once(' ').unwrap_or((text, "/**"));
    let rule = AccessRule { service: "s".into(), method: "GET".into(), path: pattern.into() };
    let _ = access_allowed(&[rule], "s", "GET", path);
    let Ok(value) = http::HeaderValue::from_bytes(data) else { return };
    let mut headers = HeaderMap::new();
    for name in ["openstack-api-version", "x-openstack-nova-api-version", "traceparent"] {
        headers.insert(name, value.clone());
    }
    let trace = Trace::of(&headers);
    assert_eq!(trace.to_string().len(), 55);
    let versions = Microversions {
        service_type: "compute",
        legacy_header: Some("x-openstack-nova-api-version"),
        min: Version(2, 1),
        max: Version(2, 104),
        default: Version(2, 1),
    };
    if let Ok(version) = versions.negotiate(&headers) {
        assert!(version >= versions.min && version <= versions.max);
        let _ = versions.answer(version);
    }
});
