//! Reading what DHCP clients ask. The codec that writes the answers stops the program on some options of a hostile
//! length (fuzzing found them), so questions are read here: the few fields that an answer depends on, each within its bounds.
use std::net::{Ipv4Addr, Ipv6Addr};

/// Where options begin in a DHCPv4 message.
const OPTIONS: usize = 240;
const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// A DHCPv4 request; the hardware address has been looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question4 {
    pub kind: u8,
    pub xid: u32,
    pub flags: u16,
    pub ciaddr: Ipv4Addr,
    pub server: Option<Ipv4Addr>,
    pub requested: Option<Ipv4Addr>,
}

impl Question4 {
    /// `None`: no request, or one that came by a relay, or a broken one.
    pub fn read(message: &[u8]) -> Option<Self> {
        let word = |at: usize| message.get(at..)?.first_chunk::<4>().copied();
        if message.first() != Some(&1) || word(24)? != [0; 4] || word(OPTIONS - 4)? != COOKIE {
            return None;
        }
        let mut options = message.get(OPTIONS..)?;
        let (mut kind, mut server, mut requested) = (None, None, None);
        while let Some((&code, rest)) = options.split_first() {
            match code {
                0 => {
                    options = rest;
                    continue;
                }
                255 => break,
                _ => {}
            }
            let (&length, rest) = rest.split_first()?;
            let (value, rest) = rest.split_at_checked(usize::from(length))?;
            let address = || <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from);
            match code {
                50 => requested = requested.or(Some(address()?)),
                53 => kind = kind.or(Some(*value.first().filter(|_| value.len() == 1)?)),
                54 => server = server.or(Some(address()?)),
                _ => {}
            }
            options = rest;
        }
        Some(Self {
            kind: kind?,
            xid: u32::from_be_bytes(word(4)?),
            flags: u16::from_be_bytes(*message.get(10..)?.first_chunk()?),
            ciaddr: word(12)?.into(),
            server,
            requested,
        })
    }

    /// The answer is to go to everybody.
    pub fn broadcast(&self) -> bool {
        self.flags & 0x8000 != 0
    }
}

/// What a DHCPv6 message says of the asker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question6 {
    pub kind: u8,
    pub xid: [u8; 3],
    pub client: Option<Vec<u8>>,
    pub server: Option<Vec<u8>>,
    pub rapid: bool,
    /// The first identity that wants an address, and the address that it has.
    pub identity: Option<(u32, Option<Ipv6Addr>)>,
}

impl Question6 {
    pub fn read(message: &[u8]) -> Option<Self> {
        let (&[kind, a, b, c], options) = message.split_first_chunk::<4>()?;
        let mut out = Self { kind, xid: [a, b, c], client: None, server: None, rapid: false, identity: None };
        for option in Options6(options) {
            let (code, value) = option?;
            match code {
                1 => out.client = out.client.or_else(|| Some(value.to_vec())),
                2 => out.server = out.server.or_else(|| Some(value.to_vec())),
                3 if out.identity.is_none() => out.identity = Some(identity(value)?),
                14 => out.rapid = true,
                _ => {}
            }
        }
        Some(out)
    }
}

/// The number of an identity association, and its first address.
fn identity(value: &[u8]) -> Option<(u32, Option<Ipv6Addr>)> {
    let id = u32::from_be_bytes(*value.first_chunk()?);
    for option in Options6(value.get(12..)?) {
        let (code, value) = option?;
        if code == 5 {
            return Some((id, Some(Ipv6Addr::from(*value.first_chunk::<16>()?))));
        }
    }
    Some((id, None))
}

/// Code and value; `None` where one is longer than what is left.
pub(crate) struct Options6<'a>(pub &'a [u8]);

impl<'a> Iterator for Options6<'a> {
    type Item = Option<(u16, &'a [u8])>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.0);
        let read = || {
            let (&[a, b, c, d], rest) = rest.split_first_chunk::<4>()?;
            let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([c, d])))?;
            Some((u16::from_be_bytes([a, b]), value, rest))
        };
        let read = read();
        if let Some((.., rest)) = read {
            self.0 = rest;
        }
        Some(read.map(|(code, value, _)| (code, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn four(options: &[u8]) -> Vec<u8> {
        let mut out = vec![0; OPTIONS];
        out[0] = 1;
        out[4..8].copy_from_slice(&[1, 2, 3, 4]);
        out[10] = 0x80;
        out[236..].copy_from_slice(&COOKIE);
        out.extend(options);
        out
    }

    #[test]
    fn the_first_of_each_option_counts_and_broken_ones_end_it() {
        let q = Question4::read(&four(&[0, 53, 1, 3, 50, 4, 10, 0, 0, 5, 53, 1, 1, 255, 9])).unwrap();
        assert_eq!((q.kind, q.xid, q.requested, q.server), (3, 0x0102_0304, Some([10, 0, 0, 5].into()), None));
        assert!(q.broadcast());
        for broken in [&[53, 1][..], &[53, 2, 3, 3], &[53, 1, 3, 54, 3, 1, 2, 3], &[53, 1, 3, 58, 200, 1], &[255]] {
            assert_eq!(Question4::read(&four(broken)), None, "{broken:?}");
        }
        // Options that stop a codec: a time of three bytes, a length that lies.
        assert!(Question4::read(&four(&[53, 1, 1, 58, 3, 1, 2, 3, 255])).is_some());
        let mut relayed = four(&[53, 1, 1]);
        relayed[24] = 10;
        assert_eq!(Question4::read(&relayed), None);
        assert_eq!(Question4::read(&[1; 100]), None);
    }

    #[test]
    fn version_six_is_read_within_its_bounds() {
        let ia =
            [&[0, 3, 0, 40][..], &[0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0], &[0, 5, 0, 24], &[0xfd; 16], &[0; 8]].concat();
        let q = Question6::read(&[&[1, 7, 8, 9, 0, 14, 0, 0, 0, 1, 0, 2, 5, 6][..], &ia].concat()).unwrap();
        assert_eq!((q.kind, q.xid, q.client, q.rapid), (1, [7, 8, 9], Some(vec![5, 6]), true));
        assert_eq!(q.identity, Some((9, Some(Ipv6Addr::from([0xfd; 16])))));
        let short = [[11, 0, 0, 0, 0, 16, 0, 0].as_slice(), &[0, 255, 62]].concat();
        for broken in
            [&[1, 2, 3][..], &[1, 2, 3, 4, 0], &[1, 2, 3, 4, 0, 1, 0, 9, 1], &[1, 2, 3, 4, 0, 3, 0, 2, 1, 1], &short]
        {
            assert_eq!(Question6::read(broken), None, "{broken:?}");
        }
    }
}
