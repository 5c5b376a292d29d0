//! The navigator: which of the operations that the original of a service documents are answered here.
//!
//! ```text
//!  operations.txt   METHOD PATH <tab> rules     what the original's policy registry documents; made by tests/registry/export
//!  states.txt       done / refused, by hand     what the route table cannot show
//!  the route table                              everything else: an operation is done when a route has its shape
//! ```
//! A service brings both texts with it ([`Documented`]), so the page can be made without a running cloud; a test holds
//! them against the mounted routes.
use crate::{
    route::{Route, split_pattern},
    service::{Mounted, Service},
};
use http::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What the original documents, as a service brings it with it: `include_str!` of its two files.
#[derive(Debug, Clone, Copy, Default)]
pub struct Documented {
    pub operations: &'static str,
    pub states: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Done,
    /// With the reason.
    Refused(String),
    Missing,
}

/// One documented operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub method: String,
    /// With its query and `(action)`, as documented.
    pub path: String,
    pub rules: Vec<String>,
    pub state: State,
}

/// One service's page.
#[derive(Debug, Clone)]
pub struct Coverage {
    pub service: &'static str,
    /// `keystone 30.0.0`
    pub original: String,
    pub microversion: Option<String>,
    pub operations: Vec<Operation>,
}

/// The part of a route that matters here.
struct Known<'r> {
    method: &'r Method,
    path: &'r str,
    actions: &'r [(&'static str, &'static str)],
}

fn known<S>(routes: &[Route<S>]) -> Vec<Known<'_>> {
    routes.iter().map(|r| Known { method: &r.method, path: r.path, actions: r.actions }).collect()
}

/// Coverage of a service that is not mounted.
pub fn of_service<S>(service: &Service<S>) -> Coverage {
    let newest = service.versions.as_ref().map(|v| v.max.to_string());
    coverage(service.name, newest, &service.documented, &known(&service.routes))
}

/// Coverage of a mounted service.
pub fn of_mounted(service: &Mounted) -> Coverage {
    let newest = service.versions.as_ref().map(|v| v.max.to_string());
    coverage(service.name, newest, &service.documented, &known(&service.routes))
}

fn coverage(
    service: &'static str,
    microversion: Option<String>,
    documented: &Documented,
    routes: &[Known<'_>],
) -> Coverage {
    let first = documented.operations.lines().next().unwrap_or_default();
    let original = first.trim_start_matches(['#', ' ']).split(':').next().unwrap_or_default().to_owned();
    let states = states(documented.states);
    let operations = lines(documented.operations)
        .filter_map(|(operation, rules)| {
            let (method, path) = operation.split_once(' ')?;
            let state = match states.get(operation) {
                Some(said) if said.refused => State::Refused(said.text.clone()),
                Some(said) if answered(routes, method, &said.text) => State::Done,
                Some(_) => State::Missing,
                None if answered(routes, method, path) => State::Done,
                None => State::Missing,
            };
            let rules = rules.split(' ').map(str::to_owned).collect();
            Some(Operation { method: method.to_owned(), path: path.to_owned(), rules, state })
        })
        .collect();
    Coverage { service, original, microversion, operations }
}

fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty()).map(|l| l.split_once('\t').unwrap_or((l, "")))
}

struct Said {
    refused: bool,
    text: String,
}

/// `METHOD PATH` -> what was said by hand.
fn states(text: &str) -> BTreeMap<String, Said> {
    let mut out = BTreeMap::new();
    for (key, text) in lines(text) {
        if let Some(operation) = key.strip_prefix("refused ") {
            out.insert(operation.to_owned(), Said { refused: true, text: text.to_owned() });
        } else if let Some(operation) = key.strip_prefix("done ") {
            let by = text.strip_prefix("by ").unwrap_or(text);
            out.insert(operation.to_owned(), Said { refused: false, text: by.to_owned() });
        }
    }
    out
}

/// Lines of `states.txt` that say nothing: about no documented operation, of neither kind, without a reason, or done
/// by a route that is not there.
pub fn idle_states(coverage: &Coverage, documented: &Documented) -> Vec<String> {
    let mut out = Vec::new();
    for (key, text) in lines(documented.states) {
        let operation = key.strip_prefix("refused ").or_else(|| key.strip_prefix("done "));
        let found = operation
            .and_then(|wanted| coverage.operations.iter().find(|o| format!("{} {}", o.method, o.path) == wanted));
        if text.is_empty() || found.is_none_or(|o| o.state == State::Missing) {
            out.push(key.to_owned());
        }
    }
    out
}

/// Segments without the names of their parameters.
fn shape(path: &str) -> Vec<Option<&str>> {
    split_pattern(path).collect()
}

fn answered(routes: &[Known<'_>], method: &str, path: &str) -> bool {
    let (path, action) = match path.split_once(" (") {
        Some((path, rest)) => (path, rest.strip_suffix(')')),
        None => (path, None),
    };
    let wanted = shape(path.split('?').next().unwrap_or_default());
    routes.iter().any(|route| {
        let fits = route.method.as_str() == method || (method == "HEAD" && route.method == Method::GET);
        fits && shape(route.path) == wanted && action.is_none_or(|a| route.actions.iter().any(|(name, _)| *name == a))
    })
}

impl Coverage {
    pub fn count(&self, wanted: impl Fn(&State) -> bool) -> usize {
        self.operations.iter().filter(|o| wanted(&o.state)).count()
    }
    pub fn done(&self) -> usize {
        self.count(|s| *s == State::Done)
    }
    pub fn refused(&self) -> usize {
        self.count(|s| matches!(s, State::Refused(_)))
    }
    pub fn missing(&self) -> impl Iterator<Item = &Operation> {
        self.operations.iter().filter(|o| o.state == State::Missing)
    }
    /// Done of documented, in tenths of a percent.
    pub fn per_mille(&self) -> usize {
        (self.done() * 1000).checked_div(self.operations.len()).unwrap_or(1000)
    }

    pub fn to_json(&self) -> Value {
        let operations: Vec<Value> = self
            .operations
            .iter()
            .map(|o| {
                let mut row = json!({"method": o.method, "path": o.path, "rules": o.rules});
                match &o.state {
                    State::Done => row["state"] = "done".into(),
                    State::Missing => row["state"] = "missing".into(),
                    State::Refused(reason) => {
                        row["state"] = "refused".into();
                        row["reason"] = reason.clone().into();
                    }
                }
                row
            })
            .collect();
        json!({
            "service": self.service, "original": self.original, "microversion": self.microversion,
            "documented": self.operations.len(), "done": self.done(), "refused": self.refused(),
            "missing": self.missing().count(), "operations": operations,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Call, Reply, Response};
    use std::sync::Arc;

    async fn answer(_: Arc<()>, _: Call) -> Reply {
        Ok(Response::no_content())
    }

    #[test]
    fn states_come_from_the_routes_and_from_what_was_said() {
        let routes: Vec<Route<()>> = vec![
            Route::get("/v1/things/{id}", answer),
            Route::post("/v1/things/{id}/action", answer).actions(&[("stop", "thing:stop")]),
        ];
        let documented = Documented {
            operations: "# originals 1.0: text\nGET /v1/things/{thing_id}\tthing:get\nHEAD /v1/things/{id}?x={y}\tthing:get\n\
                GET /v1/things/special\ta b\nPOST /v1/things/{id}/action (stop)\tc\nPOST /v1/things/{id}/action (go)\td\n\
                DELETE /v1/things/{id}\te\nGET /v1/old\tf\n",
            states: "# by hand\ndone GET /v1/things/special\tby /v1/things/{id}\nrefused GET /v1/old\tretired in 1.0\n\
                refused GET /v1/never\tno such operation\n",
        };
        let page = coverage("things", None, &documented, &known(&routes));
        let of = |at: usize| page.operations[at].state.clone();
        assert_eq!((page.original.as_str(), page.done(), page.refused()), ("originals 1.0", 4, 1));
        assert_eq!((of(0), of(1), of(2), of(3)), (State::Done, State::Done, State::Done, State::Done));
        assert_eq!((of(4), of(5)), (State::Missing, State::Missing));
        assert_eq!(of(6), State::Refused("retired in 1.0".into()));
        assert_eq!(idle_states(&page, &documented), ["refused GET /v1/never"]);
        assert_eq!(page.per_mille(), 571);
    }
}
