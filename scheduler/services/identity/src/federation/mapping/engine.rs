//! Applying a mapping: pure, from an assertion to what somebody is here.
//!
//! A rule holds when all that it asks of the assertion is there. Of the rules that hold, the first user
//! counts, groups add up, and the last projects count. What a rule takes from the assertion without a
//! condition (or filtered by a white or black list) are the values `{0}`, `{1}`, ... of its local part.
use super::{
    pattern, schema,
    text::{Direct, fill, texts},
};
use crate::tables::Mapping;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What a provider says of somebody: attribute -> values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Assertion(pub BTreeMap<String, Vec<String>>);

impl Assertion {
    pub fn first(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(|v| v.first()).map(String::as_str)
    }
}

/// A domain by id or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DomainName {
    Id(String),
    Name(String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MappedUser {
    pub id: Option<String>,
    pub name: Option<String>,
    pub email: Option<String>,
    pub domain: Option<DomainName>,
    /// A user of our own, not one that is made for somebody from outside.
    pub local: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MappedProject {
    pub name: String,
    pub domain: Option<DomainName>,
    pub roles: Vec<String>,
}

/// What somebody is here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mapped {
    pub user: MappedUser,
    pub group_ids: Vec<String>,
    pub groups: Vec<(String, DomainName)>,
    pub projects: Vec<MappedProject>,
    /// Roles on projects that are not named any more are to be taken away.
    pub only_these_projects: bool,
}

fn string(value: &Value, name: &str) -> Option<String> {
    value.get(name).and_then(Value::as_str).map(str::to_owned)
}

fn domain(value: &Value) -> Option<DomainName> {
    string(value, "id").map(DomainName::Id).or_else(|| string(value, "name").map(DomainName::Name))
}

fn push<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

/// The values of `have` that some of `wanted` matches.
fn matching<'h>(have: &'h [String], wanted: &[&str], regex: bool) -> Result<Vec<&'h String>, String> {
    if !regex {
        return Ok(have.iter().filter(|v| wanted.contains(&v.as_str())).collect());
    }
    let compiled: Vec<_> = wanted.iter().map(|p| pattern::compile(p)).collect::<Result<_, _>>()?;
    let mut out = Vec::new();
    for value in have {
        for pattern in &compiled {
            if pattern::found(pattern, value)? {
                out.push(value);
                break;
            }
        }
    }
    Ok(out)
}

/// The direct values of a rule, or `None` when it does not hold.
fn requirements(remote: &[Value], assertion: &Assertion) -> Result<Option<Vec<Direct>>, String> {
    let mut direct = Vec::new();
    for requirement in remote {
        let name = requirement["type"].as_str().unwrap_or_default();
        let Some(have) = assertion.0.get(name).filter(|v| !v.is_empty()) else { return Ok(None) };
        let regex = requirement["regex"] == true;
        let wanted = |kind: &str| -> Option<Vec<&str>> {
            requirement.get(kind)?.as_array().map(|list| list.iter().filter_map(Value::as_str).collect())
        };
        if let Some(wanted) = wanted("any_one_of") {
            if matching(have, &wanted, regex)?.is_empty() {
                return Ok(None);
            }
        } else if let Some(wanted) = wanted("not_any_of") {
            if !matching(have, &wanted, regex)?.is_empty() {
                return Ok(None);
            }
        } else if let Some(wanted) = wanted("blacklist") {
            let bad = matching(have, &wanted, regex)?;
            direct.push(unique(have.iter().filter(|v| !bad.contains(v))));
        } else if let Some(wanted) = wanted("whitelist") {
            direct.push(unique(matching(have, &wanted, regex)?));
        } else {
            direct.push(have.clone());
        }
    }
    Ok(Some(direct))
}

/// Each value once, in the order in which the provider named them.
fn unique<'v>(values: impl IntoIterator<Item = &'v String>) -> Direct {
    let mut out = Vec::new();
    for value in values {
        push(&mut out, value.clone());
    }
    out
}

/// A local part with its holes filled.
fn filled(local: &Value, direct: &[Direct], json_projects: bool) -> Result<Value, String> {
    match local {
        Value::String(text) => fill(text, direct).map(Value::String),
        Value::Array(items) => {
            items.iter().map(|v| filled(v, direct, json_projects)).collect::<Result<Vec<_>, _>>().map(Value::Array)
        }
        Value::Object(map) => {
            let mut out = Map::new();
            for (key, value) in map {
                let new = match value.as_str() {
                    Some(text) if json_projects && key == "projects_json" => projects_json(text, direct)?,
                    _ => filled(value, direct, json_projects)?,
                };
                out.insert(key.clone(), new);
            }
            Ok(Value::Object(out))
        }
        other => Ok(other.clone()),
    }
}

/// `{0}`: the list of projects that this direct value is as JSON.
fn projects_json(text: &str, direct: &[Direct]) -> Result<Value, String> {
    let digits: String = text.trim_start_matches('{').chars().take_while(char::is_ascii_digit).collect();
    let index: usize = digits.parse().map_err(|_| format!("projects_json must name a direct value, not {text}"))?;
    let values =
        direct.get(index).ok_or_else(|| format!("projects_json names the direct value {index}, which is not there"))?;
    // Where an attribute is cut at semicolons, a list may arrive in pieces.
    let value: Value = serde_json::from_str(&values.join(";"))
        .map_err(|e| format!("the attribute for projects_json is no JSON: {e}"))?;
    schema::PROJECTS.check(&value).map_err(|f| f.message)?;
    Ok(value)
}

/// Groups by name: a list of names in the rule's domain, or `JSON:{"name", "domain"}` as another cloud sends them.
fn groups(value: &Value, named: &str) -> Result<Vec<(String, DomainName)>, String> {
    let own = value.get("domain").and_then(domain);
    let mut out = Vec::new();
    for text in texts(named) {
        let (name, domain) = match text.strip_prefix("JSON:") {
            Some(json) => {
                let group: Value =
                    serde_json::from_str(json).map_err(|e| format!("a group of the assertion is no JSON: {e}"))?;
                (string(&group, "name").unwrap_or_default(), group.get("domain").and_then(domain))
            }
            None => (text, own.clone()),
        };
        let domain = domain.ok_or("Invalid rule: both 'groups' and 'domain' keywords must be specified.")?;
        push(&mut out, (name, domain));
    }
    Ok(out)
}

fn projects(value: &Value, default: Option<&DomainName>) -> Vec<MappedProject> {
    let listed = |name: &str| value.get(name).and_then(Value::as_array).into_iter().flatten();
    let one = |project: &Value| MappedProject {
        name: string(project, "name").unwrap_or_default(),
        domain: project.get("domain").and_then(domain).or_else(|| default.cloned()),
        roles: project["roles"].as_array().into_iter().flatten().filter_map(|r| string(r, "name")).collect(),
    };
    listed("projects").chain(listed("projects_json")).map(one).collect()
}

fn user(value: &Value) -> MappedUser {
    MappedUser {
        id: string(value, "id"),
        name: string(value, "name"),
        email: string(value, "email"),
        domain: value.get("domain").and_then(domain),
        local: value["type"] == "local",
    }
}

/// What the assertion makes of somebody, or why it makes nothing of him.
pub(crate) fn apply(mapping: &Mapping, assertion: &Assertion) -> Result<Mapped, String> {
    let (domains, json) = (mapping.schema_version != schema::DEFAULT, mapping.schema_version == schema::PROJECTS_JSON);
    let mut values = Vec::new();
    for rule in mapping.rules.as_array().into_iter().flatten() {
        let remote = rule["remote"].as_array().map(Vec::as_slice).unwrap_or_default();
        if let Some(direct) = requirements(remote, assertion)? {
            for local in rule["local"].as_array().into_iter().flatten() {
                values.push(filled(local, &direct, json)?);
            }
        }
    }
    let Some(last) = values.last() else {
        return Err("Could not map any federated user properties to identity values.".to_owned());
    };
    let mut out = Mapped { only_these_projects: json, ..Mapped::default() };
    let mut known = false;
    for value in &values {
        if let Some(found) = value.get("user").filter(|u| !known && u.as_object().is_some_and(|m| !m.is_empty())) {
            (out.user, known) = (user(found), true);
        }
        if let Some(group) = value.get("group") {
            match (string(group, "id"), string(group, "name"), group.get("domain").and_then(domain)) {
                (Some(id), _, _) => push(&mut out.group_ids, id),
                (None, Some(name), Some(domain)) => push(&mut out.groups, (name, domain)),
                _ => return Err("a group is named without a domain".to_owned()),
            }
        }
        if let Some(named) = value.get("groups").and_then(Value::as_str) {
            groups(value, named)?.into_iter().for_each(|g| push(&mut out.groups, g));
        }
        if let Some(ids) = value.get("group_ids").and_then(Value::as_str) {
            texts(ids).into_iter().for_each(|id| push(&mut out.group_ids, id));
        }
        if value.get("projects").is_some() || value.get("projects_json").is_some() {
            let default = value.get("domain").and_then(domain).filter(|_| domains);
            out.projects = projects(value, default.as_ref());
        }
    }
    if domains && out.user.domain.is_none() {
        out.user.domain = last.get("domain").and_then(domain);
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
