//! What the guest sees of a device whose queues another process serves: its number, queues, features, configuration space.
//!
//! | device | from the backend | from here |
//! | --- | --- | --- |
//! | disk | features, the whole space (length, read-only, discard) | the number of queues |
//! | card | offloads | address, frame size, link: it is down while the backend is away |
//! | share | | tag, number of queues |

use super::message::P_CONFIG;
use crate::virtio::{F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1};
use std::io::{self, ErrorKind};
use virtio_bindings::{virtio_blk as blk, virtio_net as net};

/// Bytes of a disk's configuration space: to the end of what zeroing needs.
const DISK_SPACE: usize = 60;
/// Where a disk says how many queues it has, and whether it caches writes.
const DISK_QUEUES: usize = 34;
const DISK_CACHE: u64 = 32;
/// Bytes of a share's tag.
pub const TAG_MAX: usize = 36;

/// What is decided for each kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A block device.
    Disk {
        /// The guest is not to write. The backend must be of the same mind.
        read_only: bool,
    },
    /// A network card.
    Card {
        /// Address.
        mac: [u8; 6],
        /// Largest frame payload.
        mtu: u16,
    },
    /// A file system of the host.
    Share {
        /// By which the guest mounts it.
        tag: String,
    },
}

/// A device's shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// What it is.
    pub kind: Kind,
    /// Queues that carry requests; a card has one pair.
    pub queues: u16,
}

impl Shape {
    /// virtio device number.
    pub fn number(&self) -> u32 {
        match self.kind {
            Kind::Disk { .. } => 2,
            Kind::Card { .. } => 1,
            Kind::Share { .. } => 26,
        }
    }

    /// Largest size of each queue.
    pub fn queue_sizes(&self) -> Vec<u16> {
        match self.kind {
            Kind::Disk { .. } => vec![256; usize::from(self.queues)],
            Kind::Card { .. } => vec![256; 2],
            // The first is for what must not wait; a request may be as large as a queue.
            Kind::Share { .. } => vec![1024; usize::from(self.queues) + 1],
        }
    }

    /// What the guest is offered where the backend offers `theirs`, without the transport's own.
    pub fn features(&self, theirs: u64) -> u64 {
        let known = |bits: &[u32]| bits.iter().fold(0u64, |mask, bit| mask | 1 << bit);
        match self.kind {
            Kind::Disk { .. } => {
                let many = if self.queues > 1 { 1 << blk::VIRTIO_BLK_F_MQ } else { 0 };
                let rest = [
                    blk::VIRTIO_BLK_F_SIZE_MAX,
                    blk::VIRTIO_BLK_F_SEG_MAX,
                    blk::VIRTIO_BLK_F_GEOMETRY,
                    blk::VIRTIO_BLK_F_RO,
                    blk::VIRTIO_BLK_F_BLK_SIZE,
                    blk::VIRTIO_BLK_F_FLUSH,
                    blk::VIRTIO_BLK_F_TOPOLOGY,
                    blk::VIRTIO_BLK_F_CONFIG_WCE,
                    blk::VIRTIO_BLK_F_DISCARD,
                    blk::VIRTIO_BLK_F_WRITE_ZEROES,
                ];
                theirs & (known(&rest) | many)
            }
            Kind::Card { .. } => {
                let ours = known(&[net::VIRTIO_NET_F_MAC, net::VIRTIO_NET_F_MTU, net::VIRTIO_NET_F_STATUS]);
                let offloads = [
                    net::VIRTIO_NET_F_CSUM,
                    net::VIRTIO_NET_F_GUEST_CSUM,
                    net::VIRTIO_NET_F_GUEST_TSO4,
                    net::VIRTIO_NET_F_GUEST_TSO6,
                    net::VIRTIO_NET_F_GUEST_ECN,
                    net::VIRTIO_NET_F_HOST_TSO4,
                    net::VIRTIO_NET_F_HOST_TSO6,
                    net::VIRTIO_NET_F_HOST_ECN,
                    net::VIRTIO_NET_F_MRG_RXBUF,
                ];
                ours | theirs & known(&offloads)
            }
            Kind::Share { .. } => 0,
        }
    }

    /// What of the transport's own features the backend can do.
    pub fn ring_features(&self, theirs: u64) -> u64 {
        theirs & (F_VERSION_1 | F_INDIRECT_DESC | F_EVENT_IDX)
    }

    /// Whether a backend with these features can be this device at all.
    pub fn check(&self, features: u64, protocol: u64) -> io::Result<()> {
        let refuse = |kind, text: &str| Err(io::Error::new(kind, text.to_owned()));
        if features & F_VERSION_1 == 0 {
            return refuse(ErrorKind::Unsupported, "the backend knows no virtio 1.0");
        }
        if let Kind::Disk { read_only } = self.kind {
            if protocol & P_CONFIG == 0 {
                return refuse(ErrorKind::Unsupported, "the backend does not say what disk it has");
            }
            match (read_only, features & 1 << blk::VIRTIO_BLK_F_RO != 0) {
                (false, true) => return refuse(ErrorKind::PermissionDenied, "the backend refuses writes to this disk"),
                (true, false) => {
                    return refuse(ErrorKind::InvalidInput, "the backend takes writes: have it export read-only");
                }
                _ => {}
            }
            if self.queues > 1 && features & 1 << blk::VIRTIO_BLK_F_MQ == 0 {
                return refuse(ErrorKind::Unsupported, "the backend has one queue");
            }
        }
        Ok(())
    }

    /// Bytes of the configuration space that the backend has.
    pub fn asks(&self) -> usize {
        if matches!(self.kind, Kind::Disk { .. }) { DISK_SPACE } else { 0 }
    }

    /// The configuration space, `theirs` being what the backend has.
    pub fn space(&self, theirs: &[u8], connected: bool) -> Vec<u8> {
        match &self.kind {
            Kind::Disk { .. } => {
                let mut space = theirs.to_vec();
                space.resize(DISK_SPACE, 0);
                space[DISK_QUEUES..DISK_QUEUES + 2].copy_from_slice(&self.queues.to_le_bytes());
                space
            }
            Kind::Card { mac, mtu } => {
                let mut space = mac.to_vec();
                space.extend(u16::from(connected).to_le_bytes());
                space.extend(1u16.to_le_bytes());
                space.extend(mtu.to_le_bytes());
                space
            }
            Kind::Share { tag } => {
                let mut space = tag.as_bytes().to_vec();
                space.resize(TAG_MAX, 0);
                space.extend(u32::from(self.queues).to_le_bytes());
                space
            }
        }
    }

    /// Whether the driver may write there: a disk's cache is all there is.
    pub fn takes(&self, offset: u64, data: &[u8]) -> bool {
        matches!(self.kind, Kind::Disk { .. }) && offset == DISK_CACHE && data.len() == 1
    }

    /// Length of a disk, as its space has it.
    pub fn sectors(&self, space: &[u8]) -> Option<u64> {
        let first = space.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
        first.filter(|_| matches!(self.kind, Kind::Disk { .. }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_backend_may_decide_is_decided_by_kind() {
        let all = u64::MAX;
        let disk = Shape { kind: Kind::Disk { read_only: false }, queues: 2 };
        assert_ne!(disk.features(all) & 1 << blk::VIRTIO_BLK_F_MQ, 0);
        assert_eq!(disk.features(all) & (1 << 24 | 1 << 26 | 1 << 30 | 1 << 34), 0);
        assert_eq!(disk.space(&[1; 40], true)[34..36], [2, 0]);
        assert!(disk.check(all, P_CONFIG).is_err() && disk.check(F_VERSION_1, P_CONFIG).is_err());
        let whole = F_VERSION_1 | 1 << blk::VIRTIO_BLK_F_MQ;
        assert!(disk.check(whole, P_CONFIG).is_ok() && disk.check(whole, 0).is_err());
        let card = Shape { kind: Kind::Card { mac: [2; 6], mtu: 1450 }, queues: 1 };
        assert_eq!(card.space(&[], false), [2, 2, 2, 2, 2, 2, 0, 0, 1, 0, 0xaa, 5]);
        // More queues would need a control queue, and nobody here serves one.
        assert_eq!(card.features(all) & (1 << net::VIRTIO_NET_F_MQ | 1 << net::VIRTIO_NET_F_CTRL_VQ), 0);
        let share = Shape { kind: Kind::Share { tag: "src".into() }, queues: 1 };
        assert_eq!((share.features(all), share.space(&[], true).len(), share.queue_sizes().len()), (0, 40, 2));
        assert!(disk.takes(32, &[1]) && !disk.takes(0, &[0; 8]) && !card.takes(32, &[1]));
    }
}
