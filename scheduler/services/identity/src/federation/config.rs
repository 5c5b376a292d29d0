//! What an operator may set for federation.
use crate::Secret;

#[derive(Debug, Clone)]
pub struct FederationConfig {
    /// Addresses of dashboards that a browser may carry a token to after signing on.
    pub trusted_dashboards: Vec<String>,
    /// Minutes that a membership given by a mapping outlives the login, where the provider does not say.
    pub authorization_ttl_minutes: i64,
    /// The mapping that makes users of client certificates, for OAuth 2.
    pub oauth2_mapping: String,
    pub openid: Vec<OpenIdConfig>,
    pub saml: SamlConfig,
}

impl Default for FederationConfig {
    fn default() -> Self {
        FederationConfig {
            trusted_dashboards: Vec::new(),
            authorization_ttl_minutes: 0,
            oauth2_mapping: "oauth2_mapping".to_owned(),
            openid: Vec::new(),
            saml: SamlConfig::default(),
        }
    }
}

/// The OpenID provider behind one protocol of one identity provider.
#[derive(Debug, Clone)]
pub struct OpenIdConfig {
    /// Ids of the identity provider and of its protocol, as registered with the API.
    pub idp: String,
    pub protocol: String,
    /// Its address, exactly as it calls itself.
    pub issuer: String,
    /// Our client there.
    pub client_id: String,
    /// `None`: a public client.
    pub client_secret: Option<Secret>,
    /// Audiences of access tokens that are taken, beside the client itself.
    pub audiences: Vec<String>,
    /// Asked for when a browser signs on.
    pub scopes: Vec<String>,
    /// Ask the provider about each access token instead of checking its signature.
    pub introspect: bool,
    /// Add what the provider's user information says.
    pub userinfo: bool,
    /// Authorities that the provider's certificate may come from; `None`: those of the system.
    pub ca_pem: Option<Vec<u8>>,
}

/// SAML 2, in both roles.
#[derive(Debug, Clone)]
pub struct SamlConfig {
    /// `https://host:port`, as everybody outside reaches the cloud; empty: no SAML. All that assertions are checked
    /// against is made from it, and never from what a request says of itself.
    pub url: String,
    /// What this cloud calls itself when it vouches for its users; `None`: as Keystone's guide has it.
    pub entity_id: Option<String>,
    /// What it calls itself to those who vouch for theirs.
    pub sp_entity_id: Option<String>,
    /// How long what we say of somebody holds.
    pub assertion_seconds: u32,
    pub trusted: Vec<SamlTrust>,
}

impl Default for SamlConfig {
    fn default() -> Self {
        SamlConfig {
            url: String::new(),
            entity_id: None,
            sp_entity_id: None,
            assertion_seconds: 3600,
            trusted: Vec::new(),
        }
    }
}

impl SamlConfig {
    pub(crate) fn entity_id(&self) -> String {
        self.entity_id.clone().unwrap_or_else(|| format!("{}/identity/v3/OS-FEDERATION/saml2/idp", self.url))
    }
    pub(crate) fn sp_entity_id(&self) -> String {
        self.sp_entity_id.clone().unwrap_or_else(|| format!("{}/shibboleth", self.url))
    }
}

/// An identity provider outside, by the keys it signs with.
#[derive(Debug, Clone)]
pub struct SamlTrust {
    /// What it calls itself; the `remote_ids` of an identity provider that is registered name it.
    pub entity_id: String,
    /// Certificates (DER). They carry keys: who issued them and when they end is not looked at.
    pub certificates: Vec<Vec<u8>>,
    /// Take assertions that we did not ask for: what another Keystone sends.
    pub unsolicited: bool,
    /// Take assertions that name no audience: what another Keystone sends. The recipient is checked in any case.
    pub any_audience: bool,
}
