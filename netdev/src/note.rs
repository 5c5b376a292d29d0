//! Notes of what the groups of ports decided, as the programs write them (`bpf/note.h`): read here one after the other
//! and given to whoever keeps a log. What nobody reads is overwritten by nobody: the programs count it as unsaid.
use crate::error::{Error, Result, Step};
use crate::loader::tables_dir;
use crate::metadata::PortNames;
use crate::wanted::{Direction, Mac};
use aya::maps::{Map, MapData, RingBuf};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use tokio::io::{Interest, unix::AsyncFd};

/// `struct noted`.
const SIZE: usize = 64;
const ACCEPTED: u8 = 1;
const TO_GUEST: u8 = 2;
const V6: u8 = 4;
/// Notes that are given at once.
const BATCH: usize = 256;

/// One packet that the groups of a port allowed, the first of its flow, or refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub port: String,
    /// Egress: the guest sent it.
    pub direction: Direction,
    pub accepted: bool,
    /// Notes about this port that were too many since the one before.
    pub skipped: u32,
    pub source_mac: Mac,
    pub destination_mac: Mac,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// 0 where the protocol has none.
    pub source_port: u16,
    pub destination_port: u16,
    /// ICMP type and code.
    pub icmp: (u8, u8),
    /// Bytes of the IP packet.
    pub length: u16,
}

/// The notes of one packet path. One reader at a time: each note is given once.
pub struct Notes {
    ring: AsyncFd<RingBuf<MapData>>,
    ports: PortNames,
}

impl std::fmt::Debug for Notes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Notes")
    }
}

impl Notes {
    /// Must be called within a tokio runtime.
    pub(crate) fn open(bpffs: &Path, ports: PortNames) -> Result<Self> {
        let failed = |message: String| Error::Program { what: "open the notes", message };
        let data = MapData::from_pin(tables_dir(bpffs).join("notes")).map_err(|e| failed(e.to_string()))?;
        let ring = RingBuf::try_from(Map::RingBuf(data)).map_err(|e| failed(e.to_string()))?;
        // SAFETY: the ring owns its map's descriptor, which stays the same one and open for as long as the ring lives.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        Ok(Self { ring: ring.map_err(std::io::Error::from).step("wait for notes")?, ports })
    }

    /// The next notes, at least one. Those about ports that are gone are left out.
    ///
    /// # Errors
    /// They cannot be waited for.
    pub async fn next(&mut self) -> Result<Vec<Note>> {
        loop {
            let mut guard = self.ring.readable_mut().await.step("wait for notes")?;
            let mut out = Vec::new();
            let mut read = 0;
            while read < BATCH {
                let Some(item) = guard.get_inner_mut().next() else { break };
                read += 1;
                let name = item.first_chunk::<4>().map_or(0, |b| u32::from_ne_bytes(*b));
                let port = self.ports.read().get(&name).cloned();
                out.extend(port.and_then(|port| decode(&item, port)));
            }
            if read < BATCH {
                guard.clear_ready();
            }
            if !out.is_empty() {
                return Ok(out);
            }
        }
    }
}

fn decode(bytes: &[u8], port: String) -> Option<Note> {
    let b: &[u8; SIZE] = bytes.first_chunk()?;
    let word = |at: usize| u16::from_be_bytes([b[at], b[at + 1]]);
    let mac = |at: usize| b[at..].first_chunk::<6>().map(|m| Mac(*m));
    let how = b[58];
    let address = |at: usize| {
        let all: [u8; 16] = *b[at..].first_chunk()?;
        let v4 = Ipv4Addr::new(all[0], all[1], all[2], all[3]);
        Some(if how & V6 == 0 { IpAddr::V4(v4) } else { IpAddr::V6(Ipv6Addr::from(all)) })
    };
    let protocol = b[59];
    let ports = matches!(protocol, 6 | 17);
    Some(Note {
        port,
        direction: if how & TO_GUEST == 0 { Direction::Egress } else { Direction::Ingress },
        accepted: how & ACCEPTED != 0,
        skipped: u32::from_ne_bytes(*b[4..].first_chunk()?),
        destination_mac: mac(8)?,
        source_mac: mac(14)?,
        source: address(20)?,
        destination: address(36)?,
        source_port: if ports { word(52) } else { 0 },
        destination_port: if ports { word(54) } else { 0 },
        length: u16::from_ne_bytes([b[56], b[57]]),
        protocol,
        icmp: (b[60], b[61]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_as_the_programs_write_them() {
        let mut bytes = [0u8; SIZE];
        bytes[4..8].copy_from_slice(&7u32.to_ne_bytes());
        bytes[8..14].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        bytes[14..20].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
        bytes[20..24].copy_from_slice(&[10, 0, 0, 1]);
        bytes[36..40].copy_from_slice(&[10, 0, 0, 2]);
        bytes[52..56].copy_from_slice(&[0x12, 0x34, 0, 80]);
        bytes[56..58].copy_from_slice(&60u16.to_ne_bytes());
        bytes[58..60].copy_from_slice(&[ACCEPTED | TO_GUEST, 6]);
        let note = decode(&bytes, "p".into()).unwrap();
        assert_eq!((note.direction, note.accepted, note.skipped), (Direction::Ingress, true, 7));
        assert_eq!((note.source.to_string(), note.source_port), ("10.0.0.1".into(), 0x1234));
        assert_eq!((note.destination.to_string(), note.destination_port), ("10.0.0.2".into(), 80));
        assert_eq!((note.source_mac.0[5], note.destination_mac.0[5], note.length), (2, 1, 60));
        assert_eq!(decode(&bytes[..63], "p".into()), None);
        bytes[58..62].copy_from_slice(&[V6, 58, 128, 0]);
        let note = decode(&bytes, "p".into()).unwrap();
        assert_eq!((note.direction, note.accepted, note.icmp), (Direction::Egress, false, (128, 0)));
        assert_eq!((note.source.is_ipv6(), note.source_port), (true, 0));
    }
}
