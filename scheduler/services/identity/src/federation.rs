//! Federation (OS-FEDERATION): users whom somebody else vouches for.
//!
//! ```text
//! identity provider ── protocol ── mapping        service provider: a cloud that takes our word
//!
//! who somebody is, as his provider says it: an assertion {attribute: value}
//!   | openid:  bearer token or a browser's way through the provider      (openid/)
//!   | saml:    signed XML that a client brings from the provider         (saml/)
//!   v
//! login -> mapping (rules: what is asked of it, what he is here) -> shadow (his user, groups, projects)
//!       -> an unscoped token that names provider, protocol and groups -> rescoped as any other
//! ```
//! The other way round, service providers take our word for our users (`saml/issue`): Keystone-to-Keystone.
//!
//! Resources are `provider`, `protocol`, `mapping`, `service_provider`.
pub(crate) mod config;
mod endpoint;
mod login;
pub(crate) mod mapping;
mod openid;
mod protocol;
mod provider;
mod saml;
mod service_provider;
mod shadow;

pub use mapping::rehearse as rehearse_mapping;
pub(crate) use openid::OpenId;
pub(crate) use saml::Saml;
pub use saml::certificates_of_metadata;

use crate::Identity;
use pilvi_kit::{Call, Fault, Route};

/// Longest id that a client may choose, in bytes.
const ID_MAX: usize = 64;

pub(crate) fn routes() -> Vec<Route<Identity>> {
    let all = [
        provider::routes(),
        protocol::routes(),
        mapping::routes(),
        service_provider::routes(),
        endpoint::routes(),
        openid::routes(),
        saml::routes(),
    ];
    all.into_iter().flatten().collect()
}

/// An id that the client chose, from the path.
fn chosen_id<'c>(call: &'c Call, name: &str) -> Result<&'c str, Fault> {
    let id = call.param(name);
    if id.trim().is_empty() || id.len() > ID_MAX || id.chars().any(char::is_control) {
        return Err(Fault::bad_request(format!(
            "Invalid input for {name}: an id has 1 to {ID_MAX} bytes, and no control characters."
        )));
    }
    Ok(id)
}

/// A body schema of `{member: {...}}` that allows nothing but what it names.
fn closed_schema(member: &str, properties: serde_json::Value, required: &[&str], least: usize) -> serde_json::Value {
    let mut inner = serde_json::json!({"type": "object", "properties": properties, "additionalProperties": false,
        "minProperties": least});
    if !required.is_empty() {
        inner["required"] = serde_json::json!(required);
    }
    serde_json::json!({"type": "object", "required": [member], "properties": {member: inner}})
}

/// An id as a segment of an address.
fn segment(id: &str) -> String {
    const SEGMENT: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    percent_encoding::utf8_percent_encode(id, SEGMENT).to_string()
}
