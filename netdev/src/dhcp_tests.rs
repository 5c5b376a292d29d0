//! DHCP as a client sees it, and as an attacker tries it.
use super::*;
use crate::sample;
use dhcproto::v4::Flags;
use dhcproto::v4::{DhcpOption, Message, OptionCode};
use dhcproto::{Decodable, Decoder};
use dhcproto::{Encodable, Encoder};
use proptest::prelude::*;

const MAC: [u8; 6] = [0xfa, 0x16, 0x3e, 0, 0, 1];

fn ip(s: &str) -> Ipv4Addr {
    s.parse().unwrap()
}

fn sample() -> Binding {
    let (port, network) = guest();
    binding(&port, &network, None).unwrap()
}

fn guest() -> (Port, Network) {
    let port = Port {
        fixed: vec![crate::wanted::Fixed { subnet: "s".into(), address: "10.0.0.11".parse().unwrap() }],
        secured: true,
        hostname: "web-1\n".into(),
        dhcp_options: vec![(42, vec![1, 2, 3, 4]), (53, vec![9]), (26, vec![0x05, 0x00])],
        metadata: true,
        ..sample::port("p", "n", crate::wanted::Mac(MAC))
    };
    let subnet = Subnet {
        id: "s".into(),
        cidr: "10.0.0.0/24".parse().unwrap(),
        gateway: Some("10.0.0.1".parse().unwrap()),
        dhcp: true,
        dhcp_server: Some(ip("10.0.0.2")),
        dns: vec!["8.8.8.8".parse().unwrap(), "fd00::1".parse().unwrap()],
        routes: vec![],
        lease_seconds: 600,
        ra: None,
    };
    let network = Network { subnets: vec![subnet], ..sample::network("n", 1) };
    (port, network)
}

#[test]
fn a_subnet_without_name_servers_has_the_hosts() {
    let (port, mut network) = guest();
    let zone =
        Zone { network: "n".into(), domain: "blue.example".into(), closed: false, also: String::new(), names: vec![] };
    let told = |network: &Network, code: u8| {
        let binding = binding(&port, network, Some(&zone)).unwrap();
        binding.options.iter().find(|(c, _)| *c == code).map(|(_, v)| v.clone())
    };
    assert_eq!(told(&network, 6), Some(vec![8, 8, 8, 8]), "its own come first");
    assert_eq!(told(&network, 15), Some(b"blue.example".to_vec()));
    network.subnets[0].dns.clear();
    assert_eq!(told(&network, 6), Some(vec![169, 254, 169, 253]));
    let way = [&[32, 169, 254, 169, 253][..], &[10, 0, 0, 2]].concat();
    assert!(told(&network, 121).unwrap().windows(9).any(|w| w == way));
    network.subnets[0].dns = vec!["0.0.0.0".parse().unwrap()];
    assert_eq!(told(&network, 6), None, "none at all");
}

#[test]
fn where_the_gateway_is_somebody_else_services_are_on_the_link() {
    let (port, mut network) = guest();
    network.subnets[0].dhcp_server = None;
    let told = binding(&port, &network, None).unwrap();
    assert_eq!(told.server, ip("169.254.169.254"), "not the gateway's address: he answers for it himself");
    let routes = told.options.iter().find(|(c, _)| *c == 121).map(|(_, v)| v.clone()).unwrap();
    let (link, gateway) = ([&[32, 169, 254, 169, 254][..], &[0; 4]].concat(), [0, 10, 0, 0, 1]);
    assert_eq!(routes, [link, gateway.to_vec()].concat());
}

fn request(kind: MessageType, edit: impl FnOnce(&mut Message)) -> Vec<u8> {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut m = Message::new_with_id(7, none, none, none, none, &MAC);
    m.opts_mut().insert(DhcpOption::MessageType(kind));
    edit(&mut m);
    let mut out = Vec::new();
    m.encode(&mut Encoder::new(&mut out)).unwrap();
    out
}

fn ask(kind: MessageType, edit: impl FnOnce(&mut Message)) -> Option<(Vec<u8>, Message)> {
    let frame = answer(&sample(), &request(kind, edit))?;
    let message = Message::decode(&mut Decoder::new(&frame[42..])).unwrap();
    assert_eq!(checksum(&[&frame[14..34]]), 0, "IP header checksum");
    let length = u16::from_be_bytes([frame[38], frame[39]]);
    let pseudo = [&frame[26..34], &[0, 17], &length.to_be_bytes()].concat();
    assert_eq!(checksum(&[&pseudo, &frame[34..]]), 0, "UDP checksum");
    assert!(frame.len() >= 42 + MESSAGE_MIN);
    Some((frame, message))
}

fn raw(message: &Message, code: OptionCode) -> Option<DhcpOption> {
    message.opts().get(code).cloned()
}

#[test]
fn discover_is_offered_everything() {
    let (frame, m) = ask(MessageType::Discover, |_| {}).unwrap();
    assert_eq!(m.opts().msg_type(), Some(MessageType::Offer));
    assert_eq!((m.yiaddr(), m.xid()), (ip("10.0.0.11"), 7));
    assert_eq!(&frame[..6], &MAC);
    assert_eq!(&frame[30..34], &[10, 0, 0, 11], "unicast, as the client did not ask otherwise");
    assert_eq!(raw(&m, OptionCode::SubnetMask), Some(DhcpOption::SubnetMask(ip("255.255.255.0"))));
    assert_eq!(raw(&m, OptionCode::Router), Some(DhcpOption::Router(vec![ip("10.0.0.1")])));
    assert_eq!(raw(&m, OptionCode::DomainNameServer), Some(DhcpOption::DomainNameServer(vec![ip("8.8.8.8")])));
    assert_eq!(raw(&m, OptionCode::Hostname), Some(DhcpOption::Hostname("web-1".into())), "no line breaks");
    assert_eq!(raw(&m, OptionCode::AddressLeaseTime), Some(DhcpOption::AddressLeaseTime(600)));
    assert_eq!(raw(&m, OptionCode::ServerIdentifier), Some(DhcpOption::ServerIdentifier(ip("10.0.0.2"))));
    assert_eq!(raw(&m, OptionCode::InterfaceMtu), Some(DhcpOption::InterfaceMtu(1280)), "the port's own option wins");
    let routes = DhcpOption::ClasslessStaticRoute(vec![
        ("169.254.169.254/32".parse().unwrap(), ip("10.0.0.2")),
        ("0.0.0.0/0".parse().unwrap(), ip("10.0.0.1")),
    ]);
    assert_eq!(raw(&m, OptionCode::ClasslessStaticRoute), Some(routes));
    assert_eq!(frame[282..285], [53, 1, 2], "the type comes first, and no port option replaces it");
}

#[test]
fn requests_are_acknowledged_refused_or_ignored() {
    let want = |address: &str| DhcpOption::RequestedIpAddress(ip(address));
    let kind = |m: Option<(Vec<u8>, Message)>| m.and_then(|(_, m)| m.opts().msg_type());
    let selecting = |address: &str, server: &str| {
        let (a, s) = (want(address), DhcpOption::ServerIdentifier(ip(server)));
        kind(ask(MessageType::Request, |m| {
            m.opts_mut().insert(a);
            m.opts_mut().insert(s);
        }))
    };
    assert_eq!(selecting("10.0.0.11", "10.0.0.2"), Some(MessageType::Ack));
    assert_eq!(selecting("10.0.0.99", "10.0.0.2"), Some(MessageType::Nak));
    assert_eq!(selecting("10.0.0.11", "10.0.0.3"), None, "it chose another server");
    let (frame, nak) = ask(MessageType::Request, |m| {
        m.opts_mut().insert(want("192.168.0.1"));
    })
    .unwrap();
    assert_eq!(nak.opts().msg_type(), Some(MessageType::Nak), "rebooting with a stale address");
    assert_eq!((&frame[..6], nak.yiaddr()), (&[0xff; 6][..], Ipv4Addr::UNSPECIFIED));
    assert!(raw(&nak, OptionCode::SubnetMask).is_none());
    let (frame, ack) = ask(MessageType::Request, |m| {
        m.set_ciaddr(ip("10.0.0.11"));
    })
    .unwrap();
    assert_eq!(ack.opts().msg_type(), Some(MessageType::Ack), "renewing");
    assert_eq!(&frame[30..34], &[10, 0, 0, 11]);
    let (_, inform) = ask(MessageType::Inform, |m| {
        m.set_ciaddr(ip("10.0.0.11"));
    })
    .unwrap();
    assert_eq!(inform.yiaddr(), Ipv4Addr::UNSPECIFIED);
    assert!(raw(&inform, OptionCode::AddressLeaseTime).is_none() && raw(&inform, OptionCode::Router).is_some());
    assert!(ask(MessageType::Request, |_| {}).is_none());
    assert!(ask(MessageType::Release, |_| {}).is_none());
    let (frame, _) = ask(MessageType::Discover, |m| {
        m.set_flags(Flags::default().set_broadcast());
    })
    .unwrap();
    assert_eq!((&frame[..6], &frame[30..34]), (&[0xff; 6][..], &[0xff; 4][..]));
}

#[test]
fn others_get_nothing() {
    let mut other = request(MessageType::Discover, |_| {});
    other[28] ^= 2;
    assert!(answer(&sample(), &other).is_none(), "another hardware address");
    assert!(
        ask(MessageType::Discover, |m| {
            m.set_giaddr(ip("10.9.9.9"));
        })
        .is_none(),
        "a relay"
    );
    let mut reply = request(MessageType::Discover, |_| {});
    reply[0] = 2;
    assert!(answer(&sample(), &reply).is_none(), "an answer is no question");
}

#[test]
fn a_long_option_is_cut_in_pieces_and_a_message_stays_small() {
    let mut b = sample();
    b.options.push((121, vec![7; 300]));
    b.options.push((200, vec![7; 3000]));
    let frame = answer(&b, &request(MessageType::Discover, |_| {})).unwrap();
    assert!(frame.len() < 42 + MESSAGE_MAX);
    let pieces = frame.windows(2).filter(|w| *w == [121, 255] || *w == [121, 45]).count();
    assert_eq!(pieces, 2);
    assert!(!frame.windows(2).any(|w| w == [200, 255]));
}

proptest! {
    #[test]
    fn hostile_frames_do_no_harm(frame in proptest::collection::vec(any::<u8>(), 0..700)) {
        let _ = source_of(&frame);
        if let Some(p) = payload(&frame) {
            let _ = answer(&sample(), p);
        }
        let _ = answer(&sample(), &frame);
    }

    #[test]
    fn a_damaged_request_does_no_harm(
        at in proptest::collection::vec((0usize..400, any::<u8>()), 0..12),
        cut in 0usize..400,
    ) {
        let mut m = request(MessageType::Request, |m| {
            m.opts_mut().insert(DhcpOption::RequestedIpAddress(ip("10.0.0.11")));
        });
        for (i, v) in at {
            if let Some(b) = m.get_mut(i) { *b = v; }
        }
        m.truncate(cut);
        if let Some(frame) = answer(&sample(), &m) {
            prop_assert!(frame.len() >= 42 + MESSAGE_MIN && frame.len() < 42 + MESSAGE_MAX);
            prop_assert_eq!(&frame[6..12], &SERVICE_MAC);
        }
    }

    #[test]
    fn headers_lead_only_inside_the_frame(ihl in 0u8..16, total in any::<u16>(), udp in any::<u16>()) {
        let mut f = vec![0u8; 14 + 20 + 8 + 40];
        f[14] = 0x40 | ihl;
        f[16..18].copy_from_slice(&total.to_be_bytes());
        f[23] = 17;
        let at = 14 + usize::from(ihl) * 4;
        if let Some(h) = f.get_mut(at + 2..at + 6) {
            h[0..2].copy_from_slice(&67u16.to_be_bytes());
            h[2..4].copy_from_slice(&udp.to_be_bytes());
        }
        if let Some(p) = payload(&f) {
            prop_assert!(p.len() <= 40 + 20);
        }
    }
}
