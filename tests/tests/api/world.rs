//! One service with records of one owner, and what the judge must know of its routes.
pub mod compute;
pub mod identity;
pub mod image;
pub mod network;
pub mod placement;
pub mod volume;

use crate::registry::About;
use pilvi_kit::{Caller, Route, Version, testing::App};
use pilvi_store::Store;
use serde_json::Value;
use std::collections::HashMap;

pub struct World {
    pub app: App,
    pub store: Store,
    /// Names of the personas' places and users -> ids.
    pub names: HashMap<String, String>,
    /// `/v3/users/{user_id}` (a whole beginning of a pattern) or `{user_id}` -> what stands there.
    pub params: HashMap<String, String>,
    /// Members of bodies by name.
    pub fill: HashMap<String, String>,
    pub facts: Facts,
    /// Does the original's registry judge, or our own rules? (Neutron's look at names of its own.)
    pub judged_by_original: bool,
    pub _dir: Option<tempfile::TempDir>,
}

/// What the route tables alone do not tell.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// (method, path, what its rule is about)
    pub about: &'static [(&'static str, &'static str, About)],
    /// (method, path, persona, passes)
    pub exceptions: &'static [(&'static str, &'static str, &'static str, bool)],
    /// (method, path or path (action), body as JSON; `<name>` is a name of the world)
    pub bodies: &'static [(&'static str, &'static str, &'static str)],
    /// (method, path, query of the URL)
    pub queries: &'static [(&'static str, &'static str, &'static str)],
    /// (verb, microversion): verbs that are gone at the newest one.
    pub versions: &'static [(&'static str, &'static str)],
    /// (method, path): lists that make what they show.
    pub makes: &'static [(&'static str, &'static str)],
    /// Paths that begin so are other names of routes that are tested.
    pub aliases: &'static [&'static str],
    /// Routes that cannot be reached with a record of the world, at most.
    pub unseeded: usize,
}

impl Facts {
    pub const NONE: Facts = Facts {
        about: &[],
        exceptions: &[],
        bodies: &[],
        queries: &[],
        versions: &[],
        makes: &[],
        aliases: &[],
        unseeded: 0,
    };
}

/// An id that nothing has.
pub const NOTHING: &str = "77777777-7777-4777-8777-777777777777";

pub async fn all() -> Vec<World> {
    vec![
        identity::world().await,
        image::world().await,
        placement::world().await,
        network::world().await,
        compute::world().await,
        volume::world().await,
    ]
}

impl World {
    pub fn service(&self) -> &'static str {
        self.app.service.name
    }

    /// The pattern with the world's ids in it; false when one is missing.
    pub fn url(&self, pattern: &str) -> (String, bool) {
        let (mut url, mut prefix, mut seeded) = (String::new(), String::new(), true);
        for segment in pattern.split('/').filter(|s| !s.is_empty()) {
            prefix = format!("{prefix}/{segment}");
            let value = if segment.starts_with('{') {
                let found = self.params.get(&prefix).or_else(|| self.params.get(segment));
                seeded &= found.is_some();
                found.map_or(NOTHING, String::as_str)
            } else {
                segment
            };
            url = format!("{url}/{value}");
        }
        (if url.is_empty() { "/".to_owned() } else { url }, seeded)
    }

    fn is(method: &http::Method, path: &str, listed: (&str, &str)) -> bool {
        listed.0 == method.as_str() && listed.1 == path
    }
    pub fn about(&self, method: &http::Method, path: &str) -> Option<About> {
        self.facts.about.iter().find(|l| Self::is(method, path, (l.0, l.1))).map(|l| l.2)
    }
    pub fn exception(&self, method: &http::Method, path: &str, persona: &str) -> Option<bool> {
        self.facts.exceptions.iter().find(|l| Self::is(method, path, (l.0, l.1)) && l.2 == persona).map(|l| l.3)
    }
    pub fn query(&self, method: &http::Method, path: &str) -> Option<&'static str> {
        self.facts.queries.iter().find(|l| Self::is(method, path, (l.0, l.1))).map(|l| l.2)
    }
    pub fn makes(&self, method: &http::Method, path: &str) -> bool {
        self.facts.makes.iter().any(|l| Self::is(method, path, *l))
    }
    pub fn is_alias(&self, path: &str) -> bool {
        self.facts.aliases.iter().any(|a| path.starts_with(a))
    }

    pub fn body(&self, method: &http::Method, path: &str, action: Option<&str>) -> Option<Value> {
        let path = action.map_or(path.to_owned(), |a| format!("{path} ({a})"));
        let text = self.facts.bodies.iter().find(|l| Self::is(method, &path, (l.0, l.1)))?.2;
        let named = self.names.iter().chain(&self.fill).chain(&self.params);
        let text = named.fold(text.to_owned(), |t, (name, id)| t.replace(&format!("<{name}>"), id));
        Some(serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}: {text}")))
    }

    /// Microversion and content type that reach the route.
    pub fn headers(&self, route: &Route<()>, action: Option<&str>) -> Vec<(&'static str, String)> {
        let mut out = Vec::new();
        if let Some(versions) = &self.app.service.versions {
            let newest = route.versions.1.min(versions.max);
            let spoken = if newest == Version(0, 0) { versions.default } else { newest };
            let spoken = match self.facts.versions.iter().find(|(verb, _)| Some(*verb) == action) {
                Some((_, version)) => (*version).to_owned(),
                None => spoken.to_string(),
            };
            out.push(("openstack-api-version", format!("{} {spoken}", versions.service_type)));
        }
        let kind = match (self.service(), route.bytes, &route.method) {
            (_, true, _) => "application/octet-stream",
            ("image", _, m) if *m == http::Method::PATCH => "application/openstack-images-v2.1-json-patch",
            _ => "application/json",
        };
        out.push(("content-type", kind.to_owned()));
        out
    }

    /// Ids of the owner's records that a list at `path` could show.
    pub fn secrets(&self, path: &str) -> Vec<String> {
        let below = format!("{path}/{{");
        self.params.iter().filter(|(key, _)| key.starts_with(&below)).map(|(_, id)| id.clone()).collect()
    }
}

/// A caller who may do everything, for making the world.
pub fn root() -> Caller {
    pilvi_kit::testing::caller("p-root", &["admin", "manager", "member", "reader"])
}

/// A call of the world's making: it must succeed.
pub async fn make(app: &App, who: &Caller, method: &str, path: &str, body: Value, headers: &[(&str, &str)]) -> Value {
    let body = if body.is_null() { None } else { Some(body) };
    let answer = app.call_with(method, path, Some(who), body, headers).await;
    assert!(answer.status < 300, "{method} {path}: {} {}", answer.status, answer.body);
    answer.body
}

pub fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub fn map<const N: usize>(pairs: [(&str, &str); N]) -> HashMap<String, String> {
    pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}
