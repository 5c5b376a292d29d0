//! What an operator may set for identity; the defaults are Keystone's where it has them.
pub use crate::federation::config::{FederationConfig, OpenIdConfig, SamlConfig, SamlTrust};
pub use crate::limit::model::LimitModel;
use std::path::PathBuf;

/// How hard a password hash is made to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    pub passes: u32,
}

impl HashCost {
    /// OWASP's first choice for argon2id.
    pub const NORMAL: HashCost = HashCost { memory_kib: 19 * 1024, passes: 2 };
    /// For tests that make hundreds of users.
    pub const CHEAP: HashCost = HashCost { memory_kib: 64, passes: 1 };
}

/// How tokens are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenProvider {
    /// Sealed with a shared key: short, and readable by us alone.
    #[default]
    Fernet,
    /// Signed with a private key (ES256): longer, and verified by whoever has the public one.
    Jws,
}

impl TokenProvider {
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "fernet" => Some(TokenProvider::Fernet),
            "jws" => Some(TokenProvider::Jws),
            _ => None,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Config {
    /// Where key repositories are kept, as `fernet-keys`, `jws-keys`, `credential-keys` and `saml-keys`.
    pub state_dir: PathBuf,
    /// How tokens are written. Those of the other kind stay readable as long as its keys are there.
    pub token_provider: TokenProvider,
    /// Lifetime of a token, in seconds.
    pub token_seconds: u64,
    /// How long after its end a service may still have a token validated with `allow_expired`, in seconds.
    pub allow_expired_seconds: u64,
    /// Fernet keys kept: one staged, one primary, the rest secondary. At least 3.
    pub max_active_keys: usize,
    /// Keys of tokens are rotated this often, in seconds; 0: only by the operator.
    pub rotation_seconds: u64,
    /// The same for the keys that credentials are sealed with; all are sealed anew each time.
    pub credential_rotation_seconds: u64,
    pub hash_cost: HashCost,
    /// Hashes computed at once; each takes `hash_cost.memory_kib`.
    pub hashes_at_once: usize,
    /// A new password must differ from this many, the one in force included; 0: no check.
    pub unique_last_passwords: usize,
    /// Days until a password runs out.
    pub password_expires_days: Option<u32>,
    /// Wrong passwords in a row that lock an account; `None`: never.
    pub lockout_attempts: Option<u32>,
    /// How long an account stays locked, in seconds; 0: until an administrator sets a new password.
    pub lockout_seconds: u64,
    /// Days a password that its user chose must be kept; 0: no check.
    pub minimum_password_age_days: u32,
    /// What every new password must match from its start, in Python's syntax; look-ahead included.
    pub password_regex: Option<String>,
    /// The same in words, for whoever's password does not match.
    pub password_regex_description: Option<String>,
    /// Must a password that an administrator chose be changed before the first use?
    pub change_password_upon_first_use: bool,
    /// Days without a login after which a user counts as disabled; `None`: never.
    pub disable_inactive_days: Option<u32>,
    /// Lifetime of the receipt for the first of several proofs, in seconds.
    pub receipt_seconds: u64,
    /// How old a signed EC2 request may be, in seconds.
    pub signed_request_seconds: u64,
    /// How many passcodes before the one in force are taken.
    pub totp_previous_windows: u32,
    /// How limits of domains and their projects stand to one another.
    pub limit_model: LimitModel,
    /// Roots of the project tree count: domain, project, project below it, ...
    pub max_project_depth: usize,
    /// Items of a list without `limit`.
    pub list_limit: Option<usize>,
    /// May a token of some scope be exchanged for one of another?
    pub allow_rescope: bool,
    /// Seconds in which a user must authorize an OAuth 1 request token; 0: any number.
    pub oauth1_request_seconds: u64,
    /// Lifetime of an OAuth 1 access token, in seconds; 0: for ever.
    pub oauth1_access_seconds: u64,
    /// Users from outside.
    pub federation: FederationConfig,
}

impl Config {
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Config {
            state_dir: state_dir.into(),
            token_provider: TokenProvider::Fernet,
            token_seconds: 3600,
            allow_expired_seconds: 2 * 24 * 3600,
            max_active_keys: 3,
            rotation_seconds: 0,
            credential_rotation_seconds: 0,
            hash_cost: HashCost::NORMAL,
            hashes_at_once: std::thread::available_parallelism().map_or(2, usize::from),
            unique_last_passwords: 0,
            password_expires_days: None,
            lockout_attempts: None,
            lockout_seconds: 1800,
            minimum_password_age_days: 0,
            password_regex: None,
            password_regex_description: None,
            change_password_upon_first_use: false,
            disable_inactive_days: None,
            receipt_seconds: 300,
            signed_request_seconds: 900,
            totp_previous_windows: 1,
            limit_model: LimitModel::Flat,
            max_project_depth: 5,
            list_limit: None,
            allow_rescope: true,
            oauth1_request_seconds: 8 * 3600,
            oauth1_access_seconds: 24 * 3600,
            federation: FederationConfig::default(),
        }
    }

    /// For tests: cheap hashes.
    pub fn cheap(state_dir: impl Into<PathBuf>) -> Self {
        Config { hash_cost: HashCost::CHEAP, ..Self::new(state_dir) }
    }
}
