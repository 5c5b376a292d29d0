//! Contents of files and links: extents one after the other, with zeroes between them.
//!
//! Extents ascend and do not overlap, so that all of them copy no more than the file is long. A packed one is unpacked
//! whole whatever is wanted of it: the last is kept, and how much may be unpacked depends on the file's length.

use super::super::tree::nonsense;
use super::nodes::{Key, Nodes};
use super::unpack::{PIECE_MAX, unpack};
use super::{Node, part, u16_at, u64_at};
use std::io;

const EXTENT: u8 = 108;
const INLINE: u8 = 0;
const WRITTEN: u8 = 1;
/// Room without contents.
const ALLOCATED: u8 = 2;
const HEADER: usize = 21;

struct Contents<'a> {
    nodes: &'a Nodes,
    sector: usize,
    out: Vec<u8>,
    /// Where the last extent ended.
    end: u64,
    /// Bytes that may still be unpacked.
    left: u64,
    /// The last that was, by its address, and how.
    last: Option<(u64, u8, Vec<u8>)>,
}

/// The first bytes, at most so many.
pub(super) fn read(nodes: &Nodes, sector: usize, node: &Node, most: u64) -> io::Result<Vec<u8>> {
    let wanted = usize::try_from(node.bytes.min(most)).map_err(io::Error::other)?;
    // A file that was written piece by piece into packed extents has some of them more than once.
    let left = 8 * (wanted as u64 + PIECE_MAX);
    let mut contents = Contents { nodes, sector, out: vec![0; wanted], end: 0, left, last: None };
    nodes.walk(node.volume, Key::new(node.inode, EXTENT, 0), &mut |key, item| {
        let is_one = (key.object, key.kind) == (node.inode, EXTENT) && key.offset < wanted as u64;
        if is_one {
            contents.extent(key.offset, item)?;
        }
        Ok(is_one)
    })?;
    Ok(contents.out)
}

impl Contents<'_> {
    fn extent(&mut self, at: u64, item: &[u8]) -> io::Result<()> {
        let header = part(item, 0, HEADER)?;
        let (unpacked, how, kind) = (u64_at(header, 8)?, header[16], header[20]);
        if header[17] != 0 || u16_at(header, 18)? != 0 {
            return Err(nonsense("contents that are encrypted or encoded"));
        }
        if how != 0 && unpacked > PIECE_MAX {
            return Err(nonsense("a packed extent that is too long"));
        }
        match kind {
            INLINE => self.inline(at, &item[HEADER..], how, unpacked),
            WRITTEN | ALLOCATED => {
                let address = u64_at(item, HEADER)?;
                let bytes = u64_at(item, HEADER + 24)?;
                self.ascend(at, bytes)?;
                match kind == ALLOCATED || address == 0 {
                    true => Ok(()),
                    false => self.written(at, address, item, how),
                }
            }
            _ => Err(nonsense("an extent of another kind")),
        }
    }

    fn ascend(&mut self, at: u64, bytes: u64) -> io::Result<()> {
        let end = at.checked_add(bytes).filter(|_| at >= self.end && bytes > 0);
        self.end = end.ok_or_else(|| nonsense("extents out of order"))?;
        Ok(())
    }

    /// Contents in the tree itself, which a node bounds.
    fn inline(&mut self, at: u64, bytes: &[u8], how: u8, unpacked: u64) -> io::Result<()> {
        let bytes = if how == 0 { bytes.to_vec() } else { unpack(how, bytes, unpacked as usize, self.sector)? };
        self.ascend(at, bytes.len() as u64)?;
        self.put(at, &bytes);
        Ok(())
    }

    /// Contents elsewhere.
    fn written(&mut self, at: u64, address: u64, item: &[u8], how: u8) -> io::Result<()> {
        let (packed, skip, bytes) = (u64_at(item, HEADER + 8)?, u64_at(item, HEADER + 16)?, u64_at(item, HEADER + 24)?);
        if how == 0 {
            let address = address.checked_add(skip).ok_or_else(|| nonsense("an extent too far"))?;
            let start = at as usize;
            // The walk ended where nothing more is wanted.
            let length = bytes.min((self.out.len() - start) as u64) as usize;
            return self.nodes.contents(address, &mut self.out[start..start + length]);
        }
        let unpacked = u64_at(item, 8)?;
        if packed > PIECE_MAX || skip.checked_add(bytes).is_none_or(|end| end > unpacked) {
            return Err(nonsense("a packed extent that makes no sense"));
        }
        let piece = match self.last.take() {
            Some((last, by, piece)) if (last, by, piece.len() as u64) == (address, how, unpacked) => piece,
            _ => {
                self.left = self.left.checked_sub(unpacked).ok_or_else(|| nonsense("packed extents without end"))?;
                let mut bytes = vec![0; packed as usize];
                self.nodes.contents(address, &mut bytes)?;
                unpack(how, &bytes, unpacked as usize, self.sector)?
            }
        };
        self.put(at, &piece[skip as usize..(skip + bytes) as usize]);
        self.last = Some((address, how, piece));
        Ok(())
    }

    /// What of it is wanted.
    fn put(&mut self, at: u64, bytes: &[u8]) {
        let room = self.out.get_mut(at as usize..).unwrap_or_default();
        let length = bytes.len().min(room.len());
        room[..length].copy_from_slice(&bytes[..length]);
    }
}
