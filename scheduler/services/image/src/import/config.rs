//! What an operator says of imports: `[image.import]` in the configuration; pure.
use super::METHODS;
use crate::plugin;
use ipnet::IpNet;
use pilvi_kit::fetch::{Listed, Rules};
use serde::Deserialize;
use std::{path::PathBuf, time::Duration};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImportConfig {
    /// Methods that are offered.
    pub methods: Vec<String>,
    /// What `web-download` may fetch.
    pub web: WebConfig,
    /// Further authorities for TLS, in PEM: of mirrors, of other regions.
    pub ca: Option<PathBuf>,
    /// Seconds that a download may take.
    pub download_seconds: u64,
    /// Seconds without a sign of life after which another import may take the image.
    pub stale_seconds: u64,
    /// Plug-ins and what they are told.
    pub plugins: plugin::Settings,
}

/// Lists: with both, only what is allowed counts.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebConfig {
    pub schemes: Listed<String>,
    pub hosts: Listed<String>,
    pub ports: Listed<u16>,
    /// Networks that may be reached although they are this machine's own: loopback, link-local, its addresses.
    pub networks: Vec<IpNet>,
}

impl Default for WebConfig {
    fn default() -> Self {
        let Rules { schemes, hosts, ports, networks } = Rules::default();
        WebConfig { schemes, hosts, ports, networks }
    }
}

impl WebConfig {
    pub fn rules(&self) -> Rules {
        let all = self.clone();
        Rules { schemes: all.schemes, hosts: all.hosts, ports: all.ports, networks: all.networks }
    }
}

impl Default for ImportConfig {
    fn default() -> Self {
        ImportConfig {
            methods: METHODS.iter().map(|method| (*method).to_owned()).collect(),
            web: WebConfig::default(),
            ca: None,
            download_seconds: 24 * 3600,
            stale_seconds: 3600,
            plugins: plugin::Settings::default(),
        }
    }
}

impl ImportConfig {
    pub fn check(&self) -> Result<(), String> {
        if let Some(unknown) = self.methods.iter().find(|method| !METHODS.contains(&method.as_str())) {
            return Err(format!("image.import: the method {unknown:?} is not known: {}", METHODS.join(", ")));
        }
        if self.stale_seconds < 10 {
            return Err("image.import: stale_seconds must be at least 10".to_owned());
        }
        Ok(())
    }

    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.download_seconds)
    }

    pub(super) fn stale_us(&self) -> i64 {
        i64::try_from(self.stale_seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
    }

    /// How often an import says that it is alive.
    pub(super) fn beat(&self) -> Duration {
        Duration::from_secs((self.stale_seconds / 4).clamp(1, 60))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked() {
        assert!(ImportConfig::default().check().is_ok());
        assert!(ImportConfig { methods: vec!["magic".into()], ..ImportConfig::default() }.check().is_err());
        assert!(ImportConfig { stale_seconds: 1, ..ImportConfig::default() }.check().is_err());
    }
}
