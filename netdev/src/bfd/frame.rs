//! Frames of BFD between the agent and the programs (`bpf/watch.h`): the destination address names the external network, all else
//! is as on the wire (RFC 5881): UDP to port 3784, hop limit 255.
use super::way::Hop;
use crate::dhcp::checksum;
use crate::wanted::Mac;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `dst` of `bpf/watch.h`; the network's number follows.
const NAME: [u8; 2] = [0x02, 0x73];
const PORT: u16 = 3784;
/// The first of the ports that may be spoken from.
const FROM: u16 = 49_152;
const UDP: u8 = 17;
const HOPS: u8 = 255;
/// What keeps a network together goes first (CS6).
const CLASS: u8 = 0xc0;
const ETHER: usize = 14;
const HEADER4: usize = 20;
const HEADER6: usize = 40;

/// Is a frame from the programs one of ours?
pub(crate) fn is_one(frame: &[u8]) -> bool {
    frame.starts_with(&NAME)
}

/// A session's port: the same as long as it lasts.
fn port(mine: u32) -> u16 {
    #[allow(clippy::cast_possible_truncation)]
    let low = mine as u16;
    FROM | low
}

pub(crate) fn write(hop: &Hop, mac: Mac, mine: u32, message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len() + 8).unwrap_or(u16::MAX);
    let mut udp =
        [&port(mine).to_be_bytes()[..], &PORT.to_be_bytes(), &length.to_be_bytes(), &[0, 0], message].concat();
    let (kind, pseudo) = match (hop.own, hop.peer) {
        (IpAddr::V4(own), IpAddr::V4(peer)) => ([8, 0], [&own.octets()[..], &peer.octets()].concat()),
        _ => ([0x86, 0xdd], [six(hop.own), six(hop.peer)].concat()),
    };
    let sum = match checksum(&[&pseudo, &[0, UDP], &length.to_be_bytes(), &udp]) {
        0 => 0xffff,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    let ether = [&NAME[..], &hop.vni.to_be_bytes(), &mac.0, &kind].concat();
    let head = if hop.own.is_ipv4() { head4(&pseudo, length) } else { head6(&pseudo, length) };
    [ether, head, udp].concat()
}

fn six(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn head4(addresses: &[u8], length: u16) -> Vec<u8> {
    let total = length.saturating_add(20).to_be_bytes();
    let mut head = [&[0x45, CLASS][..], &total, &[0, 0, 0x40, 0, HOPS, UDP, 0, 0], addresses].concat();
    let sum = checksum(&[&head]);
    head[10..12].copy_from_slice(&sum.to_be_bytes());
    head
}

fn head6(addresses: &[u8], length: u16) -> Vec<u8> {
    [&[0x60 | CLASS >> 4, CLASS << 4, 0, 0][..], &length.to_be_bytes(), &[UDP, HOPS], addresses].concat()
}

/// Who speaks to whom, and the datagram. Its checksum is not looked at: a next hop on the same machine leaves it to hardware that
/// is not there.
pub(crate) fn read(frame: &[u8]) -> Option<(Hop, &[u8])> {
    let vni = u32::from_be_bytes(*frame.strip_prefix(&NAME)?.first_chunk()?);
    let ip = frame.get(ETHER..)?;
    let (own, peer, udp) = match frame.get(12..ETHER)? {
        [8, 0] => read4(ip)?,
        [0x86, 0xdd] => read6(ip)?,
        _ => return None,
    };
    let word = |at: usize| udp.get(at..)?.first_chunk().copied().map(u16::from_be_bytes);
    if word(2)? != PORT {
        return None;
    }
    Some((Hop { vni, own, peer }, udp.get(8..usize::from(word(4)?))?))
}

fn read4(ip: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let head = ip.first_chunk::<HEADER4>()?;
    let [own, peer] = [16, 12].map(|at| head.get(at..).and_then(|o| o.first_chunk::<4>()).map(|o| Ipv4Addr::from(*o)));
    let start = usize::from(head[0] & 15) * 4;
    let total = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let cut = u16::from_be_bytes([head[6], head[7]]) & 0x3fff != 0;
    if head[0] >> 4 != 4 || start < HEADER4 || cut || head[8] != HOPS || head[9] != UDP {
        return None;
    }
    Some((own?.into(), peer?.into(), ip.get(start..total)?))
}

fn read6(ip: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let head = ip.first_chunk::<HEADER6>()?;
    let [own, peer] = [24, 8].map(|at| head.get(at..).and_then(|o| o.first_chunk::<16>()).map(|o| Ipv6Addr::from(*o)));
    let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
    if head[0] >> 4 != 6 || head[6] != UDP || head[7] != HOPS {
        return None;
    }
    Some((own?.into(), peer?.into(), ip.get(HEADER6..HEADER6.checked_add(length)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hop(own: &str, peer: &str) -> Hop {
        Hop { vni: 0x0102_0304, own: own.parse().unwrap(), peer: peer.parse().unwrap() }
    }

    /// What the other side sends: addresses change places.
    fn back(hop: &Hop, message: &[u8]) -> Vec<u8> {
        write(&Hop { own: hop.peer, peer: hop.own, ..hop.clone() }, Mac([2, 0, 0, 0, 0, 1]), 5, message)
    }

    #[test]
    fn both_families_are_read_within_their_bounds() {
        for hop in [hop("203.0.113.10", "203.0.113.1"), hop("2001:db8::10", "2001:db8::1")] {
            let frame = back(&hop, b"hello");
            assert_eq!(read(&frame), Some((hop.clone(), &b"hello"[..])));
            assert!(is_one(&frame) && frame[2..6] == [1, 2, 3, 4] && frame[6..12] == [2, 0, 0, 0, 0, 1]);
            let head = if hop.own.is_ipv4() { HEADER4 } else { HEADER6 };
            let udp = &frame[ETHER + head..];
            assert!(u16::from_be_bytes([udp[0], udp[1]]) >= FROM && udp[2..4] == PORT.to_be_bytes());
            let addresses = if head == HEADER4 { &frame[26..34] } else { &frame[22..54] };
            let length = u16::try_from(udp.len()).unwrap().to_be_bytes();
            assert_eq!(checksum(&[addresses, &[0, UDP], &length, udp]), 0);
            if head == HEADER4 {
                assert_eq!(checksum(&[&frame[ETHER..ETHER + head]]), 0);
            }
            for cut in 0..frame.len() {
                assert_eq!(read(&frame[..cut]), None, "{cut}");
            }
            let hops_at = if head == HEADER4 { 22 } else { 21 };
            for (at, byte) in [(0, 6), (13, 6), (14, 0x55), (hops_at, 254), (ETHER + head + 3, 0)] {
                let mut bad = frame.clone();
                bad[at] = byte;
                assert_eq!(read(&bad), None, "{at}");
            }
        }
        let mut cut = back(&hop("203.0.113.10", "203.0.113.1"), b"hello");
        cut[20] = 0x20;
        assert_eq!(read(&cut), None, "a fragment");
    }

    proptest! {
        #[test]
        fn any_frame_is_read_or_not(bytes in prop::collection::vec(any::<u8>(), 0..120), at in 0usize..80, six in any::<bool>()) {
            prop_assert!(read(&bytes).is_none_or(|(_, message)| message.len() < bytes.len()));
            let hop = if six { hop("2001:db8::10", "2001:db8::1") } else { hop("203.0.113.10", "203.0.113.1") };
            let mut frame = back(&hop, &[7; 24]);
            let place = at % frame.len();
            frame[place] ^= bytes.first().copied().unwrap_or(1);
            if let Some((_, message)) = read(&frame) {
                prop_assert!(message.len() <= 24);
            }
        }
    }
}
