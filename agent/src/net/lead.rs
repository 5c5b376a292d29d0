//! What still comes here for a guest that has moved to another host is led there.
//!
//! ```text
//!  wired here --the guest has gone--> led there --a minute, or the guest comes back--> forgotten
//! ```
//! Other hosts send to where a guest was until the scheduler has told them, and the wanted set names it here until the
//! scheduler knows. Meanwhile this host knows better: the port carries nothing here, and what comes for it goes on to the other
//! host. There, frames from this host are taken though nobody that is known may be left on it. All of it is in memory: after a
//! restart the wanted set alone counts.
use pilvi_agent_api::v1::{HostNetwork, L2, Port, Remote, Tunnel};
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
    /// Ports that are wired on another host as well, as the wanted set named them last.
    going: BTreeMap<String, Left>,
    /// Underlay addresses of hosts that guests come from or were sent packets from, and until when they may speak.
    peers: BTreeMap<String, Instant>,
    /// How those of them are spoken to that encrypt.
    tunnels: BTreeMap<String, Tunnel>,
}

#[derive(Debug, Clone)]
struct Left {
    port: Port,
    network: L2,
    until: Instant,
}

impl Lead {
    /// The guest of this instance has gone to the host that its ports were prepared on. The scheduler may have heard of it
    /// first: then the wanted set names them here no more, and what it said before counts.
    pub fn depart(&mut self, instance: &str, now: Instant) {
        let going = self.going.iter().filter(|(_, going)| going.port.instance_id == instance);
        let left = going.map(|(id, going)| (id.clone(), Left { until: now + KEPT, ..going.clone() }));
        self.left.extend(left);
    }

    /// The guest of this instance is here.
    pub fn arrive(&mut self, instance: &str) {
        self.left.retain(|_, left| left.port.instance_id != instance);
        self.going.retain(|_, going| going.port.instance_id != instance);
    }

    /// The wanted set, as what is known here has it.
    pub fn apply(&mut self, mut set: HostNetwork, now: Instant) -> HostNetwork {
        self.left.retain(|_, left| left.until > now);
        self.going.retain(|_, going| going.until > now);
        self.peers.retain(|_, until| *until > now);
        for port in set.ports.iter().filter(|port| !port.other_vtep.is_empty()) {
            self.note(port, &set, now);
        }
        set.peers = self.peers.keys().cloned().collect();
        self.tunnels.extend(set.tunnels.iter().map(|tunnel| (tunnel.vtep.clone(), tunnel.clone())));
        self.tunnels.retain(|vtep, _| self.peers.contains_key(vtep));
        for (vtep, tunnel) in &self.tunnels {
            if !set.tunnels.iter().any(|known| known.vtep == *vtep) {
                set.tunnels.push(tunnel.clone());
            }
        }
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

    /// A port that is wired on two hosts.
    fn note(&mut self, port: &Port, set: &HostNetwork, now: Instant) {
        self.peers.insert(port.other_vtep.clone(), now + KEPT);
        // Whoever sends to it here goes on for a moment, though nothing else of the network may be left here.
        let senders = set.remotes.iter().filter(|remote| remote.network_id == port.network_id);
        self.peers.extend(senders.map(|remote| (remote.vtep.clone(), now + KEPT)));
        if let Some(network) = set.networks.iter().find(|network| network.id == port.network_id) {
            let going = Left { port: port.clone(), network: network.clone(), until: now + KEPT };
            self.going.insert(port.id.clone(), going);
        }
    }

    /// When something is to be forgotten next.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.left.values().chain(self.going.values()).map(|left| left.until).chain(self.peers.values().copied()).min()
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
        let sender = Remote { network_id: "n".into(), vtep: "10.0.0.9".into(), ..Remote::default() };
        let both = ["10.0.0.2".to_owned(), "10.0.0.9".to_owned()];
        let before = lead.apply(HostNetwork { remotes: vec![sender], ..moving() }, now);
        assert_eq!((before.left.len(), before.peers.as_slice()), (0, both.as_slice()));
        lead.depart("i1", now);
        lead.depart("i2", now);
        // The scheduler does not know yet: this host does.
        let set = lead.apply(moving(), now);
        assert_eq!(set.left, ["p1"]);
        assert_eq!(set.ports.iter().map(|p| p.idle).collect::<Vec<_>>(), [true, false]);
        assert_eq!((set.remotes[0].port_id.as_str(), set.remotes[0].vtep.as_str()), ("p1", "10.0.0.2"));
        // It knows, and says where the port is now; the network has nothing else here.
        let news = Remote { port_id: "p1".into(), vtep: "10.0.0.3".into(), ..Remote::default() };
        let set = lead.apply(HostNetwork { remotes: vec![news.clone()], ..HostNetwork::default() }, now);
        assert_eq!((set.networks.len(), set.remotes), (1, vec![news]));
        assert_eq!((set.left, set.peers), (vec!["p1".to_owned()], both.to_vec()), "who sent to it may go on");
        assert_eq!(lead.due(), Some(now + KEPT));
        assert_eq!(lead.apply(HostNetwork::default(), now + KEPT), HostNetwork::default());
        assert_eq!(lead.due(), None);
    }

    #[test]
    fn who_may_still_speak_is_still_understood() {
        let (mut lead, now) = (Lead::default(), Instant::now());
        let tunnel = |vtep: &str| Tunnel { vtep: vtep.into(), ..Tunnel::default() };
        let told = vec![tunnel("10.0.0.2"), tunnel("10.0.0.3")];
        lead.apply(HostNetwork { tunnels: told, ..moving() }, now);
        assert_eq!(lead.apply(HostNetwork::default(), now).tunnels, [tunnel("10.0.0.2")]);
        assert_eq!(lead.apply(HostNetwork::default(), now + KEPT).tunnels, []);
    }

    #[test]
    fn the_scheduler_may_hear_of_it_first() {
        let (mut lead, now) = (Lead::default(), Instant::now());
        lead.apply(moving(), now);
        lead.apply(HostNetwork::default(), now);
        lead.depart("i1", now);
        let set = lead.apply(HostNetwork::default(), now);
        assert_eq!((set.left, set.networks.len(), set.remotes.len()), (vec!["p1".to_owned()], 1, 1));
    }

    #[test]
    fn a_guest_that_comes_back_is_here() {
        let (mut lead, now) = (Lead::default(), Instant::now());
        lead.apply(moving(), now);
        lead.depart("i1", now);
        lead.arrive("i1");
        assert_eq!(lead.apply(moving(), now).left, [] as [String; 0]);
    }
}
