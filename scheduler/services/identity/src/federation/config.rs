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
}

impl Default for FederationConfig {
    fn default() -> Self {
        FederationConfig {
            trusted_dashboards: Vec::new(),
            authorization_ttl_minutes: 0,
            oauth2_mapping: "oauth2_mapping".to_owned(),
            openid: Vec::new(),
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
