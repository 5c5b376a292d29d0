//! Users and groups, and who is in which.
use super::{Extra, Federated, flag, record};
use crate::fault;
use pilvi_kit::Fault;
use pilvi_store::{Query, Tx};
use serde::{Deserialize, Serialize};

/// One password a user has or had.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PasswordEntry {
    /// A PHC string (argon2id) or a bcrypt hash.
    pub hash: String,
    /// Microseconds since 1970.
    pub created_us: i64,
    pub expires_us: Option<i64>,
    /// Set by the user, not by an administrator.
    pub self_service: bool,
}

/// Where a user or group is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Source {
    #[default]
    Own,
    /// In the directory of the domain, under this name.
    Directory { dn: String },
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct User {
    pub id: String,
    pub name: String,
    pub domain_id: String,
    pub default_project_id: Option<String>,
    pub enabled: bool,
    /// Newest last; the last one is in force. Empty: no password login.
    #[serde(default)]
    pub passwords: Vec<PasswordEntry>,
    #[serde(default)]
    pub options: Extra,
    /// What identity providers call this user.
    #[serde(default)]
    pub federated: Vec<Federated>,
    /// Made by a login from outside: the name is what his provider shows, and need not be his alone.
    #[serde(default)]
    pub shadow: bool,
    #[serde(default)]
    pub extra: Extra,
    /// Microseconds since 1970; 0 when it is not known.
    #[serde(default)]
    pub created_us: i64,
    #[serde(skip)]
    pub source: Source,
}

record!(User, "identity_user",
    name: |u| Some(&u.name),
    columns: {
        "domain_id": |u| &u.domain_id,
        "enabled": |u| flag(u.enabled),
        "default_project": |u| u.default_project_id.as_deref().unwrap_or_default(),
    },
    claims: |u| if u.shadow { Vec::new() } else { vec![(format!("identity:user:{}", u.domain_id), u.name.clone())] });

impl User {
    pub fn in_domain(domain_id: &str) -> Query {
        Query::all().eq("domain_id", domain_id)
    }
    pub fn named(domain_id: &str, name: &str) -> Query {
        Query::all().eq("domain_id", domain_id).eq("name", name)
    }
    /// Those who log in to a project when they name none.
    pub fn going_to(project_id: &str) -> Query {
        Query::all().eq("default_project", project_id)
    }
    /// When the password in force runs out.
    pub fn password_expires_us(&self) -> Option<i64> {
        self.passwords.last().and_then(|p| p.expires_us)
    }
    /// An option that is set to `true`.
    pub fn option(&self, name: &str) -> bool {
        self.options.get(name).and_then(serde_json::Value::as_bool).unwrap_or(false)
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Group {
    pub id: String,
    pub name: String,
    pub domain_id: String,
    pub description: String,
    #[serde(default)]
    pub extra: Extra,
    #[serde(skip)]
    pub source: Source,
}

record!(Group, "identity_group",
    name: |g| Some(&g.name),
    columns: { "domain_id": |g| &g.domain_id },
    claims: |g| vec![(format!("identity:group:{}", g.domain_id), g.name.clone())]);

impl Group {
    pub fn in_domain(domain_id: &str) -> Query {
        Query::all().eq("domain_id", domain_id)
    }
    pub fn named(domain_id: &str, name: &str) -> Query {
        Query::all().eq("domain_id", domain_id).eq("name", name)
    }
}

/// A user is in a group. The id is made of both, so that adding twice is one record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Membership {
    pub id: String,
    pub user_id: String,
    pub group_id: String,
}

record!(Membership, "identity_membership",
    name: |_| None,
    columns: { "user_id": |m| &m.user_id, "group_id": |m| &m.group_id },
    claims: |_| Vec::new());

impl Membership {
    pub fn new(user_id: &str, group_id: &str) -> Self {
        Membership { id: Self::key(user_id, group_id), user_id: user_id.into(), group_id: group_id.into() }
    }
    pub fn key(user_id: &str, group_id: &str) -> String {
        format!("{user_id}:{group_id}")
    }
    pub fn of_user(user_id: &str) -> Query {
        Query::all().eq("user_id", user_id)
    }
    pub fn of_group(group_id: &str) -> Query {
        Query::all().eq("group_id", group_id)
    }
}

/// What the directory of a domain calls a user or group. The id is the one here.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IdMapping {
    pub id: String,
    pub domain_id: String,
    pub local_id: String,
    /// `user` or `group`
    pub entity: String,
}

record!(IdMapping, "identity_id_mapping",
    name: |_| None,
    columns: { "domain_id": |m| &m.domain_id },
    claims: |_| Vec::new());

impl IdMapping {
    pub fn in_domain(domain_id: &str) -> Query {
        Query::all().eq("domain_id", domain_id)
    }
}

/// 404 unless the user is there, here or in a directory.
pub(crate) async fn user_exists_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    let mapped = tx.get::<IdMapping>(id).await?.is_some_and(|m| m.entity == "user");
    if mapped || tx.get::<User>(id).await?.is_some() { Ok(()) } else { Err(fault::missing("user", id)) }
}

/// The same of a group.
pub(crate) async fn group_exists_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    let mapped = tx.get::<IdMapping>(id).await?.is_some_and(|m| m.entity == "group");
    if mapped || tx.get::<Group>(id).await?.is_some() { Ok(()) } else { Err(fault::missing("group", id)) }
}
