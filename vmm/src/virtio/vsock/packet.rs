//! The packet of virtio-vsock (virtio 1.2, section 5.10.6): 44 bytes of header, then data.

/// Bytes of a header.
pub const HEADER: usize = 44;
/// The host's address.
pub const HOST_CID: u64 = 2;
/// Connection-oriented; the only type that is offered.
pub const STREAM: u16 = 1;

/// What a packet is for.
pub mod op {
    #![allow(missing_docs)] // the specification's own names
    pub const REQUEST: u16 = 1;
    pub const RESPONSE: u16 = 2;
    pub const RST: u16 = 3;
    pub const SHUTDOWN: u16 = 4;
    pub const RW: u16 = 5;
    pub const CREDIT_UPDATE: u16 = 6;
    pub const CREDIT_REQUEST: u16 = 7;
}

/// A header. From the guest, every field is a claim.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)] // as above
pub struct Packet {
    pub source_cid: u64,
    pub target_cid: u64,
    pub source_port: u32,
    pub target_port: u32,
    pub length: u32,
    pub kind: u16,
    pub op: u16,
    pub flags: u32,
    pub buffer: u32,
    pub forwarded: u32,
}

impl Packet {
    /// As it lies in memory.
    pub fn bytes(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&self.source_cid.to_le_bytes());
        put(&self.target_cid.to_le_bytes());
        put(&self.source_port.to_le_bytes());
        put(&self.target_port.to_le_bytes());
        put(&self.length.to_le_bytes());
        put(&self.kind.to_le_bytes());
        put(&self.op.to_le_bytes());
        put(&self.flags.to_le_bytes());
        put(&self.buffer.to_le_bytes());
        put(&self.forwarded.to_le_bytes());
        out
    }

    /// From memory.
    pub fn read(bytes: &[u8; HEADER]) -> Packet {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Packet {
            source_cid: long(0),
            target_cid: long(8),
            source_port: word(16),
            target_port: word(20),
            length: word(24),
            kind: word(28) as u16,
            op: (word(28) >> 16) as u16,
            flags: word(32),
            buffer: word(36),
            forwarded: word(40),
        }
    }

    /// The answer's addresses to this packet's.
    pub fn answer(&self, op: u16) -> Packet {
        Packet {
            source_cid: HOST_CID,
            target_cid: self.source_cid,
            source_port: self.target_port,
            target_port: self.source_port,
            kind: STREAM,
            op,
            ..Packet::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_way() {
        let packet = Packet {
            source_cid: 0x0102_0304_0506_0708,
            target_cid: 2,
            source_port: 3,
            target_port: 4,
            length: 5,
            kind: 1,
            op: 7,
            flags: 8,
            buffer: 9,
            forwarded: u32::MAX,
        };
        let bytes = packet.bytes();
        assert_eq!((bytes[0], bytes[28], bytes[30], bytes[43]), (8, 1, 7, 0xff));
        assert_eq!(Packet::read(&bytes), packet);
    }
}
