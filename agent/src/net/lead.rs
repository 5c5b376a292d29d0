//! What still comes here for a guest that has moved to another host is led there.
//!
//! ```text
//!  wired here --the guest has gone--> led there --a minute, or the guest comes back--> forgotten
//! ```
//! Other hosts send to where a guest was until the scheduler has told them, and the wanted set names it here until the
//! scheduler knows. Meanwhile this host knows better: the port carries nothing here, and what comes for it goes on to the other
//! host. There, frames from this host are taken though nobody that is known may be left on it. All of it is in memory: after a
//! restart the wanted set alone counts.
use pilvi_agent_api::v1::{HostNetwork, L2, Port, Remote};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// By then everybody has been told.
const KEPT: Duration = Duration::from_secs(60);

/// Where guests have gone to and come from.
#[derive(Debug, Default)]
pub struct Lead {
    /// By ports' ids.
    left: BTreeMap<String, Left>,
    /// Underlay addresses of hosts that guests come from or were sent packets from, and until when they may speak.
    peers: BTreeMap<String, Instant>,
}

#[derive(Debug)]
struct Left {
    port: Port,
    network: L2,
    until: Instant,
}

impl Lead {
    /// The guest of this instance has gone to the host that its ports were prepared on.
    pub fn depart(&mut self, instance: &str, set: &HostNetwork, now: Instant) {
        let going = set.ports.iter().filter(|port| port.instance_id == instance && !port.other_vtep.is_empty());
        for port in going {
            let Some(network) = set.networks.iter().find(|network| network.id == port.network_id) else { continue };
            // Whoever has sent to it here goes on for a moment, though nothing else of the network may be left here.
            let senders = set.remotes.iter().filter(|remote| remote.network_id == port.network_id);
            self.peers.extend(senders.map(|remote| (remote.vtep.clone(), now + KEPT)));
            let left = Left { port: port.clone(), network: network.clone(), until: now + KEPT };
            self.left.insert(port.id.clone(), left);
        }
    }

    /// The guest of this instance is here.
    pub fn arrive(&mut self, instance: &str) {
        self.left.retain(|_, left| left.port.instance_id != instance);
    }

    /// The wanted set, as what is known here has it.
    pub fn apply(&mut self, mut set: HostNetwork, now: Instant) -> HostNetwork {
        self.left.retain(|_, left| left.until > now);
        self.peers.retain(|_, until| *until > now);
        for other in set.ports.iter().map(|port| &port.other_vtep).filter(|other| !other.is_empty()) {
            self.peers.insert(other.clone(), now + KEPT);
        }
        set.peers = self.peers.keys().cloned().collect();
        for (id, left) in &self.left {
            let Left { port, network, .. } = left;
            if !set.networks.iter().any(|other| other.id == network.id) {
                if set.networks.iter().any(|other| other.vni == network.vni) {
                    continue;
                }
                set.networks.push(network.clone());
            }
            set.ports.iter_mut().filter(|port| port.id == *id).for_each(|port| port.idle = true);
            if !set.remotes.iter().any(|remote| remote.port_id == *id) {
                set.remotes.push(remote(port));
            }
            set.left.push(id.clone());
        }
        set
    }

    /// When something is to be forgotten next.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.left.values().map(|left| left.until).chain(self.peers.values().copied()).min()
    }
}

/// The port, as the host sees it that its guest has left.
fn remote(port: &Port) -> Remote {
    Remote {
        port_id: port.id.clone(),
        network_id: port.network_id.clone(),
        mac: port.mac.clone(),
        addresses: port.fixed_ips.iter().map(|fixed| fixed.address.clone()).collect(),
        vtep: port.other_vtep.clone(),
        groups: port.groups.clone(),
        ..Remote::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moving() -> HostNetwork {
        let port = |id: &str, instance: &str, other: &str| Port {
            id: id.into(),
            network_id: "n".into(),
            instance_id: instance.into(),
            other_vtep: other.into(),
            ..Port::default()
        };
        HostNetwork {
            networks: vec![L2 { id: "n".into(), vni: 5, ..L2::default() }],
            ports: vec![port("p1", "i1", "10.0.0.2"), port("p2", "i2", "")],
            ..HostNetwork::default()
        }
    }

    #[test]
    fn a_guest_that_has_gone_is_led_to_until_everybody_knows() {
        let (mut lead, now) = (Lead::default(), Instant::now());
        let before = lead.apply(moving(), now);
        assert_eq!((before.left.len(), before.peers.as_slice()), (0, &["10.0.0.2".to_owned()][..]));
        let sender = Remote { network_id: "n".into(), vtep: "10.0.0.9".into(), ..Remote::default() };
        lead.depart("i1", &HostNetwork { remotes: vec![sender], ..moving() }, now);
        lead.depart("i2", &moving(), now);
        // The scheduler does not know yet: this host does.
        let set = lead.apply(moving(), now);
        assert_eq!(set.left, ["p1"]);
        assert_eq!(set.ports.iter().map(|p| p.idle).collect::<Vec<_>>(), [true, false]);
        assert_eq!((set.remotes[0].port_id.as_str(), set.remotes[0].vtep.as_str()), ("p1", "10.0.0.2"));
        // It knows, and says where the port is now; the network has nothing else here.
        let news = Remote { port_id: "p1".into(), vtep: "10.0.0.3".into(), ..Remote::default() };
        let set = lead.apply(HostNetwork { remotes: vec![news.clone()], ..HostNetwork::default() }, now);
        assert_eq!((set.networks.len(), set.remotes), (1, vec![news]));
        let both = vec!["10.0.0.2".to_owned(), "10.0.0.9".to_owned()];
        assert_eq!((set.left, set.peers), (vec!["p1".to_owned()], both), "who sent to it may go on");
        assert_eq!(lead.due(), Some(now + KEPT));
        assert_eq!(lead.apply(HostNetwork::default(), now + KEPT), HostNetwork::default());
        assert_eq!(lead.due(), None);
    }

    #[test]
    fn a_guest_that_comes_back_is_here() {
        let (mut lead, now) = (Lead::default(), Instant::now());
        lead.depart("i1", &moving(), now);
        lead.arrive("i1");
        assert_eq!(lead.apply(moving(), now).left, [] as [String; 0]);
    }
}
