//! The tree of a rule and what it takes to hold.
//!
//! A leaf `kind:match` first fills `%(name)s` in `match` from the target (a missing name denies), then
//! compares with the credential `kind`, which may be a dotted path and may be a list (any element), or,
//! if `kind` is a literal (`'text'`, `True`, `None`, a number), with that. Values are compared as the
//! original prints them: `None`, `True`, `False`.
use super::Target;
use serde_json::Value;

#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    True,
    False,
    Not(Box<Check>),
    And(Vec<Check>),
    Or(Vec<Check>),
    Rule(String),
    Role(String),
    Match { kind: String, matched: String },
}

/// How far rules may refer to rules; a loop ends here and denies.
const REFERENCE_MAX: usize = 32;

impl Check {
    /// `rules` finds a rule by name.
    pub fn holds<'r>(
        &self,
        rules: &dyn Fn(&str) -> Option<&'r Check>,
        target: &Target,
        credentials: &Value,
        depth: usize,
    ) -> bool {
        match self {
            Check::True => true,
            Check::False => false,
            Check::Not(inner) => !inner.holds(rules, target, credentials, depth),
            Check::And(parts) => parts.iter().all(|p| p.holds(rules, target, credentials, depth)),
            Check::Or(parts) => parts.iter().any(|p| p.holds(rules, target, credentials, depth)),
            Check::Rule(name) => {
                depth < REFERENCE_MAX
                    && rules(name)
                        .or_else(|| rules("default"))
                        .is_some_and(|rule| rule.holds(rules, target, credentials, depth + 1))
            }
            Check::Role(name) => fill(name, target).is_some_and(|name| has_role(credentials, &name)),
            Check::Match { kind, matched } => {
                fill(matched, target).is_some_and(|matched| equals(kind, &matched, credentials))
            }
        }
    }
}

fn has_role(credentials: &Value, name: &str) -> bool {
    let roles = credentials.get("roles").and_then(Value::as_array);
    roles.is_some_and(|roles| roles.iter().any(|r| r.as_str().is_some_and(|r| r.to_lowercase() == name.to_lowercase())))
}

fn equals(kind: &str, matched: &str, credentials: &Value) -> bool {
    if let Some(literal) = literal(kind) {
        return literal == matched;
    }
    let path: Vec<&str> = kind.split('.').collect();
    find(credentials, &path, matched)
}

/// A Python literal, printed as the original prints it.
fn literal(kind: &str) -> Option<String> {
    let quoted = |q: char| kind.len() >= 2 && kind.starts_with(q) && kind.ends_with(q);
    if quoted('\'') || quoted('"') {
        return Some(kind[1..kind.len() - 1].to_owned());
    }
    match kind {
        "None" | "True" | "False" => Some(kind.to_owned()),
        _ if kind.bytes().all(|b| b.is_ascii_digit() || b == b'-') => kind.parse::<i64>().ok().map(|n| n.to_string()),
        // `{:?}` prints as Python does: 1.0, 1.5.
        _ if kind.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'.')) => {
            kind.parse::<f64>().ok().map(|n| format!("{n:?}"))
        }
        _ => None,
    }
}

/// A kind that is meant as a number and is none: the original fails each request that reaches it.
pub(super) fn is_broken_number(kind: &str) -> bool {
    kind.starts_with(|c: char| c.is_ascii_digit()) && literal(kind).is_none()
}

fn find(value: &Value, path: &[&str], matched: &str) -> bool {
    match (value, path.split_first()) {
        (Value::Array(items), _) => items.iter().any(|item| find(item, path, matched)),
        (value, None) => printed(value) == matched,
        (Value::Object(map), Some((first, rest))) => map.get(*first).is_some_and(|inner| find(inner, rest, matched)),
        _ => false,
    }
}

/// As the original's `str()` prints it.
fn printed(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

/// Fills `%(name)s`; `None` when the target has no such name or the pattern is broken.
fn fill(pattern: &str, target: &Target) -> Option<String> {
    if !pattern.contains('%') {
        return Some(pattern.to_owned());
    }
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('%') {
            out.push('%');
            rest = tail;
            continue;
        }
        let (name, tail) = rest.strip_prefix('(')?.split_once(')')?;
        rest = tail.strip_prefix('s')?;
        out.push_str(&printed(lookup(target, name)?));
    }
    out.push_str(rest);
    Some(out)
}

/// A name in the target: as it stands, or as a dotted path into it.
fn lookup<'t>(target: &'t Target, name: &str) -> Option<&'t Value> {
    if let Some(value) = target.get(name) {
        return Some(value);
    }
    let mut parts = name.split('.');
    let mut value = target.get(parts.next()?)?;
    for part in parts {
        value = value.get(part)?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use serde_json::json;

    fn holds(rule: &str, target: Value, credentials: Value) -> bool {
        parse(rule).unwrap().holds(&|_| None, target.as_object().unwrap(), &credentials, 0)
    }

    #[test]
    fn leaves_compare_credentials_with_the_filled_target() {
        assert!(holds("user_id:%(user_id)s", json!({"user_id": "u"}), json!({"user_id": "u"})));
        assert!(!holds("user_id:%(user_id)s", json!({}), json!({"user_id": "u"})));
        assert!(holds(
            "domain_id:%(target.user.domain_id)s",
            json!({"target": {"user": {"domain_id": "d"}}}),
            json!({"domain_id": "d"})
        ));
        assert!(holds(
            "domain_id:%(target.user.domain_id)s",
            json!({"target.user.domain_id": "d"}),
            json!({"domain_id": "d"})
        ));
        assert!(holds("token.project.domain.id:x", json!({}), json!({"token": {"project": {"domain": {"id": "x"}}}})));
        assert!(holds("'shared':%(visibility)s", json!({"visibility": "shared"}), json!({})));
        assert!(holds("None:%(owner)s", json!({"owner": null}), json!({})));
        assert!(holds("True:%(enabled)s", json!({"enabled": true}), json!({})));
        assert!(holds("groups:b", json!({}), json!({"groups": ["a", "b"]})));
        assert!(holds("system_scope:all", json!({}), json!({"system_scope": "all"})));
        assert!(!holds("system_scope:all", json!({}), json!({"system_scope": null})));
    }

    #[test]
    fn a_loop_of_rules_denies() {
        let rule = parse("rule:a").unwrap();
        assert!(!rule.holds(&|_| Some(&rule), &Target::new(), &json!({}), 0));
    }
}
