//! `[network.dns]`: the name server that is told what ports and floating IPs are called. Without a server nobody is.
use crate::preflight::Refusal;
use pilvi_dns_update::{Key, Server};
use pilvi_network::dns::{Reverse, Settings};
use serde::Deserialize;
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DnsConfig {
    /// The primary of the zones: an address, with a port if it is not 53.
    pub server: Option<String>,
    /// The key that updates are signed with, as `tsig-keygen` writes it.
    pub key_file: Option<PathBuf>,
    /// What the cloud may change; names elsewhere are not published.
    pub zones: Vec<String>,
    /// How long others may remember a record.
    pub ttl_s: u32,
    /// Addresses lead back to names, in zones of these lengths.
    pub reverse: bool,
    pub ipv4_ptr_zone_prefix_size: u8,
    pub ipv6_ptr_zone_prefix_size: u8,
    /// Seconds that the server has for an answer.
    pub timeout_s: u64,
}

impl Default for DnsConfig {
    fn default() -> Self {
        DnsConfig {
            server: None,
            key_file: None,
            zones: Vec::new(),
            ttl_s: 300,
            reverse: false,
            ipv4_ptr_zone_prefix_size: 24,
            ipv6_ptr_zone_prefix_size: 120,
            timeout_s: 5,
        }
    }
}

const PORT: u16 = 53;

fn address(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(|ip| (ip, PORT).into()))
}

/// As names are kept: in lower case, with the dot at the end.
fn zone(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let label = |l: &str| {
        (1..=63).contains(&l.len()) && l.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'/'))
    };
    (name.len() <= 253 && name.split('.').all(label)).then(|| name + ".")
}

impl DnsConfig {
    /// What it comes to; `None` without a server.
    pub fn settings(&self) -> Result<Option<Settings>, Refusal> {
        let refuse = |text: String| Refusal(format!("[network.dns] {text}"));
        let Some(server) = &self.server else {
            let idle = self.key_file.is_none() && self.zones.is_empty() && !self.reverse;
            return if idle { Ok(None) } else { Err(refuse("server is missing.".into())) };
        };
        let at = address(server).ok_or_else(|| refuse("server must be an address, or address:port.".into()))?;
        let key_file = self.key_file.clone().filter(|file| file.is_absolute());
        let key_file = key_file.ok_or_else(|| refuse("key_file must be an absolute path.".into()))?;
        let (v4, v6) = (self.ipv4_ptr_zone_prefix_size, self.ipv6_ptr_zone_prefix_size);
        if !(8..=24).contains(&v4) || v4 % 8 != 0 {
            return Err(refuse("ipv4_ptr_zone_prefix_size must be 8, 16 or 24.".into()));
        }
        if !(4..=124).contains(&v6) || v6 % 4 != 0 {
            return Err(refuse("ipv6_ptr_zone_prefix_size must be a multiple of 4 from 4 to 124.".into()));
        }
        if self.zones.is_empty() {
            return Err(refuse("zones must name what may be changed.".into()));
        }
        if !(1..=60).contains(&self.timeout_s) {
            return Err(refuse("timeout_s must be 1 to 60.".into()));
        }
        if self.ttl_s > i32::MAX as u32 {
            return Err(refuse("ttl_s must be at most 2147483647.".into()));
        }
        let zones = self.zones.iter().map(|z| zone(z).ok_or_else(|| refuse(format!("{z} is no name of a zone."))));
        Ok(Some(Settings {
            server: Server { address: at, key_file, patience: Duration::from_secs(self.timeout_s) },
            zones: zones.collect::<Result<_, _>>()?,
            ttl: self.ttl_s,
            reverse: self.reverse.then_some(Reverse { v4, v6 }),
        }))
    }

    /// Beside what the words say: the key must be one, and nobody else's to read.
    pub fn check(&self) -> Result<(), Refusal> {
        use std::os::unix::fs::PermissionsExt;
        let Some(settings) = self.settings()? else { return Ok(()) };
        let file = &settings.server.key_file;
        let refuse = |why: String| Refusal(format!("[network.dns] key_file {}: {why}.", file.display()));
        let mode = std::fs::metadata(file).map_err(|e| refuse(e.to_string()))?.permissions().mode();
        if mode & 0o007 != 0 {
            return Err(refuse("everybody may read or write it; chmod it to 600".into()));
        }
        let text = std::fs::read_to_string(file).map_err(|e| refuse(e.to_string()))?;
        Key::parse(&text).map(drop).map_err(refuse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> DnsConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn what_could_not_work_is_refused_at_the_start() {
        use std::os::unix::fs::PermissionsExt;
        assert!(parse("").settings().unwrap().is_none());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "key cloud { algorithm hmac-sha256; secret \"c2VjcmV0\"; };").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let good = format!("server = '192.0.2.53'\nkey_file = '{}'\nzones = ['Example.ORG']\n", file.display());
        let config = parse(&good);
        config.check().unwrap();
        let settings = config.settings().unwrap().unwrap();
        assert_eq!((settings.address().as_str(), settings.zones[0].as_str()), ("192.0.2.53:53", "example.org."));
        assert_eq!(settings.reverse, None);
        for bad in
            ["timeout_s = 0", "ipv4_ptr_zone_prefix_size = 20", "ipv6_ptr_zone_prefix_size = 126", "ttl_s = 2147483648"]
        {
            assert!(parse(&format!("{good}{bad}")).check().is_err(), "{bad}");
        }
        for bad in [
            "zones = ['example.org']",
            "server = 'ns1'\nkey_file = '/k'\nzones = ['a']",
            "server = '::1'\nkey_file = 'k'\nzones = ['a']",
        ] {
            assert!(parse(bad).check().is_err(), "{bad}");
        }
        assert!(parse(&good.replace("Example.ORG", "a..b")).check().is_err());
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(config.check().unwrap_err().to_string().contains("600"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&file, "nonsense").unwrap();
        assert!(config.check().is_err());
    }
}
