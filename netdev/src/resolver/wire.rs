//! Datagrams as frames: from a guest to the resolver of its network, and the way back. Pure.
use super::forward::Asker;
use super::{PORT, RESOLVER_ADDRESS, RESOLVER_ADDRESS6, network_of};
use crate::dhcp::checksum;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const IP: [u8; 2] = [0x08, 0x00];
const IP6: [u8; 2] = [0x86, 0xdd];
const HEADER6: usize = 40;
const UDP: u8 = 17;

/// What a question's frame says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked<'f> {
    pub vni: u32,
    pub mac: [u8; 6],
    pub address: IpAddr,
    pub port: u16,
    pub message: &'f [u8],
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The question in a frame: Ethernet, IP, UDP to port 53 of the resolver, nothing cut.
pub(crate) fn read(frame: &[u8]) -> Option<Asked<'_>> {
    let vni = network_of(*frame.first_chunk()?)?;
    let ip = frame.get(14..)?;
    let (address, udp) = match *frame.get(12..)?.first_chunk()? {
        IP => read4(ip)?,
        IP6 => read6(ip)?,
        _ => return None,
    };
    let port = word(udp, 0)?;
    if word(udp, 2)? != PORT || port == 0 {
        return None;
    }
    let message = udp.get(8..usize::from(word(udp, 4)?))?;
    Some(Asked { vni, mac: *frame.get(6..)?.first_chunk()?, address, port, message })
}

fn read4(ip: &[u8]) -> Option<(IpAddr, &[u8])> {
    let header = usize::from(ip.first()? & 15) * 4;
    let total = usize::from(word(ip, 2)?);
    let fragment = word(ip, 6)? & 0x3fff;
    let to_us = ip.get(16..20)? == RESOLVER_ADDRESS.octets();
    if ip[0] >> 4 != 4 || header < 20 || fragment != 0 || ip[9] != UDP || !to_us {
        return None;
    }
    let from = Ipv4Addr::from(*ip.get(12..)?.first_chunk::<4>()?);
    Some((from.into(), ip.get(header..total)?))
}

/// A question comes without extension headers, or not at all.
fn read6(ip: &[u8]) -> Option<(IpAddr, &[u8])> {
    let total = HEADER6 + usize::from(word(ip, 4)?);
    let to_us = ip.get(24..HEADER6)? == RESOLVER_ADDRESS6.octets();
    if ip[0] >> 4 != 6 || ip[6] != UDP || !to_us {
        return None;
    }
    let from = Ipv6Addr::from(*ip.get(8..)?.first_chunk::<16>()?);
    if from.is_unspecified() || from.is_multicast() {
        return None;
    }
    Some((from.into(), ip.get(HEADER6..total)?))
}

/// The answer's frame, from the resolver of the asker's network.
pub(crate) fn frame(to: &Asker, message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len() + 8).unwrap_or(u16::MAX);
    let mut udp = [&PORT.to_be_bytes()[..], &to.port.to_be_bytes(), &length.to_be_bytes(), &[0, 0], message].concat();
    let (kind, header, pseudo) = match to.address {
        IpAddr::V4(address) => (IP, header4(address, length), pseudo4(address, length)),
        IpAddr::V6(address) => (IP6, header6(address, length), pseudo6(address, length)),
    };
    let sum = match checksum(&[&pseudo, &udp]) {
        0 => 0xffff,
        s => s,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    [&to.to[..], &to.client.station, &kind, &header, &udp].concat()
}

fn header4(to: Ipv4Addr, length: u16) -> Vec<u8> {
    let whole = length.saturating_add(20).to_be_bytes();
    let ends = [RESOLVER_ADDRESS.octets(), to.octets()].concat();
    let mut ip = [&[0x45, 0][..], &whole, &[0, 0, 0x40, 0, 64, UDP, 0, 0], &ends].concat();
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip
}

fn pseudo4(to: Ipv4Addr, length: u16) -> Vec<u8> {
    [&RESOLVER_ADDRESS.octets()[..], &to.octets(), &[0, UDP], &length.to_be_bytes()].concat()
}

fn header6(to: Ipv6Addr, length: u16) -> Vec<u8> {
    [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[UDP, 64], &RESOLVER_ADDRESS6.octets(), &to.octets()].concat()
}

fn pseudo6(to: Ipv6Addr, length: u16) -> Vec<u8> {
    let length = u32::from(length).to_be_bytes();
    [&RESOLVER_ADDRESS6.octets()[..], &to.octets(), &length, &[0, 0, 0, UDP]].concat()
}

#[cfg(test)]
mod tests {
    use super::super::book::{Client, Names};
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn asker(address: &str) -> Asker {
        let client =
            Client { name: 7, mac: [2; 6], station: super::super::station(100), names: Arc::new(Names::default()) };
        Asker { client: Arc::new(client), to: [2; 6], address: address.parse().unwrap(), port: 4000, id: 9 }
    }

    #[test]
    fn a_question_is_read_and_its_answer_can_be_checked() {
        let answer = frame(&asker("10.0.0.11"), b"abc");
        assert_eq!(checksum(&[&answer[14..34]]), 0);
        let pseudo = [&answer[26..34], &[0, 17], &answer[38..40]].concat();
        assert_eq!(checksum(&[&pseudo, &answer[34..]]), 0);
        // The same frame the other way round is a question.
        let mut question = answer.clone();
        question[..6].copy_from_slice(&super::super::station(100));
        question[6..12].copy_from_slice(&[2; 6]);
        question[26..30].copy_from_slice(&[10, 0, 0, 11]);
        question[30..34].copy_from_slice(&RESOLVER_ADDRESS.octets());
        question[34..38].copy_from_slice(&[0x0f, 0xa0, 0, 53]);
        let asked = read(&question).unwrap();
        assert_eq!((asked.vni, asked.mac, asked.port, asked.message), (100, [2; 6], 4000, &b"abc"[..]));
        assert!(read(&answer).is_none(), "not to us");
        question[20] = 0x20;
        assert!(read(&question).is_none(), "a fragment");
    }

    #[test]
    fn the_same_by_ipv6() {
        let answer = frame(&asker("fe80::5"), b"abc");
        let pseudo = [&answer[22..54], &[0, 0], &answer[18..20], &[0, 0, 0, 17]].concat();
        assert_eq!(checksum(&[&pseudo, &answer[54..]]), 0);
        let mut question = answer.clone();
        question[..6].copy_from_slice(&super::super::station(100));
        question[6..12].copy_from_slice(&[2; 6]);
        question[22..38].copy_from_slice(&answer[38..54]);
        question[38..54].copy_from_slice(&answer[22..38]);
        question[54..58].copy_from_slice(&[0x0f, 0xa0, 0, 53]);
        let asked = read(&question).unwrap();
        assert_eq!((asked.address.to_string().as_str(), asked.port, asked.message), ("fe80::5", 4000, &b"abc"[..]));
        question[20] = 0;
        assert!(read(&question).is_none(), "an extension header");
    }

    proptest! {
        #[test]
        fn no_frame_makes_it_fall_over(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..3u8) {
            if kind > 0 && bytes.len() > 60 {
                bytes[..2].copy_from_slice(&[2, 0x71]);
                if kind == 1 {
                    bytes[12..15].copy_from_slice(&[8, 0, 0x45]);
                    bytes[23] = 17;
                    bytes[30..34].copy_from_slice(&RESOLVER_ADDRESS.octets());
                } else {
                    bytes[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
                    bytes[20] = 17;
                    bytes[38..54].copy_from_slice(&RESOLVER_ADDRESS6.octets());
                }
            }
            let _ = read(&bytes);
        }
    }
}
