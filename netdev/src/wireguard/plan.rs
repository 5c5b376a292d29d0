//! What a WireGuard device shall be, against what it is. Pure.
//!
//! ```text
//!   key -> port -> remove peers -> put peers
//! ```
//! An address belongs to one peer: a host that has another key must be gone before it comes again.
use super::PrivateKey;
use crate::wanted::{PublicKey, Tunnel};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A device as wanted, or as found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    pub key: Option<PrivateKey>,
    pub port: u16,
    pub peers: BTreeMap<PublicKey, Peer>,
}

/// Another host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// Where encrypted packets go. The device follows a peer that speaks from elsewhere; the next look leads it back.
    pub endpoint: Option<SocketAddr>,
    /// Addresses of what is inside, with their prefixes: nothing else is taken from it or sent to it.
    pub allowed: BTreeSet<(IpAddr, u8)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Key(PrivateKey),
    Port(u16),
    Remove(PublicKey),
    Put(PublicKey, Peer),
}

/// The device that a host wants, and what of it cannot be.
#[must_use]
pub fn wanted(key: &PrivateKey, port: u16, own: Ipv4Addr, tunnels: &[Tunnel]) -> (Device, Vec<String>) {
    let mut device = Device { key: Some(key.clone()), port, peers: BTreeMap::new() };
    let (mine, mut seen, mut problems) = (key.public(), BTreeSet::new(), Vec::new());
    for tunnel in tunnels.iter().filter(|t| t.vtep != own) {
        if !seen.insert(tunnel.vtep) {
            problems.push(format!("host {} has two WireGuard keys", tunnel.vtep));
        } else if tunnel.key == mine || device.peers.contains_key(&tunnel.key) {
            problems.push(format!("host {} has another host's WireGuard key", tunnel.vtep));
        } else {
            let inside = BTreeSet::from([(tunnel.vtep.into(), 32)]);
            let endpoint = Some(SocketAddr::new(tunnel.vtep.into(), tunnel.port));
            device.peers.insert(tunnel.key, Peer { endpoint, allowed: inside });
        }
    }
    (device, problems)
}

/// The steps that turn one into the other.
#[must_use]
pub fn steps(wanted: &Device, found: &Device) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(key) = wanted.key.as_ref().filter(|_| wanted.key != found.key) {
        steps.push(Step::Key(key.clone()));
    }
    if wanted.port != found.port {
        steps.push(Step::Port(wanted.port));
    }
    let gone = found.peers.keys().filter(|key| !wanted.peers.contains_key(key));
    steps.extend(gone.map(|key| Step::Remove(*key)));
    let news = wanted.peers.iter().filter(|(key, peer)| found.peers.get(key) != Some(peer));
    steps.extend(news.map(|(key, peer)| Step::Put(*key, peer.clone())));
    steps
}

/// Addresses of hosts that have another key than before: they are spoken to at once, so that both agree on the new one.
#[must_use]
pub fn renewed(steps: &[Step], found: &Device) -> Vec<IpAddr> {
    let removed = steps.iter().filter_map(|s| if let Step::Remove(key) = s { found.peers.get(key) } else { None });
    let removed: BTreeSet<IpAddr> = removed.flat_map(|peer| &peer.allowed).map(|(ip, _)| *ip).collect();
    let put = steps.iter().filter_map(|s| if let Step::Put(_, peer) = s { Some(peer) } else { None });
    put.flat_map(|peer| &peer.allowed).map(|(ip, _)| *ip).filter(|ip| removed.contains(ip)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> PrivateKey {
        PrivateKey::new([n; 32])
    }

    fn tunnel(host: u8, of: u8) -> Tunnel {
        Tunnel { vtep: Ipv4Addr::new(192, 0, 2, host), key: key(of).public(), port: 51820 }
    }

    fn device(tunnels: &[Tunnel]) -> Device {
        let (device, problems) = wanted(&key(1), 51820, Ipv4Addr::new(192, 0, 2, 1), tunnels);
        assert_eq!(problems, [] as [&str; 0]);
        device
    }

    #[test]
    fn what_is_as_wanted_is_left_alone() {
        let two = device(&[tunnel(1, 1), tunnel(2, 2), tunnel(3, 3)]);
        assert_eq!((two.peers.len(), steps(&two, &two).len()), (2, 0), "a host is not its own peer");
        let all = steps(&two, &Device::default());
        assert!(matches!(all[..], [Step::Key(_), Step::Port(51820), Step::Put(..), Step::Put(..)]), "{all:?}");
    }

    #[test]
    fn a_host_with_a_new_key_goes_before_it_comes_and_is_spoken_to() {
        let (before, after) =
            (device(&[tunnel(2, 2), tunnel(3, 3)]), device(&[tunnel(2, 9), tunnel(3, 3), tunnel(4, 4)]));
        let all = steps(&after, &before);
        assert_eq!(all[0], Step::Remove(key(2).public()));
        assert_eq!(all.len(), 3, "the third host stays as it is: {all:?}");
        assert_eq!(renewed(&all, &before), [IpAddr::from(Ipv4Addr::new(192, 0, 2, 2))]);
    }

    #[test]
    fn a_peer_that_speaks_from_elsewhere_is_led_back() {
        let two = device(&[tunnel(2, 2)]);
        let mut found = two.clone();
        found.peers.values_mut().for_each(|p| p.endpoint = Some("203.0.113.66:9".parse().unwrap()));
        assert!(matches!(steps(&two, &found)[..], [Step::Put(..)]));
        assert!(renewed(&steps(&two, &found), &found).is_empty());
        found = two.clone();
        found.peers.values_mut().for_each(|p| p.allowed = BTreeSet::from([(Ipv4Addr::UNSPECIFIED.into(), 0)]));
        assert!(matches!(steps(&two, &found)[..], [Step::Put(..)]), "it would be believed to be any host");
    }

    #[test]
    fn no_host_speaks_for_another() {
        let own = Ipv4Addr::new(192, 0, 2, 1);
        let said = [tunnel(2, 2), tunnel(3, 2), tunnel(2, 4), tunnel(5, 1)];
        let (device, problems) = wanted(&key(1), 51820, own, &said);
        assert_eq!((device.peers.len(), problems.len()), (1, 3), "{problems:?}");
        assert_eq!(device.peers[&key(2).public()].allowed, BTreeSet::from([(Ipv4Addr::new(192, 0, 2, 2).into(), 32)]));
    }
}
