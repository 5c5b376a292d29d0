//! Frames of prefix delegation on the edge link: to all delegating routers there, and back to one router's link-local address.
use crate::ask6::{checksum, frame};
use crate::wanted::Mac;
use std::net::Ipv6Addr;

const UDP: u8 = 17;
const HEADER: usize = 40;
const CLIENT: u16 = 546;
const SERVER: u16 = 547;
const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const ALL_SERVERS_MAC: [u8; 6] = [0x33, 0x33, 0, 1, 0, 2];

/// A router's message to whoever delegates prefixes there.
pub(crate) fn write(mac: Mac, message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len() + 8).unwrap_or(u16::MAX);
    let mut udp = [&CLIENT.to_be_bytes()[..], &SERVER.to_be_bytes(), &length.to_be_bytes(), &[0, 0], message].concat();
    let sum = match checksum(mac.0, ALL_SERVERS, UDP, &udp) {
        0 => 0xffff,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    frame(mac.0, ALL_SERVERS_MAC, ALL_SERVERS, UDP, 1, &udp)
}

/// The message in a server's frame, and the address that it is for. Its checksum is not looked at: a server of the same machine
/// leaves it to hardware that is not there.
pub(crate) fn read(frame: &[u8]) -> Option<(Ipv6Addr, &[u8])> {
    let ip = frame.get(14..)?;
    let (head, body) = (ip.first_chunk::<HEADER>()?, ip.get(HEADER..)?);
    let body = body.get(..usize::from(u16::from_be_bytes([head[4], head[5]])))?;
    let word = |at: usize| body.get(at..)?.first_chunk().copied().map(u16::from_be_bytes);
    let length = usize::from(word(4)?);
    if head[0] >> 4 != 6 || head[6] != UDP || (word(0)?, word(2)?) != (SERVER, CLIENT) {
        return None;
    }
    let to = Ipv6Addr::from(*head.get(24..)?.first_chunk::<16>()?);
    Some((to, body.get(8..length)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_within_their_bounds() {
        let mac = Mac([0xfa, 0x16, 0x3e, 2, 0, 1]);
        let sent = write(mac, b"hello");
        assert_eq!(sent[..12], [&ALL_SERVERS_MAC[..], &mac.0].concat());
        assert_eq!(read(&sent), None, "a question is no answer");
        let mut back = sent.clone();
        back[54..58].copy_from_slice(&[2, 35, 2, 34]);
        assert_eq!(read(&back), Some((ALL_SERVERS, &b"hello"[..])));
        for cut in 0..back.len() {
            assert_eq!(read(&back[..cut]), None, "{cut}");
        }
        let mut longer = back.clone();
        longer[58..60].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(read(&longer), None);
        let mut shorter = back;
        shorter[58..60].copy_from_slice(&[0, 7]);
        assert_eq!(read(&shorter), None);
    }
}
