//! What a user hands to programs: application credentials, credentials, trusts.
use super::{Extra, record};
use pilvi_store::Query;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApplicationCredential {
    pub id: String,
    pub name: String,
    pub description: Option<String>,
    pub user_id: String,
    pub project_id: String,
    pub secret_hash: String,
    /// Ids of the roles it carries.
    pub roles: Vec<String>,
    pub expires_us: Option<i64>,
    pub unrestricted: bool,
    /// Ids of access rules; `None`: every call is allowed.
    pub access_rules: Option<Vec<String>>,
    #[serde(default)]
    pub extra: Extra,
}

record!(ApplicationCredential, "identity_app_credential",
    name: |c| Some(&c.name),
    columns: { "user_id": |c| &c.user_id, "project_ref": |c| &c.project_id },
    claims: |c| vec![(format!("identity:app_credential:{}", c.user_id), c.name.clone())]);

impl ApplicationCredential {
    pub fn of_user(user_id: &str) -> Query {
        Query::all().eq("user_id", user_id)
    }
    pub fn of_project(project_id: &str) -> Query {
        Query::all().eq("project_ref", project_id)
    }
}

/// One call that an application credential may make; its owner may reuse it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AccessRule {
    pub id: String,
    pub user_id: String,
    pub service: String,
    pub path: String,
    pub method: String,
}

record!(AccessRule, "identity_access_rule",
    name: |_| None,
    columns: { "user_id": |r| &r.user_id },
    claims: |r| vec![(format!("identity:access_rule:{}", r.user_id), format!("{} {} {}", r.service, r.method, r.path))]);

impl AccessRule {
    pub fn of_user(user_id: &str) -> Query {
        Query::all().eq("user_id", user_id)
    }
}

/// A blob of a kind that other services understand: `ec2`, `totp`, `cert`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Credential {
    pub id: String,
    pub user_id: String,
    pub project_id: Option<String>,
    pub kind: String,
    /// Encrypted with the credential keys.
    pub sealed_blob: String,
    /// The time step of the last passcode that was taken, where it is a `totp` secret: none is taken twice.
    #[serde(default)]
    pub last_step: Option<i64>,
    #[serde(default)]
    pub extra: Extra,
}

record!(Credential, "identity_credential",
    name: |_| None,
    columns: { "user_id": |c| &c.user_id, "project_ref": |c| c.project_id.as_deref().unwrap_or_default(), "credential_type": |c| &c.kind },
    claims: |_| Vec::new());

impl Credential {
    pub fn of_user(user_id: &str) -> Query {
        Query::all().eq("user_id", user_id)
    }
    pub fn of_project(project_id: &str) -> Query {
        Query::all().eq("project_ref", project_id)
    }
}

/// The trustor lets the trustee act with some of his roles in one project.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trust {
    pub id: String,
    pub trustor_user_id: String,
    pub trustee_user_id: String,
    pub project_id: Option<String>,
    pub impersonation: bool,
    /// Ids of roles.
    pub roles: Vec<String>,
    pub expires_us: Option<i64>,
    /// Tokens that may still be had; `None`: any number.
    pub remaining_uses: Option<i64>,
    /// Trusts made from this one, at most.
    pub redelegation_count: i64,
    pub allow_redelegation: bool,
    pub redelegated_trust_id: Option<String>,
    pub deleted_us: Option<i64>,
    #[serde(default)]
    pub extra: Extra,
}

record!(Trust, "identity_trust",
    name: |_| None,
    columns: {
        "trustor_user_id": |t| &t.trustor_user_id,
        "trustee_user_id": |t| &t.trustee_user_id,
        "project_ref": |t| t.project_id.as_deref().unwrap_or_default(),
        "redelegated_trust_id": |t| t.redelegated_trust_id.as_deref().unwrap_or_default(),
    },
    claims: |_| Vec::new());

impl Trust {
    pub fn by_trustor(user_id: &str) -> Query {
        Query::all().eq("trustor_user_id", user_id)
    }
    pub fn to_trustee(user_id: &str) -> Query {
        Query::all().eq("trustee_user_id", user_id)
    }
    pub fn in_project(project_id: &str) -> Query {
        Query::all().eq("project_ref", project_id)
    }
    pub fn made_from(trust_id: &str) -> Query {
        Query::all().eq("redelegated_trust_id", trust_id)
    }
}
