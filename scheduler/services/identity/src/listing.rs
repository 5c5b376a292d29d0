//! Lists: `{"users": [...], "links": {...}}`, filtered by attribute, cut by `limit` and `marker`.
//!
//! `?name=x` compares, `?name__contains=x` (and `icontains`, `startswith`, `istartswith`, `endswith`,
//! `iendswith`, `iexact`) looks inside. Attributes a resource does not filter by are ignored, as Keystone does.
pub(crate) mod stored;

use crate::Identity;
use pilvi_kit::{
    Call, Reply, Response,
    call::boolean,
    page::{Page, PageRules},
};
use serde_json::{Value, json};

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Is an attribute's `value` what the query wants?
fn passes(value: &Value, comparator: &str, wanted: &str) -> bool {
    if let Value::Bool(have) = value {
        return boolean(wanted) == Some(*have);
    }
    let (have, lower) = (shown(value), || (shown(value).to_lowercase(), wanted.to_lowercase()));
    match comparator {
        "" => have == wanted || (value.is_null() && wanted.eq_ignore_ascii_case("null")),
        "contains" => have.contains(wanted),
        "startswith" => have.starts_with(wanted),
        "endswith" => have.ends_with(wanted),
        "icontains" => {
            let (h, w) = lower();
            h.contains(&w)
        }
        "istartswith" => {
            let (h, w) = lower();
            h.starts_with(&w)
        }
        "iendswith" => {
            let (h, w) = lower();
            h.ends_with(&w)
        }
        "iexact" => {
            let (h, w) = lower();
            h == w
        }
        _ => true,
    }
}

/// The query's filters on `attributes`: (attribute, comparator, value).
fn wanted_of<'c>(call: &'c Call, attributes: &[&str]) -> Vec<(&'c str, &'c str, &'c str)> {
    call.query
        .0
        .iter()
        .map(|(key, value)| {
            let (attribute, comparator) = key.split_once("__").unwrap_or((key, ""));
            (attribute, comparator, value.as_str())
        })
        .filter(|(attribute, _, _)| attributes.contains(attribute))
        .collect()
}

/// The items that pass the query's filters on `attributes`.
pub(crate) fn filter(call: &Call, items: Vec<Value>, attributes: &[&str]) -> Vec<Value> {
    let wanted = wanted_of(call, attributes);
    let fits = |item: &Value| {
        wanted.iter().all(|(attribute, comparator, wanted)| {
            item.get(attribute).is_some_and(|value| passes(value, comparator, wanted))
        })
    };
    items.into_iter().filter(fits).collect()
}

/// Filters, cuts and wraps `items` (each with an `id`) as `collection`.
pub(crate) fn answer(svc: &Identity, call: &Call, collection: &str, items: Vec<Value>, attributes: &[&str]) -> Reply {
    let items = filter(call, items, attributes);
    let page = Page::of(call, PageRules { max: None, default: svc.config.list_limit, keys: &[] })?;
    let id = |v: &Value| v.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let keyed: Vec<(String, Value)> = items.into_iter().map(|v| (id(&v), v)).collect();
    let (kept, more) = page.cut(keyed, |(id, _)| id, |(_, v), key| v.get(key).cloned().unwrap_or(Value::Null))?;
    let next = kept.last().filter(|_| more).map(|(last, _)| page.next_url(call, last));
    Ok(next_of(call, collection, kept.into_iter().map(|(_, v)| v).collect(), next))
}

/// One page of a list, with the link to the next.
fn next_of(call: &Call, collection: &str, items: Vec<Value>, next: Option<String>) -> Response {
    let more = next.is_some();
    let mut body = json!({
        collection: items,
        "links": {"next": next, "previous": null, "self": self_url(call)},
    });
    if more && !call.query.has("limit") {
        body["truncated"] = true.into();
    }
    Response::ok(body)
}

/// The whole list, unfiltered.
pub(crate) fn whole(call: &Call, collection: &str, items: Vec<Value>) -> Response {
    Response::ok(json!({collection: items, "links": {"next": null, "previous": null, "self": self_url(call)}}))
}

fn self_url(call: &Call) -> String {
    call.url(&call.path)
}

/// `links` of one resource.
pub(crate) fn self_link(call: &Call, path: &str) -> Value {
    json!({"self": call.url(path)})
}

/// A filter's value that may go into a query of the store.
pub(crate) fn exact<'a>(call: &'a Call, attribute: &str) -> Option<&'a str> {
    call.query.get(attribute).filter(|v| !v.contains('\0') && v.len() <= 255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_compare_and_look_inside() {
        let item = json!({"name": "Alpha", "enabled": true, "parent": null});
        for (attribute, comparator, value, expected) in [
            ("name", "", "Alpha", true),
            ("name", "", "alpha", false),
            ("name", "iexact", "alpha", true),
            ("name", "contains", "lph", true),
            ("name", "icontains", "LPH", true),
            ("name", "startswith", "Al", true),
            ("name", "endswith", "Al", false),
            ("enabled", "", "True", true),
            ("enabled", "", "0", false),
            ("enabled", "", "", true),
            ("parent", "", "null", true),
            ("nothing", "", "x", false),
        ] {
            assert_eq!(
                item.get(attribute).is_some_and(|v| passes(v, comparator, value)),
                expected,
                "{attribute}__{comparator}={value}"
            );
        }
    }
}
