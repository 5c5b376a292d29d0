//! What tests of IPv6 share: networks `fd00:<n>::/64`, legs, guests that speak it.
use super::*;

/// `fd00:<third>::/64`, router at ::1.
pub fn network6(id: &str, vni: u32, third: u8, ra: Option<Ra>) -> Network {
    let mut network = network(id, vni, third);
    network.subnets[0] = Subnet {
        cidr: format!("fd00:{third}::/64").parse().unwrap(),
        gateway: Some(format!("fd00:{third}::1").parse().unwrap()),
        dhcp: ra.is_some(),
        dhcp_server: None,
        dns: vec!["fd00:53::1".parse().unwrap()],
        ra,
        ..network.subnets[0].clone()
    };
    network
}

pub fn leg6(network: &str, third: u8, n: u8) -> Interface {
    Interface { address: format!("fd00:{third}::1").parse().unwrap(), prefix: 64, ..leg(network, third, n) }
}

/// The provider's `2001:db8:e::/64`: his router at ::1, ours at `::<last>`.
pub fn gateway6(last: u8) -> Gateway6 {
    Gateway6 {
        network: "ext".into(),
        address: format!("2001:db8:e::{last:x}").parse().unwrap(),
        prefix: 64,
        next_hop: Some("2001:db8:e::1".parse().unwrap()),
        mac: Mac([0xfa, 0x16, 0x3e, 2, 0, last]),
        vtep: None,
        proxied: None,
    }
}

pub fn rule6(id: &str, direction: Direction, protocol: Option<u8>, ports: Ports, peer: Peer) -> Rule {
    Rule { family: Family::V6, ..rule(id, direction, protocol, ports, peer) }
}

pub fn open6(id: &str) -> Group {
    let all = |d| rule6("all", d, None, Ports::Any, Peer::Any);
    group(id, vec![all(Direction::Egress), all(Direction::Ingress)])
}

/// The address that a guest of hardware address `n` makes itself.
pub fn own(third: u8, n: u8) -> String {
    format!("fd00:{third}::f816:3eff:fe00:{n:x}").parse::<std::net::Ipv6Addr>().unwrap().to_string()
}

/// A guest with IPv6; `address`: set by hand.
pub async fn guest6(cloud: &mut Cloud, plane: &DataPlane, id: &str, address: Option<&str>) -> Guest {
    let guest = cloud.guest(id);
    plane.open_veth(id, &guest.ns, "eth0").await.unwrap();
    guest.sh("sysctl -qw net.ipv6.conf.eth0.accept_ra=2 net.ipv6.conf.eth0.router_solicitation_delay=0; sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0");
    if let Some(address) = address {
        guest.sh(&format!("ip addr add {address}/64 dev eth0 nodad"));
    }
    assert!(
        soon(|| guest.sh("ip -6 addr show dev eth0 scope link -tentative").contains("fe80::")),
        "duplicate address?"
    );
    guest
}

pub fn pings(guest: &Guest, to: &str) -> bool {
    guest.try_sh(&format!("ping -6 -n -c 2 -i 0.2 -W 2 {to}")).status.success()
}
