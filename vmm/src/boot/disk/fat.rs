//! FAT12, FAT16 and FAT32, read only: the file system of EFI system partitions.
//!
//! Source: Microsoft's "FAT: General Overview of On-Disk Format", 1.03. Cluster chains are hostile: none is followed longer
//! than the file system has clusters, or than what is wanted of it.

use super::Window;
use super::tree::{Kind, Tree, nonsense};
use std::io;

/// Bytes of a directory: 65,536 entries.
const DIRECTORY_BYTES_MAX: u64 = 2 << 20;
const ENTRY: usize = 32;
const DIRECTORY: u8 = 0x10;
const VOLUME: u8 = 0x08;
const LONG_NAME: u8 = 0x0f;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Twelve,
    Sixteen,
    ThirtyTwo,
}

/// A file or directory.
#[derive(Debug, Clone)]
pub struct Node {
    /// None: the fixed root directory of FAT12 and FAT16.
    cluster: Option<u32>,
    directory: bool,
    bytes: u64,
}

/// The file system. Places and lengths are in bytes.
#[derive(Debug)]
pub struct Fat {
    window: Window,
    width: Width,
    cluster: u64,
    clusters: u64,
    table: u64,
    root: u64,
    root_bytes: u64,
    root_cluster: u32,
    data: u64,
}

fn half(bytes: &[u8], at: usize) -> u64 {
    u64::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    half(bytes, at) | half(bytes, at + 2) << 16
}

impl Fat {
    /// Looks whether this is one.
    pub(super) fn load(window: Window) -> io::Result<Fat> {
        let mut boot = [0; 512];
        window.read_at(0, &mut boot)?;
        let (sector, per_cluster) = (half(&boot, 11), u64::from(boot[13]));
        let jump = matches!(boot[0], 0xeb | 0xe9);
        let sizes = [512, 1024, 2048, 4096].contains(&sector) && per_cluster.is_power_of_two();
        if boot[510..] != [0x55, 0xaa] || !jump || !sizes || !(1..=2).contains(&boot[16]) {
            return Err(nonsense("no FAT"));
        }
        let either = |short: u64, long: usize| if short != 0 { short } else { word(&boot, long) };
        let (fat_sectors, sectors) = (either(half(&boot, 22), 36), either(half(&boot, 19), 32));
        let table = half(&boot, 14) * sector;
        let root = table + u64::from(boot[16]) * fat_sectors * sector;
        let root_bytes = (half(&boot, 17) * ENTRY as u64).next_multiple_of(sector);
        let (data, cluster) = (root + root_bytes, per_cluster * sector);
        let clusters = (sectors * sector).checked_sub(data).ok_or_else(|| nonsense("a FAT without data"))? / cluster;
        let width = match clusters {
            0..4085 => Width::Twelve,
            4085..65_525 => Width::Sixteen,
            _ => Width::ThirtyTwo,
        };
        let root_cluster = word(&boot, 44) as u32;
        Ok(Fat { window, width, cluster, clusters, table, root, root_bytes, root_cluster, data })
    }

    /// The cluster after this one; None at the end.
    fn next(&self, cluster: u32) -> io::Result<Option<u32>> {
        let n = u64::from(cluster);
        let mut bytes = [0; 4];
        let (at, length) = match self.width {
            Width::Twelve => (n + n / 2, 2),
            Width::Sixteen => (n * 2, 2),
            Width::ThirtyTwo => (n * 4, 4),
        };
        self.window.read_at(self.table + at, &mut bytes[..length])?;
        let value = u32::from_le_bytes(bytes);
        let (value, end) = match self.width {
            Width::Twelve if n % 2 == 1 => (value >> 4, 0xff8),
            Width::Twelve => (value & 0xfff, 0xff8),
            Width::Sixteen => (value, 0xfff8),
            Width::ThirtyTwo => (value & 0x0fff_ffff, 0x0fff_fff8),
        };
        Ok((value < end).then_some(value))
    }

    /// The first bytes of a chain; fewer where it is shorter.
    fn chain(&self, first: u32, wanted: u64) -> io::Result<Vec<u8>> {
        let (mut out, mut next) = (Vec::new(), Some(first));
        // A chain that comes back to itself is longer than all clusters.
        let mut left = wanted.div_ceil(self.cluster).min(self.clusters);
        while let (Some(cluster), 1..) = (next, left) {
            let n = u64::from(cluster).checked_sub(2).filter(|n| *n < self.clusters);
            let at = self.data + n.ok_or_else(|| nonsense("a cluster outside the file system"))? * self.cluster;
            let start = out.len();
            out.resize(start + self.cluster as usize, 0);
            self.window.read_at(at, &mut out[start..])?;
            left -= 1;
            next = self.next(cluster)?;
        }
        out.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
        Ok(out)
    }

    fn directory(&self, node: &Node) -> io::Result<Vec<u8>> {
        match node.cluster {
            Some(cluster) => self.chain(cluster, DIRECTORY_BYTES_MAX),
            None => {
                let mut bytes = vec![0; self.root_bytes.min(DIRECTORY_BYTES_MAX) as usize];
                self.window.read_at(self.root, &mut bytes)?;
                Ok(bytes)
            }
        }
    }
}

/// The name of eight and three characters.
fn short_name(entry: &[u8]) -> String {
    let part = |bytes: &[u8], lower: bool| {
        let text: String = bytes.iter().map(|b| char::from(*b)).collect();
        let text = text.trim_end().to_owned();
        if lower { text.to_lowercase() } else { text }
    };
    let (stem, more) = (part(&entry[..8], entry[12] & 8 != 0), part(&entry[8..11], entry[12] & 16 != 0));
    if more.is_empty() { stem } else { format!("{stem}.{more}") }
}

/// Thirteen units of a long name.
fn long_part(entry: &[u8]) -> impl Iterator<Item = u16> {
    let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain([28, 30]);
    places.map(|at| u16::from_le_bytes([entry[at], entry[at + 1]])).take_while(|unit| *unit != 0 && *unit != 0xffff)
}

fn checksum(short: &[u8]) -> u8 {
    short.iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

impl Tree for Fat {
    type Node = Node;

    fn root(&self) -> io::Result<Node> {
        let cluster = (self.width == Width::ThirtyTwo).then_some(self.root_cluster);
        Ok(Node { cluster, directory: true, bytes: 0 })
    }

    fn kind(&self, node: &Node) -> (Kind, u64) {
        (if node.directory { Kind::Directory } else { Kind::File }, node.bytes)
    }

    fn list(&self, directory: &Node, each: &mut dyn FnMut(&str, Node) -> bool) -> io::Result<()> {
        // The parts of a long name come last first, before the short one that their checksum is of.
        let (mut long, mut sum) = (Vec::new(), None);
        for entry in self.directory(directory)?.chunks_exact(ENTRY) {
            match (entry[0], entry[11]) {
                (0, _) => break,
                (0xe5, _) => long.clear(),
                (_, LONG_NAME) => {
                    if entry[0] & 0x40 != 0 || sum != Some(entry[13]) {
                        long.clear();
                    }
                    sum = Some(entry[13]);
                    long.splice(0..0, long_part(entry));
                    long.truncate(255);
                }
                (_, attributes) if attributes & VOLUME != 0 => long.clear(),
                (_, attributes) => {
                    let is_long = !long.is_empty() && sum == Some(checksum(&entry[..11]));
                    let name = if is_long { String::from_utf16_lossy(&long) } else { short_name(entry) };
                    long.clear();
                    let cluster = (half(entry, 20) << 16 | half(entry, 26)) as u32;
                    let is_directory = attributes & DIRECTORY != 0;
                    let node = Node { cluster: Some(cluster), directory: is_directory, bytes: word(entry, 28) };
                    if name != "." && name != ".." && !each(&name, node) {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn same(&self, one: &str, other: &str) -> bool {
        one.to_lowercase() == other.to_lowercase()
    }

    fn read(&self, node: &Node, most: u64) -> io::Result<Vec<u8>> {
        let wanted = node.bytes.min(most);
        match node.cluster {
            Some(cluster) if wanted > 0 => {
                let bytes = self.chain(cluster, wanted)?;
                if (bytes.len() as u64) < wanted { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
            }
            _ => Ok(Vec::new()),
        }
    }
}
