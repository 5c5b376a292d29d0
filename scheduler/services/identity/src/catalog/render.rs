//! From records to the catalogue in a token: enabled endpoints of enabled services, addresses filled in.
use crate::{
    Identity,
    directory::CatalogRecords,
    tables::{Endpoint, EndpointGroup},
};
use pilvi_kit::Fault;
use serde_json::{Value, json};
use std::{collections::HashSet, sync::Arc};

/// What may stand in an address as `$(name)s` or `%(name)s`.
const PROJECT: [&str; 2] = ["project_id", "tenant_id"];
const USER: &str = "user_id";

/// Fills an address in; `None` if it names what is not known.
fn fill(url: &str, project: Option<&str>, user: &str) -> Option<String> {
    let mut out = String::with_capacity(url.len() + 32);
    let mut rest = url;
    while let Some(at) = rest.find(['$', '%']) {
        let (before, tail) = rest.split_at(at);
        out.push_str(before);
        let Some(inner) = tail[1..].strip_prefix('(') else {
            out.push_str(&tail[..1]);
            rest = &tail[1..];
            continue;
        };
        let (name, after) = inner.split_once(")s")?;
        out.push_str(match name {
            name if PROJECT.contains(&name) => project?,
            USER => user,
            _ => return None,
        });
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

/// May `url` be an endpoint's? It must be an address, and its substitutions ones we know.
pub(crate) fn check_url(url: &str) -> Result<(), Fault> {
    let good =
        fill(url, Some("p"), "u").is_some_and(|filled| filled.contains("://") && !filled.contains(char::is_whitespace));
    if good {
        Ok(())
    } else {
        Err(Fault::bad_request(format!("Cannot create an endpoint with an invalid URL: {url}.")))
    }
}

/// Does a group's filter choose this endpoint?
pub(super) fn chosen(group: &EndpointGroup, endpoint: &Endpoint) -> bool {
    group.filters.iter().all(|(name, wanted)| {
        let have = match name.as_str() {
            "service_id" => Some(endpoint.service_id.as_str()),
            "region_id" => endpoint.region_id.as_deref(),
            "interface" => Some(endpoint.interface.as_str()),
            "enabled" => return wanted.as_bool() == Some(endpoint.enabled),
            _ => None,
        };
        wanted.as_str() == have
    })
}

/// The endpoints a project was given; `None` when it was given none, and so sees all.
pub(super) fn given(records: &CatalogRecords, project: &str) -> Option<HashSet<String>> {
    let links: Vec<_> = records.links.iter().filter(|l| l.project_id == project).collect();
    if links.is_empty() {
        return None;
    }
    let mut out = HashSet::new();
    for link in links {
        if !link.is_group {
            out.insert(link.linked_id.clone());
        } else if let Some(group) = records.groups.iter().find(|g| g.id == link.linked_id) {
            out.extend(records.endpoints.iter().filter(|e| chosen(group, e)).map(|e| e.id.clone()));
        }
    }
    Some(out)
}

/// Whom addresses name, found once for all readers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named {
    project: bool,
    user: bool,
}

impl Named {
    pub(crate) fn by(endpoints: &[Endpoint]) -> Self {
        let any = |names: &[&str]| endpoints.iter().any(|e| names.iter().any(|name| e.url.contains(name)));
        Named { project: any(&PROJECT), user: any(&[USER]) }
    }
}

/// What the catalogue of one token may differ in from that of another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Reader {
    project: Option<String>,
    user: Option<String>,
}

impl Reader {
    fn of(records: &CatalogRecords, project: Option<&str>, user: &str) -> Self {
        let named = records.named;
        let linked = |project: &str| records.links.iter().any(|link| link.project_id == project);
        Reader {
            project: project.filter(|p| named.project || linked(p)).map(str::to_owned),
            user: named.user.then(|| user.to_owned()),
        }
    }
}

fn render(records: &CatalogRecords, project: Option<&str>, user: &str) -> Value {
    let given = project.and_then(|p| given(records, p));
    let mut services = Vec::with_capacity(records.services.len());
    for service in records.services.iter().filter(|s| s.enabled) {
        let mut endpoints = Vec::new();
        for e in records.endpoints.iter().filter(|e| e.enabled && e.service_id == service.id) {
            if given.as_ref().is_some_and(|g| !g.contains(&e.id)) {
                continue;
            }
            if let Some(url) = fill(&e.url, project, user) {
                endpoints.push(json!({"id": e.id, "interface": e.interface, "region_id": e.region_id, "region": e.region_id, "url": url}));
            }
        }
        services.push(json!({"endpoints": endpoints, "id": service.id, "type": service.kind, "name": service.name.clone().unwrap_or_default()}));
    }
    services.into()
}

impl Identity {
    /// The catalogue as a user with a token for `project` (or for a domain or the system) reads it: a JSON array.
    pub(crate) async fn catalog_for(&self, project: Option<&str>, user: &str) -> Result<Arc<str>, Fault> {
        let records = self.directory.catalog_records().await?;
        let reader = Reader::of(&records, project, user);
        Ok(records.shown.get_with(reader, || render(&records, project, user).to_string().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_filled_in_or_dropped() {
        assert_eq!(fill("https://h/v1/AUTH_$(project_id)s", Some("p"), "u").unwrap(), "https://h/v1/AUTH_p");
        assert_eq!(fill("https://h/%(tenant_id)s/%(user_id)s", Some("p"), "u").unwrap(), "https://h/p/u");
        assert_eq!(fill("https://h/a%20b$c", None, "u").unwrap(), "https://h/a%20b$c");
        assert_eq!(fill("https://h/$(project_id)s", None, "u"), None);
        assert_eq!(fill("https://h/$(admin_port)s", Some("p"), "u"), None);
        assert_eq!(fill("https://h/$(project_id", Some("p"), "u"), None);
        assert!(check_url("http://127.0.0.1:8774/v2.1/$(tenant_id)s").is_ok());
        assert_eq!(check_url("no address").unwrap_err().code(), 400);
        assert_eq!(check_url("http://h/%(secret)s").unwrap_err().code(), 400);
    }
}
