//! What outlives a token: events that end it early, and failed logins.
use super::record;
use serde::{Deserialize, Serialize};

/// Tokens issued at or before `issued_before_us` that match every member which is set are dead.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RevocationEvent {
    pub id: String,
    pub audit_id: Option<String>,
    pub audit_chain_id: Option<String>,
    pub user_id: Option<String>,
    pub project_id: Option<String>,
    pub domain_id: Option<String>,
    pub role_id: Option<String>,
    pub trust_id: Option<String>,
    pub app_credential_id: Option<String>,
    /// Microseconds since 1970.
    pub issued_before_us: i64,
    pub revoked_us: i64,
}

record!(RevocationEvent, "identity_revocation", name: |_| None, columns: {}, claims: |_| Vec::new());

/// Wrong passwords of one user since the last right one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoginFailures {
    /// The user's id.
    pub id: String,
    pub count: u32,
    pub last_us: i64,
}

record!(LoginFailures, "identity_login_failures", name: |_| None, columns: {}, claims: |_| Vec::new());

/// The last day a user logged in on: a record of its own, so that a login does not empty the caches of users.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LastActive {
    /// The user's id.
    pub id: String,
    /// Days since 1970.
    pub day: i64,
}

record!(LastActive, "identity_last_active", name: |_| None, columns: {}, claims: |_| Vec::new());
