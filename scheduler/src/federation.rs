//! `[identity.federation]` of the configuration: whom the cloud trusts to say who somebody is.
use crate::{preflight::Refusal, state::read_secret};
use pilvi_identity::{FederationConfig, OpenIdConfig, SamlConfig, SamlTrust, Secret, certificates_of_metadata};
use rustls_pki_types::{CertificateDer, pem::PemObject};
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
    pub saml: SamlSettings,
}

/// SAML 2: what this cloud calls itself, and who else may vouch for users.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamlSettings {
    /// As identity provider; default: `PUBLIC_URL/identity/v3/OS-FEDERATION/saml2/idp`.
    pub entity_id: Option<String>,
    /// As service provider; default: `PUBLIC_URL/shibboleth`.
    pub sp_entity_id: Option<String>,
    /// How long what it says of its users holds.
    pub assertion_seconds: Option<u32>,
    pub trusted: Vec<SamlTrustSettings>,
}

/// An identity provider outside. One of the two files says which keys it signs with.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamlTrustSettings {
    pub entity_id: String,
    pub certificate_file: Option<PathBuf>,
    pub metadata_file: Option<PathBuf>,
    /// Take assertions that nobody asked for, as another Keystone sends them.
    #[serde(default)]
    pub unsolicited: bool,
    /// Take assertions that name no audience, as another Keystone sends them.
    #[serde(default)]
    pub any_audience: bool,
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
            saml: SamlSettings::default(),
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
            saml: self.saml.settings()?,
        })
    }
}

impl SamlSettings {
    /// With the files read; the cloud's address is not known here.
    fn settings(&self) -> anyhow::Result<SamlConfig> {
        let mut seen = HashSet::new();
        if let Some(twice) = self.trusted.iter().find(|t| !seen.insert(&t.entity_id)) {
            return Err(Refusal(format!("identity.federation.saml: {} is named twice.", twice.entity_id)).into());
        }
        let d = SamlConfig::default();
        Ok(SamlConfig {
            entity_id: self.entity_id.clone(),
            sp_entity_id: self.sp_entity_id.clone(),
            assertion_seconds: self.assertion_seconds.unwrap_or(d.assertion_seconds),
            trusted: self.trusted.iter().map(trust).collect::<anyhow::Result<_>>()?,
            ..d
        })
    }
}

fn trust(settings: &SamlTrustSettings) -> anyhow::Result<SamlTrust> {
    use anyhow::Context as _;
    let fail = |why: String| Refusal(format!("identity.federation.saml: {}: {why}", settings.entity_id));
    let certificates = match (&settings.certificate_file, &settings.metadata_file) {
        (Some(file), None) => {
            let text = std::fs::read(file).with_context(|| file.display().to_string())?;
            let all = CertificateDer::pem_slice_iter(&text).map(|found| found.map(|der| der.to_vec()));
            all.collect::<Result<Vec<_>, _>>().map_err(|e| fail(format!("{}: {e}", file.display())))?
        }
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
            let all = certificates_of_metadata(&text, &settings.entity_id);
            all.map_err(|why| fail(format!("{}: {why}", file.display())))?
        }
        _ => return Err(fail("it needs a certificate_file or a metadata_file.".into()).into()),
    };
    if certificates.is_empty() {
        return Err(fail("there is no certificate in its file.".into()).into());
    }
    Ok(SamlTrust {
        entity_id: settings.entity_id.clone(),
        certificates,
        unsolicited: settings.unsolicited,
        any_audience: settings.any_audience,
    })
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

    #[test]
    fn peers_of_saml_need_a_key_and_one_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("idp.pem");
        let made = rcgen::generate_simple_self_signed(["idp".to_owned()]).unwrap();
        std::fs::write(&file, made.cert.pem()).unwrap();
        let one = format!("[[saml.trusted]]\nentity_id = 'https://i'\ncertificate_file = '{}'\n", file.display());
        let read: FederationSettings = toml::from_str(&one).unwrap();
        let settings = read.settings().unwrap().saml;
        assert_eq!((settings.trusted[0].certificates.len(), settings.assertion_seconds), (1, 3600));
        assert!(!settings.trusted[0].unsolicited && !settings.trusted[0].any_audience);
        let twice: FederationSettings = toml::from_str(&format!("{one}{one}")).unwrap();
        assert!(twice.settings().is_err());
        std::fs::write(&file, "nothing").unwrap();
        assert!(read.settings().is_err());
        let none: FederationSettings = toml::from_str("[[saml.trusted]]\nentity_id = 'https://i'").unwrap();
        assert!(none.settings().is_err());
    }
}
