//! What every list and show does with records after they are read: who may see them, which match the
//! query, which members are shown, which page.
//!
//! ```text
//! raw maps -> visible? -> restricted members off -> filters -> sort, marker, limit -> fields
//! ```
use crate::attribute::{Attr, Resource};
use pilvi_kit::{Call, Fault, Reply, Response, call::boolean, clock, page::Page, page::PageRules};
use pilvi_store::{Record, Stored};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// A record with everything its view and its rules need.
pub type Raw = Map<String, Value>;

/// The record's own members, its times and its revision.
pub fn raw<R: Record>(stored: &Stored<R>) -> Result<Raw, Fault> {
    let Value::Object(mut map) = serde_json::to_value(&stored.record).map_err(Fault::internal)? else {
        return Err(Fault::internal("a record that is no object"));
    };
    let project = map.get("project_id").cloned().unwrap_or(Value::Null);
    map.insert("tenant_id".into(), project);
    map.insert("created_at".into(), json!(clock::seconds_z(stored.created_us)));
    map.insert("updated_at".into(), json!(clock::seconds_z(stored.updated_us)));
    map.insert("revision_number".into(), json!(stored.rev));
    Ok(map)
}

/// Answers of the rules, remembered for one request: they depend on few members of a record.
pub struct Permits<'c> {
    call: &'c Call,
    known: HashMap<(String, [String; 5]), bool>,
}

impl std::fmt::Debug for Permits<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Permits")
    }
}

impl<'c> Permits<'c> {
    pub fn new(call: &'c Call) -> Self {
        Permits { call, known: HashMap::new() }
    }

    pub fn may(&mut self, rule: &str, raw: &Raw) -> bool {
        let member = |name: &str| raw.get(name).map(crate::check::plain).unwrap_or_default();
        let key = ["project_id", "network_project_id", "group_project_id", "shared", "external_to_caller"].map(member);
        let key = (rule.to_owned(), key);
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let answer = self.call.may(rule, raw);
        self.known.insert(key, answer);
        answer
    }

    pub fn sees(&mut self, res: &Resource, raw: &Raw) -> bool {
        self.may(&format!("get_{}", res.rule()), raw)
    }

    /// The members that this caller may see, in the order of the table.
    pub fn view(&mut self, res: &Resource, raw: &Raw) -> Raw {
        let mut out = Map::new();
        for attr in res.all().filter(|a| !a.hidden) {
            if attr.restricted && !self.may(&format!("get_{}:{}", res.name, attr.name), raw) {
                continue;
            }
            out.insert(attr.name.to_owned(), raw.get(attr.name).cloned().unwrap_or(Value::Null));
        }
        out
    }
}

const RESERVED: [&str; 6] = ["fields", "limit", "marker", "page_reverse", "sort_key", "sort_dir"];
/// Resources that Neutron reads without a look at who sees the marker.
const FORGIVING: [&str; 5] = ["local_ip", "log", "ndp_proxy", "policy", "trunk"];
const TAGS: [&str; 6] = ["tags", "tags-any", "tags_any", "not-tags", "not-tags-any", "not_tags_any"];

/// `{"<collection>": [...]}` of what the caller may see and asked for.
pub fn list(call: &Call, res: &Resource, raws: Vec<Raw>) -> Reply {
    let mut permits = Permits::new(call);
    // Also with nothing to show, the rule has been asked.
    let _ = call.may(call.rule(), &call.target());
    let filters = Filters::of(call, res)?;
    let mut views = Vec::new();
    for raw in &raws {
        if permits.sees(res, raw) {
            let view = permits.view(res, raw);
            if filters.hold(&view, raw) {
                views.push(view);
            }
        }
    }
    page(call, res, views)
}

/// `{"<resource>": {...}}`, or 404 when the caller may not see it.
pub fn show(call: &Call, res: &Resource, raw: &Raw) -> Reply {
    let id = raw.get("id").and_then(Value::as_str).unwrap_or_default();
    let mut permits = Permits::new(call);
    if !permits.sees(res, raw) {
        return Err(res.not_found(id));
    }
    let view = pick_fields(call, permits.view(res, raw));
    Ok(Response::ok(json!({ res.name: view })))
}

/// The answer of a create or an update.
pub fn view(call: &Call, res: &Resource, raw: &Raw) -> Raw {
    Permits::new(call).view(res, raw)
}

fn page(call: &Call, res: &Resource, views: Vec<Raw>) -> Reply {
    let mut page = Page::of(call, PageRules { max: None, default: None, keys: &[] })?;
    page.limit = page.limit.filter(|n| *n > 0);
    if let Some((key, _)) = page.sort.iter().find(|(k, _)| !is_sort_key(res, k)) {
        return Err(Fault::bad_request(format!("{key} is invalid attribute for sort_keys")));
    }
    let id = |v: &Raw| v.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    // As Neutron reads these, a marker that the caller does not see is none.
    let seen = |marker: &String| views.iter().any(|v| id(v) == *marker);
    page.marker = page.marker.take().filter(|m| !FORGIVING.contains(&res.name) || seen(m));
    let keyed: Vec<(String, Raw)> = views.into_iter().map(|v| (id(&v), v)).collect();
    let (items, _) = page.cut(keyed, |i| &i.0, |i, key| i.1.get(key).cloned().unwrap_or(Value::Null))?;
    let links = links(call, &page, &items);
    let shown: Vec<Value> = items.into_iter().map(|(_, v)| Value::Object(pick_fields(call, v))).collect();
    let mut body = json!({ res.collection: shown });
    if !links.is_empty() {
        body[format!("{}_links", res.collection)] = Value::Array(links);
    }
    Ok(Response::ok(body))
}

/// As Neutron links pages: a full page may have a next one, and every page that is not the last backwards
/// has one before it, be it empty.
fn links(call: &Call, page: &Page, items: &[(String, Raw)]) -> Vec<Value> {
    let Some(limit) = page.limit else { return Vec::new() };
    let full = items.len() >= limit;
    let at = |item: Option<&(String, Raw)>| page.next_url(call, item.map_or("", |i| i.0.as_str()));
    let mut links = Vec::new();
    if full || page.reverse {
        links.push(json!({"rel": "next", "href": at(items.last())}));
    }
    if full || !page.reverse {
        links.push(json!({"rel": "previous", "href": format!("{}&page_reverse=True", at(items.first()))}));
    }
    links
}

fn is_sort_key(res: &Resource, key: &str) -> bool {
    res.attr(key).is_some_and(|a| !a.hidden)
}

/// `fields=`; without it, everything. Unknown names show nothing.
fn pick_fields(call: &Call, view: Raw) -> Raw {
    let wanted: Vec<&str> = call.query.all("fields").filter(|f| !f.is_empty()).collect();
    if wanted.is_empty() {
        return view;
    }
    view.into_iter().filter(|(k, _)| wanted.contains(&k.as_str())).collect()
}

/// The query's conditions: attribute -> values, any of which will do.
#[derive(Debug)]
struct Filters<'q> {
    attributes: Vec<(&'static Attr, Vec<&'q str>)>,
    tags: Vec<(&'q str, Vec<&'q str>)>,
    address_part: Vec<&'q str>,
    changed_since: Option<i64>,
}

impl<'q> Filters<'q> {
    fn of(call: &'q Call, res: &Resource) -> Result<Self, Fault> {
        let mut filters =
            Filters { attributes: Vec::new(), tags: Vec::new(), address_part: Vec::new(), changed_since: None };
        let mut unknown = Vec::new();
        for (key, value) in call.query.0.iter().map(|(k, v)| (k.as_str(), v.as_str())) {
            if RESERVED.contains(&key) {
                continue;
            }
            if TAGS.contains(&key) {
                filters.tags.push((key, value.split(',').collect()));
            } else if key == "fixed_ips" && value.starts_with("ip_address_substr=") {
                filters.address_part.push(value.trim_start_matches("ip_address_substr="));
            } else if key == "changed_since" {
                let since = clock::parse(value).ok_or_else(|| {
                    Fault::bad_request(format!(
                        "The input changed_since must be in the following format: YYYY-MM-DDTHH:MM:SSZ, not {value}"
                    ))
                })?;
                filters.changed_since = Some(since);
            } else if let Some(attr) = res.attr(key).filter(|a| !a.hidden || !a.post) {
                match filters.attributes.iter_mut().find(|(a, _)| a.name == attr.name) {
                    Some((_, values)) => values.push(value),
                    None => filters.attributes.push((attr, vec![value])),
                }
            } else {
                unknown.push(key);
            }
        }
        if !unknown.is_empty() {
            return Err(Fault::bad_request(format!("{unknown:?} is invalid attribute for filtering")));
        }
        Ok(filters)
    }

    fn hold(&self, view: &Raw, raw: &Raw) -> bool {
        let attributes = self.attributes.iter().all(|(attr, values)| {
            // Clients look for networks by what their wire is, also who is not shown it (as in Neutron).
            let unseen = attr.hidden || attr.name.starts_with("provider:");
            match if unseen { raw.get(attr.name) } else { view.get(attr.name) } {
                None => false,
                Some(_) if attr.name == "fixed_ips" => address_matches(view, values),
                // Clients ask for a "DHCP Agent", as the original's database does not tell it from a "DHCP agent".
                Some(Value::String(kind)) if attr.name == "agent_type" => {
                    values.iter().any(|text| kind.eq_ignore_ascii_case(text))
                }
                Some(value) => values.iter().any(|text| equals(value, text)),
            }
        });
        let part = self.address_part.is_empty()
            || addresses(view).any(|(_, ip)| self.address_part.iter().any(|part| ip.contains(part)));
        let fresh = self.changed_since.is_none_or(|since| {
            view.get("updated_at").and_then(Value::as_str).and_then(clock::parse).is_some_and(|at| at >= since)
        });
        attributes && part && fresh && self.tags.iter().all(|(key, wanted)| tags_match(key, wanted, view))
    }
}

fn addresses(view: &Raw) -> impl Iterator<Item = (&str, &str)> {
    view.get("fixed_ips").and_then(Value::as_array).into_iter().flatten().map(|f| {
        let text = |name: &str| f.get(name).and_then(Value::as_str).unwrap_or_default();
        (text("subnet_id"), text("ip_address"))
    })
}

/// `fixed_ips=ip_address=A&fixed_ips=subnet_id=S`: any of the addresses, and any of the subnets.
fn address_matches(view: &Raw, values: &[&str]) -> bool {
    let of = |key: &str| -> Vec<String> {
        let canonical = |v: &str| v.parse::<std::net::IpAddr>().map_or_else(|_| v.to_owned(), |ip| ip.to_string());
        values.iter().filter_map(|v| v.split_once('=')).filter(|(k, _)| *k == key).map(|(_, v)| canonical(v)).collect()
    };
    let (wanted, subnets) = (of("ip_address"), of("subnet_id"));
    addresses(view).any(|(subnet, ip)| {
        (wanted.is_empty() || wanted.iter().any(|w| w == ip))
            && (subnets.is_empty() || subnets.iter().any(|s| s == subnet))
    })
}

fn equals(value: &Value, text: &str) -> bool {
    match value {
        Value::Null => text.is_empty() || text == "None" || text == "null",
        Value::Bool(b) => !text.is_empty() && boolean(text) == Some(*b),
        Value::String(s) => s == text,
        Value::Array(items) => items.iter().any(|i| equals(i, text)),
        Value::Object(map) => text.split_once('=').is_some_and(|(k, v)| map.get(k).is_some_and(|i| equals(i, v))),
        Value::Number(n) => n.to_string() == text,
    }
}

fn tags_match(key: &str, wanted: &[&str], view: &Raw) -> bool {
    let tags: Vec<&str> =
        view.get("tags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let all = wanted.iter().all(|w| tags.contains(w));
    let any = wanted.iter().any(|w| tags.contains(w));
    match key {
        "tags" => all,
        "tags-any" | "tags_any" => any,
        "not-tags" => !all,
        _ => !any,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_compare_as_clients_spell() {
        assert!(equals(&json!(true), "True"));
        assert!(!equals(&json!(true), ""));
        assert!(equals(&Value::Null, ""));
        assert!(equals(&json!(["a", "b"]), "b"));
        assert!(equals(&json!(4), "4"));
        let view = json!({"fixed_ips": [{"subnet_id": "s", "ip_address": "10.0.0.5"}], "tags": ["x", "y"]});
        let view = view.as_object().unwrap();
        assert!(address_matches(view, &["ip_address=10.0.0.5", "subnet_id=s"]));
        assert!(!address_matches(view, &["ip_address=10.0.0.5", "subnet_id=t"]));
        assert!(address_matches(view, &["ip_address=10.0.0.6", "ip_address=10.0.0.5"]));
        assert!(tags_match("tags", &["x", "y"], view));
        assert!(!tags_match("tags", &["x", "z"], view));
        assert!(tags_match("not-tags", &["x", "z"], view));
        assert!(!tags_match("not-tags-any", &["x", "z"], view));
    }
}
