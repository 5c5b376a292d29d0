//! Router advertisements and DHCPv6, by what is asked.
use super::*;
use crate::sample;
use crate::wanted::{Fixed, Interface, Mac, Ra, Router, Subnet};
use dhcproto::v6::{DhcpOption, DhcpOptions, IANA, Message, MessageType, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable, Encoder};

fn scene(ra: Ra) -> (Wanted, BTreeMap<String, u32>) {
    let subnet = Subnet {
        id: "s".into(),
        cidr: "fd00:1::/64".parse().unwrap(),
        gateway: Some("fd00:1::1".parse().unwrap()),
        dhcp: true,
        dhcp_server: None,
        dns: vec!["fd00:53::1".parse().unwrap(), "192.0.2.1".parse().unwrap()],
        routes: vec![],
        lease_seconds: 600,
        ra: Some(ra),
    };
    let port = Port {
        fixed: vec![Fixed { subnet: "s".into(), address: "fd00:1::11".parse().unwrap() }],
        secured: true,
        ..sample::port("p", "n", Mac([0xfa, 0x16, 0x3e, 0, 0, 1]))
    };
    let leg = Interface {
        network: "n".into(),
        address: "fd00:1::1".parse().unwrap(),
        prefix: 64,
        mac: Mac([0xfa, 0x16, 0x3e, 1, 0, 1]),
        leaked: false,
    };
    let wanted = Wanted {
        networks: vec![Network { subnets: vec![subnet], ..sample::network("n", 7) }],
        ports: vec![port],
        routers: vec![Router { id: "r".into(), interfaces: vec![leg], gateway: None, gateway6: None, routes: vec![] }],
        ..Wanted::default()
    };
    (wanted, BTreeMap::from([("p".to_owned(), 9)]))
}

fn of(ra: Ra) -> Arc<Binding6> {
    let (wanted, devices) = scene(ra);
    bindings(&wanted, &devices)[&9].clone()
}

/// A frame from the guest with this body.
fn sent(next: u8, hops: u8, body: &[u8]) -> Vec<u8> {
    frame([0xfa, 0x16, 0x3e, 0, 0, 1], [2, 0x70, 0, 0, 0, 9], "ff02::2".parse().unwrap(), next, hops, body)
}

fn is_whole(frame: &[u8], next: u8) {
    let from = &frame[22..38];
    let length = u32::from(u16::from_be_bytes([frame[18], frame[19]]));
    let pseudo = [from, &frame[38..54], &length.to_be_bytes(), &[0, 0, 0, next]].concat();
    assert_eq!(crate::dhcp::checksum(&[&pseudo, &frame[54..]]), 0, "checksum");
    assert_eq!(frame.len(), 54 + length as usize);
}

fn ask(binding: &Binding6, kind: MessageType, more: impl FnOnce(&mut DhcpOptions)) -> Option<Message> {
    let mut m = Message::new_with_id(kind, [1, 2, 3]);
    m.opts_mut().insert(DhcpOption::ClientId(vec![0, 1, 2, 3]));
    more(m.opts_mut());
    let mut bytes = Vec::new();
    m.encode(&mut Encoder::new(&mut bytes)).unwrap();
    let length = u16::try_from(bytes.len() + 8).unwrap();
    let udp = [&546u16.to_be_bytes()[..], &547u16.to_be_bytes(), &length.to_be_bytes(), &[0, 0], &bytes].concat();
    let reply = answer(binding, &sent(17, 64, &udp))?;
    is_whole(&reply, 17);
    assert_eq!(reply[..6], binding.mac);
    Some(Message::decode(&mut Decoder::new(&reply[62..])).unwrap())
}

fn wish(opts: &mut DhcpOptions) {
    opts.insert(DhcpOption::IANA(IANA { id: 5, t1: 0, t2: 0, opts: DhcpOptions::new() }));
}

fn server(opts: &mut DhcpOptions) {
    opts.insert(DhcpOption::ServerId([&[0, 3, 0, 1][..], &crate::switch::SERVICE_MAC].concat()));
}

fn address(m: &Message) -> Option<String> {
    let Some(DhcpOption::IANA(ia)) = m.opts().get(OptionCode::IANA) else { return None };
    let Some(DhcpOption::IAAddr(a)) = ia.opts.get(OptionCode::IAAddr) else { return None };
    Some(a.addr.to_string())
}

#[test]
fn routers_say_how_addresses_are_had() {
    for (ra, flags, autonomous) in [(Ra::Slaac, 0, 0xc0), (Ra::Stateless, 0x40, 0xc0), (Ra::Stateful, 0xc0, 0x80)] {
        let binding = of(ra);
        let said = answer(&binding, &sent(58, 255, &[133, 0, 0, 0, 0, 0, 0, 0])).unwrap();
        is_whole(&said, 58);
        let body = &said[54..];
        assert_eq!((body[0], body[5]), (134, flags));
        assert_eq!(said[21], 255, "hop limit");
        assert_eq!(&said[22..24], [0xfe, 0x80]);
        let prefix = body.windows(2).position(|w| w == [3, 4]).unwrap();
        assert_eq!((body[prefix + 2], body[prefix + 3]), (64, autonomous));
    }
    let binding = of(Ra::Slaac);
    assert!(answer(&binding, &sent(58, 64, &[133, 0, 0, 0, 0, 0, 0, 0])).is_none(), "from beyond the link");
    let (mut wanted, devices) = scene(Ra::Slaac);
    wanted.routers.clear();
    assert!(bindings(&wanted, &devices)[&9].ra.is_none(), "without a router nobody is one");
}

/// Prefixes of an advertisement: address, valid and preferred seconds.
fn said(binding: &Binding6, lifetime: u16) -> Vec<(String, u32, u32)> {
    let frame = binding.ra.as_ref().unwrap().frame(lifetime);
    is_whole(&frame, 58);
    let mut options = &frame[54 + 16..];
    let mut out = Vec::new();
    while !options.is_empty() {
        let (option, rest) = options.split_at(usize::from(options[1]) * 8);
        if option[0] == 3 {
            let word = |at: usize| u32::from_be_bytes(*option[at..].first_chunk().unwrap());
            let net = Ipv6Addr::from(*option[16..].first_chunk::<16>().unwrap());
            out.push((net.to_string(), word(4), word(8)));
        }
        options = rest;
    }
    out
}

#[test]
fn a_lent_prefix_is_told_for_as_long_as_it_is_lent_and_that_it_is_over() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let (mut wanted, devices) = scene(Ra::Slaac);
    assert_eq!(said(&bindings(&wanted, &devices)[&9], 1800), [("fd00:1::".to_owned(), 86_400, 14_400)]);
    wanted.lent = vec![crate::wanted::LentSubnet { subnet: "s".into(), until: now + 600 }];
    let old = bindings(&wanted, &devices);
    let told = said(&old[&9], 1800);
    assert!((598..=600).contains(&told[0].1) && told[0].1 == told[0].2, "{told:?}");
    wanted.lent[0].until = now.saturating_sub(1);
    assert_eq!(said(&bindings(&wanted, &devices)[&9], 1800)[0].1, 0);

    // Another prefix comes in its place.
    wanted.networks[0].subnets[0].cidr = "fd00:2::/64".parse().unwrap();
    wanted.ports[0].fixed[0].address = "fd00:2::11".parse().unwrap();
    wanted.routers[0].interfaces[0].address = "fd00:2::1".parse().unwrap();
    wanted.lent.clear();
    let mut news = bindings(&wanted, &devices);
    ra::withdraw(&wanted, &old, &mut news);
    let both = [("fd00:2::".to_owned(), 86_400, 14_400), ("fd00:1::".to_owned(), 0, 0)];
    assert_eq!(said(&news[&9], 1800), both);
    let mut again = bindings(&wanted, &devices);
    ra::withdraw(&wanted, &news, &mut again);
    assert_eq!(said(&again[&9], 1800), both, "it is not forgotten");

    // None does: the router's last word says so.
    wanted.networks[0].subnets.clear();
    wanted.routers[0].interfaces.clear();
    let over = [("fd00:2::".to_owned(), 0, 0), ("fd00:1::".to_owned(), 0, 0)];
    assert_eq!(said(&ra::farewell(&wanted, &again[&9]), 0), over);
    // A router that only leaves a subnet ends no address in it.
    let (mut wanted, devices) = scene(Ra::Slaac);
    let old = bindings(&wanted, &devices);
    wanted.routers.clear();
    assert_eq!(said(&ra::farewell(&wanted, &old[&9]), 0), [("fd00:1::".to_owned(), 86_400, 14_400)]);
}

#[test]
fn dhcp_gives_the_fixed_address_or_all_but_it() {
    let stateful = of(Ra::Stateful);
    let offer = ask(&stateful, MessageType::Solicit, wish).unwrap();
    assert_eq!((offer.msg_type(), address(&offer).as_deref()), (MessageType::Advertise, Some("fd00:1::11")));
    assert_eq!(offer.xid(), [1, 2, 3]);
    let both = |o: &mut DhcpOptions| {
        wish(o);
        server(o);
    };
    let reply = ask(&stateful, MessageType::Request, both).unwrap();
    assert_eq!((reply.msg_type(), address(&reply).as_deref()), (MessageType::Reply, Some("fd00:1::11")));
    let dns = reply.opts().get(OptionCode::DomainNameServers).cloned();
    assert_eq!(dns, Some(DhcpOption::DomainNameServers(vec!["fd00:53::1".parse().unwrap()])));
    assert!(ask(&stateful, MessageType::Request, wish).is_none(), "names no server");
    let other = |o: &mut DhcpOptions| o.insert(DhcpOption::ServerId(vec![9]));
    assert!(ask(&stateful, MessageType::Request, other).is_none(), "names another server");
    let stateless = of(Ra::Stateless);
    assert!(ask(&stateless, MessageType::Solicit, wish).is_none());
    let told = ask(&stateless, MessageType::InformationRequest, |_| {}).unwrap();
    assert!(told.opts().get(OptionCode::DomainNameServers).is_some() && address(&told).is_none());
}

proptest::proptest! {
    #[test]
    fn hostile_frames_do_no_harm(bytes in proptest::collection::vec(0u8.., 0..400), next in 0u8.., cut in 0usize..120) {
        let binding = of(Ra::Stateful);
        let frame = sent(next, 255, &bytes);
        let _ = answer(&binding, &frame[..frame.len().saturating_sub(cut)]);
        let udp = [&[2, 34, 2, 35, 1, 0x90, 0, 0][..], &bytes].concat();
        let _ = answer(&binding, &sent(17, 64, &udp));
    }
}
