//! One port that all kinds of questions are answered for: shared by the `net_` targets.
use pilvi_netdev::wanted::*;

pub const MAC: [u8; 6] = [0xfa, 0x16, 0x3e, 0, 0, 1];

pub fn wanted(ra: Ra) -> Wanted {
    let subnet = |id: &str, cidr: &str, gateway: &str, ra| Subnet {
        id: id.into(),
        cidr: cidr.parse().unwrap(),
        gateway: Some(gateway.parse().unwrap()),
        dhcp: true,
        dhcp_server: (id == "four").then(|| [10, 0, 0, 2].into()),
        dns: vec!["192.0.2.53".parse().unwrap(), "fd00:53::1".parse().unwrap()],
        routes: vec![Route { destination: "10.9.0.0/20".parse().unwrap(), nexthop: [10, 0, 0, 9].into() }],
        lease_seconds: 3600,
        ra,
    };
    let subnets =
        vec![subnet("four", "10.0.0.0/24", "10.0.0.1", None), subnet("six", "fd00::/64", "fd00::1", Some(ra))];
    let fixed = |subnet: &str, address: &str| Fixed { subnet: subnet.into(), address: address.parse().unwrap() };
    let port = Port {
        id: "p".into(),
        network: "n".into(),
        mac: Mac(MAC),
        fixed: vec![fixed("four", "10.0.0.5"), fixed("six", "fd00::5")],
        groups: vec![],
        secured: true,
        up: true,
        allowed_pairs: vec![],
        hostname: "guest".into(),
        dhcp_options: vec![(66, b"boot".to_vec()), (67, vec![b'x'; 255])],
        metadata: true,
        parent: None,
        idle: false,
    };
    let leg = |address: &str, prefix, n| Interface {
        network: "n".into(),
        address: address.parse().unwrap(),
        prefix,
        mac: Mac([0xfa, 0x16, 0x3e, 1, 0, n]),
        leaked: false,
    };
    let interfaces = vec![leg("10.0.0.1", 24, 1), leg("fd00::1", 64, 2)];
    Wanted {
        networks: vec![Network { id: "n".into(), vni: 7, mtu: 1450, external: false, vlan: 0, service_tag: false, transparent: false, subnets }],
        ports: vec![port],
        routers: vec![Router { id: "r".into(), interfaces, gateway: None, gateway6: None, routes: vec![] }],
        ..Wanted::default()
    }
}
