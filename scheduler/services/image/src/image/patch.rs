//! JSON patches of images, in both spellings: `{"op", "path", "value"}` (2.1) and `{"replace": "/name",
//! "value"}` (2.0). Paths are JSON pointers of one step; those of locations have two.
use super::{model::Image, view};
use crate::location::{self, patch::Prepared};
use pilvi_kit::Fault;
use serde_json::Value;

pub const NEW: &str = "application/openstack-images-v2.1-json-patch";
pub const OLD: &str = "application/openstack-images-v2.0-json-patch";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Add,
    Replace,
    Remove,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub op: Op,
    pub name: String,
    /// The second step of the path, of locations.
    pub at: Option<String>,
    /// `null` for a removal.
    pub value: Value,
}

fn op(text: &str) -> Option<Op> {
    match text {
        "add" => Some(Op::Add),
        "replace" => Some(Op::Replace),
        "remove" => Some(Op::Remove),
        _ => None,
    }
}

/// Reads a patch sent with the given content type: 415 for others.
pub fn parse(content_type: &str, body: &Value) -> Result<Vec<Change>, Fault> {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    let read = match kind {
        NEW => new_style,
        OLD => old_style,
        _ => {
            let text = format!("Image PATCH expects Content-Type one of: {OLD}, {NEW}");
            return Err(Fault::new(415, text).header("accept-patch", format!("{OLD}, {NEW}")));
        }
    };
    let items =
        body.as_array().ok_or_else(|| Fault::bad_request("Request body must be a JSON array of operation objects."))?;
    items.iter().map(read).collect()
}

fn new_style(item: &Value) -> Result<Change, Fault> {
    let available = "It must be one of the following: add, remove, replace.";
    let text = item
        .get("op")
        .ok_or_else(|| Fault::bad_request(format!("Unable to find `op` in JSON Schema change. {available}")))?;
    let op = text
        .as_str()
        .and_then(op)
        .ok_or_else(|| Fault::bad_request(format!("Invalid operation: `{text}`. {available}")))?;
    let path = item
        .get("path")
        .and_then(Value::as_str)
        .ok_or_else(|| Fault::bad_request("Unable to find 'path' in JSON Schema change"))?;
    change(item, op, path)
}

fn old_style(item: &Value) -> Result<Change, Fault> {
    let found: Vec<(Op, &Value)> =
        item.as_object().into_iter().flatten().filter_map(|(key, value)| op(key).map(|op| (op, value))).collect();
    match found.as_slice() {
        [(op, Value::String(path))] => change(item, *op, path),
        _ => Err(Fault::bad_request(
            "Operation objects must contain exactly one member named \"add\", \"remove\", or \"replace\".",
        )),
    }
}

fn change(item: &Value, op: Op, path: &str) -> Result<Change, Fault> {
    let (name, at) = pointer(path)?;
    if (name == "locations") && (at.is_none() != (op == Op::Replace)) {
        return Err(Fault::bad_request(format!("Invalid JSON pointer for this resource: '{path}'")));
    }
    let value = match (op, item.get("value")) {
        (Op::Remove, _) => Value::Null,
        (_, Some(value)) => value.clone(),
        (_, None) => {
            return Err(Fault::bad_request("Operations \"add\" and \"replace\" require a member named \"value\"."));
        }
    };
    Ok(Change { op, name, at, value })
}

/// The single step of a JSON pointer, unescaped; locations have a second one.
fn pointer(path: &str) -> Result<(String, Option<String>), Fault> {
    let bad = || Fault::bad_request(format!("Invalid JSON pointer for this resource: '{path}'"));
    let step = path.strip_prefix('/').ok_or_else(bad)?;
    if let Some(at) = step.strip_prefix("locations/").filter(|at| !at.is_empty() && !at.contains('/')) {
        return Ok(("locations".to_owned(), Some(at.trim().to_owned())));
    }
    if step.is_empty() || step.contains('/') {
        return Err(bad());
    }
    let mut name = String::with_capacity(step.len());
    let mut rest = step.chars();
    while let Some(c) = rest.next() {
        match c {
            '~' => name.push(match rest.next() {
                Some('0') => '~',
                Some('1') => '/',
                _ => return Err(bad()),
            }),
            c => name.push(c),
        }
    }
    Ok((name.trim().to_owned(), None))
}

/// Applies all changes; `named` are those of locations, in their order.
pub fn apply_all(image: &mut Image, changes: &[Change], named: &[Prepared]) -> Result<(), Fault> {
    let mut named = named.iter();
    for change in changes {
        match change.name.as_str() {
            "locations" => named.next().map_or(Ok(()), |prepared| location::patch::apply(image, prepared))?,
            _ => apply(image, change)?,
        }
    }
    Ok(())
}

/// Applies one change; the caller has asked the rules.
pub fn apply(image: &mut Image, change: &Change) -> Result<(), Fault> {
    let name = change.name.as_str();
    view::check_name(name)?;
    let base = view::BASE.contains(&name);
    let known = base || image.properties.contains_key(name);
    match change.op {
        Op::Remove if base => Err(Fault::forbidden(format!("Property {name} may not be removed."))),
        Op::Remove if !known => Err(Fault::conflict(format!("Property {name} does not exist."))),
        Op::Remove => {
            image.properties.remove(name);
            Ok(())
        }
        Op::Replace if !known => Err(Fault::conflict(format!("Property {name} does not exist."))),
        Op::Add | Op::Replace => {
            if matches!(name, "disk_format" | "container_format") && image.status != super::model::Status::Queued {
                return Err(Fault::forbidden(format!("Attribute {name} can be only replaced for a queued image.")));
            }
            view::set(image, name, &change.value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn patched(kind: &str, body: Value) -> Result<Image, Fault> {
        let mut image = Image::new("i".into(), None);
        image.properties.insert("a/b".into(), Some("1".into()));
        for change in parse(kind, &body)? {
            apply(&mut image, &change)?;
        }
        Ok(image)
    }

    #[test]
    fn both_spellings_change_members_and_properties() {
        let image = patched(NEW, json!([{"op": "replace", "path": "/name", "value": "n"}, {"op": "remove", "path": "/a~1b"}, {"op": "add", "path": "/c", "value": "2"}])).unwrap();
        assert_eq!((image.name.as_deref(), image.properties.len(), image.property("c")), (Some("n"), 1, Some("2")));
        assert_eq!(patched(OLD, json!([{"replace": "/name", "value": "m"}])).unwrap().name.as_deref(), Some("m"));
    }

    #[test]
    fn refusals_are_told_apart() {
        for (code, item) in [
            (403, json!({"op": "replace", "path": "/status", "value": "active"})),
            (403, json!({"op": "add", "path": "/os_glance_x", "value": "1"})),
            (400, json!({"op": "add", "path": "/locations", "value": {}})),
            (400, json!({"op": "replace", "path": "/locations/0", "value": {}})),
            (400, json!({"op": "remove", "path": "/locations/0/url"})),
            (403, json!({"op": "remove", "path": "/name"})),
            (403, json!({"op": "replace", "path": "/id", "value": "x"})),
            (409, json!({"op": "remove", "path": "/none"})),
            (409, json!({"op": "replace", "path": "/none", "value": "1"})),
            (400, json!({"op": "move", "path": "/name"})),
            (400, json!({"op": "add", "path": "/name"})),
            (400, json!({"op": "add", "path": "name", "value": "x"})),
            (400, json!({"op": "add", "path": "/a/b", "value": "x"})),
            (400, json!({"op": "add", "path": "/a~2", "value": "x"})),
        ] {
            assert_eq!(patched(NEW, json!([item])).unwrap_err().code(), code, "{item}");
        }
        assert_eq!(patched("application/json", json!([])).unwrap_err().code(), 415);
        assert_eq!(patched(NEW, json!({})).unwrap_err().code(), 400);
        assert_eq!(patched(OLD, json!([{"add": "/x", "remove": "/y", "value": "1"}])).unwrap_err().code(), 400);
    }

    proptest! {
        #[test]
        fn any_pointer_is_read_or_refused(path in "\\PC{0,40}") { let _ = pointer(&path); }
    }
}
