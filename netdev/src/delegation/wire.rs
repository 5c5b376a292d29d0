//! The messages of DHCPv6 prefix delegation (RFC 8415): what a client says, and what of an answer counts. An answer comes from
//! the provider's wire, where anybody may speak: it is read within its bounds, and nothing of it is sent on but an identifier.
use crate::question::Options6;
use ipnet::Ipv6Net;
use std::net::Ipv6Addr;

pub(crate) const SOLICIT: u8 = 1;
pub(crate) const ADVERTISE: u8 = 2;
pub(crate) const REQUEST: u8 = 3;
pub(crate) const RENEW: u8 = 5;
pub(crate) const REBIND: u8 = 6;
pub(crate) const REPLY: u8 = 7;
pub(crate) const RELEASE: u8 = 8;

const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const OPTION_REQUEST: u16 = 6;
const PREFERENCE: u16 = 7;
const ELAPSED: u16 = 8;
const STATUS: u16 = 13;
const IA_PD: u16 = 25;
const IA_PREFIX: u16 = 26;
const SOL_MAX_RT: u16 = 82;

pub(crate) const SUCCESS: u16 = 0;
pub(crate) const NO_BINDING: u16 = 3;

/// Bytes of an identifier (RFC 8415, 11.1).
const DUID: std::ops::RangeInclusive<usize> = 3..=130;
/// Prefixes of one answer that are looked at.
const PREFIXES_MAX: usize = 16;
/// What guests make addresses in.
const GUESTS: u8 = 64;
/// Seconds that a prefix must be good for: who lends it for less would have it announced and withdrawn all the time.
pub(crate) const LIFE_MIN: u32 = 10;
/// For ever, as a lifetime.
pub(crate) const FOREVER: u32 = u32::MAX;

/// One side of the talk: who asks, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub duid: Vec<u8>,
    pub iaid: u32,
}

impl Identity {
    /// Of a number that is nobody else's: a DUID of the kind for UUIDs (RFC 6355).
    pub fn new(number: [u64; 2], iaid: u32) -> Self {
        let [high, low] = number.map(u64::to_be_bytes);
        Self { duid: [&[0, 4][..], &high, &low].concat(), iaid }
    }
}

/// A prefix for guests, lent for so many seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lent {
    pub prefix: Ipv6Net,
    pub preferred: u32,
    /// 0: no more.
    pub valid: u32,
}

/// What counts of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub kind: u8,
    pub server: Vec<u8>,
    pub preference: u8,
    /// Of the message, and of the identity association; the latter only if there is one.
    pub status: u16,
    pub association: Option<u16>,
    /// Seconds; 0: as the client likes.
    pub t1: u32,
    pub t2: u32,
    pub lent: Vec<Lent>,
    /// The longest pause between questions that the server wishes, in seconds.
    pub patience: Option<u32>,
}

impl Answer {
    /// `None`: not an answer to this question of this client, or a broken one.
    pub fn read(message: &[u8], who: &Identity, xid: [u8; 3]) -> Option<Self> {
        let (&[kind, a, b, c], options) = message.split_first_chunk::<4>()?;
        if !matches!(kind, ADVERTISE | REPLY) || [a, b, c] != xid {
            return None;
        }
        let (mut client, mut server) = (None, None);
        let mut out = Self {
            kind,
            server: Vec::new(),
            preference: 0,
            status: SUCCESS,
            association: None,
            t1: 0,
            t2: 0,
            lent: Vec::new(),
            patience: None,
        };
        for option in Options6(options) {
            let (code, value) = option?;
            match code {
                CLIENT_ID => client = client.or(Some(value)),
                SERVER_ID => server = server.or(Some(value)),
                PREFERENCE => out.preference = *value.first().filter(|_| value.len() == 1)?,
                STATUS => out.status = u16::from_be_bytes(*value.first_chunk()?),
                SOL_MAX_RT => {
                    let seconds = u32::from_be_bytes(<[u8; 4]>::try_from(value).ok()?);
                    out.patience = Some(seconds).filter(|s| (60..=86_400).contains(s));
                }
                IA_PD if out.association.is_none() => out.read_association(value, who.iaid)?,
                _ => {}
            }
        }
        out.server = server.filter(|id| DUID.contains(&id.len()))?.to_vec();
        (client == Some(&who.duid[..])).then_some(out)
    }

    fn read_association(&mut self, value: &[u8], iaid: u32) -> Option<()> {
        let word = |at: usize| value.get(at..)?.first_chunk().copied().map(u32::from_be_bytes);
        if word(0)? != iaid {
            return Some(());
        }
        (self.t1, self.t2) = (word(4)?, word(8)?);
        let mut status = SUCCESS;
        for option in Options6(value.get(12..)?) {
            let (code, value) = option?;
            match code {
                STATUS => status = u16::from_be_bytes(*value.first_chunk()?),
                IA_PREFIX if self.lent.len() < PREFIXES_MAX => self.lent.extend(lent(value)?),
                _ => {}
            }
        }
        self.association = Some(status);
        // Who must renew after he must look for another server is not believed (RFC 8415, 21.21).
        if self.t1 > self.t2 && self.t2 > 0 {
            self.lent.clear();
        }
        Some(())
    }

    /// The prefix to use: the one that is there already if it is still lent, else the first.
    pub fn usable(&self, have: Option<Ipv6Net>) -> Option<Lent> {
        if self.status != SUCCESS || self.association != Some(SUCCESS) {
            return None;
        }
        let good = || self.lent.iter().filter(|l| l.valid >= LIFE_MIN);
        good().find(|l| Some(l.prefix) == have).or_else(|| good().next()).copied()
    }

    /// Does it take the prefix back?
    pub fn ends(&self, have: Ipv6Net) -> bool {
        self.lent.iter().any(|l| l.prefix == have && l.valid == 0)
    }
}

/// One prefix of an answer; the inner `None` is one that guests could not use.
#[allow(clippy::option_option)]
fn lent(value: &[u8]) -> Option<Option<Lent>> {
    let (preferred, rest) = value.split_first_chunk::<4>()?;
    let (valid, rest) = rest.split_first_chunk::<4>()?;
    let (&[length], rest) = rest.split_first_chunk::<1>()?;
    let address = Ipv6Addr::from(*rest.first_chunk::<16>()?);
    let (preferred, valid) = (u32::from_be_bytes(*preferred), u32::from_be_bytes(*valid));
    Options6(rest.get(16..)?).try_for_each(|option| option.map(drop))?;
    if !(1..=GUESTS).contains(&length) || preferred > valid {
        return Some(None);
    }
    // Of a larger block the first part is used.
    let Ok(block) = Ipv6Net::new(address, length) else { return Some(None) };
    let Ok(prefix) = Ipv6Net::new(block.network(), GUESTS) else { return Some(None) };
    Some(is_for_guests(prefix).then_some(Lent { prefix, preferred, valid }))
}

/// Global unicast addresses, or unique local ones (RFC 4193).
pub(crate) fn is_for_guests(prefix: Ipv6Net) -> bool {
    let first = prefix.addr().octets()[0];
    prefix.prefix_len() == GUESTS && prefix == prefix.trunc() && (first & 0xe0 == 0x20 || first & 0xfe == 0xfc)
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend(code.to_be_bytes());
    out.extend(u16::try_from(value.len()).unwrap_or(0).to_be_bytes());
    out.extend(value);
}

/// A client's message. `elapsed`: hundredths of seconds since its first try. `prefix`: what it has, or would like.
pub(crate) fn ask(
    kind: u8,
    xid: [u8; 3],
    who: &Identity,
    server: Option<&[u8]>,
    elapsed: u16,
    prefix: Option<Ipv6Net>,
) -> Vec<u8> {
    let mut out = vec![kind, xid[0], xid[1], xid[2]];
    option(&mut out, CLIENT_ID, &who.duid);
    server.into_iter().for_each(|id| option(&mut out, SERVER_ID, id));
    option(&mut out, ELAPSED, &elapsed.to_be_bytes());
    if kind != RELEASE {
        option(&mut out, OPTION_REQUEST, &SOL_MAX_RT.to_be_bytes());
    }
    // A length alone is a wish too.
    let wish = prefix.map_or(Ipv6Addr::UNSPECIFIED, |p| p.addr());
    let mut inner = Vec::new();
    option(&mut inner, IA_PREFIX, &[&[0; 8][..], &[GUESTS], &wish.octets()].concat());
    option(&mut out, IA_PD, &[&who.iaid.to_be_bytes()[..], &[0; 8], &inner].concat());
    out
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
