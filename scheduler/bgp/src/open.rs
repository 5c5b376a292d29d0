//! The first message of each side: who one is, and what one can.
use crate::{
    AS_TRANS, Peering, SAFI,
    frame::{self, Kind},
    notification::Notification,
};
use std::net::Ipv4Addr;

const VERSION: u8 = 4;
/// The optional parameter that holds capabilities.
const CAPABILITIES: u8 = 2;
/// In the place of a length and of a type: longer lengths follow (RFC 9072).
const EXTENDED: u8 = 255;
/// Families of one peer that are kept.
const FAMILIES_MAX: usize = 64;

const CAN_FAMILY: u8 = 1;
const CAN_REFRESH: u8 = 2;
const CAN_RESTART: u8 = 64;
const CAN_AS4: u8 = 65;

/// What a peer says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The real one, of four octets where the peer knows these.
    pub asn: u32,
    pub hold: u16,
    pub identifier: Ipv4Addr,
    pub as4: bool,
    pub refresh: bool,
    /// Address families and what they carry; a peer that names none means IPv4 unicast.
    pub families: Vec<(u16, u8)>,
}

/// Bytes one after the other; `None`: there are not so many.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn bytes(&mut self, count: usize) -> Option<&'b [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }
    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }
    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }
}

impl Open {
    pub fn read(body: &[u8]) -> Result<Self, Notification> {
        let mut reader = Reader(body);
        let malformed = || Notification::OPEN_MALFORMED;
        if reader.u8().ok_or_else(malformed)? != VERSION {
            return Err(Notification::version());
        }
        let asn = reader.u16().ok_or_else(malformed)?;
        let hold = reader.u16().ok_or_else(malformed)?;
        let identifier = Ipv4Addr::from(reader.array::<4>().ok_or_else(malformed)?);
        let mut open = Open { asn: u32::from(asn), hold, identifier, as4: false, refresh: false, families: Vec::new() };
        let mut length = usize::from(reader.u8().ok_or_else(malformed)?);
        let extended = length == usize::from(EXTENDED) && reader.0.first() == Some(&EXTENDED);
        if extended {
            reader.u8();
            length = usize::from(reader.u16().ok_or_else(malformed)?);
        }
        if reader.0.len() != length {
            return Err(malformed());
        }
        while !reader.0.is_empty() {
            let kind = reader.u8().ok_or_else(malformed)?;
            let length = if extended { reader.u16().map(usize::from) } else { reader.u8().map(usize::from) };
            let value = reader.bytes(length.ok_or_else(malformed)?).ok_or_else(malformed)?;
            if kind != CAPABILITIES {
                return Err(Notification::OPTION_UNKNOWN);
            }
            open.capabilities(value).ok_or_else(malformed)?;
        }
        Ok(open)
    }

    /// Those that we do not know are not for us.
    fn capabilities(&mut self, value: &[u8]) -> Option<()> {
        let mut reader = Reader(value);
        while !reader.0.is_empty() {
            let (code, length) = (reader.u8()?, reader.u8()?);
            let value = reader.bytes(usize::from(length))?;
            match (code, value) {
                (CAN_FAMILY, [a, b, _, safi]) if self.families.len() < FAMILIES_MAX => {
                    self.families.push((u16::from_be_bytes([*a, *b]), *safi));
                }
                (CAN_REFRESH, []) => self.refresh = true,
                (CAN_AS4, [a, b, c, d]) => {
                    self.as4 = true;
                    self.asn = u32::from_be_bytes([*a, *b, *c, *d]);
                }
                _ => {}
            }
        }
        Some(())
    }

    pub fn takes(&self, afi: u16) -> bool {
        if self.families.is_empty() { afi == 1 } else { self.families.contains(&(afi, SAFI)) }
    }
}

/// The capability of the peering's family, as it stands in an OPEN.
pub fn family(peering: &Peering) -> Vec<u8> {
    let [a, b] = peering.family.afi().to_be_bytes();
    vec![CAN_FAMILY, 4, a, b, 0, SAFI]
}

/// Ours. `restarted`: this is the first session since the speaker began.
pub fn encode(peering: &Peering, restarted: bool) -> Vec<u8> {
    let mut can = family(peering);
    can.extend([CAN_REFRESH, 0, CAN_AS4, 4]);
    can.extend(peering.local_as.to_be_bytes());
    if peering.restart > 0 {
        // The highest bit: restarted; then twelve bits of seconds. The family's last byte: its forwarding goes on.
        let time = peering.restart.min(0x0fff) | if restarted { 0x8000 } else { 0 };
        let ([a, b], [t, u]) = (peering.family.afi().to_be_bytes(), time.to_be_bytes());
        can.extend([CAN_RESTART, 6, t, u, a, b, SAFI, 0x80]);
    }
    let short = u16::try_from(peering.local_as).unwrap_or(AS_TRANS);
    let length = u8::try_from(can.len()).unwrap_or(u8::MAX);
    let mut body = vec![VERSION];
    body.extend(short.to_be_bytes());
    body.extend(peering.hold.to_be_bytes());
    body.extend(peering.identifier.octets());
    body.extend([length.saturating_add(2), CAPABILITIES, length]);
    body.extend(can);
    frame::put(Kind::Open, &body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, frame::HEADER};

    fn peering() -> Peering {
        Peering {
            local_as: 4_200_000_000,
            identifier: Ipv4Addr::new(10, 1, 2, 3),
            family: Family::V6,
            peer: [192, 0, 2, 1].into(),
            port: 179,
            source: None,
            remote_as: 65010,
            key: None,
            hold: 90,
            restart: 120,
        }
    }

    #[test]
    fn what_we_say_of_ourselves_is_read_back() {
        let ours = encode(&peering(), true);
        let read = Open::read(&ours[HEADER..]).unwrap();
        assert_eq!((read.asn, read.hold, read.as4, read.refresh), (4_200_000_000, 90, true, true));
        assert!(read.takes(2) && !read.takes(1));
        assert_eq!(&ours[HEADER + 1..HEADER + 3], &AS_TRANS.to_be_bytes());
        let plain = [4, 0xfd, 0xf2, 0, 90, 10, 0, 0, 1, 0];
        let plain = Open::read(&plain).unwrap();
        assert!(plain.takes(1) && !plain.takes(2) && !plain.as4);
        assert_eq!(plain.asn, 65010);
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let fixed = [4, 0xfd, 0xf2, 0, 90, 10, 0, 0, 1];
        let read = |tail: &[u8]| Open::read(&[&fixed[..], tail].concat());
        for tail in [&[][..], &[1], &[0, 0], &[3, 2, 4, 65], &[2, 2, 1], &[6, 2, 4, 65, 4, 0, 0], &[4, 2, 3, 65, 4]] {
            assert_eq!(read(tail), Err(Notification::OPEN_MALFORMED), "{tail:?}");
        }
        assert_eq!(read(&[2, 1, 0]), Err(Notification::OPTION_UNKNOWN));
        assert_eq!(Open::read(&[3]), Err(Notification::version()));
        assert_eq!(Open::read(&[]), Err(Notification::OPEN_MALFORMED));
        // Longer lengths (RFC 9072), and capabilities of a wrong size, which say nothing.
        let long = read(&[255, 255, 0, 9, 2, 0, 6, 65, 4, 0, 1, 0, 0]).unwrap();
        assert_eq!((long.as4, long.asn), (true, 65536));
        assert!(!read(&[5, 2, 3, 65, 1, 9]).unwrap().as4);
    }
}
