//! What a rule is asked about: the caller's own ids, the path's, and `target.<member>.<attribute>`.
use crate::tables::{Group, Project, Role, User};
use pilvi_kit::{Call, Target, auth::Scope};
use serde_json::{Map, Value, json};

/// `target.<member>` for each member that exists; a missing one is left out, so rules that look at it deny.
pub(crate) fn about<const N: usize>(call: &Call, members: [(&str, Option<Value>); N]) -> Target {
    let mut inner = Map::new();
    for (name, value) in members {
        if let Some(value) = value {
            inner.insert(name.to_owned(), value);
        }
    }
    let mut target = call.target();
    target.insert("target".into(), Value::Object(inner));
    target
}

pub(crate) fn user(user: &User) -> Value {
    json!({"id": user.id, "name": user.name, "domain_id": user.domain_id, "enabled": user.enabled})
}
pub(crate) fn group(group: &Group) -> Value {
    json!({"id": group.id, "name": group.name, "domain_id": group.domain_id})
}
/// A project or a domain.
pub(crate) fn project(project: &Project) -> Value {
    json!({"id": project.id, "name": project.name, "domain_id": project.domain_id, "parent_id": project.parent_id})
}
pub(crate) fn role(role: &Role) -> Value {
    json!({"id": role.id, "name": role.name, "domain_id": role.domain_id})
}

/// The domain a caller's token is for, if it is for a domain.
pub(crate) fn scope_domain(call: &Call) -> Option<String> {
    call.caller().domain_id().map(str::to_owned)
}

/// The domain that something new goes into when the client names none: the token's, or its project's.
pub(crate) fn default_domain(call: &Call) -> String {
    match &call.caller().scope {
        Scope::Domain { id, .. } => id.clone(),
        Scope::Project { domain_id, .. } => domain_id.clone(),
        Scope::System | Scope::Unscoped => crate::bootstrap::DEFAULT_DOMAIN.to_owned(),
    }
}
