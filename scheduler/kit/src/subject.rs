//! What a call is about: the type and id of the resource, and what was done to it, read off the route and the answer.
//!
//! ```text
//!  POST   /v3/users                       user                 create   id from the answer's body
//!  PATCH  /v3/users/{user_id}             user                 update   id from the path
//!  PUT    /v3/groups/{g}/users/{u}        group.user           create   id u, and g among the path's
//!  POST   /v2.1/servers/{s}/action pause  server               pause
//!  POST   /v2/images/{i}/actions/x        image                x
//! ```
//! A route whose path does not say it says it itself ([`crate::Route::event`]).
use crate::route::Route;
use http::Method;
use serde_json::{Map, Value};

/// What happened to what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// `user`, `image.member`: the resource and, before it, what it belongs to.
    pub resource: String,
    /// "" where no id is known: a call that was refused before anything was made.
    pub id: String,
    /// `create`, `update`, `delete`, `read`, or the name of the verb.
    pub action: String,
    /// Every name of the path with its value.
    pub path: Map<String, Value>,
}

/// The name of one of a collection.
fn singular(collection: &str) -> String {
    let word = collection.replace('-', "_");
    if let Some(stem) = word.strip_suffix("ies") {
        return format!("{stem}y");
    }
    for (many, one) in [("sses", "ss"), ("addresses", "address"), ("indices", "index")] {
        if let Some(stem) = word.strip_suffix(many) {
            return format!("{stem}{one}");
        }
    }
    if word.ends_with("ss") {
        return word;
    }
    word.strip_suffix('s').unwrap_or(&word).to_owned()
}

fn usual(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT | Method::PATCH => "update",
        Method::DELETE => "delete",
        _ => "read",
    }
}

/// `v3`, `v2.1`: no resource.
fn is_version(segment: &str) -> bool {
    segment.strip_prefix('v').is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit()))
}

/// `OS-TRUST` and the like: an extension's name before its collections.
fn is_extension(segment: &str) -> bool {
    segment.starts_with("OS-") && segment.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-')
}

struct Parts {
    /// Collections in order, each with the value of the name that follows it.
    chain: Vec<(String, Option<String>)>,
    verb: Option<String>,
}

fn parts(pattern: &str, params: &[(&'static str, String)]) -> Parts {
    let mut chain: Vec<(String, Option<String>)> = Vec::new();
    let (mut verb, mut in_actions) = (None, false);
    for segment in pattern.split('/').filter(|s| !s.is_empty() && !is_version(s) && !is_extension(s)) {
        if let Some(name) = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
            let name = name.trim_start_matches('*');
            let value = params.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone());
            match chain.last_mut() {
                Some(last) if last.1.is_none() => last.1 = value,
                _ => chain.push((singular(name), value)),
            }
        } else if in_actions {
            verb = Some(segment.to_owned());
        } else if matches!(segment, "actions" | "action") && chain.last().is_some_and(|c| c.1.is_some()) {
            in_actions = true;
        } else {
            chain.push((singular(segment.trim_start_matches("os-")), None));
        }
    }
    Parts { chain, verb }
}

/// The id in the body of an answer: of the object under the resource's name, or of the body itself.
fn id_of(body: &Value, resource: &str) -> Option<String> {
    let inner = body.get(resource).or_else(|| body.as_object().filter(|o| o.len() == 1)?.values().next());
    let named = |v: &Value| {
        ["id", "uuid", "name"].iter().find_map(|k| match v.get(*k) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Number(n)) => Some(n.to_string()),
            _ => None,
        })
    };
    inner.and_then(named).or_else(|| named(body))
}

impl Subject {
    /// `verb` is the action that the body named; `answer` the body of the answer.
    pub(crate) fn of<S>(
        route: &Route<S>,
        params: &[(&'static str, String)],
        verb: Option<&str>,
        answer: &Value,
    ) -> Subject {
        let Parts { chain, verb: from_path } = parts(route.path, params);
        let path = params.iter().map(|(n, v)| ((*n).to_owned(), Value::from(v.clone()))).collect();
        let last = chain.last();
        let resource = match route.event {
            Some((resource, _)) => resource.to_owned(),
            None => chain.iter().map(|c| c.0.as_str()).collect::<Vec<_>>().join("."),
        };
        let own = resource.rsplit('.').next().unwrap_or_default();
        let id = match last {
            Some((_, Some(id))) => id.clone(),
            // A part of something (`.../members`) without an id of its own is known by its owner's.
            _ => id_of(answer, own).or_else(|| chain.iter().rev().find_map(|c| c.1.clone())).unwrap_or_default(),
        };
        // PUT below another record adds: a user to a group, a tag to a project.
        let adds = route.method == Method::PUT && chain.len() > 1 && last.is_some_and(|l| l.1.is_some());
        let action = match (route.event, verb.map(str::to_owned).or(from_path)) {
            (Some((_, action)), _) => action.to_owned(),
            (None, Some(verb)) => verb,
            (None, None) if adds => "create".to_owned(),
            (None, None) => usual(&route.method).to_owned(),
        };
        Subject { resource, id, action, path }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Call, Reply, Response};
    use serde_json::json;
    use std::sync::Arc;

    async fn answer(_: Arc<()>, _: Call) -> Reply {
        Ok(Response::no_content())
    }

    #[test]
    fn routes_tell_what_they_are_about() {
        let of = |method: Method, path: &'static str, values: &[&str], verb: Option<&str>, body: Value| {
            let route: Route<()> = Route::new(method, path, answer);
            let names = path.split('/').filter_map(|s| s.strip_prefix('{')?.strip_suffix('}'));
            let params: Vec<(&'static str, String)> = names.zip(values).map(|(n, v)| (n, (*v).to_owned())).collect();
            let s = Subject::of(&route, &params, verb, &body);
            (s.resource, s.id, s.action)
        };
        let is = |resource: &str, id: &str, action: &str| (resource.to_owned(), id.to_owned(), action.to_owned());
        let none = Value::Null;
        assert_eq!(of(Method::POST, "/v3/users", &[], None, json!({"user": {"id": "u1"}})), is("user", "u1", "create"));
        assert_eq!(
            of(Method::POST, "/v2/images", &[], None, json!({"id": "i1", "name": "x"})),
            is("image", "i1", "create")
        );
        assert_eq!(of(Method::PATCH, "/v3/users/{user_id}", &["u"], None, none.clone()), is("user", "u", "update"));
        assert_eq!(of(Method::DELETE, "/v2.0/networks/{id}", &["n"], None, none.clone()), is("network", "n", "delete"));
        assert_eq!(
            of(Method::PUT, "/v3/groups/{group_id}/users/{user_id}", &["g", "u"], None, none.clone()),
            is("group.user", "u", "create")
        );
        assert_eq!(
            of(Method::POST, "/v2.1/servers/{server_id}/action", &["s"], Some("pause"), none.clone()),
            is("server", "s", "pause")
        );
        assert_eq!(
            of(Method::POST, "/v2/images/{image_id}/actions/deactivate", &["i"], None, none.clone()),
            is("image", "i", "deactivate")
        );
        assert_eq!(
            of(Method::DELETE, "/v3/OS-TRUST/trusts/{trust_id}", &["t"], None, none.clone()),
            is("trust", "t", "delete")
        );
        assert_eq!(of(Method::PUT, "/v2/images/{image_id}/file", &["i"], None, none), is("image.file", "i", "update"));
        assert_eq!(
            (singular("policies"), singular("classes"), singular("access")),
            ("policy".into(), "class".into(), "access".into())
        );
    }
}
