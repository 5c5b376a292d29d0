//! Requests for candidates as query strings, and candidates in JSON.
use super::{
    model::{Group, Wanted},
    ops::Found,
};
use crate::{
    fault,
    provider::model::{AMOUNT_MAX, Amounts, Provider},
    version,
};
use pilvi_kit::{Call, Fault, id};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Groups in one request.
const GROUPS_MAX: usize = 64;

/// `VCPU:2,MEMORY_MB:1024`
pub fn resources(text: &str) -> Result<Amounts, Fault> {
    let bad = |got: &str| {
        Fault::bad_request(format!(
            "Badly formed resources parameter. Expected resources query string parameter in form: ?resources=VCPU:2,MEMORY_MB:1024. Got: {got}."
        ))
    };
    if text.trim().is_empty() {
        return Err(bad("empty string"));
    }
    let mut found = Amounts::new();
    for part in text.split(',') {
        let (class, amount) = part.split_once(':').filter(|(_, a)| !a.contains(':')).ok_or_else(|| bad(part))?;
        let amount: i64 = amount.trim().parse().map_err(|_| {
            Fault::bad_request(format!("Requested resource {class} expected positive integer amount. Got: {amount}."))
        })?;
        if amount < 1 {
            return Err(Fault::bad_request(format!("Requested resource {class} requires amount >= 1. Got: {amount}.")));
        }
        found.insert(class.to_owned(), amount.min(AMOUNT_MAX + 1));
    }
    Ok(found)
}

fn words(text: &str) -> Vec<&str> {
    text.split(',').map(str::trim).collect()
}

/// The `required` parameters of one group.
pub fn traits_into(call: &Call, suffix: &str, group: &mut Group) -> Result<(), Fault> {
    let any_of = call.version >= version::ANY_TRAITS;
    let key = format!("required{suffix}");
    let mut values: Vec<&str> = call.query.all(&key).collect();
    if !any_of && let Some(last) = values.last().copied() {
        // Before 1.39 the last one counted.
        values = vec![last];
    }
    for value in values {
        traits_of(value, any_of, call.version >= version::FORBIDDEN_TRAITS, group)?;
    }
    if let Some(any) = group.required.iter().find(|any| any.is_subset(&group.forbidden)) {
        let names: Vec<&str> = any.iter().map(String::as_str).collect();
        return Err(Fault::bad_request(format!(
            "Conflicting required and forbidden traits found in the following traits keys: {key}: ({})",
            names.join(", ")
        )));
    }
    Ok(())
}

fn traits_of(value: &str, any_of: bool, may_forbid: bool, group: &mut Group) -> Result<(), Fault> {
    let bad = |why: &str| Fault::bad_request(format!("Invalid query string parameters: {why}. Got: {value}"));
    if let Some(list) = value.strip_prefix("in:") {
        let names = words(list);
        if !any_of {
            return Err(bad("The format 'in:HW_CPU_X86_VMX,CUSTOM_MAGIC' only supported since microversion 1.39"));
        }
        if names.iter().any(|n| n.is_empty() || n.starts_with('!')) {
            return Err(bad("Expected 'required' parameter value of the form: in:HW_CPU_X86_VMX,CUSTOM_MAGIC"));
        }
        group.required.push(names.into_iter().map(str::to_owned).collect());
        return Ok(());
    }
    for name in words(value) {
        match name.strip_prefix('!') {
            Some(forbidden) if may_forbid && !forbidden.is_empty() => {
                group.forbidden.insert(forbidden.to_owned());
            }
            None if !name.is_empty() => group.required.push([name.to_owned()].into()),
            _ => return Err(bad("Expected 'required' parameter value of the form: HW_CPU_X86_VMX,CUSTOM_MAGIC")),
        }
    }
    Ok(())
}

/// The `member_of` parameters of one group: `uuid`, `in:uuid,uuid`, `!uuid`, `!in:uuid,uuid`.
pub fn member_of_into(call: &Call, suffix: &str, group: &mut Group) -> Result<(), Fault> {
    let key = format!("member_of{suffix}");
    let values: Vec<&str> = call.query.all(&key).collect();
    if values.len() > 1 && call.version < version::REPEATED_MEMBER_OF {
        return Err(Fault::bad_request("Multiple member_of parameters are not supported"));
    }
    for value in values {
        let (list, forbidden) = match value.strip_prefix('!') {
            Some(rest) if call.version >= version::FORBIDDEN_AGGREGATES => (rest, true),
            Some(_) => {
                return Err(Fault::bad_request(format!(
                    "Forbidden member_of parameters are not supported in the specified microversion: {value}"
                )));
            }
            None => (value, false),
        };
        let ids = match list.strip_prefix("in:") {
            Some(many) => words(many),
            None => vec![list.trim()],
        };
        if let Some(bad) = ids.iter().find(|i| !id::is_uuid(i)) {
            return Err(Fault::bad_request(format!(
                "Invalid query string parameters: Expected '{key}' parameter to contain valid UUID(s). Got: {bad}"
            )));
        }
        let ids: BTreeSet<String> = ids.into_iter().map(str::to_owned).collect();
        if forbidden {
            group.not_member_of.extend(ids);
        } else {
            group.member_of.push(ids);
        }
    }
    Ok(())
}

/// The group suffix of a query key, if it is one of a group's keys.
fn suffix_of<'k>(call: &Call, key: &'k str) -> Option<&'k str> {
    let prefixes: [(&str, bool); 4] = [
        ("resources", true),
        ("required", call.version >= version::CANDIDATES_REQUIRED),
        ("member_of", call.version >= version::CANDIDATES_MEMBER_OF),
        ("in_tree", call.version >= version::CANDIDATES_IN_TREE),
    ];
    let suffix = prefixes.iter().filter(|(_, known)| *known).find_map(|(prefix, _)| key.strip_prefix(prefix))?;
    let number = || !suffix.starts_with('0') && suffix.bytes().all(|b| b.is_ascii_digit());
    let word = || suffix.len() <= 64 && suffix.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let fits = suffix.is_empty()
        || (call.version >= version::WORD_SUFFIX && word())
        || (call.version >= version::GROUPS && number());
    fits.then_some(suffix)
}

fn wide_key(call: &Call, key: &str) -> bool {
    match key {
        "limit" => call.version >= version::CANDIDATES_LIMIT,
        "group_policy" => call.version >= version::GROUPS,
        "root_required" => call.version >= version::ROOT_REQUIRED,
        "same_subtree" => call.version >= version::SAME_SUBTREE,
        _ => false,
    }
}

/// The request in a query string.
pub fn wanted(call: &Call) -> Result<Wanted, Fault> {
    fault::only_keys(call, |key| wide_key(call, key) || suffix_of(call, key).is_some())?;
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for (key, value) in call.query.0.iter().filter(|(key, _)| !wide_key(call, key)) {
        let Some(suffix) = suffix_of(call, key) else { continue };
        let group = groups.entry(suffix.to_owned()).or_default();
        if key.starts_with("resources") {
            group.resources = resources(value)?;
        } else if key.starts_with("in_tree") {
            if !id::is_uuid(value) {
                return Err(Fault::bad_request(format!(
                    "Expected 'in_tree' parameter to be a format of uuid. Got: {value}"
                )));
            }
            group.in_tree = Some(value.clone());
        }
    }
    if groups.len() > GROUPS_MAX {
        return Err(Fault::bad_request(format!("More than {GROUPS_MAX} request groups")));
    }
    for (suffix, group) in &mut groups {
        traits_into(call, suffix, group)?;
        member_of_into(call, suffix, group)?;
    }
    let mut out = Wanted { groups, roots_only: call.version < version::NESTED, ..Wanted::default() };
    wide_into(call, &mut out)?;
    check(call, &out)?;
    Ok(out)
}

fn wide_into(call: &Call, out: &mut Wanted) -> Result<(), Fault> {
    if let Some(text) = call.query.get("limit") {
        let limit: usize = text.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
            Fault::bad_request(format!("Invalid query string parameters: '{text}' does not match '^[1-9][0-9]*$'"))
        })?;
        out.limit = Some(limit);
    }
    match call.query.get("group_policy") {
        None | Some("none") => {}
        Some("isolate") => out.isolate = true,
        Some(other) => {
            return Err(Fault::bad_request(format!(
                "Invalid query string parameters: '{other}' is not one of ['none', 'isolate']"
            )));
        }
    }
    let roots: Vec<&str> = call.query.all("root_required").collect();
    if roots.len() > 1 {
        return Err(Fault::bad_request("Query parameter 'root_required' may be specified only once.")
            .kind(fault::QUERY_DUPLICATE));
    }
    for text in roots {
        let mut group = Group::default();
        traits_of(text, false, true, &mut group)?;
        (out.root_required, out.root_forbidden) = (group.required.into_iter().flatten().collect(), group.forbidden);
        if !out.root_required.is_disjoint(&out.root_forbidden) {
            return Err(Fault::bad_request("Conflicting required and forbidden traits found in root_required")
                .kind(fault::QUERY_BAD_VALUE));
        }
    }
    for text in call.query.all("same_subtree") {
        let suffixes: BTreeSet<String> = words(text).into_iter().map(str::to_owned).collect();
        if suffixes.contains("") {
            return Err(Fault::bad_request("Empty string (unsuffixed group) can not be specified in `same_subtree`")
                .kind(fault::QUERY_BAD_VALUE));
        }
        out.same_subtree.push(suffixes);
    }
    Ok(())
}

/// What must hold between the groups.
fn check(call: &Call, wanted: &Wanted) -> Result<(), Fault> {
    let empty: Vec<&String> = wanted.groups.iter().filter(|(_, g)| g.resources.is_empty()).map(|(s, _)| s).collect();
    if empty.len() == wanted.groups.len() {
        return Err(Fault::bad_request("There must be at least one resources or resources[$S] parameter.")
            .kind(fault::QUERY_MISSING));
    }
    let subtrees: BTreeSet<&String> = wanted.same_subtree.iter().flatten().collect();
    if let Some(bad) = empty.iter().find(|s| !subtrees.contains(**s)) {
        let text = format!(
            "All traits and member_of parameters must be associated with resources, or their group be named in `same_subtree`: bad group '{bad}'"
        );
        return Err(Fault::bad_request(text).kind(fault::QUERY_BAD_VALUE));
    }
    if let Some(bad) = subtrees.iter().find(|s| !wanted.groups.contains_key(**s)) {
        return Err(Fault::bad_request(format!(
            "Real suffixes should be specified in `same_subtree`: {bad} not found"
        ))
        .kind(fault::QUERY_BAD_VALUE));
    }
    let numbered = wanted.groups.keys().filter(|s| !s.is_empty()).count();
    if numbered > 1 && !call.query.has("group_policy") {
        return Err(Fault::bad_request(
            "The \"group_policy\" parameter is required when specifying more than one \"resources{N}\" parameter.",
        ));
    }
    Ok(())
}

/// Candidates and the providers beside them.
pub fn answer(call: &Call, wanted: &Wanted, found: &Found) -> Value {
    let as_object = call.version >= version::ALLOCATIONS_BY_PROVIDER;
    let requests: Vec<Value> = found
        .ways
        .iter()
        .map(|way| {
            if !as_object {
                let list: Vec<Value> = way
                    .allocations
                    .iter()
                    .map(|(id, resources)| json!({"resource_provider": {"uuid": id}, "resources": resources}))
                    .collect();
                return json!({"allocations": list});
            }
            let object: Map<String, Value> =
                way.allocations.iter().map(|(id, resources)| (id.clone(), json!({"resources": resources}))).collect();
            let mut out = json!({"allocations": object});
            if call.version >= version::MAPPINGS {
                out["mappings"] = json!(way.mappings);
            }
            out
        })
        .collect();
    let asked: BTreeSet<&String> = wanted.groups.values().flat_map(|g| g.resources.keys()).collect();
    let summaries: Map<String, Value> =
        found.providers.iter().map(|p| (p.uuid.clone(), summary(call, p, &asked))).collect();
    json!({"allocation_requests": requests, "provider_summaries": summaries})
}

fn summary(call: &Call, provider: &Provider, asked: &BTreeSet<&String>) -> Value {
    let every = call.version >= version::ALL_CLASSES;
    let resources: Map<String, Value> = provider
        .inventories
        .iter()
        .filter(|(class, _)| every || asked.contains(class))
        .map(|(class, i)| (class.clone(), json!({"capacity": i.capacity(), "used": provider.used_of(class)})))
        .collect();
    let mut out = json!({"resources": resources});
    if call.version >= version::CANDIDATES_REQUIRED {
        out["traits"] = json!(provider.traits);
    }
    if call.version >= version::NESTED {
        out["parent_provider_uuid"] = json!(provider.parent);
        out["root_provider_uuid"] = json!(provider.root);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn resources_are_class_and_amount() {
        assert_eq!(resources("VCPU:2,MEMORY_MB:64").unwrap()["MEMORY_MB"], 64);
        for bad in ["", "VCPU", "VCPU:0", "VCPU:-1", "VCPU:x", "VCPU:1:2", "VCPU:1,"] {
            assert_eq!(resources(bad).unwrap_err().code(), 400, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,64}") {
            let _ = resources(&text);
            let _ = traits_of(&text, true, true, &mut Group::default());
        }
    }
}
