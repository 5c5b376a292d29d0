//! `[identity.federation]` of the configuration: whom the cloud trusts to say who somebody is.
use crate::{preflight::Refusal, state::read_secret};
use pilvi_identity::{FederationConfig, OpenIdConfig, Secret};
use serde::Deserialize;
use std::{collections::HashSet, path::PathBuf};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FederationSettings {
    /// Addresses of dashboards that a browser may carry a token to after signing on.
    pub trusted_dashboards: Vec<String>,
    /// Minutes that a membership given by a mapping outlives the login, where the provider does not say.
    pub authorization_ttl_minutes: u32,
    /// The mapping that makes users of client certificates, for OAuth 2.
    pub oauth2_mapping: String,
    pub openid: Vec<OpenIdSettings>,
}

/// One OpenID provider, for one protocol of one identity provider.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenIdSettings {
    pub idp: String,
    #[serde(default = "openid")]
    pub protocol: String,
    pub issuer: String,
    pub client_id: String,
    /// A file that holds the client's secret alone; without one the client is public.
    pub client_secret_file: Option<PathBuf>,
    #[serde(default)]
    pub audiences: Vec<String>,
    #[serde(default = "scopes")]
    pub scopes: Vec<String>,
    #[serde(default)]
    pub introspect: bool,
    #[serde(default)]
    pub userinfo: bool,
    /// Authorities for the provider's certificate; default: those of the system.
    pub ca_file: Option<PathBuf>,
}

fn openid() -> String {
    "openid".into()
}

fn scopes() -> Vec<String> {
    ["openid", "profile", "email"].map(Into::into).to_vec()
}

impl Default for FederationSettings {
    fn default() -> Self {
        let d = FederationConfig::default();
        FederationSettings {
            trusted_dashboards: d.trusted_dashboards,
            authorization_ttl_minutes: u32::try_from(d.authorization_ttl_minutes).unwrap_or_default(),
            oauth2_mapping: d.oauth2_mapping,
            openid: Vec::new(),
        }
    }
}

impl FederationSettings {
    /// The service's own settings, with the files read.
    pub fn settings(&self) -> anyhow::Result<FederationConfig> {
        let mut seen = HashSet::new();
        if let Some(twice) = self.openid.iter().find(|o| !seen.insert((&o.idp, &o.protocol))) {
            let text = format!("identity.federation: {}, {} has two OpenID providers.", twice.idp, twice.protocol);
            return Err(Refusal(text).into());
        }
        Ok(FederationConfig {
            trusted_dashboards: self.trusted_dashboards.clone(),
            authorization_ttl_minutes: self.authorization_ttl_minutes.into(),
            oauth2_mapping: self.oauth2_mapping.clone(),
            openid: self.openid.iter().map(provider).collect::<anyhow::Result<_>>()?,
        })
    }
}

fn provider(settings: &OpenIdSettings) -> anyhow::Result<OpenIdConfig> {
    use anyhow::Context as _;
    let settings = settings.clone();
    Ok(OpenIdConfig {
        client_secret: settings.client_secret_file.map(|f| read_secret(&f)).transpose()?.map(Secret::new),
        ca_pem: match settings.ca_file {
            Some(file) => Some(std::fs::read(&file).with_context(|| file.display().to_string())?),
            None => None,
        },
        idp: settings.idp,
        protocol: settings.protocol,
        issuer: settings.issuer,
        client_id: settings.client_id,
        audiences: settings.audiences,
        scopes: settings.scopes,
        introspect: settings.introspect,
        userinfo: settings.userinfo,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_are_read_with_their_secrets_and_named_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "hush\n").unwrap();
        let one = format!(
            "[[openid]]\nidp = 'acme'\nissuer = 'https://i'\nclient_id = 'c'\nclient_secret_file = '{}'\n",
            file.display()
        );
        let read: FederationSettings = toml::from_str(&one).unwrap();
        let settings = read.settings().unwrap();
        assert_eq!((settings.openid[0].protocol.as_str(), settings.openid[0].scopes.len()), ("openid", 3));
        assert_eq!(settings.openid[0].client_secret.as_ref().unwrap().reveal(), "hush");
        let twice: FederationSettings = toml::from_str(&format!("{one}{one}")).unwrap();
        assert!(twice.settings().is_err());
        assert!(toml::from_str::<FederationSettings>("[[openid]]\nidp = 'acme'").is_err());
        let gone = one.replace("/secret", "/none");
        assert!(toml::from_str::<FederationSettings>(&gone).unwrap().settings().is_err());
    }
}
