//! What a mapping may look like, by version, and limits on its size. Regular expressions and texts with
//! `{0}` in them are compiled here once, so that a mapping that is kept can be applied.
use super::{pattern, text};
use pilvi_kit::{Fault, Schema};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// The version of a mapping that names none.
pub(super) const DEFAULT: &str = "1.0";
/// Projects may name a domain, and a rule's domain is that of its user and projects.
pub(super) const DOMAINS: &str = "2.0";
/// Projects may come as JSON, and roles that the provider names no more are taken away.
pub(super) const PROJECTS_JSON: &str = "3.0";

const RULES_MAX: usize = 256;
/// Parts of one rule, values of one requirement, roles of one project.
const PARTS_MAX: usize = 64;
const VALUES_MAX: usize = 1024;
const TEXT_MAX: usize = 2048;

fn short() -> Value {
    json!({"type": "string", "maxLength": TEXT_MAX})
}

fn closed(properties: Value, required: &[&str]) -> Value {
    let mut out = json!({"type": "object", "properties": properties, "additionalProperties": false});
    if !required.is_empty() {
        out["required"] = json!(required);
    }
    out
}

fn domain() -> Value {
    closed(json!({"id": short(), "name": short()}), &[])
}

fn projects(with_domain: bool) -> Value {
    let roles = json!({"type": "array", "maxItems": PARTS_MAX, "items": closed(json!({"name": short()}), &["name"])});
    let mut properties = json!({"name": short(), "roles": roles});
    if with_domain {
        properties["domain"] = domain();
    }
    json!({"type": "array", "maxItems": PARTS_MAX, "items": closed(properties, &["name", "roles"])})
}

fn local(version: &str) -> Value {
    let user = closed(
        json!({"id": short(), "name": short(), "email": short(), "domain": domain(),
            "type": {"type": "string", "enum": ["ephemeral", "local"]}}),
        &[],
    );
    let group = json!({"type": "object", "oneOf": [
        closed(json!({"id": short()}), &["id"]),
        closed(json!({"name": short(), "domain": domain()}), &["name", "domain"])]});
    let mut properties = json!({"user": user, "group": group, "groups": short(), "group_ids": short(),
        "domain": domain(), "projects": projects(version != DEFAULT)});
    if version == PROJECTS_JSON {
        properties["projects_json"] = short();
    }
    json!({"type": "array", "maxItems": PARTS_MAX, "items": closed(properties, &[])})
}

fn remote() -> Value {
    let values = json!({"type": "array", "maxItems": VALUES_MAX, "items": short()});
    let with =
        |name: &str| closed(json!({"type": short(), name: values, "regex": {"type": "boolean"}}), &["type", name]);
    json!({"type": "array", "minItems": 1, "maxItems": PARTS_MAX, "items": {"type": "object", "oneOf": [
        closed(json!({"type": short()}), &["type"]),
        with("any_one_of"), with("not_any_of"), with("blacklist"), with("whitelist")]}})
}

fn document(version: &str) -> Value {
    let rule = closed(json!({"local": local(version), "remote": remote()}), &["local", "remote"]);
    json!({"type": "object", "required": ["rules"], "additionalProperties": false, "properties": {
        "rules": {"type": "array", "minItems": 1, "maxItems": RULES_MAX, "items": rule},
        "schema_version": {"type": "string"}}})
}

static FIRST: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| document(DEFAULT)));
static SECOND: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| document(DOMAINS)));
static THIRD: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| document(PROJECTS_JSON)));
/// The list of projects that a provider sends as JSON.
pub(super) static PROJECTS: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| projects(true)));

fn each_text(value: &Value, check: &impl Fn(&str) -> Result<(), String>) -> Result<(), String> {
    match value {
        Value::String(text) => check(text),
        Value::Array(items) => items.iter().try_for_each(|v| each_text(v, check)),
        Value::Object(map) => map.values().try_for_each(|v| each_text(v, check)),
        _ => Ok(()),
    }
}

/// How many direct values a rule's requirements yield: those that neither demand nor forbid.
fn direct(requirement: &&Value) -> bool {
    requirement.get("any_one_of").is_none() && requirement.get("not_any_of").is_none()
}

fn check_rule(rule: &Value) -> Result<(), String> {
    let remote = rule["remote"].as_array().map(Vec::as_slice).unwrap_or_default();
    for requirement in remote.iter().filter(|r| r["regex"] == true) {
        for name in ["any_one_of", "not_any_of", "blacklist", "whitelist"] {
            for value in requirement[name].as_array().into_iter().flatten().filter_map(Value::as_str) {
                pattern::compile(value)?;
            }
        }
    }
    let count = remote.iter().filter(direct).count();
    each_text(&rule["local"], &|text| text::check(text, count))
}

/// 400 unless `document` is a mapping of this version.
pub(super) fn check(document: &Value, version: &str) -> Result<(), Fault> {
    let schema = match version {
        DEFAULT => &FIRST,
        DOMAINS => &SECOND,
        PROJECTS_JSON => &THIRD,
        _ => {
            return Err(Fault::bad_request(format!(
                "Unknown schema_version {version}: there are {DEFAULT}, {DOMAINS} and {PROJECTS_JSON}."
            )));
        }
    };
    schema.check(document)?;
    for (number, rule) in document["rules"].as_array().into_iter().flatten().enumerate() {
        check_rule(rule).map_err(|why| Fault::bad_request(format!("Invalid input for rule {number}: {why}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(rule: Value, version: &str) -> Option<String> {
        check(&json!({"rules": [rule]}), version).err().map(|f| f.message)
    }

    #[test]
    fn versions_differ_in_what_they_allow() {
        let local = |local: Value| json!({"local": [local], "remote": [{"type": "a"}]});
        assert_eq!(refused(local(json!({"user": {"name": "{0}"}})), DEFAULT), None);
        let project = local(json!({"projects": [{"name": "p", "roles": [{"name": "r"}], "domain": {"id": "d"}}]}));
        assert!(refused(project.clone(), DEFAULT).is_some());
        assert_eq!(refused(project, DOMAINS), None);
        let json = local(json!({"projects_json": "{0}"}));
        assert!(refused(json.clone(), DOMAINS).is_some());
        assert_eq!(refused(json.clone(), PROJECTS_JSON), None);
        assert!(refused(json, "4.0").unwrap().contains("4.0"));
    }

    #[test]
    fn what_could_not_be_applied_is_not_kept() {
        let with = |remote: Value, name: &str| json!({"local": [{"user": {"name": name}}], "remote": [remote]});
        let cases = [
            (with(json!({"type": "a", "any_one_of": ["("], "regex": true}), "x"), "("),
            (with(json!({"type": "a", "any_one_of": ["x"]}), "{0}"), "{0}"),
            (with(json!({"type": "a"}), "{1}"), "{1}"),
            (with(json!({"type": "a"}), "{name}"), "name"),
            (with(json!({"type": "a"}), "{0"), "{0"),
            (with(json!({"type": "a", "any_one_of": ["x"], "whitelist": ["x"]}), "x"), ""),
            (with(json!({"type": "a", "any_one_of": [1]}), "x"), ""),
            (json!({"local": [], "remote": []}), ""),
            (json!({"local": []}), ""),
        ];
        for (rule, word) in cases {
            let why = refused(rule.clone(), DEFAULT).unwrap_or_else(|| panic!("taken: {rule}"));
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn sizes_are_limited() {
        let one = json!({"local": [], "remote": [{"type": "a"}]});
        assert!(check(&json!({"rules": vec![one.clone(); RULES_MAX]}), DEFAULT).is_ok());
        assert!(check(&json!({"rules": vec![one; RULES_MAX + 1]}), DEFAULT).is_err());
        let long = json!({"local": [], "remote": [{"type": "a", "any_one_of": ["a".repeat(TEXT_MAX + 1)]}]});
        assert!(refused(long, DEFAULT).is_some());
        let large =
            json!({"local": [], "remote": [{"type": "a", "any_one_of": ["((a{500}){500}){500}"], "regex": true}]});
        assert!(refused(large, DEFAULT).is_some(), "a small text can be a large machine");
    }
}
