//! The configuration: one file in, the environment and the command line over it, checked once.
use crate::{
    bgp::BgpConfig,
    cli::Common,
    dns::DnsConfig,
    events::{EventsConfig, RateLimits},
    federation::FederationSettings,
    preflight::Refusal,
    state::State,
};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

/// `pilvi.toml`. Unknown names are refused, so that a misspelt one is not silent.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port of the API.
    pub listen: SocketAddr,
    /// As clients reach it, `https://host:port`; default: made from `listen`.
    pub public_url: Option<String>,
    /// Further names and addresses for the server's certificate.
    pub names: Vec<String>,
    /// `sqlite:PATH` or `postgres://...`; default: a file in the state directory.
    pub store: Option<String>,
    /// Where image data lies: shared by all schedulers of a store; default: in the state directory.
    pub images_dir: Option<PathBuf>,
    /// What opens the keys in a shared store; default: `master-key` in the state directory.
    pub master_key_file: Option<PathBuf>,
    /// Where agents reach this scheduler, `https://host:port`; default: made from `listen`.
    pub agent_url: Option<String>,
    pub region: String,
    /// Answer plain HTTP to clients on loopback.
    pub plain_http: bool,
    /// Hash passwords cheaply: for tests that make hundreds of users, never for users.
    pub cheap_passwords: bool,
    /// Seconds of silence after which a host counts as down.
    pub host_silence_s: u64,
    /// Where compressed logs go and how: a filter as on the command line.
    pub log: String,
    /// `text`, or `json`: one document a line, with trace and request ids as members.
    pub log_format: LogFormat,
    /// Statements of the store that take longer are logged, in milliseconds.
    pub slow_statement_ms: u64,
    pub events: EventsConfig,
    pub rate_limits: RateLimits,
    pub identity: IdentityConfig,
    pub image: ImageConfig,
    pub network: NetworkConfig,
    pub compute: ComputeConfig,
    pub placement: PlacementConfig,
    pub external: ExternalConfig,
}

/// What encrypts packets between hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverlayEncryption {
    Wireguard,
}

/// What projects may have of the network.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// Limits of projects without quotas of their own, by resource; -1: none.
    pub quotas: BTreeMap<String, i64>,
    /// Physical networks that carry VLANs: `PHYSICAL`, or `PHYSICAL:FIRST:LAST` with tags for networks that name none.
    pub vlan_ranges: Vec<String>,
    /// Numbers of the overlay for networks that name none, `FIRST:LAST`, in order; none: all.
    pub vni_ranges: Vec<String>,
    /// Types of networks that projects make, in order: `vxlan`, `vlan`; none: `vxlan`.
    pub tenant_network_types: Vec<String>,
    pub bgp: BgpConfig,
    pub dns: DnsConfig,
    /// What hosts encrypt packets between them with: networks leave room for it. Hosts are told by their agents' own files.
    pub overlay_encryption: Option<OverlayEncryption>,
    /// New subnets of IPv6 that ask for the default pool have their prefix lent by the provider.
    pub prefix_delegation: bool,
    /// New routers that do not say otherwise watch the next hops of their ways out (BFD).
    pub enable_default_route_bfd: bool,
}

/// Where images lie, what they must be, how they may come in.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageConfig {
    /// `[image.stores.NAME]`; none: one directory below the state directory, called `file`.
    pub stores: BTreeMap<String, pilvi_image::StoreConfig>,
    /// The store that is meant when none is named.
    pub default_store: Option<String>,
    /// Images must hold what their `disk_format` says.
    pub require_image_format_match: bool,
    /// Locations that are added are read and hashed.
    pub do_secure_hash: bool,
    /// Checks on partition tables that do not matter: `mbr`.
    pub gpt_safety_checks_nonfatal: Vec<String>,
    /// Kinds of VMDK that are taken; others than the default are never.
    pub vmdk_allowed_types: Vec<String>,
    /// A directory of certificates `<uuid>.pem` of those who sign images.
    pub certificates: Option<PathBuf>,
    pub import: pilvi_image::ImportConfig,
    /// Images show their `locations`, and patches may change them.
    pub show_locations: bool,
    /// Images show the URL that their data is read from.
    pub show_direct_url: bool,
    /// MiB of images in remote stores that are kept on this machine; 0: none.
    pub cache_mib: u64,
    /// The usual metadata definitions are put into the store at the first start.
    pub metadata_catalogue: bool,
}

impl Default for ImageConfig {
    fn default() -> Self {
        let d = pilvi_image::Config::new("/");
        ImageConfig {
            stores: d.stores,
            default_store: d.default_store,
            require_image_format_match: d.match_format,
            do_secure_hash: d.hash_locations,
            show_locations: d.show_locations,
            show_direct_url: d.show_direct_url,
            cache_mib: d.cache_size_max >> 20,
            metadata_catalogue: d.metadef_catalogue,
            gpt_safety_checks_nonfatal: d.gpt_nonfatal,
            vmdk_allowed_types: d.vmdk_types,
            certificates: d.certificates,
            import: d.import,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// Rules about passwords and tokens.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentityConfig {
    /// Lifetime of a token, in seconds.
    pub token_seconds: u64,
    /// Wrong passwords in a row that lock an account; unset: never.
    pub lockout_attempts: Option<u32>,
    pub lockout_seconds: u64,
    /// A new password must differ from this many; 0: no check.
    pub unique_last_passwords: usize,
    /// Days until a password runs out; unset: never.
    pub password_expires_days: Option<u32>,
    /// Days that a password its user chose must be kept; 0: no check.
    pub minimum_password_age_days: u32,
    /// What new passwords must match, in Python's syntax, and the same in words.
    pub password_regex: Option<String>,
    pub password_regex_description: Option<String>,
    /// A password that an administrator chose must be changed before the first use.
    pub change_password_upon_first_use: bool,
    /// Days without a login after which a user counts as disabled; unset: never.
    pub disable_inactive_days: Option<u32>,
    /// `fernet` (sealed) or `jws` (signed, ES256).
    pub token_provider: String,
    /// Keys are rotated this often, in seconds; 0: by `pilvi identity rotate-keys` alone.
    pub token_key_rotation_seconds: u64,
    pub credential_key_rotation_seconds: u64,
    /// `flat` or `strict_two_level`.
    pub limit_model: String,
    /// Users from outside.
    pub federation: FederationSettings,
}

impl IdentityConfig {
    /// The service's own settings.
    pub fn settings(&self, state_dir: std::path::PathBuf) -> Result<pilvi_identity::Config, Refusal> {
        let unknown = |what: &str, text: &str| Refusal(format!("identity: {what} cannot be {text}."));
        let token_provider = pilvi_identity::TokenProvider::parse(&self.token_provider);
        let limit_model = pilvi_identity::LimitModel::parse(&self.limit_model);
        Ok(pilvi_identity::Config {
            token_provider: token_provider.ok_or_else(|| unknown("token_provider", &self.token_provider))?,
            limit_model: limit_model.ok_or_else(|| unknown("limit_model", &self.limit_model))?,
            token_seconds: self.token_seconds,
            lockout_attempts: self.lockout_attempts,
            lockout_seconds: self.lockout_seconds,
            unique_last_passwords: self.unique_last_passwords,
            password_expires_days: self.password_expires_days,
            minimum_password_age_days: self.minimum_password_age_days,
            password_regex: self.password_regex.clone(),
            password_regex_description: self.password_regex_description.clone(),
            change_password_upon_first_use: self.change_password_upon_first_use,
            disable_inactive_days: self.disable_inactive_days,
            rotation_seconds: self.token_key_rotation_seconds,
            credential_rotation_seconds: self.credential_key_rotation_seconds,
            ..pilvi_identity::Config::new(state_dir)
        })
    }
}

impl Default for IdentityConfig {
    fn default() -> Self {
        let d = pilvi_identity::Config::new("/");
        IdentityConfig {
            token_seconds: d.token_seconds,
            lockout_attempts: d.lockout_attempts,
            lockout_seconds: d.lockout_seconds,
            unique_last_passwords: d.unique_last_passwords,
            password_expires_days: d.password_expires_days,
            minimum_password_age_days: d.minimum_password_age_days,
            password_regex: None,
            password_regex_description: None,
            change_password_upon_first_use: d.change_password_upon_first_use,
            disable_inactive_days: d.disable_inactive_days,
            token_provider: "fernet".into(),
            token_key_rotation_seconds: d.rotation_seconds,
            credential_key_rotation_seconds: d.credential_rotation_seconds,
            limit_model: d.limit_model.name().into(),
            federation: FederationSettings::default(),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ComputeConfig {
    /// Virtual for each real processor.
    pub cpu_ratio: f64,
    pub memory_ratio: f64,
    pub disk_ratio: f64,
    pub default_zone: String,
}

/// How allocation candidates are looked for.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlacementConfig {
    /// In random order, so that requests with a limit do not all see the same hosts.
    pub randomize_candidates: bool,
    /// For one request at most, whatever it asks for.
    pub max_candidates: usize,
    /// One of each tree before the second of any; else all of one tree before the next.
    pub breadth_first: bool,
}

impl Default for PlacementConfig {
    fn default() -> Self {
        let limits = pilvi_placement::Limits::default();
        PlacementConfig { randomize_candidates: limits.randomize, max_candidates: limits.ways_max, breadth_first: true }
    }
}

/// The external network that `up` makes.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExternalConfig {
    pub cidr: String,
    pub gateway: String,
    pub first: String,
    pub last: String,
}

impl Default for ExternalConfig {
    fn default() -> Self {
        // TEST-NET-3 (RFC 5737): nobody's real network.
        ExternalConfig {
            cidr: "203.0.113.0/24".into(),
            gateway: "203.0.113.1".into(),
            first: "203.0.113.10".into(),
            last: "203.0.113.250".into(),
        }
    }
}

impl Default for ComputeConfig {
    fn default() -> Self {
        let d = pilvi_compute::Config::default();
        ComputeConfig {
            cpu_ratio: d.cpu_ratio,
            memory_ratio: d.memory_ratio,
            disk_ratio: d.disk_ratio,
            default_zone: d.default_zone,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 7373)),
            public_url: None,
            names: Vec::new(),
            store: None,
            images_dir: None,
            master_key_file: None,
            agent_url: None,
            region: "RegionOne".into(),
            plain_http: false,
            cheap_passwords: false,
            host_silence_s: 10,
            log: "info".into(),
            log_format: LogFormat::Text,
            slow_statement_ms: 100,
            events: EventsConfig::default(),
            rate_limits: RateLimits::default(),
            identity: IdentityConfig::default(),
            image: ImageConfig::default(),
            network: NetworkConfig::default(),
            compute: ComputeConfig::default(),
            placement: PlacementConfig::default(),
            external: ExternalConfig::default(),
        }
    }
}

impl Config {
    pub fn load(common: &Common, state: &State, listen: Option<SocketAddr>) -> Result<Self> {
        let path = common.config.clone().unwrap_or_else(|| state.config());
        let mut config = match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str::<Config>(&text).map_err(|e| Refusal(format!("{}: {e}", path.display())))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && common.config.is_none() => Config::default(),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        if let Some(listen) = listen {
            config.listen = listen;
        }
        if let Some(log) = &common.log {
            config.log.clone_from(log);
        }
        if let Some(format) = common.log_format {
            config.log_format = format;
        }
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.plain_http && !self.listen.ip().is_loopback() {
            return Err(Refusal("plain_http is for loopback only: listen on 127.0.0.1, or leave TLS on.".into()));
        }
        let ratios = [self.compute.cpu_ratio, self.compute.memory_ratio, self.compute.disk_ratio];
        if ratios.iter().any(|r| !r.is_finite() || *r <= 0.0) {
            return Err(Refusal("compute: the ratios must be greater than 0.".into()));
        }
        self.network.bgp.check()?;
        self.network.dns.check()?;
        self.image.import.check().map_err(Refusal)?;
        self.identity.settings("/".into())?;
        self.events.check()?;
        self.rate_limits.check()?;
        if let Some(url) = &self.agent_url {
            let good = url::Url::parse(url).is_ok_and(|u| u.scheme() == "https" && u.host_str().is_some());
            if !good {
                return Err(Refusal("agent_url must look like https://host:port.".into()));
            }
        }
        if self.images_dir.as_ref().is_some_and(|dir| !dir.is_absolute()) {
            return Err(Refusal("images_dir must be an absolute path.".into()));
        }
        if !(1..=3600).contains(&self.host_silence_s) {
            return Err(Refusal("host_silence_s must be 1 to 3600.".into()));
        }
        Ok(())
    }

    /// The directory of image data.
    pub fn images(&self, state: &State) -> PathBuf {
        self.images_dir.clone().unwrap_or_else(|| state.images())
    }

    /// What agents are told of this scheduler; nothing when it listens everywhere and no address was given.
    pub fn agent_url(&self) -> String {
        match &self.agent_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None if self.listen.ip().is_unspecified() => String::new(),
            None => format!("https://{}", self.listen),
        }
    }

    /// What the catalogue says.
    pub fn public_url(&self) -> String {
        match &self.public_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("{}://{}", if self.plain_http { "http" } else { "https" }, self.listen),
        }
    }

    /// Names and addresses that the server's certificate is good for.
    pub fn certificate_names(&self) -> Vec<String> {
        let mut names =
            vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned(), self.listen.ip().to_string()];
        let public = self.public_url.as_ref().and_then(|u| url::Url::parse(u).ok());
        names.extend(public.and_then(|u| u.host_str().map(str::to_owned)));
        let agents = self.agent_url.as_ref().and_then(|u| url::Url::parse(u).ok());
        names.extend(agents.and_then(|u| u.host_str().map(str::to_owned)));
        names.extend(self.names.iter().cloned());
        names.sort();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_names_and_open_plain_http_are_refused() {
        assert!(toml::from_str::<Config>("lisen = '127.0.0.1:1'").is_err());
        let open: Config = toml::from_str("listen = '0.0.0.0:80'\nplain_http = true").unwrap();
        assert!(open.check().is_err());
        for bad in ["token_provider = 'x'", "limit_model = 'x'"] {
            assert!(toml::from_str::<Config>(&format!("[identity]\n{bad}")).unwrap().check().is_err(), "{bad}");
        }
        assert_eq!(Config::default().public_url(), "https://127.0.0.1:7373");
    }
}
