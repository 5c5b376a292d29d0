//! pilvi-netdev as the packet path of a real host.
use super::delegation::{self, Shelf};
use super::{Flow, Network, PortState, convert};
use crate::config::{Config, External};
use async_trait::async_trait;
use pilvi_agent_api::v1::{HostNetwork, ObservedDelegation, ObservedMeter};
use pilvi_netdev::{self as netdev, DataPlane, MetadataListener};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::net::TcpStream;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const DNS_PORT: u16 = 53;
/// Name servers that are asked one after the other.
const NAME_SERVERS: usize = 3;

/// How long a former agent's hold on the packet path is waited for.
const LOCK_PATIENCE: u32 = 60;

/// The packet path of this host.
pub struct RealNetwork {
    plane: DataPlane,
    metadata: MetadataListener,
    notes: tokio::sync::Mutex<netdev::Notes>,
    name_servers: Vec<IpAddr>,
    lent: tokio::sync::Mutex<tokio::sync::watch::Receiver<netdev::Delegations>>,
    shelf: Shelf,
    /// Why there is no way to other hosts.
    overlay_error: parking_lot::Mutex<String>,
}

/// What netdev is told of this host.
fn netdev_config(config: &Config, key: Option<netdev::PrivateKey>) -> netdev::Config {
    let encryption =
        key.map(|key| netdev::Encryption { key, port: config.overlay.port, program: config.overlay.wireguard.clone() });
    netdev::Config {
        prefix: config.prefix.clone(),
        state_dir: config.state_dir.join("netdev"),
        underlay: config.underlay.as_ref().map(|underlay| netdev::Underlay {
            device: underlay.device.clone(),
            address: underlay.address,
            encryption,
        }),
        external: match &config.external {
            External::Edge => netdev::External::Edge,
            External::Device(device) => netdev::External::Device(device.clone()),
            External::None => netdev::External::None,
        },
        join_edge: config.join_edge.clone(),
        notes: netdev::NoteRate { rate: config.flow_log.rate, burst: config.flow_log.burst },
    }
}

/// Whom guests' questions about the outside go to: the configured name servers, or the host's own, which may change.
fn name_servers(configured: &[IpAddr]) -> Vec<SocketAddr> {
    let mut servers = configured.to_vec();
    if servers.is_empty() {
        servers = listed(&std::fs::read_to_string(RESOLV_CONF).unwrap_or_default());
    }
    servers.into_iter().map(|ip| SocketAddr::new(ip, DNS_PORT)).collect()
}

fn listed(resolv_conf: &str) -> Vec<IpAddr> {
    let server = |line: &str| line.trim().strip_prefix("nameserver")?.split_whitespace().next()?.parse().ok();
    resolv_conf.lines().filter_map(server).take(NAME_SERVERS).collect()
}

impl RealNetwork {
    /// Opens the packet path; what an earlier agent made of it is found and kept.
    ///
    /// # Errors
    /// Text that says what the kernel refused.
    pub async fn open(config: &Config, key: Option<netdev::PrivateKey>) -> Result<Self, String> {
        let mut tries = 0;
        let plane = loop {
            match DataPlane::open(netdev_config(config, key.clone())).await {
                Ok(plane) => break plane,
                Err(netdev::Error::Locked(_)) if tries < LOCK_PATIENCE => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => return Err(error.to_string()),
            }
        };
        let metadata = plane.metadata().map_err(|e| e.to_string())?;
        let notes = tokio::sync::Mutex::new(plane.notes().map_err(|e| e.to_string())?);
        let shelf = Shelf::new(&config.state_dir);
        plane.keep_delegations(shelf.load());
        let lent = tokio::sync::Mutex::new(plane.delegations());
        let overlay_error = parking_lot::Mutex::new(plane.overlay_error().unwrap_or_default().to_owned());
        Ok(Self { plane, metadata, notes, name_servers: config.name_servers.clone(), lent, shelf, overlay_error })
    }
}

/// Removes all that the packet path of this configuration has made.
///
/// # Errors
/// Text that says what could not be removed.
pub async fn clear(config: &Config) -> Result<(), String> {
    netdev::clear(netdev_config(config, None)).await.map_err(|e| e.to_string())
}

#[async_trait]
impl Network for RealNetwork {
    async fn apply(&self, wanted: &HostNetwork) -> Result<BTreeMap<String, PortState>, String> {
        let (wanted, refused) = convert::wanted(wanted);
        self.plane.forward_names_to(name_servers(&self.name_servers));
        let applied = self.plane.apply(&wanted).await.map_err(|e| e.to_string())?;
        for error in &applied.errors {
            tracing::error!(error, "packet path");
        }
        *self.overlay_error.lock() = applied.overlay.unwrap_or_default();
        let mut ports = BTreeMap::new();
        for port in applied.ports {
            let error = port.error.unwrap_or_default();
            ports.insert(port.id, PortState { device: port.device, wired: port.wired, error });
        }
        for (id, error) in refused {
            ports.insert(id, PortState { error, ..PortState::default() });
        }
        Ok(ports)
    }

    fn overlay_error(&self) -> String {
        self.overlay_error.lock().clone()
    }

    async fn open_taps(&self, port: &str) -> Result<Vec<OwnedFd>, String> {
        self.plane.open_tap(port).await.map_err(|e| format!("port {port}: {e}"))
    }

    async fn taps_of(&self, port: &str, pid: u32) -> Result<Vec<OwnedFd>, String> {
        self.plane.tap_of(port, pid).map_err(|e| format!("port {port}: {e}"))
    }

    async fn meters(&self) -> Result<Vec<ObservedMeter>, String> {
        let meter =
            |(label_id, m): (String, netdev::Metered)| ObservedMeter { label_id, packets: m.packets, bytes: m.bytes };
        Ok(self.plane.meters().map_err(|e| e.to_string())?.into_iter().map(meter).collect())
    }

    async fn delegations(&self) -> Result<Vec<ObservedDelegation>, String> {
        let mut lent = self.lent.lock().await;
        lent.changed().await.map_err(|e| e.to_string())?;
        let known = lent.borrow_and_update().clone();
        if let Err(error) = self.shelf.save(&known.kept) {
            // It is news once more.
            lent.mark_changed();
            return Err(error);
        }
        Ok(delegation::observed(&known.told))
    }

    async fn flows(&self) -> Result<Vec<Flow>, String> {
        let notes = self.notes.lock().await.next().await.map_err(|e| e.to_string())?;
        Ok(notes.iter().map(convert::flow).collect())
    }

    async fn accept_metadata(&self) -> Result<(TcpStream, String), String> {
        self.metadata.accept().await.map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_name_servers_are_those_of_its_file() {
        let file = "# nameserver 9.9.9.9\nsearch x\nnameserver 192.0.2.1\n nameserver\tfd00::53\nnameserver x\n";
        let wanted: Vec<IpAddr> = ["192.0.2.1", "fd00::53"].map(|a| a.parse().unwrap()).to_vec();
        assert_eq!(listed(file), wanted);
        assert_eq!(name_servers(&wanted)[0].to_string(), "192.0.2.1:53", "configured ones are taken instead");
    }
}
