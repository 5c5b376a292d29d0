//! UPDATE: what we announce and take back, and a look at what peers send.
//!
//! ```text
//! IPv4   withdrawn routes | attributes: ORIGIN AS_PATH NEXT_HOP ...   | prefixes
//! IPv6                    | attributes: MP_UNREACH | MP_REACH (next hop, prefixes) ORIGIN AS_PATH ...
//! ```
use crate::{
    AS_TRANS, Family, Peering, SAFI,
    frame::{self, HEADER, Kind, MESSAGE_MAX},
    notification::Notification,
};
use ipnet::IpNet;
use std::net::IpAddr;

const OPTIONAL: u8 = 0x80;
const TRANSITIVE: u8 = 0x40;
/// The length is of two octets.
const LONG: u8 = 0x10;

const ORIGIN: u8 = 1;
const AS_PATH: u8 = 2;
const NEXT_HOP: u8 = 3;
const LOCAL_PREF: u8 = 5;
const MP_REACH: u8 = 14;
const MP_UNREACH: u8 = 15;
const AS4_PATH: u8 = 17;

/// Of a path within one AS; others do not see it.
const PREFERENCE: u32 = 100;
/// An ordered path.
const SEQUENCE: u8 = 2;
/// Octets of the body that is not routes: both lengths.
const LENGTHS: usize = 4;
/// Header of an attribute with a long length.
const ATTRIBUTE: usize = 4;

/// How the peer must be told paths.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    pub family: Family,
    pub local_as: u32,
    pub internal: bool,
    /// The peer knows numbers of four octets.
    pub as4: bool,
}

impl Style {
    pub fn of(peering: &Peering, as4: bool) -> Self {
        Style { family: peering.family, local_as: peering.local_as, internal: peering.is_internal(), as4 }
    }
}

fn attribute(out: &mut Vec<u8>, flags: u8, kind: u8, value: &[u8]) {
    match u8::try_from(value.len()) {
        Ok(length) => out.extend([flags, kind, length]),
        Err(_) => {
            out.extend([flags | LONG, kind]);
            out.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    out.extend(value);
}

fn prefix(out: &mut Vec<u8>, net: &IpNet) {
    let bits = net.prefix_len();
    let octets = usize::from(bits.div_ceil(8));
    out.push(bits);
    match net.network() {
        IpAddr::V4(a) => out.extend(a.octets().iter().take(octets)),
        IpAddr::V6(a) => out.extend(a.octets().iter().take(octets)),
    }
}

/// Prefixes as they stand in a message, in parts of at most `room` octets.
fn parts(nets: &[IpNet], room: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut part = Vec::new();
    for net in nets {
        let before = part.len();
        prefix(&mut part, net);
        if part.len() > room {
            let last = part.split_off(before);
            all.push(std::mem::replace(&mut part, last));
        }
    }
    if !part.is_empty() {
        all.push(part);
    }
    all
}

/// What is told of every path: where it comes from, and the ASes it goes through, which is ours alone.
fn path(style: &Style) -> Vec<u8> {
    let mut out = Vec::new();
    attribute(&mut out, TRANSITIVE, ORIGIN, &[0]);
    let long = |asn: u32| [&[SEQUENCE, 1][..], &asn.to_be_bytes()].concat();
    let short = u16::try_from(style.local_as).unwrap_or(AS_TRANS);
    match (style.internal, style.as4) {
        (true, _) => attribute(&mut out, TRANSITIVE, AS_PATH, &[]),
        (false, true) => attribute(&mut out, TRANSITIVE, AS_PATH, &long(style.local_as)),
        (false, false) => {
            attribute(&mut out, TRANSITIVE, AS_PATH, &[&[SEQUENCE, 1][..], &short.to_be_bytes()].concat());
        }
    }
    if style.internal {
        attribute(&mut out, TRANSITIVE, LOCAL_PREF, &PREFERENCE.to_be_bytes());
    } else if !style.as4 && style.local_as > u32::from(u16::MAX) {
        attribute(&mut out, OPTIONAL | TRANSITIVE, AS4_PATH, &long(style.local_as));
    }
    out
}

fn message(withdrawn: &[u8], attributes: &[u8], nets: &[u8]) -> Vec<u8> {
    let length = |part: &[u8]| u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut body = Vec::with_capacity(LENGTHS + withdrawn.len() + attributes.len() + nets.len());
    body.extend(length(withdrawn));
    body.extend(withdrawn);
    body.extend(length(attributes));
    body.extend(attributes);
    body.extend(nets);
    frame::put(Kind::Update, &body)
}

/// Announces prefixes of the style's family with one next hop, in as many messages as it takes.
pub fn announce(style: &Style, next_hop: IpAddr, nets: &[IpNet]) -> Vec<Vec<u8>> {
    let path = path(style);
    let room = MESSAGE_MAX - HEADER - LENGTHS - path.len();
    match (style.family, next_hop) {
        (Family::V4, IpAddr::V4(hop)) => {
            let mut attributes = path;
            attribute(&mut attributes, TRANSITIVE, NEXT_HOP, &hop.octets());
            let room = MESSAGE_MAX - HEADER - LENGTHS - attributes.len();
            parts(nets, room).iter().map(|part| message(&[], &attributes, part)).collect()
        }
        (Family::V6, IpAddr::V6(hop)) => {
            let [a, b] = style.family.afi().to_be_bytes();
            let head = [&[a, b, SAFI, 16][..], &hop.octets(), &[0]].concat();
            let one = |part: &Vec<u8>| {
                let mut attributes = Vec::new();
                attribute(&mut attributes, OPTIONAL, MP_REACH, &[&head[..], part].concat());
                attributes.extend(&path);
                message(&[], &attributes, &[])
            };
            parts(nets, room - ATTRIBUTE - head.len()).iter().map(one).collect()
        }
        // A next hop of the other family is nobody's.
        _ => Vec::new(),
    }
}

/// Takes prefixes back.
pub fn withdraw(family: Family, nets: &[IpNet]) -> Vec<Vec<u8>> {
    match family {
        Family::V4 => parts(nets, MESSAGE_MAX - HEADER - LENGTHS).iter().map(|part| message(part, &[], &[])).collect(),
        Family::V6 => {
            let room = MESSAGE_MAX - HEADER - LENGTHS - ATTRIBUTE - 3;
            parts(nets, room).iter().map(|part| message(&[], &unreach(family, part), &[])).collect()
        }
    }
}

fn unreach(family: Family, nets: &[u8]) -> Vec<u8> {
    let [a, b] = family.afi().to_be_bytes();
    let mut out = Vec::new();
    attribute(&mut out, OPTIONAL, MP_UNREACH, &[&[a, b, SAFI][..], nets].concat());
    out
}

/// Everything has been told: what the peer kept from before may go.
pub fn end_of_rib(family: Family) -> Vec<u8> {
    match family {
        Family::V4 => message(&[], &[], &[]),
        Family::V6 => message(&[], &unreach(family, &[]), &[]),
    }
}

/// Looks at a peer's UPDATE: is it well formed? What it says is of no use to us.
pub fn check(body: &[u8]) -> Result<(), Notification> {
    let (withdrawn, rest) = counted(body)?;
    let (mut attributes, nets) = counted(rest)?;
    ipv4_prefixes(withdrawn)?;
    while let [flags, _, tail @ ..] = attributes {
        let (value, next) = if flags & LONG == 0 {
            let (length, tail) = tail.split_first().ok_or(Notification::ATTRIBUTES_MALFORMED)?;
            tail.split_at_checked(usize::from(*length)).ok_or(Notification::ATTRIBUTES_MALFORMED)?
        } else {
            counted(tail)?
        };
        let _ = value;
        attributes = next;
    }
    if !attributes.is_empty() {
        return Err(Notification::ATTRIBUTES_MALFORMED);
    }
    ipv4_prefixes(nets)
}

/// A length of two octets, and what it counts; and the rest.
fn counted(bytes: &[u8]) -> Result<(&[u8], &[u8]), Notification> {
    let (length, rest) = bytes.split_first_chunk::<2>().ok_or(Notification::ATTRIBUTES_MALFORMED)?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(Notification::ATTRIBUTES_MALFORMED)
}

fn ipv4_prefixes(mut bytes: &[u8]) -> Result<(), Notification> {
    while let [bits, rest @ ..] = bytes {
        let octets = usize::from(bits.div_ceil(8));
        if *bits > 32 {
            return Err(Notification::PREFIX_MALFORMED);
        }
        bytes = rest.get(octets..).ok_or(Notification::PREFIX_MALFORMED)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rib::Routes;

    fn style(family: Family, as4: bool) -> Style {
        Style { family, local_as: 4_200_000_000, internal: false, as4 }
    }

    /// What a message of ours says, read by the book: withdrawn, announced with next hops, the path.
    fn read(message: &[u8]) -> (Vec<IpNet>, Routes, Vec<u8>) {
        assert!(message.len() <= MESSAGE_MAX);
        check(&message[HEADER..]).unwrap();
        let (withdrawn, rest) = counted(&message[HEADER..]).unwrap();
        let (mut attributes, nets) = counted(rest).unwrap();
        let (mut gone, mut came, mut hop, mut path) = (prefixes(withdrawn, false), Vec::new(), None, Vec::new());
        came.extend(prefixes(nets, false));
        while let [flags, kind, tail @ ..] = attributes {
            let (value, next) =
                if flags & LONG == 0 { tail[1..].split_at(usize::from(tail[0])) } else { counted(tail).unwrap() };
            match *kind {
                NEXT_HOP => hop = Some(IpAddr::from(<[u8; 4]>::try_from(value).unwrap())),
                MP_REACH => {
                    assert_eq!(&value[..4], &[0, 2, 1, 16]);
                    hop = Some(IpAddr::from(<[u8; 16]>::try_from(&value[4..20]).unwrap()));
                    came.extend(prefixes(&value[21..], true));
                }
                MP_UNREACH => gone.extend(prefixes(&value[3..], true)),
                AS_PATH => path = value.to_vec(),
                _ => {}
            }
            attributes = next;
        }
        (gone, came.into_iter().map(|net| (net, hop.unwrap())).collect(), path)
    }

    fn prefixes(mut bytes: &[u8], v6: bool) -> Vec<IpNet> {
        let mut out = Vec::new();
        while let [bits, rest @ ..] = bytes {
            let octets = usize::from(bits.div_ceil(8));
            let mut address = [0; 16];
            address[..octets].copy_from_slice(&rest[..octets]);
            let address =
                if v6 { IpAddr::from(address) } else { IpAddr::from(<[u8; 4]>::try_from(&address[..4]).unwrap()) };
            out.push(IpNet::new(address, *bits).unwrap());
            bytes = &rest[octets..];
        }
        out
    }

    #[test]
    fn many_routes_go_in_messages_that_fit_and_none_is_lost() {
        let v4 = |n: u32| IpNet::new(IpAddr::from((n + 0x0a00_0000).to_be_bytes()), 32).unwrap();
        let v6 = |n: u32| format!("2001:db8:{:x}:{:x}::/64", n >> 16, n & 0xffff).parse::<IpNet>().unwrap();
        for (family, hop, nets) in [
            (Family::V4, "192.0.2.1", (0..5000).map(v4).collect::<Vec<_>>()),
            (Family::V6, "2001:db8::1", (0..5000).map(v6).collect()),
        ] {
            let hop: IpAddr = hop.parse().unwrap();
            let messages = announce(&style(family, true), hop, &nets);
            assert!(messages.len() > 5 && messages.len() < 20, "{}", messages.len());
            let told: Routes = messages.iter().flat_map(|m| read(m).1).collect();
            assert_eq!(told, nets.iter().map(|n| (*n, hop)).collect());
            let gone: Vec<IpNet> = withdraw(family, &nets).iter().flat_map(|m| read(m).0).collect();
            assert_eq!(gone, nets);
            assert!(announce(&style(family, true), hop, &[]).is_empty());
            let end = end_of_rib(family);
            assert_eq!(end.len(), if family == Family::V4 { 23 } else { 29 });
        }
        let default: IpNet = "0.0.0.0/0".parse().unwrap();
        assert_eq!(read(&withdraw(Family::V4, &[default])[0]).0, [default]);
        assert!(announce(&style(Family::V6, true), [192, 0, 2, 1].into(), &[default]).is_empty());
    }

    #[test]
    fn paths_are_told_as_the_peer_can_read_them() {
        let net: IpNet = "10.0.0.0/24".parse().unwrap();
        let told = |style: Style| announce(&style, [192, 0, 2, 1].into(), &[net]).remove(0);
        let new = told(style(Family::V4, true));
        assert_eq!(read(&new).2, [&[2, 1][..], &4_200_000_000u32.to_be_bytes()].concat());
        let old = told(style(Family::V4, false));
        assert_eq!(read(&old).2, [&[2, 1][..], &AS_TRANS.to_be_bytes()].concat());
        let real = [&[OPTIONAL | TRANSITIVE, AS4_PATH, 6, 2, 1][..], &4_200_000_000u32.to_be_bytes()].concat();
        assert!(old.windows(real.len()).any(|w| w == real), "the real path stands beside it");
        let own = told(Style { internal: true, ..style(Family::V4, true) });
        assert_eq!(read(&own).2, []);
        let preference = [TRANSITIVE, LOCAL_PREF, 4, 0, 0, 0, 100];
        assert!(own.windows(preference.len()).any(|w| w == preference));
    }

    #[test]
    fn updates_whose_lengths_lie_are_refused() {
        let good = [0, 4, 24, 10, 0, 0, 0, 4, 0x40, 1, 1, 0, 24, 10, 1, 0];
        check(&good).unwrap();
        check(&[0, 0, 0, 0]).unwrap();
        check(&[0, 0, 0, 5, 0x50, 1, 0, 1, 0]).unwrap();
        let malformed = Notification::ATTRIBUTES_MALFORMED;
        for bad in [&[][..], &[0], &[0, 1], &[0, 0, 0], &[0, 0, 0, 1], &[0, 0, 0, 1, 0x40], &[0, 0, 0, 3, 0x40, 1, 1]] {
            assert_eq!(check(bad), Err(malformed.clone()), "{bad:?}");
        }
        assert_eq!(check(&[0, 0, 0, 3, 0x50, 1, 0]), Err(malformed));
        for bad in [&[0, 0, 0, 0, 33, 1, 1, 1, 1, 1][..], &[0, 0, 0, 0, 24, 10, 1], &[0, 2, 24, 10, 0, 0]] {
            assert_eq!(check(bad), Err(Notification::PREFIX_MALFORMED), "{bad:?}");
        }
    }
}
