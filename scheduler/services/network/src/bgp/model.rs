//! A speaker, its peers, and how both are told to the protocol's side. Pure.
use super::announce::Settings;
use pilvi_bgp::{Family, Key, Peering};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::net::{IpAddr, Ipv4Addr};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BgpSpeaker {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub local_as: u32,
    pub ip_version: u8,
    pub advertise_floating_ip_host_routes: bool,
    pub advertise_tenant_networks: bool,
    #[serde(default)]
    pub peers: Vec<String>,
    /// Gateway networks.
    #[serde(default)]
    pub networks: Vec<String>,
    /// Taken from its agent: it says nothing.
    #[serde(default)]
    pub idle: bool,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct BgpPeer {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub peer_ip: IpAddr,
    pub remote_as: u32,
    pub auth_type: AuthType,
    pub password: Option<String>,
}

impl std::fmt::Debug for BgpPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BgpPeer({}, {}, AS {})", self.id, self.peer_ip, self.remote_as)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthType {
    None,
    Md5,
}

impl BgpSpeaker {
    /// Routers know each other by such numbers. It must not change with the scheduler that speaks, so it follows from
    /// the speaker unless the operator names one.
    fn identifier(&self, settings: &Settings) -> Ipv4Addr {
        settings.router_id.unwrap_or_else(|| {
            let hash: [u8; 32] = Sha256::digest(&self.id).into();
            Ipv4Addr::new(10, hash[0], hash[1], hash[2])
        })
    }

    pub fn peering(&self, peer: &BgpPeer, settings: &Settings) -> Peering {
        Peering {
            local_as: self.local_as,
            identifier: self.identifier(settings),
            family: if self.ip_version == 6 { Family::V6 } else { Family::V4 },
            peer: peer.peer_ip,
            port: settings.port,
            source: settings.sources.iter().copied().find(|s| s.is_ipv4() == peer.peer_ip.is_ipv4()),
            remote_as: peer.remote_as,
            key: peer.password.clone().filter(|_| peer.auth_type == AuthType::Md5).map(Key),
            hold: settings.hold_time,
            restart: settings.restart_time,
        }
    }
}
