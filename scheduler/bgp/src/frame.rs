//! Messages on the wire: a marker, a length, a type, a body.
use crate::notification::Notification;
use bytes::{Buf, Bytes, BytesMut};

/// Marker, length and type.
pub const HEADER: usize = 19;
/// Of a whole message.
pub const MESSAGE_MAX: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Open = 1,
    Update = 2,
    Notification = 3,
    Keepalive = 4,
    Refresh = 5,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Kind::Open,
            2 => Kind::Update,
            3 => Kind::Notification,
            4 => Kind::Keepalive,
            5 => Kind::Refresh,
            _ => return None,
        })
    }

    /// Lengths of whole messages.
    fn fits(self, length: usize) -> bool {
        match self {
            Kind::Open => length >= 29,
            Kind::Update => length >= 23,
            Kind::Notification => length >= 21,
            Kind::Keepalive => length == HEADER,
            // Its own fault says more.
            Kind::Refresh => true,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: Kind,
    pub body: Bytes,
}

/// Takes the first message off what was read; `None`: it is not whole yet.
pub fn take(read: &mut BytesMut) -> Result<Option<Frame>, Notification> {
    let Some(header) = read.first_chunk::<HEADER>() else { return Ok(None) };
    if header[..16] != [0xff; 16] {
        return Err(Notification::MARKER);
    }
    let length = u16::from_be_bytes([header[16], header[17]]);
    let kind = header[18];
    let size = usize::from(length);
    if !(HEADER..=MESSAGE_MAX).contains(&size) {
        return Err(Notification::length(length));
    }
    let kind = Kind::of(kind).ok_or_else(|| Notification::kind(kind))?;
    if !kind.fits(size) {
        return Err(Notification::length(length));
    }
    if read.len() < size {
        return Ok(None);
    }
    let mut whole = read.split_to(size).freeze();
    whole.advance(HEADER);
    Ok(Some(Frame { kind, body: whole }))
}

/// A whole message; bodies are never longer than what fits.
pub fn put(kind: Kind, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX);
    let mut out = Vec::with_capacity(HEADER + body.len());
    out.extend([0xff; 16]);
    out.extend(length.to_be_bytes());
    out.push(kind as u8);
    out.extend(body);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(length: u16, kind: u8, rest: &[u8]) -> BytesMut {
        let mut out = BytesMut::from(&[0xff; 16][..]);
        out.extend(length.to_be_bytes());
        out.extend([kind]);
        out.extend_from_slice(rest);
        out
    }

    #[test]
    fn messages_come_in_pieces_and_in_rows() {
        let one = put(Kind::Update, &[1, 2, 3, 4]);
        let mut read = BytesMut::new();
        for byte in &one[..one.len() - 1] {
            read.extend([*byte]);
            assert!(take(&mut read).unwrap().is_none());
        }
        read.extend_from_slice(&one[one.len() - 1..]);
        read.extend_from_slice(&put(Kind::Keepalive, &[]));
        let first = take(&mut read).unwrap().unwrap();
        assert_eq!((first.kind, first.body.as_ref()), (Kind::Update, &[1, 2, 3, 4][..]));
        assert_eq!(take(&mut read).unwrap().unwrap().kind, Kind::Keepalive);
        assert!(take(&mut read).unwrap().is_none() && read.is_empty());
    }

    #[test]
    fn what_cannot_be_a_message_is_told_so_before_it_is_read() {
        let mut marker = raw(19, 4, &[]);
        marker[3] = 0;
        assert_eq!(take(&mut marker).unwrap_err(), Notification::MARKER);
        for (length, kind) in [(18, 4), (0, 4), (4097, 2), (65535, 2), (20, 4), (28, 1), (22, 2), (20, 3)] {
            assert_eq!(take(&mut raw(length, kind, &[])).unwrap_err(), Notification::length(length), "{length} {kind}");
        }
        for kind in [0, 6, 255] {
            assert_eq!(take(&mut raw(19, kind, &[])).unwrap_err(), Notification::kind(kind));
        }
    }
}
