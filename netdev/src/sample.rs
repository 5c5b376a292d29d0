//! What unit tests begin with: ports and networks with nothing of their own. A member that is new stands here, and not in each test.
use crate::wanted::{Mac, Network, Port};

/// Up, without addresses, groups, security or metadata.
pub fn port(id: &str, network: &str, mac: Mac) -> Port {
    Port {
        id: id.into(),
        network: network.into(),
        mac,
        fixed: vec![],
        groups: vec![],
        secured: false,
        up: true,
        allowed_pairs: vec![],
        hostname: String::new(),
        dhcp_options: vec![],
        metadata: false,
        parent: None,
        idle: false,
    }
}

/// Of the overlay, without subnets.
pub fn network(id: &str, vni: u32) -> Network {
    Network {
        id: id.into(),
        vni,
        mtu: 1450,
        external: false,
        vlan: 0,
        service_tag: false,
        transparent: false,
        subnets: vec![],
    }
}

/// On the wire of the host, with this tag there (0: none).
pub fn outside(id: &str, vni: u32, vlan: u16) -> Network {
    Network { mtu: 1500, external: true, vlan, ..network(id, vni) }
}
