//! An RBAC policy, and how an opened record looks to the project that asks. Pure.
//!
//! The policies are what the API shows; whom they open a record to is also kept in the record itself
//! (`shared`, `shared_with`, `external_for`), so that no check and no list has to join.
use crate::list::Raw;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The target that means every project.
pub const EVERYONE: &str = "*";

/// What a policy lets its target do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// See and use it.
    #[serde(rename = "access_as_shared")]
    Shared,
    /// Have gateways and floating IPs on it (networks only).
    #[serde(rename = "access_as_external")]
    External,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RbacPolicy {
    pub id: String,
    pub project_id: String,
    /// `network`, `subnetpool`, ...
    pub object_type: String,
    pub object_id: String,
    pub target_tenant: String,
    pub action: Action,
}

impl RbacPolicy {
    pub fn new(project_id: &str, object_type: &str, object_id: &str, target: &str, action: Action) -> Self {
        RbacPolicy {
            id: pilvi_kit::id::new(),
            project_id: project_id.to_owned(),
            object_type: object_type.to_owned(),
            object_id: object_id.to_owned(),
            target_tenant: target.to_owned(),
            action,
        }
    }
}

/// The label by which a project finds what is open to it alone.
pub fn label(project: &str) -> String {
    format!("for={project}")
}

/// Does a list of targets name the project, or everyone?
pub fn covers(targets: &[String], project: &str) -> bool {
    targets.iter().any(|t| t == EVERYONE || t == project)
}

/// Lays the caller's view over a record: is it shared with `project`, is it external to `project`?
pub fn as_seen_by(raw: &mut Raw, project: &str) {
    let named = |raw: &Raw, list: &str| {
        let targets = raw.get(list).and_then(Value::as_array);
        targets.is_some_and(|t| t.iter().any(|t| t == project || t == EVERYONE))
    };
    if raw.contains_key("shared_with") {
        let shared = raw.get("shared") == Some(&Value::Bool(true)) || named(raw, "shared_with");
        raw.insert("shared".into(), json!(shared));
    }
    if let Some(external) = raw.get("router:external") {
        // A network that has been external since before there were policies names nobody: it is open to all.
        let everyone = raw.get("external_for").and_then(Value::as_array).is_none_or(Vec::is_empty);
        let external = *external == Value::Bool(true) && (everyone || named(raw, "external_for"));
        raw.insert("external_to_caller".into(), json!(external));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(document: Value, project: &str) -> (bool, bool) {
        let mut raw = document.as_object().unwrap().clone();
        as_seen_by(&mut raw, project);
        (raw["shared"] == json!(true), raw["external_to_caller"] == json!(true))
    }

    #[test]
    fn what_is_open_depends_on_who_looks() {
        let one = json!({"shared": false, "shared_with": ["a"], "router:external": true, "external_for": ["b"]});
        assert_eq!(seen(one.clone(), "a"), (true, false));
        assert_eq!(seen(one.clone(), "b"), (false, true));
        assert_eq!(seen(one, "c"), (false, false));
        let old = json!({"shared": true, "shared_with": [], "router:external": true, "external_for": []});
        assert_eq!(seen(old, "c"), (true, true));
        assert!(covers(&["*".to_owned()], "x") && !covers(&[], "x"));
    }
}
