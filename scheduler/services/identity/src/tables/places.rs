//! Projects and domains: one tree, whose roots are the domains.
use super::{Extra, flag, record};
use pilvi_store::Query;
use serde::{Deserialize, Serialize};

/// A project, or a domain when `is_domain`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Project {
    pub id: String,
    pub name: String,
    /// The domain it is in; `None` for a domain itself.
    pub domain_id: Option<String>,
    /// The project above, or the domain; `None` for a domain.
    pub parent_id: Option<String>,
    pub description: String,
    pub enabled: bool,
    pub is_domain: bool,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default)]
    pub options: Extra,
    #[serde(default)]
    pub extra: Extra,
}

/// What the domain column says of a domain itself.
const NO_DOMAIN: &str = "-";

record!(Project, "identity_project",
    name: |p| Some(&p.name),
    columns: {
        "domain_id": |p| p.domain_id.as_deref().unwrap_or(NO_DOMAIN),
        "enabled": |p| flag(p.enabled),
        "parent_id": |p| p.parent_id.as_deref().unwrap_or(NO_DOMAIN),
    },
    claims: |p| vec![(format!("identity:project:{}", p.domain_id.as_deref().unwrap_or(NO_DOMAIN)), p.name.clone())]);

impl Project {
    pub fn in_domain(domain_id: &str) -> Query {
        Query::all().eq("domain_id", domain_id)
    }
    pub fn domains() -> Query {
        Query::all().eq("domain_id", NO_DOMAIN)
    }
    pub fn below(parent_id: &str) -> Query {
        Query::all().eq("parent_id", parent_id)
    }
    pub fn named(domain_id: &str, name: &str) -> Query {
        Query::all().eq("domain_id", domain_id).eq("name", name)
    }
    pub fn domain_named(name: &str) -> Query {
        Query::all().eq("domain_id", NO_DOMAIN).eq("name", name)
    }
    pub fn immutable(&self) -> bool {
        self.options.get("immutable").and_then(serde_json::Value::as_bool).unwrap_or(false)
    }
}
