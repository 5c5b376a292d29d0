//! `[network.bgp]`: how the cloud's BGP speakers speak. Whom they speak with is said by the API.
use crate::preflight::Refusal;
use pilvi_network::bgp::Settings;
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BgpConfig {
    /// TCP port of the peers.
    pub port: u16,
    /// The BGP identifier of all speakers; unset: each has one of its own.
    pub router_id: Option<Ipv4Addr>,
    /// Addresses that connections come from, at most one of IPv4 and one of IPv6; none: as this machine's routes have it.
    pub sources: Vec<IpAddr>,
    /// Seconds of silence that end a session; 0: never.
    pub hold_time_s: u16,
    /// Seconds that peers are asked to keep routes while no scheduler speaks; 0: not at all.
    pub restart_time_s: u16,
}

/// What twelve bits hold.
const RESTART_MAX: u16 = 4095;

impl Default for BgpConfig {
    fn default() -> Self {
        let d = Settings::default();
        BgpConfig {
            port: d.port,
            router_id: d.router_id,
            sources: d.sources,
            hold_time_s: d.hold_time,
            restart_time_s: d.restart_time,
        }
    }
}

impl BgpConfig {
    pub fn check(&self) -> Result<(), Refusal> {
        let refuse = |text: &str| Err(Refusal(format!("[network.bgp] {text}")));
        if self.port == 0 {
            return refuse("port cannot be 0.");
        }
        if matches!(self.hold_time_s, 1 | 2) {
            return refuse("hold_time_s must be 0, or at least 3.");
        }
        if self.restart_time_s > RESTART_MAX {
            return refuse("restart_time_s must be at most 4095.");
        }
        if self.router_id.is_some_and(|id| id.is_unspecified()) {
            return refuse("router_id cannot be 0.0.0.0.");
        }
        let of = |v4: bool| self.sources.iter().filter(|source| source.is_ipv4() == v4).count();
        if of(true) > 1 || of(false) > 1 {
            return refuse("sources must have at most one address of each family.");
        }
        Ok(())
    }

    pub fn settings(&self) -> Settings {
        Settings {
            port: self.port,
            router_id: self.router_id,
            sources: self.sources.clone(),
            hold_time: self.hold_time_s,
            restart_time: self.restart_time_s,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_peer_would_take_is_refused_at_the_start() {
        let good = "port = 1790\nrouter_id = '192.0.2.1'\nsources = ['192.0.2.1', '2001:db8::1']\nhold_time_s = 3";
        let good: BgpConfig = toml::from_str(good).unwrap();
        good.check().unwrap();
        assert_eq!((good.settings().hold_time, good.settings().restart_time), (3, 120));
        for bad in [
            "port = 0",
            "hold_time_s = 2",
            "restart_time_s = 4096",
            "router_id = '0.0.0.0'",
            "sources = ['192.0.2.1', '192.0.2.2']",
        ] {
            assert!(toml::from_str::<BgpConfig>(bad).unwrap().check().is_err(), "{bad}");
        }
    }
}
