//! Requests for candidates as query strings.
use super::model::{Group, Wanted};
use crate::{
    fault,
    provider::model::{AMOUNT_MAX, Amounts},
    version,
};
use pilvi_kit::{Call, Fault, id};
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
    let bad = |why: String| Fault::bad_request(format!("Invalid query string parameters: {why}{value}"));
    if let Some(list) = value.strip_prefix("in:") {
        let (names, form) = (words(list), "in:HW_CPU_X86_VMX,CUSTOM_MAGIC");
        if !any_of {
            return Err(bad(format!("The format '{form}' only supported since microversion 1.39. Got: ")));
        }
        if names.iter().any(|n| n.is_empty()) {
            return Err(bad(format!(
                "Expected 'required' parameter value of the form: {form}. Got an empty trait in: "
            )));
        }
        if names.iter().any(|n| n.starts_with('!')) {
            return Err(bad(format!("The format '{form}' does not support forbidden traits. Got: ")));
        }
        group.required.push(names.into_iter().map(str::to_owned).collect());
        return Ok(());
    }
    let form = if may_forbid { "HW_CPU_X86_VMX,!CUSTOM_MAGIC" } else { "HW_CPU_X86_VMX,CUSTOM_MAGIC" };
    let form = format!("Expected 'required' parameter value of the form: {form}. Got");
    for name in words(value) {
        match name.strip_prefix('!').map(|rest| rest.trim_start_matches('!')) {
            _ if name.is_empty() => return Err(bad(format!("{form} an empty trait in: "))),
            None => group.required.push([name.to_owned()].into()),
            Some("") => return Err(bad(format!("{form} an empty trait in: "))),
            Some(_) if !may_forbid => return Err(bad(format!("{form}: "))),
            Some(forbidden) => {
                group.forbidden.insert(forbidden.to_owned());
            }
        }
    }
    Ok(())
}

/// The `member_of` parameters of one group: `uuid`, `in:uuid,uuid`, `!uuid`, `!in:uuid,uuid`.
pub fn member_of_into(call: &Call, suffix: &str, group: &mut Group) -> Result<(), Fault> {
    let key = format!("member_of{suffix}");
    let values: Vec<&str> = call.query.all(&key).collect();
    if values.len() > 1 && call.version < version::REPEATED_MEMBER_OF {
        return Err(Fault::bad_request(format!("Multiple {key} parameters are not supported")));
    }
    for value in values {
        let list = value.strip_prefix('!').unwrap_or(value);
        let ids: Vec<&str> = match list.strip_prefix("in:") {
            Some(many) => many.split(',').collect(),
            None if list.contains(',') => {
                return Err(Fault::bad_request(format!(
                    "Multiple values for 'member_of' must be prefixed with the 'in:' or '!in:' keyword using the valid microversion. Got: {value}"
                )));
            }
            None => vec![list],
        };
        if let Some(bad) = ids.iter().find(|i| !id::is_uuid(i)) {
            return Err(Fault::bad_request(format!(
                "Invalid query string parameters: Expected 'member_of' parameter to contain valid UUID(s). Got: {bad}"
            )));
        }
        let ids: BTreeSet<String> = ids.into_iter().map(str::to_owned).collect();
        if list.len() == value.len() {
            group.member_of.push(ids);
        } else if call.version < version::FORBIDDEN_AGGREGATES {
            return Err(Fault::bad_request(format!(
                "Forbidden {key} parameters are not supported in the specified microversion"
            )));
        } else {
            group.not_member_of.extend(ids);
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
    let known = |key: &str| wide_key(call, key) || suffix_of(call, key).is_some();
    match call.query.0.iter().find(|(key, _)| !known(key)) {
        Some((key, _)) if call.version >= version::GROUPS => {
            return Err(Fault::bad_request(format!(
                "Invalid query string parameters: '{key}' does not match any of the regexes of group parameters"
            )));
        }
        _ => fault::only_keys(call, known)?,
    }
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for (key, value) in call.query.0.iter().filter(|(key, _)| !wide_key(call, key)) {
        let Some(suffix) = suffix_of(call, key) else { continue };
        let group = groups.entry(suffix.to_owned()).or_default();
        if key.starts_with("resources") {
            group.resources = resources(value)?;
        } else if key.starts_with("in_tree") {
            if !id::is_uuid(value.trim()) {
                return Err(Fault::bad_request(format!(
                    "Invalid query string parameters: Expected 'in_tree' parameter to be a format of uuid. Got: {value}"
                )));
            }
            group.in_tree = Some(value.trim().to_owned());
        }
    }
    if groups.len() > GROUPS_MAX {
        return Err(Fault::bad_request(format!("More than {GROUPS_MAX} request groups")));
    }
    for (suffix, group) in &mut groups {
        traits_into(call, suffix, group)?;
        member_of_into(call, suffix, group)?;
    }
    let mut out = Wanted { groups, one_of_a_tree: call.version < version::NESTED, ..Wanted::default() };
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
        let both: Vec<&str> = out.root_required.intersection(&out.root_forbidden).map(String::as_str).collect();
        if !both.is_empty() {
            let text = format!("Conflicting required and forbidden traits found in root_required: {}", both.join(", "));
            return Err(Fault::bad_request(text).kind(fault::QUERY_BAD_VALUE));
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
    if call.version >= version::SAME_SUBTREE {
        check_subtrees(wanted)?;
    } else {
        check_orphans(call, wanted)?;
    }
    let numbered = wanted.groups.keys().filter(|s| !s.is_empty()).count();
    if numbered > 1 && !call.query.has("group_policy") {
        return Err(Fault::bad_request(
            "The \"group_policy\" parameter is required when specifying more than one \"resources{N}\" parameter.",
        ));
    }
    Ok(())
}

/// A group that names no resources must be in a `same_subtree`, and what is there must be a group.
fn check_subtrees(wanted: &Wanted) -> Result<(), Fault> {
    let empty: Vec<&str> =
        wanted.groups.iter().filter(|(_, g)| g.resources.is_empty()).map(|(s, _)| s.as_str()).collect();
    if empty.len() == wanted.groups.len() {
        return Err(Fault::bad_request("There must be at least one resources or resources[$S] parameter.")
            .kind(fault::QUERY_MISSING));
    }
    let subtrees: BTreeSet<&str> = wanted.same_subtree.iter().flatten().map(String::as_str).collect();
    let alone: Vec<&str> = empty.into_iter().filter(|s| !subtrees.contains(s)).collect();
    if !alone.is_empty() {
        let text = format!(
            "Resourceless suffixed group request should be specified in `same_subtree` query param: bad group(s) - {alone:?}."
        );
        return Err(Fault::bad_request(text).kind(fault::QUERY_BAD_VALUE));
    }
    let unknown: Vec<&str> = subtrees.into_iter().filter(|s| !wanted.groups.contains_key(*s)).collect();
    if !unknown.is_empty() {
        let known: Vec<&String> = wanted.groups.keys().collect();
        let text = format!("Real suffixes should be specified in `same_subtree`: {unknown:?} not found in {known:?}.");
        return Err(Fault::bad_request(text).kind(fault::QUERY_BAD_VALUE));
    }
    Ok(())
}

/// Before 1.36 every group named resources.
fn check_orphans(call: &Call, wanted: &Wanted) -> Result<(), Fault> {
    if call.version < version::GROUPS && !call.query.has("resources") {
        return Err(Fault::bad_request("Invalid query string parameters: 'resources' is a required property"));
    }
    let orphans = |name: &str, is_it: &dyn Fn(&Group) -> bool| -> Vec<String> {
        let bare = wanted.groups.iter().filter(|(_, g)| g.resources.is_empty() && is_it(g));
        bare.map(|(suffix, _)| format!("{name}{suffix}")).collect()
    };
    let traits = orphans("required", &|g| !g.required.is_empty());
    if !traits.is_empty() {
        return Err(Fault::bad_request(format!(
            "All traits parameters must be associated with resources.  Found the following orphaned traits keys: {}",
            traits.join(", ")
        )));
    }
    let members = orphans("member_of", &|g| !g.member_of.is_empty() || !g.not_member_of.is_empty());
    if !members.is_empty() {
        return Err(Fault::bad_request(format!(
            "All member_of parameters must be associated with resources. Found the following orphaned member_of keys: {}",
            members.join(", ")
        )));
    }
    if !orphans("", &|_| true).is_empty() {
        return Err(Fault::bad_request("All request groups must specify resources."));
    }
    if wanted.groups.is_empty() {
        return Err(Fault::bad_request("At least one request group (`resources` or `resources{$S}`) is required."));
    }
    Ok(())
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
