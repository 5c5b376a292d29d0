//! OpenID Connect: a provider outside signs who somebody is.
//!
//! ```text
//! program:  GET .../protocols/openid/auth, Authorization: Bearer ACCESS-TOKEN
//!           -> JWT checked with the provider's keys, or the provider asked (introspection) -> claims
//! browser:  GET .../websso?origin=DASHBOARD -> 302 provider -> 302 .../openid/callback?code=..
//!           -> code exchanged for an ID token -> claims -> a page that carries a token to the dashboard
//! claims -> assertion -> login
//! ```
//! An operator names the provider for an (identity provider, protocol) in the configuration; what it signs for
//! other audiences is refused.
mod bearer;
mod browser;
mod jwt;
mod provider;

use super::mapping::engine::Assertion;
use crate::{Identity, StartError, config::OpenIdConfig};
use pilvi_kit::Route;
use provider::Provider;
use serde_json::Value;
use std::sync::Arc;

/// The attribute in which the provider says who it is, as Apache's module names it.
pub(super) const REMOTE_ID: &str = "HTTP_OIDC_ISS";

/// Claims of one token, and values of one claim, that are looked at.
const CLAIMS_MAX: usize = 256;
const VALUES_MAX: usize = 1024;

pub(super) fn routes() -> Vec<Route<Identity>> {
    browser::routes()
}

/// All providers of the configuration.
pub(crate) struct OpenId(Vec<Arc<Provider>>);

impl OpenId {
    pub fn new(configured: &[OpenIdConfig]) -> Result<Self, StartError> {
        let providers = configured.iter().map(|c| Provider::new(c.clone()).map(Arc::new));
        Ok(OpenId(providers.collect::<Result<_, _>>().map_err(StartError::OpenId)?))
    }

    fn find(&self, idp_id: &str, protocol_id: &str) -> Option<&Arc<Provider>> {
        self.0.iter().find(|p| p.config.idp == idp_id && p.config.protocol == protocol_id)
    }

    /// The one provider of a protocol, if there is just one.
    fn only(&self, protocol_id: &str) -> Option<&Arc<Provider>> {
        let mut all = self.0.iter().filter(|p| p.config.protocol == protocol_id);
        all.next().filter(|_| all.next().is_none())
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Claims under their own names, and as Apache's module names them, so that mappings written for it hold.
fn assertion(claims: &Value) -> Assertion {
    let mut out = Assertion::default();
    for (name, value) in claims.as_object().into_iter().flatten().take(CLAIMS_MAX) {
        let values: Vec<String> = match value {
            Value::Null => continue,
            Value::Array(items) => items.iter().take(VALUES_MAX).map(shown).collect(),
            other => vec![shown(other)],
        };
        let loud: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
        for key in [format!("OIDC-{name}"), format!("HTTP_OIDC_{loud}"), name.clone()] {
            out.0.insert(key, values.clone());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_have_their_names_and_those_of_apaches_module() {
        let out =
            assertion(&json!({"preferred_username": "bob", "groups": ["a;b", "c"], "n": 1, "o": {"x": 2}, "z": null}));
        for name in ["preferred_username", "OIDC-preferred_username", "HTTP_OIDC_PREFERRED_USERNAME"] {
            assert_eq!(out.first(name), Some("bob"), "{name}");
        }
        assert_eq!(out.0["groups"], ["a;b", "c"], "values are not cut");
        assert_eq!((out.first("n"), out.first("o"), out.first("z")), (Some("1"), Some("{\"x\":2}"), None));
    }
}
