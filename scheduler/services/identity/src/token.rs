//! Tokens: what they say, how they are written, who keeps the keys, and what ends them.
//!
//! ```text
//! issue:    auth/ decides -> Token -> payload (msgpack) -> fernet (newest primary key) -> text
//!                                  or jws (claims, signed with the newest private key)
//! validate: text -> fernet or jws (any key) -> Token -> resolve (user, place, roles live) -> Resolved
//!                                                              |
//!           revocation snapshot, epoch -------------------------+ refuse
//! ```
//! Nothing of a token is stored. It stays good as long as the user, the place and at least one role
//! are still there, and no [`revoke`] event covers it.
pub mod fernet;
pub mod jws;
pub mod keys;
pub mod payload;
pub(crate) mod resolve;
pub mod revoke;
pub(crate) mod view;

/// What a token lets its holder act on, by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenScope {
    Unscoped,
    Project(String),
    Domain(String),
    System,
}

/// Everything that is written into a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub user_id: String,
    pub methods: Vec<Method>,
    pub scope: TokenScope,
    /// Microseconds since 1970.
    pub issued_us: i64,
    /// Microseconds since 1970, whole seconds.
    pub expires_us: i64,
    /// Its own id, then the id of the first token of its chain if that is another.
    pub audit_ids: Vec<String>,
    pub trust_id: Option<String>,
    pub app_credential_id: Option<String>,
    /// Who vouched for the user, when he came from outside.
    pub federation: Option<Federation>,
    /// The OAuth 1 access token it was made from.
    pub access_token_id: Option<String>,
    /// SHA-256 of the client certificate without which it is worth nothing, in base64url.
    pub thumbprint: Option<String>,
}

/// What a provider's word was worth at login. The groups live as long as the token does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Federation {
    pub idp_id: String,
    pub protocol_id: String,
    pub group_ids: Vec<String>,
}

impl Token {
    pub fn audit_id(&self) -> &str {
        self.audit_ids.first().map_or("", String::as_str)
    }
    /// The id that all tokens made from the same login share.
    pub fn chain_id(&self) -> &str {
        self.audit_ids.last().map_or("", String::as_str)
    }
}

/// How a user proved who he is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Password,
    Token,
    ApplicationCredential,
    Ec2,
    Totp,
    /// Some protocol of an identity provider.
    Mapped,
    Saml2,
    OpenId,
    Oauth1,
    /// A client certificate.
    Oauth2Credential,
}

impl Method {
    const ALL: [(Method, &'static str, u64); 10] = [
        (Method::Password, "password", 1),
        (Method::Token, "token", 2),
        (Method::ApplicationCredential, "application_credential", 4),
        (Method::Ec2, "ec2credential", 8),
        (Method::Totp, "totp", 16),
        (Method::Mapped, "mapped", 32),
        (Method::Saml2, "saml2", 64),
        (Method::OpenId, "openid", 128),
        (Method::Oauth1, "oauth1", 256),
        (Method::Oauth2Credential, "oauth2_credential", 512),
    ];
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(m, _, _)| *m == self).map_or("", |(_, n, _)| n)
    }
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n, _)| *n == name).map(|(m, _, _)| *m)
    }
    pub(crate) fn bits(methods: &[Method]) -> u64 {
        Self::ALL.iter().filter(|(m, _, _)| methods.contains(m)).map(|(_, _, b)| b).sum()
    }
    pub(crate) fn of_bits(bits: u64) -> Vec<Method> {
        Self::ALL.iter().filter(|(_, _, b)| bits & b != 0).map(|(m, _, _)| *m).collect()
    }
}

/// 16 random bytes as 22 characters: how audit ids are written.
pub fn new_audit_id() -> String {
    use base64::Engine as _;
    let bytes: [u8; 16] = rand::random();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}
